"""Intervals and calibration: how far a measured number can be trusted.

The unit of resampling is the *problem*, because samples of one problem are alike: average the samples within a
problem, then draw problems with replacement (the percentile bootstrap; Efron and Tibshirani, "An Introduction to the
Bootstrap", 1993, ch. 13). Two models that answered the same problems are compared pairwise, with the same draw for
both, so that the difficulty of the problems cancels.

An interval of one training run covers the choice of problems and the sampling noise, not the training seed. For several
runs (seeds) of one setting :func:`seeds_bootstrap` draws the seeds with replacement too. A column that never varies (30
of 30 correct) yields an interval of width zero: the bootstrap cannot see what the data do not show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import TYPE_CHECKING, Literal

from stepgrpo_lab.evaluation import _without_numpy

if TYPE_CHECKING:  # numpy itself is imported where it is used: records and widgets work without it
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    _Column = NDArray[np.float64]

Statistic = Literal["difference", "ratio"]

_DRAWS_AT_ONCE = 2_000_000
"""Drawn indices held in memory at a time (16 MB)."""


@dataclass(frozen=True)
class Interval:
    """An estimate between its confidence bounds, all in the same unit.

    Example:
        >>> str(Interval(0.875, 0.85, 0.9) * 100)
        '87.5 [85.0, 90.0]'
    """

    estimate: float
    low: float
    high: float

    def __mul__(self, factor: float) -> Interval:
        """The interval in another unit; ``factor`` must be positive, or low and high would trade places."""
        if factor <= 0:
            raise ValueError(f"factor is {factor}, but an interval can only be scaled by a positive number")
        return Interval(self.estimate * factor, self.low * factor, self.high * factor)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.estimate:.1f} [{self.low:.1f}, {self.high:.1f}]"


def bootstrap_mean(values: ArrayLike, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean over problems with its percentile bootstrap interval.

    Args:
        values: ``[problems]`` or ``[problems, samples]``; samples are averaged within their problem.
        resamples: How many times the problems are drawn again.
        level: Coverage of the interval, between 0 and 1.
        seed: Seed of the draws; the same seed gives the same interval.

    Raises:
        ValueError: Values are empty, not finite or of the wrong shape, or a setting is out of range.

    Example:
        >>> bootstrap_mean([1.0, 1.0, 1.0])
        Interval(estimate=1.0, low=1.0, high=1.0)
    """
    return seeds_bootstrap([values], resamples=resamples, level=level, seed=seed)


def paired_bootstrap(
    before: ArrayLike,
    after: ArrayLike,
    *,
    statistic: Statistic = "difference",
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Compare two measurements of the same problems: mean(after) - mean(before), or mean(after) / mean(before).

    Args:
        before: ``[problems]`` or ``[problems, samples]``, problem by problem in the order of ``after``.
        after: Same number of problems; the number of samples may differ.
        statistic: "difference" or "ratio" (for which every problem's mean in ``before`` must be positive).
        resamples: How many times the problems are drawn again.
        level: Coverage of the interval, between 0 and 1.
        seed: Seed of the draws.

    Raises:
        ValueError: The numbers of problems differ, or values or settings are out of range.

    Example:
        >>> paired_bootstrap([100, 80, 60], [50, 40, 30], statistic="ratio")
        Interval(estimate=0.5, low=0.5, high=0.5)
    """
    return seeds_bootstrap([after], before, statistic=statistic, resamples=resamples, level=level, seed=seed)


def seeds_bootstrap(
    seeds: Sequence[ArrayLike],
    before: ArrayLike | None = None,
    *,
    before_seeds: Sequence[ArrayLike] = (),
    statistic: Statistic = "difference",
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The mean of several training runs of one setting, or its change, with an interval over seeds *and* problems.

    Every resample draws problems and seeds with replacement. All seeds answer the same problems, so one draw of
    problems serves all of them and what they are held against: seeds that agree exactly give the interval of a single
    one. The seeds of two settings are drawn apart from each other. With one seed the interval covers problems only.
    Few seeds say little about their spread: of three, the bootstrap sees two thirds of the variance.

    Args:
        seeds: ``[seeds][problems]`` or ``[seeds][problems, samples]``, the problems in the same order everywhere.
        before: ``[problems]`` or ``[problems, samples]`` of the untrained model; None for the mean of ``seeds`` itself.
        before_seeds: In place of ``before``: the runs of another setting, as ``seeds``.
        statistic: "difference" or "ratio" (for which every problem's mean in ``before`` must be positive).
        resamples: How many times problems and seeds are drawn again.
        level: Coverage of the interval, between 0 and 1.
        seed: Seed of the draws.

    Raises:
        ValueError: There are no seeds, the numbers of problems differ, or values or settings are out of range.

    Example:
        >>> seeds_bootstrap([[50, 40, 30], [100, 80, 60]], [100, 80, 60], statistic="ratio")
        Interval(estimate=0.75, low=0.5, high=1.0)
    """
    if statistic not in ("difference", "ratio"):
        raise ValueError(f"statistic is {statistic!r}; use 'difference' or 'ratio'")
    others = [before] if before is not None else list(before_seeds)
    try:
        import numpy as np
    except ModuleNotFoundError:
        return Interval(*_without_numpy.resample(seeds, others, statistic, resamples, level, seed))
    columns = [_problem_means(values, "after" if others else "values") for values in seeds]
    if not columns:
        raise ValueError("there are no seeds; pass the values of at least one training run")
    columns += [_problem_means(values, "before") for values in others]
    if statistic == "ratio" and any(column.min() <= 0 for column in columns[len(seeds) :]):
        raise ValueError("before has a problem whose mean is not positive, so a ratio is undefined; use 'difference'")
    if len({len(column) for column in columns}) > 1:
        names = ["after"] * len(seeds) + ["before"] * len(others)
        counts = ", ".join(f"{name} has {len(column)}" for name, column in zip(names, columns, strict=True))
        raise ValueError(f"the numbers of problems differ ({counts}); pass the same problems in the same order")
    table = np.stack(columns, axis=1)
    means, whole = _resampled_means(table, resamples, level, seed), table.mean(axis=0)
    after = _over_seeds(means[:, : len(seeds)], [seed, len(seeds)])
    estimate = whole[: len(seeds)].mean()
    if others:
        # The second set of draws has a number of its own: seeds of two settings have nothing to do with each other.
        first = _over_seeds(means[:, len(seeds) :], [seed, len(others), 1])
        after, estimate = (
            _contrast(first, after, statistic),
            _contrast(whole[len(seeds) :].mean(), estimate, statistic),
        )
    return _percentile_interval(estimate.item(), after, level)


def _over_seeds(means: _Column, seed: list[int]) -> _Column:
    """``[resamples, seeds]`` -> ``[resamples]``: means over seeds drawn with replacement, apart from the problems."""
    import numpy as np

    drawn = np.random.default_rng(seed).integers(means.shape[1], size=means.shape)
    return np.take_along_axis(means, drawn, axis=1).mean(axis=1)


def t_interval(after: Sequence[float], before: Sequence[float], *, level: float = 0.95) -> Interval:
    """Difference of the means of two settings over their seeds, with Welch's t interval.

    It sees the seeds' spread alone, and each seed's figure already holds the noise of its problems, so it is a check on
    :func:`seeds_bootstrap` that asks for no resampling (Welch, "The generalization of 'Student's' problem", 1947).

    Args:
        after, before: One figure for each seed, in the same unit; at least two each.
        level: Coverage of the interval, between 0 and 1.

    Raises:
        ValueError: A setting has fewer than two seeds.

    Example:
        >>> str(t_interval([3.0, 4.0, 5.0], [1.0, 2.0, 3.0]))
        '2.0 [-0.3, 4.3]'
    """
    if min(len(after), len(before)) < 2:
        raise ValueError("a t interval needs at least two seeds on each side")
    estimate = fmean(after) - fmean(before)
    parts = [variance(seeds) / len(seeds) for seeds in (after, before)]
    whole = sum(parts)
    if not whole:
        return Interval(estimate, estimate, estimate)
    # Shares of the whole: the squares of tiny variances would be 0.
    spread = sum((part / whole) ** 2 / (len(seeds) - 1) for part, seeds in zip(parts, (after, before), strict=True))
    reach = _t_quantile((1 + level) / 2, 1 / spread) * math.sqrt(whole)
    return Interval(estimate, estimate - reach, estimate + reach)


def _t_quantile(share: float, freedom: float) -> float:
    """Below it lies this share (at least half) of Student's t distribution; by bisection of its distribution."""
    from mpmath import betainc

    def above(value: float) -> float:
        return float(betainc(freedom / 2, 0.5, 0, freedom / (freedom + value**2), regularized=True)) / 2

    low, high = 0.0, 1.0
    while above(high) > 1 - share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > 1 - share else (low, middle)
    return high


def _contrast(before: _Column, after: _Column, statistic: Statistic) -> _Column:
    import numpy as np

    return np.asarray(after / before if statistic == "ratio" else after - before)


def _problem_means(values: ArrayLike, name: str) -> _Column:
    """``[problems]`` or ``[problems, samples]`` -> ``[problems]`` float64."""
    import numpy as np

    try:
        array = np.asarray(values, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array of numbers; give every problem as many samples") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected [problems] or [problems, samples], not empty")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds a value that is not finite; drop or repair that problem")
    return array if array.ndim == 1 else array.mean(axis=1)


def _resampled_means(columns: _Column, resamples: int, level: float, seed: int) -> _Column:
    """``[problems, columns]`` -> ``[resamples, columns]`` means over problems drawn with replacement."""
    import numpy as np

    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; use at least 1 (10000 for a report)")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must lie between 0 and 1, such as 0.95")
    generator = np.random.default_rng(seed)
    problems = len(columns)
    means = np.empty((resamples, columns.shape[1]))
    block = max(1, _DRAWS_AT_ONCE // problems)
    for start in range(0, resamples, block):
        drawn = generator.integers(problems, size=(min(block, resamples - start), problems))
        for index, column in enumerate(columns.T):
            means[start : start + len(drawn), index] = column[drawn].mean(axis=1)
    return means


def _percentile_interval(estimate: float, resampled: _Column, level: float) -> Interval:
    import numpy as np

    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    # The mean of equal numbers may differ from them in the last bit; the estimate always belongs to its interval.
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate))


@dataclass(frozen=True)
class CalibrationBin:
    """Answers whose probability lies in [low, high); the last bin includes 1.

    ``confidence`` is their mean probability and ``accuracy`` their share correct, both None when ``count`` is 0.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """A reliability table and its summary.

    Attributes:
        bins: One row per bin, by rising probability.
        ece: Expected calibration error in [0, 1]: |confidence - accuracy|, weighted by count.
        count: Number of answers.
    """

    bins: list[CalibrationBin]
    ece: float
    count: int


def calibration(
    probabilities: ArrayLike, correct: ArrayLike, bins: int = 10, *, equal_mass: bool = False
) -> Calibration:
    """Compare stated probabilities with the share that is correct, in bins of equal width or of equal mass.

    Expected calibration error after Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.

    Args:
        probabilities: ``[answers]`` in [0, 1]; for trial answers the *joint* probability, not a length-normalised one.
        correct: ``[answers]`` booleans, or 0 and 1.
        bins: Number of bins.
        equal_mass: Bins that hold equally many answers, whatever their width: none is empty, none holds most of them.

    Raises:
        ValueError: Lengths differ, nothing was passed, or a value is out of range.

    Example:
        >>> round(calibration([0.9, 0.9, 0.9, 0.9], [True, True, True, False]).ece, 2)
        0.15
    """
    try:
        import numpy as np
    except ModuleNotFoundError:
        return _plain_calibration(_without_numpy.bin_answers(probabilities, correct, bins, equal_mass))
    stated, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if stated.ndim != 1 or stated.shape != truth.shape or stated.size == 0:
        raise ValueError(
            f"probabilities {stated.shape} and correct {truth.shape} must be two equally long, non-empty lists"
        )
    if not ((stated >= 0) & (stated <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    if not np.isin(truth, (0.0, 1.0)).all():
        raise ValueError("correct must hold only True and False")
    if bins < 1:
        raise ValueError(f"bins is {bins}; use at least 1")
    edges = np.linspace(0.0, 1.0, bins + 1)
    if equal_mass:
        inner = np.sort(stated)[np.arange(1, bins) * stated.size // bins]
        edges = np.concatenate([[0.0], inner, [1.0]])
    # The edges that the table shows decide, so that 0.3 (stored a little below 3/10) falls where a reader looks for it.
    place = np.minimum(np.searchsorted(edges, stated, side="right") - 1, bins - 1)
    rows = [
        _calibration_bin(edges[index], edges[index + 1], stated[place == index], truth[place == index])
        for index in range(bins)
    ]
    return _summary(rows)


def _summary(rows: list[CalibrationBin]) -> Calibration:
    gaps = [
        row.count * abs(row.confidence - row.accuracy)
        for row in rows
        if row.confidence is not None and row.accuracy is not None
    ]
    count = sum(row.count for row in rows)
    return Calibration(rows, float(sum(gaps)) / count, count)


def _plain_calibration(bins: list[tuple[float, float, list[tuple[float, bool]]]]) -> Calibration:
    means = [tuple(map(fmean, zip(*answers, strict=True))) or (None, None) for _, _, answers in bins]
    rows = zip(bins, means, strict=True)
    return _summary([CalibrationBin(low, high, len(answers), *mean) for (low, high, answers), mean in rows])


def _calibration_bin(low: float, high: float, stated: _Column, truth: _Column) -> CalibrationBin:
    if not len(stated):
        return CalibrationBin(float(low), float(high), 0, None, None)
    return CalibrationBin(float(low), float(high), len(stated), float(stated.mean()), float(truth.mean()))


def ratio(interval: Interval) -> str:
    """A ratio in percent with its interval: "43 % [41, 46]"."""
    percent = interval * 100
    return f"{percent.estimate:.0f} % [{percent.low:.0f}, {percent.high:.0f}]"


def points(interval: Interval) -> str:
    """A difference with its sign and interval: "-1.4 [-3.1, +0.3]"."""
    return f"{interval.estimate:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"
