"""Checks of notebook 03: confidence and calibration of the probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks.result import Unsolved, exercise, expect
from stepgrpo_lab.method.confidence import confidence

_PROBABILITIES = [0.99, 0.9, 0.8, 0.999]


@exercise("03.1", "your score is the one that the exit rule compares with its threshold")
def geometric_mean(solution: Callable[[Sequence[float], int], float]) -> None:
    """``geometric_mean(probabilities, skip_first)``: the score of Eq. 2.

    Example:
        >>> geometric_mean(lambda probabilities, skip_first: sum(probabilities) / len(probabilities)).passed
        False
    """
    for probabilities, skip in ((_PROBABILITIES, 1), (_PROBABILITIES, 0), ([0.5, 0.5, 0.0], 0), ([0.7], 1)):
        counted = probabilities[skip:]
        actual = solution(list(probabilities), skip)
        what, hint = f"geometric_mean({probabilities}, {skip})", ""
        if not counted:
            hint = "No token is left, so nothing vouches for the answer: the score is 0.0"
        elif _close(actual, confidence(counted, "arithmetic")):
            hint = "That is the arithmetic mean: multiply, and take the root"
        elif _close(actual, confidence(counted, "joint")):
            hint = "That is the joint probability: the root over the number of counted tokens is missing"
        elif skip and _close(actual, confidence(probabilities)):
            hint = "Leave the first skip_first tokens out"
        elif skip and _close(actual, confidence(counted, "joint") ** (1 / len(probabilities))):
            hint = "Divide by the number of tokens that count, not of all"
        expect(actual, confidence(probabilities, skip_first=skip), what, hint=hint)


@exercise("03.2", "it is the expected calibration error of Guo et al. (2017), as the library counts it")
def calibration_error(solution: Callable[[Sequence[tuple[int, float, float]]], float]) -> None:
    """``calibration_error(bins)``: bins are (answers, mean stated probability, share right).

    Example:
        >>> calibration_error(lambda bins: 0.0).passed
        False
    """
    for bins in ([(80, 0.2, 0.1), (20, 0.9, 1.0)], [(10, 0.3, 0.3), (30, 0.7, 0.3)], [(5, 0.5, 0.9), (0, 0.0, 0.0)]):
        gaps = [abs(stated - right) for _, stated, right in bins]
        count = sum(answers for answers, *_ in bins)
        expected = sum(answers * gap for (answers, *_), gap in zip(bins, gaps, strict=True)) / count
        actual, hint = solution(list(bins)), ""
        if _close(actual, sum(gaps) / len(gaps)) and not _close(expected, sum(gaps) / len(gaps)):
            hint = "Every bin counts by its number of answers"
        elif _close(actual, abs(sum(answers * (stated - right) for answers, stated, right in bins)) / count):
            hint = "Too sure in one bin and too modest in another do not cancel: take each gap's size"
        elif _close(actual, expected * count):
            hint = "Divide by the number of all answers"
        expect(actual, expected, f"calibration_error({bins})", hint=hint)


_CURVE = [(0.5, 21.0, 0.31), (0.8, 36.5, 0.848), (0.9, 41.7, 0.948), (0.95, 46.4, 1.0), (0.99, 58.6, 1.0)]


@exercise("03.3", "fewest tokens among those that are right often enough; choose on validation problems, not on these")
def cheapest_threshold(solution: Callable[[Sequence[tuple[float, float, float]], float], float | None]) -> None:
    """``cheapest_threshold(curve, least)``: curve points are (threshold, tokens, share right).

    Example:
        >>> cheapest_threshold(lambda curve, least: 0.99).passed
        False
    """
    cases = [(_CURVE, 0.99, 0.95), (_CURVE, 0.84, 0.8), (_CURVE[::-1], 0.9, 0.9), (_CURVE, 1.0, 0.95)]
    for curve, least, expected in cases:
        actual = solution(list(curve), least)
        hint = ""
        if curve[0][0] > curve[-1][0] and actual == 0.99:
            hint = "The points may come in any order: compare their tokens"
        elif actual == 0.5:
            hint = "Fewest tokens, but only among the points that are right often enough"
        elif actual == 0.99:
            hint = "Several points are right often enough: take the one with the fewest tokens"
        elif least == 1.0 and actual is None:
            hint = "At least means that exactly as much is enough"
        expect(actual, expected, f"cheapest_threshold(curve, {least})", hint=hint)
    if solution([(0.5, 21.0, 0.31)], 0.9) is not None:
        raise Unsolved("no point of the curve is right often enough for 0.9; cheapest_threshold must give None then")


def _close(actual: object, value: float) -> bool:
    return isinstance(actual, int | float) and abs(actual - value) < 1e-6
