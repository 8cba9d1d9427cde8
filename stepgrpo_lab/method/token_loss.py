"""The loss of a single token in plain numbers, with its derivative: what the widgets draw, without torch.

:mod:`stepgrpo_lab.method.loss` computes the same in torch; tests hold the two, and TRL, together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_lab.method.arrays import check_lengths, number, numbers
from stepgrpo_lab.method.loss import LossSettings, token_weights


@dataclass(frozen=True)
class TokenLoss:
    """One token's part of the loss, before it is weighted.

    Attributes:
        ratio: Probability now over probability when it was sampled.
        clipped: Whether clipping decides, so that the policy term pulls no more.
        surrogate: ``min(ratio * A, clip(ratio) * A)``; larger is better.
        kl: Estimate of the KL divergence from the reference at this token (k3), at least 0.
        loss: ``-surrogate + kl_weight * kl``.
        gradient: Derivative of ``loss`` by the token's log-probability; where it is negative, a step of gradient
            descent makes the token likelier.
    """

    ratio: float
    clipped: bool
    surrogate: float
    kl: float
    loss: float
    gradient: float


def token_loss(
    logprob: float,
    advantage: float,
    settings: LossSettings,
    *,
    old_logprob: float | None = None,
    reference_logprob: float | None = None,
) -> TokenLoss:
    """The loss of one token.

    Args:
        logprob: Log-probability under the policy now.
        advantage: The completion's advantage.
        settings: How the loss is made.
        old_logprob: Log-probability when the token was sampled; None for one that was forced (and on the first update
            after a rollout): the policy's own, so that the ratio is exactly 1.
        reference_logprob: Log-probability under the reference model; needed where ``kl_weight`` is not 0.

    Raises:
        ValueError: A KL penalty without a reference, or a number that is not finite.

    Example:
        >>> import math
        >>> token = token_loss(math.log(0.6), 1.0, LossSettings(epsilon_high=0.2), old_logprob=math.log(0.4))
        >>> round(token.ratio, 3), round(token.surrogate, 3), token.clipped, token.gradient
        (1.5, 1.2, True, 0.0)
    """
    logprob, advantage = number("logprob", logprob), number("advantage", advantage)
    old_logprob = None if old_logprob is None else number("old_logprob", old_logprob)
    reference_logprob = None if reference_logprob is None else number("reference_logprob", reference_logprob)
    ratio = math.exp(logprob - (logprob if old_logprob is None else old_logprob))
    bound = math.inf if settings.delta is None else settings.delta
    free, held = (
        min(ratio, bound) * advantage,
        min(max(ratio, 1 - settings.epsilon_low), 1 + settings.epsilon_high) * advantage,
    )
    inside = 1 - settings.epsilon_low <= ratio <= 1 + settings.epsilon_high
    flows = inside or (free < held and ratio <= bound)
    gradient = -ratio * advantage if flows else 0.0
    kl, kl_slope = _kl(logprob, ratio, settings, reference_logprob)
    return TokenLoss(
        ratio=ratio,
        clipped=not flows and advantage != 0,
        surrogate=min(free, held),
        kl=kl,
        loss=-min(free, held) + settings.kl_weight * kl,
        gradient=gradient + settings.kl_weight * kl_slope,
    )


def _kl(logprob: float, ratio: float, settings: LossSettings, reference: float | None) -> tuple[float, float]:
    """The k3 estimate and its derivative by the log-probability."""
    if reference is None:
        if settings.kl_weight:
            raise ValueError("kl_weight is not 0, so reference_logprob is needed; give it, or set kl_weight=0")
        return 0.0, 0.0
    gap = reference - logprob
    kl, slope = math.exp(gap) - gap - 1, 1 - math.exp(gap)
    return (kl * ratio, (kl + slope) * ratio) if settings.bias_corrected_kl else (kl, slope)


def token_push(
    advantages: Sequence[float],
    masks: Sequence[Sequence[bool]],
    settings: LossSettings,
    *,
    batch_tokens: int | None = None,
) -> list[list[float]]:
    """How hard the first update after a rollout pushes each token: minus the loss's derivative by its log-probability.

    There the ratio is 1 and nothing is clipped, so the push is the advantage times the token's weight; positive makes
    the token likelier. The KL penalty is left out.

    Args:
        advantages: ``[completions]``.
        masks, settings, batch_tokens: As for :func:`token_weights`.

    Example:
        >>> token_push([1.0, -1.0], [[True, True], [True, False]], LossSettings("bnpo"))
        [[0.3333333333333333, 0.3333333333333333], [-0.3333333333333333, 0.0]]
    """
    weights = token_weights(masks, settings, batch_tokens=batch_tokens)
    advantages = numbers("advantages", advantages)
    check_lengths(masks=weights, advantages=advantages)
    return [
        [advantage * weight if weight else 0.0 for weight in row]
        for advantage, row in zip(advantages, weights, strict=True)
    ]
