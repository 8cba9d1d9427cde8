"""The checks of notebook 07: right solutions pass, common mistakes fail with a message of their own."""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from statistics import fmean, pstdev, stdev
from typing import Any

import pytest

from stepgrpo_lab.course.checks import clipped_surrogate, group_relative_advantages, k3_estimate, loss_type_weights


def right_advantages(rewards: list[float], eps: float = 1e-4) -> list[float]:
    if len(set(rewards)) == 1:
        return [0.0] * len(rewards)
    return [(reward - fmean(rewards)) / (stdev(rewards) + eps) for reward in rewards]


def clip(value: float, low: float, high: float) -> float:
    return min(max(value, 1 - low), 1 + high)


def right_surrogate(now: float, old: float, advantage: float, low: float = 0.2, high: float = 0.28) -> float:
    return min(exp(now - old) * advantage, clip(exp(now - old), low, high) * advantage)


def right_k3(now: float, reference: float) -> float:
    return exp(reference - now) - (reference - now) - 1


def right_weights(lengths: list[int], loss_type: str, longest: int = 256) -> list[float]:
    divisors = {
        "grpo": [len(lengths) * length for length in lengths],
        "dapo": [sum(lengths)] * len(lengths),
        "dr_grpo": [len(lengths) * longest] * len(lengths),
    }
    return [1 / divisor for divisor in divisors[loss_type]]


@pytest.mark.parametrize(
    ("check", "solution"),
    [
        (group_relative_advantages, right_advantages),
        (clipped_surrogate, right_surrogate),
        (k3_estimate, right_k3),
        (loss_type_weights, right_weights),
    ],
)
def test_right_solutions_pass(check: Callable[[Any], Any], solution: Any) -> None:
    assert check(solution).passed


CHECKS = [group_relative_advantages, clipped_surrogate, k3_estimate, loss_type_weights]


@pytest.mark.parametrize("check", CHECKS)
def test_stubs_and_raising_code_are_red(check: Callable[[Any], Any]) -> None:
    def raising(*_: Any, **__: Any) -> Any:
        raise RuntimeError("boom")

    assert "gives nothing yet" in check(lambda *_, **__: ...).message
    result = check(raising)
    assert not result.passed and "raised RuntimeError: boom" in result.message


@pytest.mark.parametrize(
    ("check", "solution", "message"),
    [
        (group_relative_advantages, lambda r, eps=0: [x - fmean(r) for x in r], "is not divided yet"),
        (
            group_relative_advantages,
            lambda r, eps=1e-4: [(x - fmean(r)) / (pstdev(r) + eps) for x in r],
            "use statistics.stdev, not pstdev",
        ),
        (
            group_relative_advantages,
            lambda r, eps=1e-4: [(x - fmean(r)) / (stdev(r) + eps) for x in r],
            "where all are equal, give zeros",
        ),
        (group_relative_advantages, lambda r, eps=1e-4: right_advantages(r), "eps is added to the deviation"),
        (clipped_surrogate, lambda n, o, a, lo, hi: exp(n - o) * a, "nothing is clipped"),
        (
            clipped_surrogate,
            lambda n, o, a, lo, hi: clip(exp(n - o), lo, hi) * a,
            "this one holds back what has gone astray",
        ),
        (
            clipped_surrogate,
            lambda n, o, a, lo, hi: min(exp(n - o), clip(exp(n - o), lo, hi)) * a,
            "not the smaller ratio",
        ),
        (clipped_surrogate, lambda n, o, a, lo, hi: right_surrogate(n, o, a, lo, lo), "1 - low and 1 + high"),
        (clipped_surrogate, lambda n, o, a, lo, hi: -right_surrogate(n, o, a), "that is the loss"),
        (
            clipped_surrogate,
            lambda n, o, a, lo, hi: max(exp(n - o) * a, clip(exp(n - o), lo, hi) * a),
            "this one holds back what has gone astray",
        ),
        (k3_estimate, lambda n, ref: n - ref, "that is k1"),
        (k3_estimate, lambda n, ref: right_k3(ref, n), "the gap is reference minus policy"),
        (k3_estimate, lambda n, ref: exp(ref - n) - (ref - n), "expected 0.1487"),
        (loss_type_weights, lambda lengths, kind, longest: [1 / n for n in lengths], "forgets the mean over"),
        (
            loss_type_weights,
            lambda lengths, kind, longest: right_weights(lengths, "grpo" if kind == "grpo" else "dapo"),
            "times the longest length allowed",
        ),
        (
            loss_type_weights,
            lambda lengths, kind, longest: right_weights(lengths, "grpo", longest),
            "tokens of all completions",
        ),
    ],
)
def test_mistakes_fail_with_a_message(check: Callable[[Any], Any], solution: Any, message: str) -> None:
    result = check(solution)
    assert not result.passed
    assert message in result.message
