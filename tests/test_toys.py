"""The course's toys: the scripted policy, the tiny one, and the rollout that backtracks badly on purpose."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stepgrpo_lab import Decoding, LockstepEngine, SampleKey, rollout_settings
from stepgrpo_lab.course.leaky_rollout import FAULTS, Fault, complete_naively, largest_surprise, measure_fault
from stepgrpo_lab.course.toys import ScriptedPolicy, drive, tiny_policy, toy_token_text
from stepgrpo_lab.engines.cache import LockstepCache
from stepgrpo_lab.method.rollout import TrajectoryMachine

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
    ("samples", "trials", "named"),
    [
        (["2+3=5"], [], "no more samples"),
        (["2+3=5", " ", "Wait", ","], [TRIAL[:2]], "no more trials"),
        (["Wait,"], [], "is 2 tokens"),
    ],
)
def test_a_script_that_does_not_fit_says_so(samples: list[str], trials: list[Any], named: str) -> None:
    machine = TrajectoryMachine(TOY, limit=40, settings=rollout_settings("official", near_budget_margin=0))
    with pytest.raises(ValueError, match=named):
        drive(machine, ScriptedPolicy(TOY, samples, trials))


# ---- the tiny policy, and a leaky rollout of it ----------------------------------------------------------------------

SETTINGS = rollout_settings("official", markers="paper", exit_threshold=1.0, near_budget_margin=0, probe_max_tokens=4)
MODEL, TEXT = tiny_policy()
PROMPTS = [[3 + sample, 5, 6] for sample in range(4)]
KEYS = [SampleKey(0, "course", 0, sample) for sample in range(4)]
LIMIT = 20


def test_the_mask_of_the_exercise_is_the_cache_s() -> None:
    cache = LockstepCache(layers=1, slots=3, reach=64)
    shown = cache.begin_step(torch.tensor([2, 0, 3]), width=4)[:, 0, 0, :4]
    assert shown.tolist() == [[cell <= place for cell in range(4)] for place in (2, 0, 3)]


def test_the_tiny_policy_is_the_same_for_a_seed() -> None:
    state = torch.random.get_rng_state()
    again, other = tiny_policy()[0], tiny_policy(1)[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [next(model.parameters()) for model in (MODEL, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_without_a_fault_the_naive_loop_is_the_engine() -> None:
    engine, _ = LockstepEngine(MODEL, TEXT).generate(PROMPTS, Decoding(LIMIT, SETTINGS), keys=KEYS)
    assert sum(len(record.probes) for record in engine) > 3
    for prompt, key, record in zip(PROMPTS, KEYS, engine, strict=True):
        naive = complete_naively(MODEL, TEXT, prompt, key, limit=LIMIT, settings=SETTINGS)
        assert (naive.completion_ids, naive.cost) == (record.completion_ids, record.cost)
        assert [probe.token_ids for probe in naive.probes] == [probe.token_ids for probe in record.probes]


@pytest.mark.parametrize(
    ("fault", "believes_wrongly"), [("cache", True), ("positions", True), ("random numbers", False)]
)
def test_each_fault_changes_completions(fault: Fault, believes_wrongly: bool) -> None:
    report = measure_fault(MODEL, TEXT, PROMPTS, KEYS, limit=LIMIT, settings=SETTINGS, fault=fault)
    assert report.fault == fault and 0 < report.changed <= report.probed <= len(PROMPTS)
    # Only what the model attends to makes it sample from a distribution that is not its own.
    assert (report.surprise > 0.1) == believes_wrongly


def test_nothing_changes_without_a_fault_or_without_probes() -> None:
    report = measure_fault(MODEL, TEXT, PROMPTS, KEYS, limit=LIMIT, settings=SETTINGS)
    assert report.changed == 0 < report.probed and report.surprise < 1e-4
    plain = [
        complete_naively(MODEL, TEXT, PROMPTS[0], KEYS[0], limit=LIMIT, settings=SETTINGS, probed=False, fault=fault)
        for fault in (None, "cache", "positions")
    ]
    assert plain[0] == plain[1] == plain[2]
    assert largest_surprise(MODEL, plain[0]) < 1e-4


def test_an_unknown_fault_is_named() -> None:
    with pytest.raises(ValueError, match="'mask'"):
        complete_naively(MODEL, TEXT, [3], KEYS[0], limit=4, settings=SETTINGS, fault="mask")  # type: ignore[arg-type]
    assert FAULTS == ("cache", "positions", "random numbers")
