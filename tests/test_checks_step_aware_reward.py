"""The checks of notebook 06: right solutions pass, common mistakes fail with a message of their own."""

from __future__ import annotations

from collections.abc import Callable
from math import tanh
from statistics import fmean, pstdev, stdev
from typing import Any

import pytest

from stepgrpo_lab.course.checks import advantages_of_right, mean_steps_of_right, member_reward


def right_mean(correct: Any, steps: Any) -> float | None:
    kept = [k for c, k in zip(correct, steps, strict=True) if c]
    return fmean(kept) if kept else None


def right_reward(correct: bool, steps: int, formatted: bool, mean: Any, alpha: float = 0.9, beta: float = 0.5) -> float:
    return alpha * (1 - beta * tanh((steps - mean) / mean) if correct else 0) + (1 - alpha) * formatted


def right_advantages(steps: list[int]) -> list[float]:
    mean = fmean(steps)
    terms = [tanh((k - mean) / mean) for k in steps]
    return [-(t - fmean(terms)) / stdev(terms) if len(set(terms)) > 1 else 0.0 for t in terms]


@pytest.mark.parametrize(
    ("check", "solution"),
    [(mean_steps_of_right, right_mean), (member_reward, right_reward), (advantages_of_right, right_advantages)],
)
def test_right_solutions_pass(check: Callable[[Any], Any], solution: Any) -> None:
    assert check(solution).passed


def raising(*_: Any, **__: Any) -> Any:
    raise RuntimeError("boom")


def penalising(correct: bool, steps: int, formatted: bool, mean: Any, alpha: float = 0.9, beta: float = 0.5) -> float:
    return alpha * (correct - beta * tanh((steps - mean) / mean)) + (1 - alpha) * formatted


def without_tanh(correct: bool, steps: int, formatted: bool, mean: Any, alpha: float = 0.9, beta: float = 0.5) -> float:
    return alpha * (1 - beta * (steps - mean) / mean if correct else 0) + (1 - alpha) * formatted


def population(steps: list[int]) -> list[float]:
    mean = fmean(steps)
    terms = [tanh((k - mean) / mean) for k in steps]
    return [-(t - fmean(terms)) / pstdev(terms) for t in terms]


@pytest.mark.parametrize(
    ("check", "solution", "message"),
    [
        (mean_steps_of_right, lambda c, k: ..., "gives nothing yet"),
        (mean_steps_of_right, lambda c, k: fmean(k), "that is the mean over all members"),
        (mean_steps_of_right, lambda c, k: sum(x for x, y in zip(k, c, strict=True) if y) / sum(c), "divides by 0"),
        (mean_steps_of_right, lambda c, k: right_mean(c, k) or 0, "nobody is right, so there is no mean"),
        (mean_steps_of_right, raising, "raised RuntimeError: boom"),
        (member_reward, lambda *_: None, "gives nothing yet"),
        (member_reward, penalising, "a wrong answer gets no step term"),
        (member_reward, without_tanh, "goes through tanh first"),
        (member_reward, lambda c, k, f, m, a, b: right_reward(c, k, f, m, a, -b), "mind the sign before beta"),
        (member_reward, lambda c, k, f, m, a, b: right_reward(c, k, True, m, a, b), "multiply 1 - alpha"),
        (
            member_reward,
            lambda c, k, f, m, a, b: a * c * (1 - b * tanh((k - m) / m)) + (1 - a) * f,
            "look at it for right answers alone",
        ),
        (member_reward, lambda c, k, f, m, a, b: right_reward(c, k, f, m), "0.6, 0.2) gives"),
        (member_reward, raising, "raised RuntimeError: boom"),
        (advantages_of_right, lambda steps: None, "gives nothing yet"),
        (advantages_of_right, lambda steps: [-a for a in right_advantages(steps)], "has the wrong sign"),
        (advantages_of_right, population, "use statistics.stdev"),
        (
            advantages_of_right,
            lambda steps: [-(k - fmean(steps)) / stdev(steps) for k in steps],
            "standardise tanh((k - mu) / mu)",
        ),
        (
            advantages_of_right,
            lambda steps: right_advantages(steps) if len(set(steps)) > 1 else [1 / 0],
            "where all are equal, give zeros",
        ),
        (advantages_of_right, raising, "raised RuntimeError: boom"),
    ],
)
def test_mistakes_fail_with_a_message(check: Callable[[Any], Any], solution: Any, message: str) -> None:
    result = check(solution)
    assert not result.passed
    assert message in result.message
