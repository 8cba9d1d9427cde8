"""Checks of notebook 04, and the scripted policy that it drives a machine with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepgrpo_lab.course import checks
from stepgrpo_lab.course.toys import ScriptedPolicy, drive, toy_token_text
from stepgrpo_lab.method.rollout import TrajectoryMachine, rollout_settings

TOY = toy_token_text()
TRIAL = [("{", 0.7), ("5", 0.97), ("}", 0.99), ("\n", 0.98), ("</think>", 0.99)]


def test_a_scripted_rollout_feeds_what_was_written_down() -> None:
    machine = TrajectoryMachine(TOY, limit=40, settings=rollout_settings("official", near_budget_margin=0))
    samples = ["2+3=5", " ", "Wait", ",", "\\boxed", "{", "5", "}", "<eos>"]
    fed = drive(machine, ScriptedPolicy(TOY, samples, [TRIAL]))
    assert [(step.phase, step.place) for step in fed] == [
        *(("THINK", place) for place in range(3)),
        *(("PROBE", place) for place in range(2, 10)),
        *(("CLOSE", place) for place in range(2, 5)),
        *(("ANSWER", place) for place in range(5, 9)),
    ]
    cost = machine.trajectory([0]).cost
    assert (cost.kept_tokens, cost.probe_tokens, cost.replayed_tokens) == (10, 8, 1)
    assert len(fed) == cost.decoded_tokens - 1  # the end of sequence is never fed


@pytest.mark.parametrize(
    ("samples", "trials", "told"),
    [
        (["2+3=5"], [], "no more samples"),
        (["2+3=5", " ", "Wait", ","], [TRIAL[:2]], "no more trials"),
        (["Wait,"], [], "is 2 tokens"),
    ],
)
def test_a_script_that_does_not_fit_says_so(samples: list[str], trials: list[Any], told: str) -> None:
    machine = TrajectoryMachine(TOY, limit=40, settings=rollout_settings("official", near_budget_margin=0))
    with pytest.raises(ValueError, match=told):
        drive(machine, ScriptedPolicy(TOY, samples, trials))


def reason(confidence: float, threshold: float, place: int, think_budget: int, margin: int) -> str | None:
    if confidence > threshold:
        return "early"
    return "near_budget" if think_budget - place <= margin else None


def not_strict(confidence: float, threshold: float, *rest: int) -> str | None:
    return "early" if confidence >= threshold else reason(confidence, threshold, *rest)


def margin_first(confidence: float, threshold: float, place: int, think_budget: int, margin: int) -> str | None:
    if think_budget - place <= margin:
        return "near_budget"
    return "early" if confidence > threshold else None


def strict_margin(confidence: float, threshold: float, place: int, think_budget: int, margin: int) -> str | None:
    return reason(confidence, threshold, place, think_budget, margin - 1)


def cost(kept: int, trials: list[int], prompt: int, replayed: int) -> int:
    return kept + replayed + sum(prompt + trial - 1 for trial in trials)


def engine(machine: TrajectoryMachine, policy: ScriptedPolicy) -> Any:
    drive(machine, policy)
    return machine.trajectory([0])


def engine_without_probabilities(machine: TrajectoryMachine, policy: ScriptedPolicy) -> Any:
    while not machine.done:
        if machine.choice == "sample":
            machine.observe(*policy.sample())
        elif machine.choice == "greedy":
            machine.observe(policy.likeliest()[0], None)
        if not machine.done:
            machine.feed()
    return machine.trajectory([0])


def engine_that_feeds_too_often(machine: TrajectoryMachine, policy: ScriptedPolicy) -> Any:
    while not machine.done:
        machine.observe(*policy.sample())
        machine.feed()
    return machine.trajectory([0])


@pytest.mark.parametrize(
    ("check", "solution"),
    [(checks.exit_reason, reason), (checks.decoded_tokens, cost), (checks.run_engine, engine)],
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
        (checks.exit_reason, not_strict, "greater than the threshold, not equal"),
        (checks.exit_reason, margin_first, "a confident probe is an early exit wherever it stands"),
        (checks.exit_reason, strict_margin, "exactly as far as the margin"),
        (checks.exit_reason, lambda score, threshold, *rest: "early" if score > threshold else None, "margin"),
        (checks.decoded_tokens, lambda kept, trials, prompt, replayed: kept, "cost tokens too"),
        (checks.decoded_tokens, lambda *v: v[0] + v[3] + sum(v[1]) - len(v[1]), "its inducing prompt"),
        (checks.decoded_tokens, lambda *v: cost(*v) + len(v[1]), "chosen but never fed"),
        (checks.decoded_tokens, lambda *v: cost(*v) - v[3], "fed a second time"),
        (checks.decoded_tokens, lambda *v: cost(*v) - v[2] * (len(v[1]) - 1), "not only one"),
        (checks.run_engine, lambda machine, policy: machine, "Return machine.trajectory"),
        (checks.run_engine, engine_without_probabilities, "third argument"),
        (checks.run_engine, engine_that_feeds_too_often, "RuntimeError"),
    ],
)
def test_a_common_mistake_is_told(check: Any, mistake: Callable[..., Any], told: str) -> None:
    result = check(mistake)
    assert not result.passed and told in result.message
