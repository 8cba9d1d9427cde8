"""Checks of notebook 01: the right solution, common mistakes and the stub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepgrpo_lab.course import checks
from stepgrpo_lab.overthinker.verifier import oracle_tokens


def until_the_first_other(labels: list[str], sizes: list[int], closing: int) -> int:
    kept = 0
    for label, size in zip(labels, sizes, strict=True):
        if label != "needed":
            break
        kept += size
    return kept + closing


def only_needed(labels: list[str], sizes: list[int], closing: int) -> int:
    return sum(size for label, size in zip(labels, sizes, strict=True) if label == "needed") + closing


def saved(before: list[int], after: list[int]) -> float:
    return 1 - sum(after) / sum(before)


def mean_of_shares(before: list[int], after: list[int]) -> float:
    return sum(1 - y / x for x, y in zip(before, after, strict=True)) / len(before)


def cut(trials: list[list[bool]], own: list[bool], steps: int) -> float:
    answers = [told[steps - 1] if steps <= len(told) else end for told, end in zip(trials, own, strict=True)]
    return sum(answers) / len(answers)


def last_trial(trials: list[list[bool]], own: list[bool], steps: int) -> float:
    return sum(told[min(steps, len(told)) - 1] for told in trials) / len(own)


def missing_is_wrong(trials: list[list[bool]], own: list[bool], steps: int) -> float:
    return sum(len(told) >= steps and told[steps - 1] for told in trials) / len(own)


def raising(*arguments: Any) -> None:
    raise KeyError("oh")


@pytest.mark.parametrize(
    ("check", "solution"),
    [(checks.stop_after_needed, oracle_tokens), (checks.pooled_saving, saved), (checks.cut_accuracy, cut)],
)
def test_right_solutions_are_green(check: Callable[..., checks.CheckResult], solution: Callable[..., Any]) -> None:
    assert check(solution).passed, check(solution).message


@pytest.mark.parametrize(
    ("check", "solution", "message"),
    [
        (checks.stop_after_needed, lambda *_: None, "gives nothing yet; write the body (expected 36)"),
        (checks.stop_after_needed, lambda n, s, c: oracle_tokens(n, s, 0), "the close and the answer must still be"),
        (checks.stop_after_needed, until_the_first_other, "gives 23; expected 46. look for the last needed step"),
        (checks.stop_after_needed, only_needed, "a step in between cannot be left out"),
        (checks.stop_after_needed, lambda n, s, c: sum(s) + c, "gives 61; expected 36"),
        (checks.stop_after_needed, raising, "your code raised KeyError"),
        (checks.pooled_saving, lambda *_: None, "gives nothing yet"),
        (checks.pooled_saving, mean_of_shares, "0.317, the mean of the shares; a share of all tokens is asked for"),
        (checks.pooled_saving, lambda b, a: 1 - saved(b, a), "the share that is kept"),
        (checks.pooled_saving, lambda b, a: 100 * saved(b, a), "not per cent"),
        (checks.pooled_saving, raising, "your code raised KeyError"),
        (checks.cut_accuracy, lambda *_: None, "gives nothing yet"),
        (checks.cut_accuracy, lambda t, o, s: cut(t, o, s + 1), "that after the first stands at index 0"),
        (checks.cut_accuracy, lambda t, o, s: sum(told[s - 1] for told in t) / len(o), "raises IndexError"),
        (checks.cut_accuracy, last_trial, "takes the last trial answer of completions that end before"),
        (checks.cut_accuracy, missing_is_wrong, "cut_accuracy(trials_right, own_right, 3) gives 0.5; expected 0.75"),
        (checks.cut_accuracy, lambda t, o, s: sum(o) / len(o), "gives 0.75; expected 0.25"),
        (checks.cut_accuracy, raising, "your code raised KeyError"),
    ],
)
def test_mistakes_are_red_and_told(
    check: Callable[..., checks.CheckResult], solution: Callable[..., Any], message: str
) -> None:
    result = check(solution)
    assert not result.passed
    assert message in result.message, result.message
