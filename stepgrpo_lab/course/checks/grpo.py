"""Checks of notebook 07: advantages, the clipped surrogate, the k3 estimate, token weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import exp
from statistics import fmean, pstdev

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.method.loss import LossSettings, token_weights
from stepgrpo_lab.method.rewards import group_advantages
from stepgrpo_lab.method.token_loss import token_loss


@exercise("07.1", "that is the group baseline: no second network, and half of the group is above it.")
def group_relative_advantages(solution: Callable[..., Sequence[float]]) -> None:
    """Hold ``advantages(rewards, eps)`` against the library's.

    Example:
        >>> group_relative_advantages(lambda rewards, eps=1e-4: rewards).passed
        False
    """

    def right(rewards: Sequence[float], eps: float = 1e-4) -> list[float]:
        return group_advantages(rewards, eps=eps)

    def gaps(rewards: Sequence[float]) -> list[float]:
        return [reward - fmean(rewards) for reward in rewards]

    mistakes: dict[str, Callable[..., list[float]]] = {
        "that is not divided yet: divide by the standard deviation plus eps": lambda rewards, eps=1e-4: gaps(rewards),
        "that divides by the population's deviation: use statistics.stdev, not pstdev": lambda rewards, eps=1e-4: [
            gap / (pstdev(rewards) + eps) for gap in gaps(rewards)
        ],
        "eps is added to the deviation, and it is an argument": lambda rewards, eps=1e-4: right(rewards),
        "the sign is wrong: a reward above the mean earns a positive advantage": lambda *case: [
            -value for value in right(*case)
        ],
    }

    def hint(rewards: Sequence[float], eps: float = 1e-4) -> str:
        return "where all are equal, give zeros" if len(set(rewards)) == 1 else "eps is added to the deviation"

    cases = [([1.2, 1.0, 0.1],), ([1.0, 0.0], 1.0), ([0.5, 0.5], 1e-4), *draws(_rewards)]
    agree(solution, right, cases, "advantages", mistakes=mistakes, hint=hint)


def _rewards(rng: random.Random, size: int) -> tuple[list[float], float]:
    return [rng.randint(0, 14) / 10 for _ in range(1 + size)], rng.choice([1e-4, 0.01, 0.5])


@exercise("07.2", "the clip stops what has gone far enough, and pulls back what has gone astray.")
def clipped_surrogate(solution: Callable[..., float]) -> None:
    """Hold ``surrogate(logprob, old_logprob, advantage, low, high)`` against the library's.

    Example:
        >>> clipped_surrogate(lambda logprob, old_logprob, advantage, low=0.2, high=0.28: 0.0).passed
        False
    """

    def right(logprob: float, old: float, advantage: float, low: float, high: float) -> float:
        settings = LossSettings(epsilon_low=low, epsilon_high=high)
        return token_loss(logprob, advantage, settings, old_logprob=old).surrogate

    def held(logprob: float, old: float, low: float, high: float) -> float:
        return min(max(exp(logprob - old), 1 - low), 1 + high)

    mistakes: dict[str, Callable[..., float]] = {
        "nothing is clipped": lambda logprob, old, advantage, low, high: exp(logprob - old) * advantage,
        "take the smaller product, not the smaller ratio": lambda logprob, old, advantage, low, high: (
            min(exp(logprob - old), held(logprob, old, low, high)) * advantage
        ),
        "take the smaller of the two products: this one holds back what has gone astray": lambda *case: (
            held(*case[:2], *case[3:]) * case[2]
        ),
        "the smaller of the two products, not the larger": lambda *case: max(
            exp(case[0] - case[1]) * case[2], held(*case[:2], *case[3:]) * case[2]
        ),
        "the bounds are 1 - low and 1 + high, which differ": lambda new, old, advantage, low, _: right(
            new, old, advantage, low, low
        ),
        "use the bounds that you are given": lambda new, old, advantage, *_: right(new, old, advantage, 0.2, 0.28),
        "that is the loss: the surrogate is without the minus": lambda *case: -right(*case),
        "the ratio is new over old: exp(logprob - old_logprob)": lambda logprob, old, *rest: right(old, logprob, *rest),
    }
    cases = [(-1.0, -1.0, 1.0, 0.2, 0.28), (-0.6, -1.0, 1.0, 0.2, 0.28), (-0.6, -1.0, -2.0, 0.2, 0.28), *draws(_token)]
    agree(solution, right, cases, "surrogate", mistakes=mistakes)


def _token(rng: random.Random, size: int) -> tuple[float, float, float, float, float]:
    old = -rng.randint(1, 30) / 10
    advantage = rng.choice([-1, 1]) * rng.randint(1, 20) / 10
    logprob = min(0.0, round(old + rng.randint(-10, 10) / 10, 1))
    return logprob, old, advantage, rng.randint(1, 4) / 10, rng.randint(1, 6) / 10


@exercise("07.3", "never negative, 0 where both agree, and right on average.")
def k3_estimate(solution: Callable[[float, float], float]) -> None:
    """Hold ``k3_estimate(logprob, reference_logprob)`` against the library's.

    Example:
        >>> k3_estimate(lambda logprob, reference: logprob - reference).passed
        False
    """

    def right(logprob: float, reference: float) -> float:
        return token_loss(logprob, 0.0, LossSettings(), reference_logprob=reference).kl

    mistakes: dict[str, Callable[..., float]] = {
        "that is k1, which can be negative": lambda logprob, reference: logprob - reference,
        "the gap is reference minus policy": lambda logprob, reference: right(reference, logprob),
        "that is k2, half of the squared gap": lambda logprob, reference: (logprob - reference) ** 2 / 2,
        "subtract 1, so that it is 0 where both agree": lambda *case: right(*case) + 1,
    }
    cases = [(-1.0, -0.5), (-0.7, -0.7), (-0.5, -1.5), *draws(_pair)]
    agree(solution, right, cases, "k3_estimate", mistakes=mistakes)


def _pair(rng: random.Random, size: int) -> tuple[float, float]:
    return -rng.randint(0, 30) / 10, -rng.randint(0, 30) / 10


@exercise("07.4", "only grpo makes a token of a long completion count less.")
def loss_type_weights(solution: Callable[..., Sequence[float]]) -> None:
    """Hold ``weights(lengths, loss_type, longest)`` against the library's.

    Example:
        >>> loss_type_weights(lambda lengths, loss_type, longest=256: [1.0] * len(lengths)).passed
        False
    """

    def right(lengths: Sequence[int], loss_type: str, longest: int) -> list[float]:
        settings = LossSettings(loss_type, max_completion_length=longest)
        return [row[0] for row in token_weights([[True] * length for length in lengths], settings)]

    hints = {
        "grpo": "first the mean over each completion, then over the completions",
        "dapo": "one over the tokens of all completions",
        "dr_grpo": "one over completions times the longest length allowed",
    }

    def hint(lengths: Sequence[int], loss_type: str, longest: int) -> str:
        return hints[loss_type]

    for loss_type in hints:  # one after the other: a mistake usually concerns one of them
        cases = [(lengths, loss_type, longest) for lengths, longest in [([2, 6], 100), ([2], 10), *draws(_lengths, 20)]]
        mistakes: dict[str, Callable[..., list[float]]] = {
            "the mean over the completions is missing: divide by their number too": lambda lengths, kind, longest: [
                1 / n for n in lengths
            ],
            "that is 1 over the longest length of the group; take the longest length allowed": lambda lengths, *_: (
                [1 / (len(lengths) * max(lengths))] * len(lengths)
            ),
        }
        agree(solution, right, cases, "weights", mistakes=mistakes, hint=hint)


def _lengths(rng: random.Random, size: int) -> tuple[list[int], int]:
    return [rng.randint(1, 20) for _ in range(size)], rng.choice([20, 64, 256])
