"""Intervals and calibration without NumPy, as in a browser: the same estimates, from other and fewer draws."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import itemgetter
from statistics import fmean
from typing import Any

from stepgrpo_lab.method.arrays import flags, numbers, plain

MOST_DRAWS = 500
"""Resamples at most; a bound is then known to within a few hundredths of the interval's width."""


def resample(
    seeds: Sequence[Any], others: Sequence[Any], statistic: str, resamples: int, level: float, seed: int
) -> tuple[float, float, float]:
    """Estimate, lower and upper bound of :func:`.statistics.seeds_bootstrap`; ``others`` are the runs before.

    Raises:
        ValueError: As there.

    Example:
        >>> resample([[50, 40, 30]], [[100, 80, 60]], "ratio", 100, 0.95, 0)
        (0.5, 0.5, 0.5)
    """
    if not seeds or resamples < 1 or not 0 < level < 1:
        raise ValueError("pass at least one training run, one resample, and a level between 0 and 1")
    after, base = ([_problem_means(values) for values in runs] for runs in (seeds, others))
    if len({len(column) for column in (*after, *base)}) > 1:
        raise ValueError("the numbers of problems differ; pass the same problems in the same order")
    if base and statistic == "ratio" and min(map(min, base)) <= 0:
        raise ValueError("before has a problem whose mean is not positive, so a ratio is undefined; use 'difference'")

    def change(problems: Iterable[int], chosen: Sequence[list[float]], first: Sequence[list[float]]) -> float:
        pick = itemgetter(*problems, 0)  # the first problem once more, so that it picks a tuple from a single one too
        means = [(sum(picked := pick(column)) - picked[-1]) / (len(picked) - 1) for column in (*chosen, *first)]
        mean = fmean(means[: len(chosen)])
        if not first:
            return mean
        before = fmean(means[len(chosen) :])
        return mean / before if statistic == "ratio" else mean - before

    generator, problems = random.Random(seed), range(len(after[0]))
    drawn = sorted(
        change(
            generator.choices(problems, k=len(problems)),
            generator.choices(after, k=len(after)),
            generator.choices(base, k=len(base)) if len(base) > 1 else base,
        )
        for _ in range(min(resamples, MOST_DRAWS))
    )
    estimate = change(problems, after, base)
    low, high = (_quantile(drawn, share) for share in ((1 - level) / 2, (1 + level) / 2))
    return estimate, min(low, estimate), max(high, estimate)


def _problem_means(values: Any) -> list[float]:
    rows = plain(values)
    if len(rows) == 0 or (isinstance(rows[0], list) and len({len(row) for row in rows}) > 1):
        raise ValueError("give at least one problem, and every problem as many samples")
    return numbers("values", [fmean(row) if isinstance(row, list) and row else row for row in rows])


def _quantile(ordered: list[float], share: float) -> float:
    """Between the two nearest values, as NumPy does."""
    place = share * (len(ordered) - 1)
    left = int(place)
    right = min(left + 1, len(ordered) - 1)
    return ordered[left] + (place - left) * (ordered[right] - ordered[left])


def bin_answers(
    probabilities: Any, correct: Any, bins: int, equal_mass: bool
) -> list[tuple[float, float, list[tuple[float, bool]]]]:
    """Bins of :func:`.statistics.calibration`: lower and upper edge, and the answers in each.

    Raises:
        ValueError: As there.

    Example:
        >>> bin_answers([0.2, 0.9], [False, True], 2, False)
        [(0.0, 0.5, [(0.2, False)]), (0.5, 1.0, [(0.9, True)])]
    """
    stated, truth = numbers("probabilities", probabilities, least=0.0), flags("correct", correct)
    if len(stated) != len(truth) or not stated or max(stated) > 1 or bins < 1:
        raise ValueError("probabilities in [0, 1] and correct must be equally long and not empty, and bins at least 1")
    edges = [place / bins for place in range(bins + 1)]
    if equal_mass:
        edges[1:-1] = [sorted(stated)[place * len(stated) // bins] for place in range(1, bins)]
    rows: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for answer in zip(stated, truth, strict=True):
        rows[min(bisect_right(edges, answer[0]) - 1, bins - 1)].append(answer)
    return list(zip(edges, edges[1:], rows, strict=False))
