"""Checks of notebook 00: two easy exercises that show how all of them work."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean

from stepgrpo_lab.course.checks._result import agree, draws, exercise


def _first(confidences: Sequence[float], threshold: float) -> int | None:
    return next((place for place, confidence in enumerate(confidences) if confidence > threshold), None)


def _first_or_equal(confidences: Sequence[float], threshold: float) -> int | None:
    return next((place for place, confidence in enumerate(confidences) if confidence >= threshold), None)


def _last(confidences: Sequence[float], threshold: float) -> int | None:
    return max((place for place, confidence in enumerate(confidences) if confidence > threshold), default=None)


def _probes(rng: random.Random, size: int) -> tuple[list[float], float]:
    """On a grid, so that a confidence often equals the threshold."""
    return [rng.randint(10, 20) / 20 for _ in range(size)], rng.randint(10, 20) / 20


@exercise("00.1", "that is the exit rule: the first trial answer above the threshold ends the thoughts")
def first_confident(solution: Callable[[Sequence[float], float], int | None]) -> None:
    """``solution(confidences, threshold)`` returns the place of the first confidence above the threshold, or None.

    Example:
        >>> first_confident(lambda confidences, threshold: 1)
        ✘ Exercise 00.1 not solved yet: first_confident([], 0.95) gives 1; expected None. No trial answer is confident \
enough
    """

    def hint(confidences: Sequence[float], threshold: float) -> str:
        if _first(confidences, threshold) is None:
            return "no trial answer is confident enough"
        return "the first place whose confidence is greater than the threshold"

    cases = [([0.7, 0.99, 0.97], 0.95), ([], 0.95), ([0.96], 0.95), ([0.95], 0.95), *draws(_probes)]
    mistakes = {
        "the confidence must be greater than the threshold, not equal to it": _first_or_equal,
        "that is the last one above the threshold; the thoughts end at the first": _last,
    }
    agree(solution, _first, cases, "first_confident", mistakes=mistakes, hint=hint)


@exercise("00.2", "this is the number that the result of the course is stated in")
def kept_share(solution: Callable[[Sequence[float], Sequence[float]], float]) -> None:
    """``solution(before, after)`` returns the percentage of the tokens that is kept.

    Example:
        >>> kept_share(lambda before, after: 100 * sum(after) / sum(before))
        ✔ Exercise 00.2 solved: this is the number that the result of the course is stated in
    """

    def kept(before: Sequence[float], after: Sequence[float]) -> float:
        return 100 * sum(after) / sum(before)

    mistakes: dict[str, Callable[..., float]] = {
        "that is a fraction; multiply by 100 for a percentage": lambda before, after: kept(before, after) / 100,
        "that is what is saved; what is kept is asked for": lambda before, after: 100 - kept(before, after),
        "that is before over after; a model that saves tokens keeps less than 100 %": lambda before, after: (
            1e4 / kept(before, after)
        ),
        "that is the mean of the percentages; divide all tokens by all tokens": lambda before, after: (
            100 * fmean(short / long for long, short in zip(before, after, strict=True))
        ),
    }
    agree(solution, kept, [([100, 300], [50, 50]), *draws(lengths)], "kept_share", mistakes=mistakes)


def lengths(rng: random.Random, size: int) -> tuple[list[int], list[int]]:
    """Lengths of completions before and after training, in tokens."""
    return [rng.randint(20, 400) for _ in range(size)], [rng.randint(10, 300) for _ in range(size)]
