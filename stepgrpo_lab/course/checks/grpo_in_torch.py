"""Checks of notebook 07 on tensors: advantages of many groups, the loss with its gradient, and the training loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.course.checks._result import Unsolved, agree, draws, torch_exercise
from stepgrpo_lab.method import rewards as library
from stepgrpo_lab.method.loss import LossSettings, kl_penalty, surrogate, token_weights
from stepgrpo_lab.method.token_loss import token_loss

if TYPE_CHECKING:
    from torch import Tensor

Rollout = Callable[[Any], tuple[Any, Any]]


# ---- advantages ------------------------------------------------------------------------------------------------------


def _advantages(rewards: Any, eps: float = 1e-4) -> Any:
    """The library's advantages of each group, as what the rewards are: a tensor, or lists."""
    rows = rewards.tolist() if hasattr(rewards, "tolist") else rewards
    found = [library.group_advantages(row, eps=eps) for row in rows]
    return rewards.new_tensor(found) if hasattr(rewards, "new_tensor") else found


@torch_exercise("07.5", "all groups at once, and no group that agrees with itself teaches", reference=_advantages)
def group_advantages(solution: Callable[[Tensor, float], Tensor]) -> None:
    """``group_advantages(rewards, eps=1e-4)``: a tensor [groups, members] of rewards -> one of advantages.

    Each group by itself: reward minus the group's mean, divided by its unbiased standard deviation plus ``eps``. A
    group whose rewards are all equal gets zeros.

    Example:
        >>> group_advantages(lambda rewards, eps=1e-4: rewards - rewards.mean()).passed
        False
    """

    def centred(rewards: Any, dim: int | None = -1) -> Any:
        return rewards - (rewards.mean() if dim is None else rewards.mean(dim, keepdim=True))

    mistakes: dict[str, Callable[..., Any]] = {
        "each group has its own mean and deviation: reduce over the members, dim=-1": lambda rewards, eps: (
            centred(rewards, None) / (rewards.std() + eps)
        ),
        "that is the mean over all groups: reduce over the members, dim=-1": lambda rewards, eps: (
            centred(rewards, None) / (rewards.std(-1, keepdim=True) + eps)
        ),
        "that reduces over the groups: the members are the last dimension": lambda rewards, eps: (
            centred(rewards, 0) / (rewards.std(0, keepdim=True) + eps)
        ),
        "that divides by the population's deviation; torch.std is unbiased by default": lambda rewards, eps: (
            centred(rewards) / (rewards.std(-1, keepdim=True, unbiased=False) + eps)
        ),
        "that is not divided yet: divide by the deviation plus eps": lambda rewards, eps: centred(rewards),
        "that divides by the variance: take its root": lambda rewards, eps: (
            centred(rewards) / (rewards.var(-1, keepdim=True) + eps)
        ),
        "where all rewards of a group are equal, the deviation is 0: add eps to it": lambda rewards, eps: (
            centred(rewards) / rewards.std(-1, keepdim=True)
        ),
        "eps is an argument: use the one that you are given": lambda rewards, eps: _advantages(rewards),
        "the sign is wrong: a reward above the mean earns a positive advantage": lambda rewards, eps: (
            -_advantages(rewards, eps)
        ),
    }
    agree(solution, _advantages, draws(_groups), "group_advantages", mistakes=mistakes)


def _groups(rng: random.Random, size: int) -> tuple[Tensor, float]:
    """Rewards in eighths, which are exact; in some groups all members have the same."""
    import torch

    members, groups = rng.randint(2, 5), []
    for _ in range(2 + size // 2):
        group = [rng.randint(0, 11) / 8 for _ in range(members)]
        groups.append(group if rng.random() < 0.7 else group[:1] * members)
    return torch.tensor(groups), rng.choice([1e-4, 0.01, 0.5])


# ---- the loss --------------------------------------------------------------------------------------------------------


def _loss(
    logprobs: Any,
    old_logprobs: Any,
    advantages: Any,
    mask: Any,
    low: float = 0.2,
    high: float = 0.2,
    reference: Any = None,
    kl_weight: float = 0.0,
    loss_type: str = "dapo",
    longest: int = 256,
) -> Any:
    """The library's loss with its gradient; on lists, the number alone."""
    settings = LossSettings(loss_type, low, high, kl_weight=kl_weight, max_completion_length=longest)
    weights = token_weights(mask, settings)
    rows = zip(logprobs, old_logprobs, logprobs if reference is None else reference, advantages, weights, strict=True)
    if not hasattr(logprobs, "new_tensor"):
        return sum(
            weight * token_loss(now, advantage, settings, old_logprob=old, reference_logprob=then).loss
            for now_row, old_row, then_row, advantage, counts in rows
            for now, old, then, weight in zip(now_row, old_row, then_row, counts, strict=True)
        )
    total = 0.0
    for now, old, then, advantage, counts in rows:
        losses = -surrogate(now, old, float(advantage), settings)
        losses = losses + kl_weight * kl_penalty(now, old, then, settings)
        total = total + (losses * now.new_tensor(counts)).sum()
    return total


@torch_exercise("07.6", "value and gradient are the library's, which are TRL's: this loss can train", reference=_loss)
def grpo_loss(solution: Callable[..., Tensor]) -> None:
    """The whole loss of a batch, with a gradient::

        grpo_loss(logprobs, old_logprobs, advantages, mask, low=0.2, high=0.2,
                  reference=None, kl_weight=0.0, loss_type="dapo", longest=256)

    ``logprobs``, ``old_logprobs`` and ``reference`` are tensors [completions, tokens], ``advantages`` [completions],
    ``mask`` [completions, tokens] of bools: True where a token trains. A token's loss is minus its clipped surrogate,
    plus ``kl_weight`` times the k3 estimate of the KL divergence from the reference. They become one number by
    ``loss_type``: "dapo", the mean over all tokens that train; "grpo", the mean over each completion's, then over the
    completions; "dr_grpo", their sum over completions times ``longest``. Its gradient flows into ``logprobs``.

    Example:
        >>> grpo_loss(lambda logprobs, old_logprobs, advantages, mask, *rest: -logprobs.mean()).passed
        False
    """
    mistakes = {message: _with_gradient(partial(_by_hand, **how)) for message, how in _LOSS_MISTAKES.items()}
    mistakes["kl_weight is an argument: use the one that you are given"] = _with_gradient(_with_fixed_weight)
    agree(
        _with_gradient(solution),
        _with_gradient(_loss),
        draws(_batch),
        "loss and gradient of grpo_loss",
        mistakes=mistakes,
        show=_loss_call,
    )


def _with_fixed_weight(*case: Any) -> Any:
    arguments = list(case)
    arguments[7] = 0.04
    return _loss(*arguments)


def _loss_call(*case: Any) -> str:
    now, _, _, _, low, high, _, kl_weight, kind, _ = case
    shape = "x".join(map(str, now.shape))
    return f"grpo_loss on {shape} tokens ({low=:g}, {high=:g}, {kl_weight=:g}, {kind}): loss and gradient"


def _with_gradient(solution: Callable[..., Any]) -> Callable[..., Any]:
    """A loss as its value and its gradient by the log-probabilities."""

    def both(logprobs: Tensor, *rest: Any) -> Any:
        leaf = logprobs.clone().requires_grad_()
        loss = solution(leaf, *rest)
        if loss is None or loss is ...:
            return loss
        if not getattr(loss, "requires_grad", False):
            raise Unsolved(
                f"grpo_loss returns {'a tensor without a gradient' if hasattr(loss, 'shape') else repr(loss)}: keep to "
                "torch's operations, without item(), float(), detach() or no_grad()"
            )
        if loss.numel() != 1:
            raise Unsolved(f"grpo_loss returns a tensor of shape {tuple(loss.shape)}: make it one number")
        loss.sum().backward()
        gradient = leaf.new_zeros(leaf.shape) if leaf.grad is None else leaf.grad
        return loss.item(), gradient.tolist()

    return both


def _by_hand(
    logprobs: Any,
    old: Any,
    advantages: Any,
    mask: Any,
    low: float = 0.2,
    high: float = 0.2,
    reference: Any = None,
    kl_weight: float = 0.0,
    loss_type: str = "dapo",
    longest: int = 256,
    *,
    clip: str = "both",
    means: Mapping[str, str] = MappingProxyType({}),
    sign: int = -1,
    swapped: bool = False,
    detached: bool = False,
    kl: str = "k3",
) -> Any:
    """The loss as one writes it, right by default, or with a mistake in it; ``means`` replaces loss types."""
    import torch

    ratio = torch.exp(old - logprobs if swapped else logprobs - old)
    ratio = ratio.detach() * logprobs if detached else ratio
    scale = advantages[:, None]
    held = ratio.clamp(1 - low, 1 + (low if clip == "symmetric" else high))
    tokens = sign * {
        "none": ratio * scale,
        "held": held * scale,
        "ratios": torch.minimum(ratio, held) * scale,
        "max": torch.maximum(ratio * scale, held * scale),
    }.get(clip, torch.minimum(ratio * scale, held * scale))
    if reference is not None:
        gap = (logprobs - reference) if kl == "reversed" else (reference - logprobs)
        estimate = {"k1": -gap, "none": 0 * gap, "rewarded": 1 + gap - gap.exp()}.get(kl, gap.exp() - gap - 1)
        tokens = tokens + kl_weight * estimate
    count = mask.float()
    each, sizes = (tokens * count).sum(-1), count.sum(-1)
    sums = {
        "dapo": (each.sum(), sizes.sum()),
        "grpo": ((each / sizes).sum(), len(each)),
        "dr_grpo": (each.sum(), len(each) * longest),
        "unmasked": (tokens.sum(), tokens.numel()),
        "padded": (each.sum(), tokens.numel()),
        "sum": (each.sum(), 1),
        "completions": ((each / sizes).sum(), 1),
    }
    total, divisor = sums[means.get(loss_type, loss_type)]
    return total / divisor


_LOSS_MISTAKES: dict[str, dict[str, Any]] = {
    "the sign is wrong: descent makes a loss smaller, and the surrogate is to grow": {"sign": 1},
    "nothing is clipped": {"clip": "none"},
    "take the smaller of the two products: this one holds back what has gone astray": {"clip": "held"},
    "take the smaller product, not the smaller ratio: they differ where the advantage is negative": {"clip": "ratios"},
    "the smaller of the two products, not the larger": {"clip": "max"},
    "the bounds are 1 - low and 1 + high, which differ": {"clip": "symmetric"},
    "the ratio is new over old: exp(logprobs - old_logprobs)": {"swapped": True},
    "the KL term is missing: add kl_weight times k3": {"kl": "none"},
    "that is k1, which rewards drifting away on some tokens: k3 = exp(d) - d - 1": {"kl": "k1"},
    "d is the reference's log-probability minus the policy's": {"kl": "reversed"},
    "the KL term is a cost: it is added to the loss": {"kl": "rewarded"},
    "padding counts in this mean: multiply by the mask, and divide by mask.sum()": {"means": {"dapo": "unmasked"}},
    "the masked tokens are left out of the sum but not of the divisor: divide by mask.sum()": {
        "means": {"dapo": "padded"}
    },
    "that is the sum over the tokens: divide by mask.sum()": {"means": {"dapo": "sum"}},
    "that is loss type grpo, the mean over each completion first; take the mean over all tokens": {
        "means": {"dapo": "grpo"}
    },
    "loss type grpo takes the mean over each completion first": {"means": {"grpo": "dapo"}},
    "loss type grpo ends with the mean over the completions": {"means": {"grpo": "completions"}},
    "loss type dr_grpo divides by a constant, completions times longest": {"means": {"dr_grpo": "dapo"}},
    "loss type dr_grpo divides by the longest length allowed, not by that of the batch": {
        "means": {"dr_grpo": "padded"}
    },
    "loss_type is an argument: there are three": {"means": {"grpo": "dapo", "dr_grpo": "dapo"}},
    "the gradient is that of detach(ratio) * logprobs: let it flow through the ratio": {"detached": True},
}


def _batch(rng: random.Random, size: int) -> tuple[Any, ...]:
    """Completions of different lengths, padded; ratios on both sides of both bounds; now and then a masked token."""
    import torch

    rows, width = 1 + size // 2, 1 + size
    old = torch.tensor([[-rng.randint(2, 30) / 10 for _ in range(width)] for _ in range(rows)])
    moved, apart = (
        torch.tensor([[rng.randint(-9, 9) / 10 + 0.013 for _ in range(width)] for _ in range(rows)]) for _ in range(2)
    )
    lengths = [rng.randint(1, width) for _ in range(rows)]
    mask = torch.tensor([[place == 0 or (place < n and rng.random() < 0.9) for place in range(width)] for n in lengths])
    advantages = torch.tensor([rng.choice([-1, 1]) * rng.randint(1, 20) / 10 for _ in range(rows)])
    low, high = rng.randint(1, 4) / 10, rng.randint(1, 6) / 10
    kind, longest = rng.choice(["dapo", "grpo", "dr_grpo"]), rng.choice([10, 100])
    kl_weight = rng.choice([0.0, 0.1, 1.0])
    return old + moved, old, advantages, mask, low, high, old + apart, kl_weight, kind, longest


# ---- the loop --------------------------------------------------------------------------------------------------------


def _train(
    policy: Any,
    rollout: Rollout,
    steps: int,
    updates: int = 2,
    learning_rate: float = 1.0,
    *,
    loss: Callable[..., Any] = _by_hand,
    advantages: Callable[[Any], Any] = _advantages,
    resampled: bool = True,
    fresh_old: bool = False,
    clears: bool = True,
    adam: bool = False,
) -> None:
    """GRPO's loop as one writes it, right by default, or with a mistake in it."""
    import torch

    optimiser = (torch.optim.Adam if adam else torch.optim.SGD)([policy], lr=learning_rate)
    drawn = None
    for _ in range(steps):
        if drawn is None or resampled:
            drawn = rollout(policy)
        choices, rewards = drawn
        gained = advantages(rewards).reshape(-1)
        old = policy.log_softmax(-1)[choices.reshape(-1), None].detach()
        for _ in range(updates):
            logprobs = policy.log_softmax(-1)[choices.reshape(-1), None]
            value = loss(logprobs, logprobs.detach() if fresh_old else old, gained, torch.ones_like(logprobs))
            if clears:
                optimiser.zero_grad()
            value.backward()
            optimiser.step()


_LOOP_MISTAKES: dict[str, dict[str, Any]] = {
    "clear the gradients before each backward pass: optimiser.zero_grad()": {"clears": False},
    "the old log-probabilities belong to the policy that sampled: take them once, before the updates": {
        "fresh_old": True
    },
    "sample anew in each step: the policy has changed": {"resampled": False},
    "the policy goes the wrong way: descend the loss, whose sign is minus the surrogate's": {
        "loss": partial(_by_hand, sign=1)
    },
    "rewards are not advantages yet: subtract the group's mean, divide by its deviation": {"advantages": lambda r: r},
    "subtract the mean of each group, not of the whole batch": {
        "advantages": lambda r: (r - r.mean()) / (r.std() + 1e-4)
    },
    "the second update of a rollout is clipped: take the smaller of the two products": {
        "loss": partial(_by_hand, clip="none")
    },
    "the loss is the mean over the choices, not their sum": {"loss": partial(_by_hand, means={"dapo": "sum"})},
    "take torch.optim.SGD, or nothing can be compared step by step": {"adam": True},
}


@torch_exercise(
    "07.7",
    "every step is the reference's, and the expected reward has grown: you have trained a policy with GRPO",
    reference=_train,
    needs=("torch",),
)
def training_loop(solution: Callable[..., Any]) -> None:
    """``train(policy, rollout, steps, updates=2, learning_rate=1.0)``: train a tiny policy in place.

    ``policy`` is a ``torch.nn.Parameter`` [completions] of logits: each completion is one choice. ``rollout(policy)``
    samples from the policy as it is and returns ``choices`` and ``rewards``, tensors [groups, members]. In each of the
    ``steps``: one rollout, the group-relative advantages, the choices' log-probabilities as they are now (the old
    ones), then ``updates`` steps of ``torch.optim.SGD`` on the clipped GRPO loss, bounds 0.2, mean over the choices.

    Example:
        >>> training_loop(lambda policy, rollout, steps, updates=2, learning_rate=1.0: None).passed
        False
    """
    if _is_empty(solution):
        raise Unsolved("train(policy, rollout, 3) gives nothing yet; write the body (expected a policy that has moved)")
    mistakes = {message: _traced(partial(_train, **how)) for message, how in _LOOP_MISTAKES.items()}
    agree(
        _traced(solution),
        _traced(_train),
        draws(_trainings, 12),
        "policy after each rollout of train",
        mistakes=mistakes,
        show=_as_call,
    )
    for seed in range(3):
        if not _expected_reward(solution, seed, 30) > _expected_reward(solution, seed, 0) + 0.1:
            raise Unsolved("after 30 steps the expected reward has not grown: does the policy keep its updates?", 0.9)


def _is_empty(solution: Callable[..., Any]) -> bool:
    """Whether a training leaves the policy as it is and never samples."""
    return _traced(solution)(0, 3, 2, 1.0) == [_start(0).tolist()]


_REWARDS = (0.1, 0.6, 1.0, 1.2)


def _start(seed: int) -> Any:
    import torch

    rng = random.Random(seed)
    return torch.nn.Parameter(torch.tensor([rng.randint(-5, 5) / 10 for _ in _REWARDS]))


class _Sampler:
    """Draws groups of choices, and keeps what the policy was each time."""

    def __init__(self, seed: int) -> None:
        import torch

        self.generator = torch.Generator().manual_seed(seed)
        self.seen: list[list[float]] = []

    def __call__(self, policy: Any) -> tuple[Any, Any]:
        import torch

        logits = policy.detach()
        self.seen.append(logits.tolist())
        choices = torch.multinomial(logits.softmax(-1), 12, replacement=True, generator=self.generator).reshape(3, 4)
        return choices, torch.tensor(_REWARDS)[choices]


def _traced(train: Callable[..., Any]) -> Callable[..., Any]:
    """A training as the logits before each rollout and at the end."""

    def trace(seed: int, steps: int, updates: int, learning_rate: float) -> list[list[float]]:
        policy, sampler = _start(seed), _Sampler(seed)
        train(policy, sampler, steps, updates, learning_rate)
        return [*sampler.seen, policy.tolist()]

    return trace


def _as_call(seed: int, steps: int, updates: int, learning_rate: float) -> str:
    return f"train(policy, rollout, {steps}, {updates}, {learning_rate:g}), seed {seed}: policy at each rollout"


def _trainings(rng: random.Random, size: int) -> tuple[int, int, int, float]:
    return rng.randrange(1000), 1 + size // 2, rng.choice([1, 2, 4]), rng.choice([0.5, 2.0])


def _expected_reward(train: Callable[..., Any], seed: int, steps: int) -> float:
    import torch

    policy = _start(seed)
    if steps:
        train(policy, _Sampler(seed), steps)
    return (policy.detach().softmax(-1) * torch.tensor(_REWARDS)).sum().item()
