"""Checks of notebook 06: the group's mean, one member's reward, and advantages that do not know ``step_beta``."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import sqrt, tanh
from statistics import fmean, median, stdev

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.method.rewards import group_advantages, group_mean_steps, step_aware_rewards

GOLDEN = ([True, True, True, False, False], [2, 4, 6, 3, 9])
"""Correctness and steps of the course's group."""

MeanSteps = Callable[[Sequence[bool], Sequence[int]], float | None]
MemberReward = Callable[[bool, int, bool, float | None, float, float], float]
Advantages = Callable[[Sequence[int]], Sequence[float]]


def _group(rng: random.Random, size: int) -> tuple[list[bool], list[int]]:
    return [rng.random() < 0.6 for _ in range(size)], [rng.randint(1, 12) for _ in range(size)]


@exercise("06.1", "the right members alone say what is long, and nobody does where nobody is right.")
def mean_steps_of_right(solution: MeanSteps) -> None:
    """Hold ``mean_steps(correct, steps)`` against Eq. 4's mean over the right members.

    Example:
        >>> mean_steps_of_right(lambda correct, steps: sum(steps) / len(steps)).passed
        False
    """

    def of_right(correct: Sequence[bool], steps: Sequence[int]) -> list[int]:
        return [k for right, k in zip(correct, steps, strict=True) if right]

    mistakes: dict[str, Callable[..., float | None]] = {
        "that is the mean over all members; take the right ones alone": lambda correct, steps: fmean(steps),
        "that divides by the size of the group; divide by the number of right members": lambda correct, steps: (
            sum(of_right(correct, steps)) / len(steps)
        ),
        "that is the mean over the wrong members": lambda correct, steps: group_mean_steps(
            [not right for right in correct], steps
        ),
        "that is the median; Eq. 4 takes the mean": lambda correct, steps: (
            median(of_right(correct, steps)) if any(correct) else None
        ),
        "that is halfway between the fewest and the most steps; Eq. 4 takes the mean": lambda correct, steps: (
            (min(of_right(correct, steps)) + max(of_right(correct, steps))) / 2 if any(correct) else None
        ),
        "that drops the fraction: divide with /, not //": lambda correct, steps: (
            sum(of_right(correct, steps)) // sum(correct) if any(correct) else None
        ),
    }

    def hint(correct: Sequence[bool], steps: Sequence[int]) -> str:
        return "" if any(correct) else "nobody is right, so there is no mean: return None"

    cases = [GOLDEN, ([False, True], [9, 2]), ([False, False], [3, 5]), *draws(_group)]
    agree(solution, group_mean_steps, cases, "mean_steps", mistakes=mistakes, hint=hint)


@exercise("06.2", "this is Eq. 5; the published values keep right answers in [0.55, 1.343] and wrong ones below.")
def member_reward(solution: MemberReward) -> None:
    """Hold ``member_reward(correct, steps, formatted, mean, alpha, beta)`` against the library's reward.

    Example:
        >>> member_reward(lambda correct, steps, formatted, mean, alpha=0.9, beta=0.5: 1.0).passed
        False
    """

    def bracket(steps: int, mean: float, beta: float) -> float:
        return 1 - beta * tanh((steps - mean) / mean)

    def right(correct: bool, steps: int, formatted: bool, mean: float | None, alpha: float, beta: float) -> float:
        relative = bracket(steps, mean, beta) if correct and mean is not None else 0.0
        return alpha * relative + (1 - alpha) * formatted

    mistakes: dict[str, Callable[..., float]] = {
        "a short right answer earns more than 1: mind the sign before beta": lambda c, k, f, mean, alpha, beta: (
            alpha * (bracket(k, mean, -beta) if c else 0) + (1 - alpha) * f
        ),
        "(k - mu) / mu goes through tanh first": lambda c, k, f, mean, alpha, beta: (
            alpha * (1 - beta * (k - mean) / mean if c else 0) + (1 - alpha) * f
        ),
        "a wrong answer gets no step term: c multiplies the whole bracket": lambda c, k, f, mean, alpha, beta: (
            alpha * (c + bracket(k, mean or k, beta) - 1) + (1 - alpha) * f
        ),
        "a completion without a box earns no format term: multiply 1 - alpha by it": lambda c, k, f, *rest: right(
            c, k, True, *rest
        ),
        "a right answer earns the format term too, if it has a box": lambda *case: (
            right(*case) - (1 - case[4]) * (case[0] and case[2])
        ),
        "a right answer without a box loses the format term too": lambda c, k, f, *rest: right(c, k, f or c, *rest),
        "use the mean that you are given": lambda c, k, f, mean, alpha, beta: right(c, k, f, mean and 4.0, alpha, beta),
        "use the alpha and beta that you are given": lambda c, k, f, mean, *_: right(c, k, f, mean, 0.9, 0.5),
    }

    def hint(correct: bool, steps: int, formatted: bool, mean: float | None, alpha: float, beta: float) -> str:
        if mean is None:
            return "nobody is right here, so there is no mean: look at it for right answers alone"
        return "r = alpha c (1 - beta tanh((k - mu) / mu)) + (1 - alpha) f"

    lonely = (False, 3, True, None, 0.9, 0.5)
    golden = [(right, k, True, 4.0, 0.9, 0.5) for right, k in zip(*GOLDEN, strict=True)]
    cases = [*golden, lonely, *draws(_member)]
    agree(solution, right, cases, "member_reward", mistakes=mistakes, hint=hint)


def _member(rng: random.Random, size: int) -> tuple[bool, int, bool, float | None, float, float]:
    correct = rng.random() < 0.6
    steps = rng.randint(1, 1 + size)
    mean = (steps + rng.randint(1, 12)) / 2 if correct or rng.random() < 0.5 else None
    return correct, steps, rng.random() < 0.6, mean, rng.randint(1, 9) / 10, rng.randint(1, 9) / 10


@exercise("06.3", "no step_beta in it, and yet these are the advantages that training uses: the setting is inert here.")
def advantages_of_right(solution: Advantages) -> None:
    """Hold ``advantages_of_right(steps)`` against the library's.

    Example:
        >>> advantages_of_right(lambda steps: [0.0] * len(steps)).passed
        False
    """

    def right(steps: Sequence[int]) -> list[float]:
        correct = [True] * len(steps)
        return group_advantages(step_aware_rewards(correct, steps, correct), eps=0.0)

    def linear(steps: Sequence[int]) -> list[float]:
        return [(fmean(steps) - k) / stdev(steps) for k in steps]

    mistakes: dict[str, Callable[..., list[float]]] = {
        "the sign is wrong: fewer steps must come out positive": lambda steps: [-value for value in right(steps)],
        "that divides by the population's deviation: use statistics.stdev, not pstdev": lambda steps: [
            value * sqrt(len(steps) / (len(steps) - 1)) for value in right(steps)
        ],
        "(k - mu) / mu goes through tanh first": linear,
    }

    def hint(steps: Sequence[int]) -> str:
        if len(set(steps)) == 1:
            return "where all are equal, give zeros"
        return "standardise tanh((k - mu) / mu), and turn its sign"

    cases = [([2, 3, 4, 5, 6],), ([3, 3],), ([1, 9],), *draws(_steps)]
    agree(solution, right, cases, "advantages_of_right", mistakes=mistakes, hint=hint)


def _steps(rng: random.Random, size: int) -> tuple[list[int]]:
    return ([rng.randint(1, 12) for _ in range(1 + size)],)
