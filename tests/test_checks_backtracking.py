"""Checks of notebook 05, and the rollout that backtracks badly on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from stepgrpo_lab import LockstepEngine, SampleKey, rollout_settings
from stepgrpo_lab.course import checks
from stepgrpo_lab.course.leaky_rollout import FAULTS, Fault, complete_naively, largest_surprise, measure_fault
from stepgrpo_lab.course.toys import tiny_policy
from stepgrpo_lab.engines.cache import LockstepCache

SETTINGS = rollout_settings("official", markers="paper", exit_threshold=1.0, near_budget_margin=0, probe_max_tokens=4)
MODEL, TEXT = tiny_policy()
PROMPTS = [[3 + sample, 5, 6] for sample in range(4)]
KEYS = [SampleKey(0, "course", 0, sample) for sample in range(4)]
LIMIT = 20


def places(base: int, prompt: int, trial: int) -> list[int]:
    return [*range(base, base + prompt + trial - 1), base]


def mask(rows: list[int], width: int) -> list[list[bool]]:
    return [[cell <= place for cell in range(width)] for place in rows]


def choose(number: float, probabilities: list[float]) -> int:
    total = 0.0
    for token, probability in enumerate(probabilities):
        total += probability
        if total > number:
            return token
    return len(probabilities) - 1


def choose_impossible(number: float, probabilities: list[float]) -> int:
    return next(token for token in range(4) if sum(probabilities[: token + 1]) >= number)


@pytest.mark.parametrize(
    ("check", "solution"), [(checks.places_of_probe, places), (checks.visible, mask), (checks.draw, choose)]
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
        (checks.places_of_probe, lambda base, prompt, trial: places(base, prompt, trial + 1), "never fed"),
        (checks.places_of_probe, lambda base, prompt, trial: [*range(base, base + prompt + trial)], "goes back"),
        (checks.places_of_probe, lambda base, prompt, trial: places(base, prompt, trial)[:-1], "fed again"),
        (checks.places_of_probe, lambda base, prompt, trial: places(base + 1, prompt, trial), "marker's own place"),
        (checks.visible, lambda rows, width: [[c < p for c in range(width)] for p in rows], "itself"),
        (checks.visible, lambda rows, width: [[True] * width for _ in rows], "earlier probe"),
        (checks.visible, lambda rows, width: mask([max(rows)] * len(rows), width), "row's own place"),
        (checks.visible, lambda rows, width: [[c > p for c in range(width)] for p in rows], "True means visible"),
        (checks.draw, lambda number, odds: odds.index(max(odds)), "likeliest"),
        (checks.draw, choose_impossible, "up to, but not including"),
        (checks.draw, lambda number, odds: choose(number, odds) if number else 0, "impossible"),
    ],
)
def test_a_common_mistake_is_told(check: Any, mistake: Callable[..., Any], told: str) -> None:
    result = check(mistake)
    assert not result.passed and told in result.message


def test_the_mask_of_the_exercise_is_the_cache_s() -> None:
    cache = LockstepCache(layers=1, slots=3, reach=64)
    shown = cache.begin_step(torch.tensor([2, 0, 3]), width=4)[:, 0, 0, :4]
    assert shown.tolist() == mask([2, 0, 3], 4)


def test_the_tiny_policy_is_the_same_for_a_seed() -> None:
    state = torch.random.get_rng_state()
    again, other = tiny_policy()[0], tiny_policy(1)[0]
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [next(model.parameters()) for model in (MODEL, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_without_a_fault_the_naive_loop_is_the_engine() -> None:
    told, _ = LockstepEngine(MODEL, TEXT).generate(PROMPTS, limit=LIMIT, keys=KEYS, settings=SETTINGS)
    assert sum(len(record.probes) for record in told) > 3
    for prompt, key, record in zip(PROMPTS, KEYS, told, strict=True):
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
    with pytest.raises(ValueError, match="fault is 'mask': choose one of cache, positions, random numbers"):
        complete_naively(MODEL, TEXT, [3], KEYS[0], limit=4, settings=SETTINGS, fault="mask")  # type: ignore[arg-type]
    assert FAULTS == ("cache", "positions", "random numbers")
