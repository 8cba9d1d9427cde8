"""The policy loss of GRPO and its relatives, from a model's log-probabilities to one number with a gradient.

It takes one completion at a time, without padding, and computes what TRL's ``GRPOTrainer`` computes for the four loss
types below (token-level importance sampling), as tests show. Settings and weights need no torch;
:mod:`stepgrpo_lab.method.token_loss` has a single token's loss in plain numbers.

Sources: PPO's clipped surrogate (Schulman et al., arXiv 1707.06347); GRPO (DeepSeekMath, arXiv 2402.03300); Dr. GRPO
(arXiv 2503.20783); DAPO's token mean and higher upper clip (arXiv 2503.14476); the k3 estimator of the KL divergence
(Schulman, "Approximating KL Divergence", 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.method.arrays import flags, numbers, one_row, plain, token_list

if TYPE_CHECKING:
    from torch import Tensor

LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo")
"""grpo: mean over each completion, then over completions. bnpo: mean over the tokens at hand. dr_grpo: sum over a
constant. dapo: mean over the tokens of the whole generation batch."""


@dataclass(frozen=True)
class LossSettings:
    """How a token's loss is made.

    Attributes:
        loss_type: One of :data:`LOSS_TYPES`.
        epsilon_low, epsilon_high: The ratio is clipped to [1 - epsilon_low, 1 + epsilon_high].
        delta: Upper bound of the ratio on the other side of the minimum (two-sided clipping); None for none.
        kl_weight: Weight of the KL penalty against the reference model (TRL's ``beta``); 0 needs no reference.
        bias_corrected_kl: Multiply the KL penalty by the importance ratio (TRL's ``use_bias_correction_kl``).
        max_completion_length: The constant of dr_grpo, in tokens.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> LossSettings("dapo", epsilon_high=0.28).epsilon_low
        0.2
    """

    loss_type: str = "dapo"
    epsilon_low: float = 0.2
    epsilon_high: float = 0.2
    delta: float | None = None
    kl_weight: float = 0.0
    bias_corrected_kl: bool = False
    max_completion_length: int | None = None

    def __post_init__(self) -> None:
        if self.loss_type not in LOSS_TYPES:
            raise ValueError(f"loss_type is {self.loss_type!r}; use one of {', '.join(LOSS_TYPES)}")
        if not 0 <= self.epsilon_low <= 1:
            raise ValueError(f"epsilon_low is {self.epsilon_low}; it must lie in [0, 1] (TRL's value is 0.2)")
        if self.epsilon_high < 0 or self.kl_weight < 0:
            raise ValueError("epsilon_high and kl_weight must not be negative; 0 switches them off")
        if self.delta is not None and self.delta <= 1 + self.epsilon_low:
            raise ValueError(f"delta is {self.delta}; it must be greater than 1 + epsilon_low")
        if self.loss_type == "dr_grpo" and not self.max_completion_length:
            raise ValueError("dr_grpo divides by max_completion_length; give the completion limit in tokens")


def token_weights(
    masks: Sequence[Sequence[bool]], settings: LossSettings, *, batch_tokens: int | None = None
) -> list[list[float]]:
    """How much each token's loss counts in the loss of the batch.

    Args:
        masks: ``[completions][tokens]``: whether a token trains (forced closes do by default; padding does not).
        settings: Whose ``loss_type`` divides.
        batch_tokens: For dapo, the training tokens of the whole generation batch; by default those of ``masks``.

    Returns:
        ``[completions][tokens]`` weights; the batch's loss is the weighted sum of the tokens' losses.

    Raises:
        ValueError: There is no completion.

    Example:
        >>> token_weights([[True], [True, True, True]], LossSettings("grpo"))[1]
        [0.16666666666666666, 0.16666666666666666, 0.16666666666666666]
        >>> token_weights([[True], [True, True, True]], LossSettings("dapo"))[1]
        [0.25, 0.25, 0.25]
    """
    masks = [flags(f"masks[{place}]", mask) for place, mask in enumerate(plain(masks))]
    if not masks:
        raise ValueError("masks is empty; give one mask for each completion")
    at_hand = sum(map(sum, masks))
    divisors = {
        "grpo": [len(masks) * max(1, sum(mask)) for mask in masks],
        "bnpo": [max(1, at_hand)] * len(masks),
        "dr_grpo": [len(masks) * (settings.max_completion_length or 1)] * len(masks),
        "dapo": [max(1, at_hand if batch_tokens is None else batch_tokens)] * len(masks),
    }[settings.loss_type]
    return [[trains / divisor for trains in mask] for mask, divisor in zip(masks, divisors, strict=True)]


# ---- in torch --------------------------------------------------------------------------------------------------------

Logprobs = Sequence[Sequence[float | None]]
"""``[completions][tokens]`` log-probabilities; None stands for the policy's own, now."""


@dataclass(frozen=True)
class LossBatch:
    """What an update learns from.

    Attributes:
        prompt_ids, completion_ids: ``[completions][tokens]``.
        masks: ``[completions][tokens]`` whether a completion's token trains.
        advantages: ``[completions]``.
        old_logprobs: Log-probabilities when the tokens were sampled; None for the policy's own (the first update).
            A single None does the same for one token, such as one that was forced: its ratio is exactly 1.
        reference_logprobs: Under the reference model; needed by a KL penalty.
        batch_tokens: For dapo, the training tokens of the whole generation batch; by default those of ``masks``.

    Arrays and tensors become lists.

    Raises:
        ValueError: The parts do not fit together, an advantage is not finite, or a log-probability is NaN.

    Example:
        >>> LossBatch([[1]], [[2, 3]], [[True, False]], [0.5]).completion_ids
        [[2, 3]]
    """

    prompt_ids: Sequence[Sequence[int]]
    completion_ids: Sequence[Sequence[int]]
    masks: Sequence[Sequence[bool]]
    advantages: Sequence[float]
    old_logprobs: Logprobs | None = None
    reference_logprobs: Logprobs | None = None
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "completion_ids"):
            object.__setattr__(self, name, [token_list(ids) for ids in getattr(self, name)])
        object.__setattr__(self, "masks", [flags(f"masks[{i}]", mask) for i, mask in enumerate(self.masks)])
        object.__setattr__(self, "advantages", numbers("advantages", self.advantages))
        for name in ("old_logprobs", "reference_logprobs"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _stored(name, getattr(self, name)))
        lengths = [len(row) for row in self.completion_ids]
        if not lengths or not all(lengths) or not all(self.prompt_ids):
            raise ValueError("the batch is empty, or a prompt or a completion is; give each at least one token")
        if len(self.prompt_ids) != len(lengths) or len(self.advantages) != len(lengths):
            raise ValueError(
                f"{len(lengths)} completions, {len(self.prompt_ids)} prompts, {len(self.advantages)} advantages: "
                "give one of each for every completion"
            )
        for name in ("masks", "old_logprobs", "reference_logprobs"):
            rows = getattr(self, name)
            if rows is not None and [len(row) for row in rows] != lengths:
                raise ValueError(f"{name} does not have one entry for each completion token")


def _stored(name: str, rows: Any) -> list[list[float | None]]:
    found = [one_row(f"{name}[{place}]", values) for place, values in enumerate(rows)]
    for place, values in enumerate(found):
        for token, value in enumerate(values):
            if value is not None and math.isnan(value):
                raise ValueError(
                    f"{name}[{place}][{token}] is {value}; give a log-probability, or None for the policy's own"
                )
    return found


def completion_logprobs(model: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> Tensor:
    """Log-probability of each token of one completion, temperature 1.

    Args:
        model: A causal language model.
        prompt_ids, completion_ids: Token ids.

    Returns:
        Shape (completion length,), with the model's gradient.
    """
    import torch

    prompt_ids, completion_ids = token_list(prompt_ids), token_list(completion_ids)
    ids = torch.tensor([[*prompt_ids, *completion_ids]], device=model.device)
    # The logits at a place tell what comes next, so they start at the prompt's last token and end before the last one.
    logits = model(input_ids=ids).logits[0, len(prompt_ids) - 1 : -1]
    chosen = ids[0, len(prompt_ids) :, None]
    return logits.float().log_softmax(-1).gather(-1, chosen)[:, 0]


def batch_logprobs(model: Any, batch: LossBatch) -> list[list[float]]:
    """``[completions][tokens]`` log-probabilities under a model as it is now, without gradient."""
    import torch

    with torch.no_grad():
        return [
            completion_logprobs(model, prompt, completion).tolist()
            for prompt, completion in zip(batch.prompt_ids, batch.completion_ids, strict=True)
        ]


def policy_loss(model: Any, batch: LossBatch, settings: LossSettings) -> Tensor:
    """The loss of a batch: each token's loss, weighted as the loss type says.

    Args:
        model: The policy, a causal language model.
        batch: What to learn from.
        settings: How the loss is made.

    Returns:
        A number with the model's gradient.

    Raises:
        ValueError: A KL penalty without reference log-probabilities.

    Example, the first update, where the loss is minus the mean advantage of the tokens:
        >>> from stepgrpo_lab.overthinker import load_overthinker
        >>> batch = LossBatch([[1, 2], [3]], [[4, 5], [6]], [[True, True], [True]], [1.0, -0.5])
        >>> round(policy_loss(load_overthinker()[0], batch, LossSettings("dapo")).item(), 4)
        -0.5
    """
    import torch

    weights = token_weights(batch.masks, settings, batch_tokens=batch.batch_tokens)
    total = torch.zeros((), device=model.device)
    for row, advantage in enumerate(batch.advantages):
        logprobs = completion_logprobs(model, batch.prompt_ids[row], batch.completion_ids[row])
        old = _given(batch.old_logprobs[row] if batch.old_logprobs else None, logprobs)
        losses = -surrogate(logprobs, old, advantage, settings)
        if settings.kl_weight:
            if batch.reference_logprobs is None:
                raise ValueError("kl_weight is not 0, so reference_logprobs are needed; give them, or set kl_weight=0")
            reference = _given(batch.reference_logprobs[row], logprobs)
            losses = losses + settings.kl_weight * kl_penalty(logprobs, old, reference, settings)
        total = total + (losses * torch.tensor(weights[row], device=losses.device)).sum()
    return total


def surrogate(logprobs: Tensor, old: Tensor, advantage: float, settings: LossSettings) -> Tensor:
    """PPO's clipped surrogate of each token, shape (tokens,): ratio times advantage, free or clipped, the smaller."""
    import torch

    ratio = torch.exp(logprobs - old)
    clipped = ratio.clamp(1 - settings.epsilon_low, 1 + settings.epsilon_high)
    free = ratio if settings.delta is None else ratio.clamp(max=settings.delta)
    return torch.minimum(free * advantage, clipped * advantage)


def kl_penalty(logprobs: Tensor, old: Tensor, reference: Tensor, settings: LossSettings) -> Tensor:
    """The k3 estimate of the KL divergence from the reference at each token, shape (tokens,), never below 0."""
    import torch

    gap = reference - logprobs
    kl = torch.exp(gap) - gap - 1
    return kl * torch.exp(logprobs - old) if settings.bias_corrected_kl else kl


def _given(values: Sequence[float | None] | None, logprobs: Tensor) -> Tensor:
    """Stored log-probabilities as a tensor, with the policy's own, detached, where one is missing."""
    import torch

    own = logprobs.detach()
    if values is None:
        return own
    stored = torch.tensor([float("nan") if value is None else value for value in values], device=own.device)
    return torch.where(torch.isnan(stored), own, stored)
