"""Checks of notebook 10: the right solution is green, each likely mistake is red and told where to look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepgrpo_lab.course import checks


def reward(correct: list[bool], steps: list[int], formatted: list[bool], tokens: list[int]) -> list[float]:
    shortest = min((count for count, right in zip(tokens, correct, strict=True) if right), default=None)
    return [
        0.0 if not right else 1.0 if count == shortest else 0.5 for count, right in zip(tokens, correct, strict=True)
    ]


def reward_shortest_of_all(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    return [
        0.0 if not right else 1.0 if count == min(tokens) else 0.5 for count, right in zip(tokens, correct, strict=True)
    ]


def reward_wrong_too(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    return [1.0 if count == min(tokens) else 0.5 * right for count, right in zip(tokens, correct, strict=True)]


def reward_without_default(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    shortest = min(count for count, right in zip(tokens, correct, strict=True) if right)
    return [
        0.0 if not right else 1.0 if count == shortest else 0.5 for count, right in zip(tokens, correct, strict=True)
    ]


def reward_one_winner(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    rewards = [0.5 * right for right in correct]
    right = [place for place, is_right in enumerate(correct) if is_right]
    if right:
        rewards[min(right, key=lambda place: tokens[place])] = 1.0
    return rewards


def test_a_reward_of_ones_own() -> None:
    result = checks.shortest_right_reward(reward)
    assert result.passed and result.exercise == "10.1"


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        (lambda correct, steps, formatted, tokens: None, "gives nothing yet"),
        (reward_shortest_of_all, "look for the shortest among the right"),
        (reward_wrong_too, "short guesses would be learnt first"),
        (reward_without_default, "your code raised ValueError"),
        (reward_one_winner, "two right members of the same length"),
    ],
)
def test_wrong_rewards_are_told(solution: Callable[..., Any], message: str) -> None:
    result = checks.shortest_right_reward(solution)
    assert not result.passed and message in result.message


def validated(rows: Any) -> list[dict[str, float]]:
    return [row for row in rows if "validation/tokens" in row]


def first_step(rows: Any, share: float) -> int | None:
    known = validated(rows)
    start = known[0]["validation/tokens"]
    return next((int(row["step"]) for row in known if row["validation/tokens"] < share * start), None)


def first_step_of_rollouts(rows: Any, share: float) -> int | None:
    start = rows[0]["validation/tokens"]
    return next((row["step"] for row in rows if row.get("tokens", start) < share * start), None)


def first_place(rows: Any, share: float) -> int | None:
    lengths = [row["validation/tokens"] for row in validated(rows)]
    return next((place for place, length in enumerate(lengths) if length < share * lengths[0]), None)


def test_reading_the_curve() -> None:
    assert checks.first_step_below(first_step).passed


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        (lambda rows, share: None, "gives nothing yet"),
        (first_step_of_rollouts, "which the probes cut"),
        (first_place, 'return the row\'s "step"'),
        (lambda rows, share: first_step(rows, share) or 0, "which is never reached"),
        (lambda rows, share: rows[1]["validation/tokens"], "your code raised KeyError"),
    ],
)
def test_wrong_readings_are_told(solution: Callable[..., Any], message: str) -> None:
    result = checks.first_step_below(solution)
    assert not result.passed and message in result.message


def choose(rows: Any, most_lost: float) -> int:
    known = validated(rows)
    least = known[0]["validation/accuracy"] - most_lost
    kept = [row for row in known if row["validation/accuracy"] >= least]
    return int(min(kept, key=lambda row: row["validation/tokens"])["step"])


def test_choosing_a_checkpoint() -> None:
    assert checks.choose_checkpoint(choose).passed


@pytest.mark.parametrize(
    ("solution", "message"),
    [
        (lambda rows, most_lost: None, "gives nothing yet"),
        (lambda rows, most_lost: choose(rows, 1.0), "which lost 9 points"),
        (lambda rows, most_lost: max(validated(rows), key=lambda row: row["validation/accuracy"])["step"], "shortest"),
        (lambda rows, most_lost: 1, "was not validated"),
        (lambda rows, most_lost: choose(list(reversed(rows)), most_lost), "with nothing to lose"),
        (lambda rows, most_lost: 40, "with at most 0.5 lost"),
    ],
)
def test_wrong_choices_are_told(solution: Callable[..., Any], message: str) -> None:
    result = checks.choose_checkpoint(solution)
    assert not result.passed and message in result.message
