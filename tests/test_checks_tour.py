"""Checks of notebook 00: the right solution, common mistakes and the stub."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from stepgrpo_lab.course import checks


def exit_rule(confidences: list[float], threshold: float) -> int | None:
    return next((place for place, value in enumerate(confidences) if value > threshold), None)


def pooled(before: list[float], after: list[float]) -> float:
    return 100 * sum(after) / sum(before)


def raising(*arguments: Any) -> None:
    raise KeyError("oh")


@pytest.mark.parametrize(("check", "solution"), [(checks.first_confident, exit_rule), (checks.kept_share, pooled)])
def test_right_solutions_are_green(check: Callable[..., checks.CheckResult], solution: Callable[..., Any]) -> None:
    assert check(solution).passed, check(solution).message


@pytest.mark.parametrize(
    ("check", "solution", "message"),
    [
        (checks.first_confident, lambda c, t: ..., "gives nothing yet; write the body (expected 1)"),
        (checks.first_confident, lambda c, t: exit_rule(c, t - 1e-12), "must be greater than the threshold, not equal"),
        (checks.first_confident, lambda c, t: -1 if exit_rule(c, t) is None else exit_rule(c, t), "expected None"),
        (checks.first_confident, lambda c, t: c.index(max(c)), r"first_confident([0.7, 0.8], 0.95) gives 1"),
        (checks.first_confident, lambda c, t: exit_rule(c, 0.95), "first_confident([0.6, 0.7, 0.99], 0.5) gives 2"),
        (checks.first_confident, raising, "your code raised KeyError"),
        (checks.kept_share, lambda b, a: ..., "gives nothing yet"),
        (checks.kept_share, lambda b, a: sum(a) / sum(b), "multiply by 100"),
        (checks.kept_share, lambda b, a: 100 - pooled(b, a), "what is kept is asked for"),
        (
            checks.kept_share,
            lambda b, a: 100 * sum(y / x for x, y in zip(b, a, strict=True)) / len(b),
            "mean of the shares",
        ),
        (checks.kept_share, raising, "your code raised KeyError"),
    ],
)
def test_mistakes_are_red_and_told(
    check: Callable[..., checks.CheckResult], solution: Callable[..., Any], message: str
) -> None:
    result = check(solution)
    assert not result.passed
    assert re.search(re.escape(message), result.message), result.message
