"""Checks of notebook 03, and its figure."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest

from stepgrpo_lab.course import checks
from stepgrpo_lab.evaluation.statistics import calibration
from stepgrpo_lab.viz.completions import reliability_lines

Bins = list[tuple[int, float, float]]
Curve = list[tuple[float, float, float]]


def geometric(probabilities: list[float], skip: int) -> float:
    counted = probabilities[skip:]
    return math.prod(counted) ** (1 / len(counted)) if counted else 0.0


def ece(bins: Bins) -> float:
    return sum(n * abs(stated - right) for n, stated, right in bins) / sum(n for n, *_ in bins)


def cheapest(curve: Curve, least: float) -> float | None:
    enough = [point for point in curve if point[2] >= least]
    return min(enough, key=lambda point: point[1])[0] if enough else None


@pytest.mark.parametrize(
    ("check", "solution"),
    [(checks.geometric_mean, geometric), (checks.calibration_error, ece), (checks.cheapest_threshold, cheapest)],
)
def test_the_right_solution_is_green_and_the_stub_is_red(check: Any, solution: Callable[..., Any]) -> None:
    assert check(solution).passed, check(solution)
    for nothing in (None, ...):
        stub = check(lambda *values, nothing=nothing: nothing)
        assert not stub.passed and "nothing yet" in stub.message
    raising = check(lambda *values: 1 / 0)
    assert not raising.passed and "ZeroDivisionError" in raising.message


@pytest.mark.parametrize(
    ("check", "mistake", "told"),
    [
        (checks.geometric_mean, lambda p, skip: fmean(p[skip:]), "arithmetic mean"),
        (checks.geometric_mean, lambda p, skip: math.prod(p[skip:]), "joint probability"),
        (checks.geometric_mean, lambda p, skip: geometric(p, 0), "Leave the first"),
        (checks.geometric_mean, lambda p, skip: math.prod(p[skip:]) ** (1 / len(p)), "not of all"),
        (checks.geometric_mean, lambda p, skip: geometric(p, skip) if p[skip:] else 1.0, "nothing vouches"),
        (checks.calibration_error, lambda bins: fmean(abs(s - r) for _, s, r in bins), "its number of answers"),
        (checks.calibration_error, lambda b: abs(sum(n * (s - r) for n, s, r in b)) / sum(n for n, *_ in b), "cancel"),
        (checks.calibration_error, lambda bins: ece(bins) * sum(n for n, *_ in bins), "number of all answers"),
        (checks.cheapest_threshold, lambda curve, least: min(curve, key=lambda point: point[1])[0], "only among"),
        (checks.cheapest_threshold, lambda curve, least: max(curve)[0], "take the one with the fewest"),
        (checks.cheapest_threshold, lambda c, least: next((t for t, _, r in c if r >= least), None), "any order"),
        (checks.cheapest_threshold, lambda c, least: cheapest(c, least + 1e-9), "exactly as much"),
        (checks.cheapest_threshold, lambda c, least: cheapest(c, least) or 0.5, "must give None"),
    ],
)
def test_a_common_mistake_is_told(check: Any, mistake: Callable[..., Any], told: str) -> None:
    result = check(mistake)
    assert not result.passed and told in result.message


def test_reliability_lines_show_every_filled_bin() -> None:
    modest = calibration([0.1, 0.9], [True, True])
    figure = reliability_lines({"<b>": modest, "sure": calibration([0.95], [False])}, score="joint probability")
    diagonal, first, second = figure.data
    assert (diagonal.name, second.name) == ("calibrated", "sure (ECE 0.950)")
    assert list(first.x) == [0.1, 0.9] and list(first.y) == [100.0, 100.0] and list(second.y) == [0.0]
    assert "<b>" not in first.name and first.marker.size[0] == first.marker.size[1] < second.marker.size[0]
    with pytest.raises(ValueError, match="calibrations is empty"):
        reliability_lines({})
