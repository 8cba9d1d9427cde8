"""Checks of notebook 07: advantages, the clipped surrogate, the k3 estimate, token weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean, pstdev

from stepgrpo_lab.course.checks._result import Unsolved, exercise, expect
from stepgrpo_lab.method.loss import LossSettings, token_weights
from stepgrpo_lab.method.rewards import group_advantages
from stepgrpo_lab.method.token_loss import token_loss

DIGITS, TOLERANCE = 4, 1e-3
"""Messages round their numbers, the same on every machine."""


@exercise("07.1", "that is the group baseline: no second network, and half of the group is above it.")
def group_relative_advantages(solution: Callable[..., Sequence[float]]) -> None:
    """Hold ``advantages(rewards, eps)`` against the library's.

    Example:
        >>> group_relative_advantages(lambda rewards, eps=1e-4: rewards).passed
        False
    """
    for rewards in ([1.2, 1.0, 0.1], [1.0, 0.0, 0.0, 0.0]):
        what = f"advantages({rewards})"
        gaps = [reward - fmean(rewards) for reward in rewards]
        mistakes = {
            "that is not divided yet: divide by the standard deviation plus eps": gaps,
            "that divides by the population's deviation: use statistics.stdev, not pstdev": [
                gap / (pstdev(rewards) + 1e-4) for gap in gaps
            ],
        }
        expect(solution(rewards), _rounded(group_advantages(rewards)), what, mistakes=mistakes, tolerance=TOLERANCE)
    what = "advantages([1.0, 0.0], eps=1.0)"
    expected = _rounded(group_advantages([1.0, 0.0], eps=1.0))
    expect(solution([1.0, 0.0], eps=1.0), expected, what, hint="eps is added to the deviation", tolerance=TOLERANCE)
    try:
        equal = solution([0.5, 0.5], eps=0.0)
    except ZeroDivisionError as error:
        raise Unsolved("advantages([0.5, 0.5], eps=0) divides by 0: where all are equal, give zeros") from error
    expect(equal, [0.0, 0.0], "advantages([0.5, 0.5], eps=0)", hint="where all are equal, give zeros")


@exercise("07.2", "the clip stops what has gone far enough, and pulls back what has gone astray.")
def clipped_surrogate(solution: Callable[..., float]) -> None:
    """Hold ``surrogate(logprob, old_logprob, advantage, low, high)`` against the library's.

    Example:
        >>> clipped_surrogate(lambda logprob, old_logprob, advantage, low=0.2, high=0.28: 0.0).passed
        False
    """
    settings = LossSettings(epsilon_low=0.2, epsilon_high=0.28)
    for advantage in (1.0, -2.0):
        for ratio in (0.5, 1.0, 1.25, 1.5):
            old, logprob = -1.0, -1.0 + math.log(ratio)
            answer = solution(logprob, old, advantage, 0.2, 0.28)
            expected = token_loss(logprob, advantage, settings, old_logprob=old).surrogate
            what = f"surrogate of ratio {ratio} and advantage {advantage:g}"
            mistakes = _surrogate_mistakes(ratio, advantage)
            expect(answer, round(expected, DIGITS), what, mistakes=mistakes, tolerance=TOLERANCE)


def _surrogate_mistakes(ratio: float, advantage: float) -> dict[str, float]:
    held = min(max(ratio, 0.8), 1.28)
    free = ratio * advantage
    return {
        # Whoever clips nothing has failed with a positive advantage already.
        "nothing is clipped" if advantage > 0 else "take the smaller product, not the smaller ratio": free,
        "take the smaller of the two products: this one holds back what has gone astray": held * advantage,
        "the bounds are 1 - low and 1 + high, which differ": min(free, min(max(ratio, 0.8), 1.2) * advantage),
        "that is the loss: the surrogate is without the minus": -min(free, held * advantage),
    }


@exercise("07.3", "never negative, 0 where both agree, and right on average.")
def k3_estimate(solution: Callable[[float, float], float]) -> None:
    """Hold ``k3_estimate(logprob, reference_logprob)`` against the library's.

    Example:
        >>> k3_estimate(lambda logprob, reference: logprob - reference).passed
        False
    """
    for logprob, reference in ((-1.0, -0.5), (-0.5, -1.5), (-0.7, -0.7)):
        what = f"k3_estimate({logprob}, {reference})"
        gap = reference - logprob
        expected = token_loss(logprob, 0.0, LossSettings(), reference_logprob=reference).kl
        mistakes = {
            "that is k1, which can be negative": -gap,
            "the gap is reference minus policy": math.exp(-gap) + gap - 1,
        }
        answer = solution(logprob, reference)
        expect(answer, round(expected, DIGITS), what, mistakes=mistakes, tolerance=TOLERANCE)


@exercise("07.4", "only grpo makes a token of a long completion count less.")
def loss_type_weights(solution: Callable[..., Sequence[float]]) -> None:
    """Hold ``weights(lengths, loss_type, longest)`` against the library's.

    Example:
        >>> loss_type_weights(lambda lengths, loss_type, longest=256: [1.0] * len(lengths)).passed
        False
    """
    hints = {
        "grpo": "first the mean over each completion, then over the completions",
        "dapo": "one over the tokens of all completions",
        "dr_grpo": "one over completions times the longest length allowed",
    }
    for loss_type, hint in hints.items():
        for lengths in ([2, 6], [5, 5, 10]):
            settings = LossSettings(loss_type, max_completion_length=100)
            expected = [row[0] for row in token_weights([[True] * length for length in lengths], settings)]
            what = f"weights({lengths}, {loss_type!r}, 100)"
            mean_missing = "the mean over the completions is missing: divide by their number too"
            expect(
                solution(lengths, loss_type, 100),
                [round(weight, 6) for weight in expected],
                what,
                hint=hint,
                mistakes={mean_missing: [1 / n for n in lengths]} if loss_type == "grpo" else {},
                tolerance=1e-5,
            )


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, DIGITS) for value in values]
