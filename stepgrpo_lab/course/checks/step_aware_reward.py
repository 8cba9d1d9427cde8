"""Checks of notebook 06: the rewards of a group, and advantages that do not know ``step_beta``."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from math import sqrt, tanh
from statistics import fmean, median, stdev
from typing import Any

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.method.rewards import group_advantages, step_aware_rewards

GOLDEN = ([True, True, True, False, False], [2, 4, 6, 3, 9])
"""Correctness and steps of the course's group."""

Advantages = Callable[[Sequence[int]], Sequence[float]]


@exercise("06.1", "this is Eq. 5: right answers in [0.55, 1.343], wrong ones below, and the group says what is long.")
def step_rewards(solution: Callable[..., Sequence[float]]) -> None:
    """Hold ``step_rewards(correct, steps, formatted, alpha=0.9, beta=0.5)``, a group's rewards, against the library's.

    Example:
        >>> step_rewards(lambda correct, steps, formatted, alpha=0.9, beta=0.5: [1.0] * len(correct)).passed
        False
    """

    def right(
        correct: Sequence[bool], steps: Sequence[int], formatted: Sequence[bool], alpha: float = 0.9, beta: float = 0.5
    ) -> list[float]:
        return step_aware_rewards(correct, steps, formatted, step_alpha=alpha, step_beta=beta)

    def hint(correct: Sequence[bool], *_: Any) -> str:
        if not any(correct):
            return "nobody is right here, so there is no mean: look at it for right answers alone"
        return "r = alpha c (1 - beta tanh((k - mu) / mu)) + (1 - alpha) f"

    mistakes: dict[str, Callable[..., list[float]]] = {
        message: partial(_by_hand, **how) for message, how in _MISTAKES.items()
    }
    mistakes["use the alpha and beta that you are given"] = lambda c, k, f, *_: right(c, k, f)
    golden = (*GOLDEN, [True] * 5, 0.9, 0.5)
    alone = ([False, False], [3, 5], [True, False], 0.9, 0.5)
    agree(solution, right, [golden, alone, *draws(_group)], "step_rewards", mistakes=mistakes, hint=hint)


def _by_hand(
    correct: Sequence[bool],
    steps: Sequence[int],
    formatted: Sequence[bool],
    alpha: float,
    beta: float,
    *,
    over: str = "right",
    mean: Callable[[Sequence[int]], float] = fmean,
    sign: int = 1,
    squash: Callable[[float], float] = tanh,
    wrong_too: bool = False,
    boxes: str = "own",
) -> list[float]:
    """The rewards as one writes them, right by default, or with a mistake in them."""
    pairs = list(zip(correct, steps, strict=True))
    counted = [k for c, k in pairs if over == "all" or c == (over == "right")]
    mu = mean(counted) if counted else 0.0
    rewards = []
    for (c, k), f in zip(pairs, formatted, strict=True):
        term = beta * sign * squash((k - mu) / mu) if mu and (c or wrong_too) else 0.0
        box = {"own": f, "always": True, "wrong": f and not c, "right": f or c, "only right": f and c}[boxes]
        rewards.append(alpha * (c - term) + (1 - alpha) * box)
    return rewards


_MISTAKES: dict[str, dict[str, Any]] = {
    "that is the mean over all members; take the right ones alone": {"over": "all"},
    "that is the mean over the wrong members": {"over": "wrong"},
    "that is the median; Eq. 4 takes the mean": {"mean": median},
    "that is halfway between the fewest and the most steps; Eq. 4 takes the mean": {
        "mean": lambda k: (min(k) + max(k)) / 2
    },
    "that drops the fraction of the mean: divide with /, not //": {"mean": lambda k: sum(k) // len(k)},
    "a short right answer earns more than 1: mind the sign before beta": {"sign": -1},
    "(k - mu) / mu goes through tanh first": {"squash": float},
    "a wrong answer gets no step term: c multiplies the whole bracket": {"wrong_too": True},
    "a completion without a box earns no format term: multiply 1 - alpha by it": {"boxes": "always"},
    "a right answer earns the format term too, if it has a box": {"boxes": "wrong"},
    "a right answer without a box loses the format term too": {"boxes": "right"},
    "a wrong answer in a box keeps the format term: it stands outside the bracket": {"boxes": "only right"},
}


def _group(rng: random.Random, size: int) -> tuple[list[bool], list[int], list[bool], float, float]:
    correct = [rng.random() < 0.6 for _ in range(size)]
    steps = [rng.randint(1, 12) for _ in correct]
    return correct, steps, [rng.random() < 0.6 for _ in correct], rng.randint(1, 9) / 10, rng.randint(1, 9) / 10


@exercise("06.2", "no step_beta in it, and yet these are the advantages that training uses: the setting is inert here.")
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
