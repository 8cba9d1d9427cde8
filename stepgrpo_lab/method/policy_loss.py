"""The policy loss in torch, from a model's log-probabilities to one number with a gradient, written like its equations.

One completion at a time, without padding: :func:`stepgrpo_lab.method.losses.token_weights` says what a token is worth,
and the rest is a few lines. :func:`stepgrpo_lab.training.trl_loss.compare_with_trl` holds it against TRL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.method.losses import LossSettings, token_weights

if TYPE_CHECKING:
    from torch import Tensor

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

    Raises:
        ValueError: The parts do not fit together.

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


def completion_logprobs(model: Any, prompt_ids: Sequence[int], completion_ids: Sequence[int]) -> Tensor:
    """Log-probability of each token of one completion, temperature 1.

    Args:
        model: A causal language model.
        prompt_ids, completion_ids: Token ids.

    Returns:
        Shape (completion length,), with the model's gradient.
    """
    import torch

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
    """Stored log-probabilities as a tensor, with the policy's own, cut off from the gradient, where there is none."""
    import torch

    own = logprobs.detach()
    if values is None:
        return own
    told = torch.tensor([float("nan") if value is None else value for value in values], device=own.device)
    return torch.where(torch.isnan(told), own, told)
