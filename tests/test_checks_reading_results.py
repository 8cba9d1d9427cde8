"""Checks of notebook 08: the right solution is green, each likely mistake is red and told where to look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepgrpo_lab.course import checks


def ratio(before: Any, after: Any, drawn: Any) -> float:
    return float(sum(after[place] for place in drawn) / sum(before[place] for place in drawn))


def mean_of_ratios(before: Any, after: Any, drawn: Any) -> float:
    return float(sum(after[place] / before[place] for place in drawn) / len(drawn))


def say(low: float, high: float, margin: float) -> str:
    return "no worse" if low > -margin else "worse" if high < -margin else "undecided"


def split(advantages: Any, forced: Any) -> tuple[float | None, ...]:
    kinds = [[a for a, f in zip(advantages, forced, strict=True) if f is kind] for kind in (True, False)]
    return tuple(sum(kind) / len(kind) if kind else None for kind in kinds)


def split_over_all(advantages: Any, forced: Any) -> tuple[float, ...]:
    kinds = [[a for a, f in zip(advantages, forced, strict=True) if f is kind] for kind in (True, False)]
    return tuple(sum(kind) / len(advantages) for kind in kinds)


def split_without_none(advantages: Any, forced: Any) -> tuple[float, ...]:
    return tuple(mean or 0.0 for mean in split(advantages, forced))


@pytest.mark.parametrize(
    ("check", "solution"), [(checks.drawn_ratio, ratio), (checks.verdict, say), (checks.advantage_by_close, split)]
)
def test_right_solutions_pass(check: Callable[[Any], checks.CheckResult], solution: Any) -> None:
    assert check(solution).passed


@pytest.mark.parametrize(
    ("check", "solution", "message"),
    [
        (checks.drawn_ratio, lambda before, after, drawn: None, "gives nothing yet"),
        (checks.drawn_ratio, mean_of_ratios, "mean of the problems' ratios"),
        (checks.drawn_ratio, lambda before, after, drawn: ratio(after, before, drawn), "before over after"),
        (checks.drawn_ratio, lambda before, after, drawn: sum(after) / sum(before), "use only the drawn problems"),
        (checks.drawn_ratio, lambda before, after, drawn: ratio(before, after, set(drawn)), "must count twice"),
        (checks.drawn_ratio, lambda before, after, drawn: after[9], "your code raised IndexError"),
        (checks.verdict, lambda low, high, margin: None, "gives nothing yet"),
        (checks.verdict, lambda low, high, margin: "no worse" if high >= 0 else "worse", "does not show 'no loss'"),
        (checks.verdict, lambda low, high, margin: say(low, high, 0.0), "even the worst end"),
        (checks.verdict, lambda low, high, margin: say(low, high, 1.0), "with a margin of 0.2 points"),
        (checks.advantage_by_close, lambda advantages, forced: None, "gives nothing yet"),
        (checks.advantage_by_close, lambda a, f: split(a, f)[::-1], "the two are exchanged"),
        (checks.advantage_by_close, split_over_all, "not by the size of the group"),
        (checks.advantage_by_close, split_without_none, "has no mean: return None"),
    ],
)
def test_mistakes_are_told(check: Callable[[Any], checks.CheckResult], solution: Any, message: str) -> None:
    result = check(solution)
    assert not result.passed and message in result.message
