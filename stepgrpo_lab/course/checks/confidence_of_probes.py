"""Checks of notebook 03: confidence and calibration of the probe."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import prod
from statistics import fmean

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.method.confidence import confidence

Bins = Sequence[tuple[int, float, float]]
Curve = Sequence[tuple[float, float, float]]


@exercise("03.1", "your score is the one that the exit rule compares with its threshold")
def geometric_mean(solution: Callable[[Sequence[float], int], float]) -> None:
    """``geometric_mean(probabilities, skip_first)``: the score of Eq. 2.

    Example:
        >>> geometric_mean(lambda probabilities, skip_first: sum(probabilities) / len(probabilities)).passed
        False
    """

    def right(probabilities: Sequence[float], skip_first: int) -> float:
        return confidence(probabilities, skip_first=skip_first)

    def hint(probabilities: Sequence[float], skip_first: int) -> str:
        return (
            ""
            if probabilities[skip_first:]
            else "no token is left, so nothing vouches for the answer: the score is 0.0"
        )

    def full_root(probabilities: Sequence[float], skip_first: int) -> float:
        return prod(probabilities[skip_first:]) ** (1 / len(probabilities)) if probabilities[skip_first:] else 0.0

    mistakes: dict[str, Callable[..., float]] = {
        "that is the arithmetic mean: multiply, and take the root": lambda p, skip: confidence(p[skip:], "arithmetic"),
        "that is the joint probability: take its root, over the number of counted tokens": lambda p, skip: confidence(
            p[skip:], "joint"
        ),
        "leave the first skip_first tokens out": lambda p, skip: confidence(p),
        "that leaves the last tokens out, not the first": lambda p, skip: confidence(p[: len(p) - skip]),
        "take the root over the tokens that count, not over all": full_root,
    }
    cases = [([0.99, 0.9, 0.8], 1), ([0.7], 1), ([0.7], 0), *draws(_probe)]
    agree(solution, right, cases, "geometric_mean", mistakes=mistakes, hint=hint)


def _probe(rng: random.Random, size: int) -> tuple[list[float], int]:
    return [rng.randint(1, 99) / 100 for _ in range(size)], rng.randint(0, min(3, size))


@exercise("03.2", "it is the expected calibration error of Guo et al. (2017), as the library counts it")
def calibration_error(solution: Callable[[Bins], float]) -> None:
    """``calibration_error(bins)``: bins are (answers, mean stated probability, share right).

    Example:
        >>> calibration_error(lambda bins: 0.0).passed
        False
    """

    def error(bins: Bins) -> float:
        return sum(count * abs(stated - right) for count, stated, right in bins) / sum(count for count, *_ in bins)

    mistakes: dict[str, Callable[..., float]] = {
        "every bin counts by its number of answers": lambda bins: fmean(
            abs(stated - right) for _, stated, right in bins
        ),
        "too sure in one bin and too modest in another do not cancel: take each gap's size": lambda bins: (
            abs(sum(count * (stated - right) for count, stated, right in bins)) / sum(count for count, *_ in bins)
        ),
        "divide by the number of all answers": lambda bins: error(bins) * sum(count for count, *_ in bins),
        "take the size of each gap, not its square": lambda bins: (
            sum(count * (stated - right) ** 2 for count, stated, right in bins) / sum(count for count, *_ in bins)
        ),
    }
    cases = [([(80, 0.2, 0.1), (20, 0.9, 1.0)],), ([(5, 0.5, 0.9), (0, 0.0, 0.0)],), *draws(_bins)]
    agree(solution, error, cases, "calibration_error", mistakes=mistakes)


def _bins(rng: random.Random, size: int) -> tuple[list[tuple[int, float, float]]]:
    return ([(rng.randint(1, 50), rng.randint(0, 100) / 100, rng.randint(0, 100) / 100) for _ in range(size)],)


@exercise("03.3", "fewest tokens among those that are right often enough; choose on validation problems, not on these")
def cheapest_threshold(solution: Callable[[Curve, float], float | None]) -> None:
    """``cheapest_threshold(curve, least)``: curve points are (threshold, tokens, share right).

    Example:
        >>> cheapest_threshold(lambda curve, least: 0.99).passed
        False
    """

    def enough(curve: Curve, least: float) -> list[tuple[float, float, float]]:
        return [point for point in curve if point[2] >= least]

    def cheapest(curve: Curve, least: float) -> float | None:
        return min(enough(curve, least), key=lambda point: point[1], default=(None,))[0]

    def hint(curve: Curve, least: float) -> str:
        if not enough(curve, least):
            return "no point is right often enough: return None"
        return "at least means that exactly as much is enough" if any(share == least for *_, share in curve) else ""

    mistakes: dict[str, Callable[..., float | None]] = {
        "fewest tokens, but only among the points that are right often enough": lambda curve, least: min(
            curve, key=lambda point: point[1]
        )[0],
        "several points are right often enough: take the one with the fewest tokens": lambda curve, least: max(
            enough(curve, least), default=(None,)
        )[0],
        "the lowest threshold is not always the cheapest: compare the tokens": lambda curve, least: min(
            enough(curve, least), default=(None,)
        )[0],
        "the points may come in any order: compare their tokens": lambda curve, least: next(
            iter(enough(curve, least)), (None,)
        )[0],
    }
    curve = [(0.5, 21.0, 0.31), (0.9, 41.7, 0.948), (0.95, 46.4, 1.0)]
    cases = [(curve, 0.9), ([(0.5, 21.0, 0.31)], 0.9), ([(0.9, 40.0, 0.9)], 0.9), *draws(_curve)]
    agree(solution, cheapest, cases, "cheapest_threshold", mistakes=mistakes, hint=hint)


def _curve(rng: random.Random, size: int) -> tuple[list[tuple[float, float, float]], float]:
    """In any order and not monotone, as measured curves are; all thresholds and all token counts differ."""
    thresholds, tokens = rng.sample(range(50, 100), size), rng.sample(range(20, 90), size)
    shares = [rng.randint(6, 10) / 10 for _ in range(size)]
    points = [(t / 100, float(n), s) for t, n, s in zip(thresholds, tokens, shares, strict=True)]
    return points, rng.randint(6, 10) / 10
