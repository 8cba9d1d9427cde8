"""Checks of notebook 03: confidence and calibration of the probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks._result import Unsolved, exercise, expect
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
        joint = confidence(counted, "joint")
        mistakes = {
            "that is the arithmetic mean: multiply, and take the root": confidence(counted, "arithmetic"),
            "that is the joint probability: take its root, over the number of counted tokens": joint,
            "leave the first skip_first tokens out": confidence(probabilities),
            "take the root over the tokens that count, not of all": joint ** (1 / len(probabilities)),
        }
        expect(
            solution(list(probabilities), skip),
            confidence(probabilities, skip_first=skip),
            f"geometric_mean({probabilities}, {skip})",
            hint="" if counted else "No token is left, so nothing vouches for the answer: the score is 0.0",
            mistakes=mistakes,
        )


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
        mistakes = {
            "every bin counts by its number of answers": sum(gaps) / len(gaps),
            "too sure in one bin and too modest in another do not cancel: take each gap's size": (
                abs(sum(answers * (stated - right) for answers, stated, right in bins)) / count
            ),
            "divide by the number of all answers": expected * count,
        }
        expect(solution(list(bins)), expected, f"calibration_error({bins})", mistakes=mistakes)


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
        shuffled = curve is not _CURVE
        mistakes = {
            "fewest tokens, but only among the points that are right often enough": 0.5,
            "the points may come in any order: compare their tokens"
            if shuffled
            else "several points are right often enough: take the one with the fewest tokens": 0.99,
        }
        hint = "At least means that exactly as much is enough" if least == 1.0 else ""
        what = f"cheapest_threshold(curve, {least})"
        expect(solution(list(curve), least), expected, what, hint=hint, mistakes=mistakes)
    if solution([(0.5, 21.0, 0.31)], 0.9) is not None:
        raise Unsolved("no point of the curve is right often enough for 0.9; cheapest_threshold must give None then")
