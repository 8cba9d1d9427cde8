"""Two processes with a copy of the model each train as one process does, with a group cut between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed.launching import needs_gloo, run_together
from distributed.trainings import GROUP_SIZE, PROMPTS, Seen, interrupted_training, train

pytestmark = needs_gloo()

SAVING = {"save_strategy": "steps", "save_steps": 1, "shuffle_dataset": True}


def partial_train(folder: str, options: dict[str, Any]) -> Seen:
    return train(folder, **options)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    [seen] = run_together(partial_train, str(tmp_path_factory.mktemp("alone")), {"settings": SAVING}, count=1)
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def pair(folder: Path) -> list[Seen]:
    return run_together(partial_train, str(folder), {"settings": SAVING})


def distance(first: Seen, second: Seen) -> float:
    """Norm of the difference of all weights."""
    assert first.weights.keys() == second.weights.keys()
    return sum(float(np.square(value - second.weights[name]).sum()) for name, value in first.weights.items()) ** 0.5


def test_each_process_holds_half_of_the_rows_and_one_group_is_cut(pair: list[Seen]) -> None:
    rows = GROUP_SIZE * PROMPTS // 2
    assert rows % GROUP_SIZE
    assert all([len(rollout) for rollout in seen.completions] == [rows] * 3 for seen in pair)


def test_completions_are_those_of_one_process(alone: Seen, pair: list[Seen]) -> None:
    together = [first + second for first, second in zip(*(seen.completions for seen in pair), strict=True)]
    assert together == alone.completions


def test_every_process_sees_the_same_whole_groups(alone: Seen, pair: list[Seen]) -> None:
    # Correctness and steps of whole groups decide mu, so the same arguments mean the same mean.
    assert len(alone.groups) == 3 * PROMPTS
    assert pair[0].groups == pair[1].groups == alone.groups
    assert pair[0].rewards == pair[1].rewards == pytest.approx(alone.rewards)
    mixed = [set(correct) == {True, False} for correct, *_ in alone.groups]
    spread = [
        len({steps for steps, right in zip(group[1], group[0], strict=True) if right}) > 1 for group in alone.groups
    ]
    assert any(mixed) and any(spread)  # else rewards could not tell a wrong mean from the right one


def test_advantages_are_those_of_one_process(alone: Seen, pair: list[Seen]) -> None:
    for step, whole in enumerate(alone.advantages):
        assert pair[0].advantages[step] + pair[1].advantages[step] == pytest.approx(whole, abs=1e-5)
    assert any(abs(value) > 0.1 for row in alone.advantages for value in row)


def test_weights_are_those_of_one_process(alone: Seen, pair: list[Seen]) -> None:
    assert distance(pair[0], pair[1]) == 0
    assert alone.moved > 0.1
    assert distance(alone, pair[0]) < 1e-3 * alone.moved  # sums in another order, which Adam makes larger


def test_metrics_are_of_all_processes(alone: Seen, pair: list[Seen]) -> None:
    for ours, whole in zip(pair[0].logged, alone.logged, strict=True):
        for name in ("accuracy", "tokens", "steps/all", "cost/decoded_tokens", "exits/early", "reward"):
            assert ours.get(name) == pytest.approx(whole.get(name)), name
    slowest = [max(passes) for passes in zip(*(seen.passes for seen in pair), strict=True)]
    assert [row["cost/forward_passes"] for row in pair[0].logged if "accuracy" in row] == slowest


def test_a_resumed_pair_ends_with_the_same_weights(pair: list[Seen], folder: Path) -> None:
    options = {"settings": SAVING, "resume": str(folder / "checkpoint-2")}
    resumed = run_together(partial_train, str(folder), options)
    assert [len(seen.completions) for seen in resumed] == [1, 1]
    assert [distance(seen, whole) for seen, whole in zip(resumed, pair, strict=True)] == [0, 0]


def test_processes_of_unequal_lengths_do_not_wait_for_ever(tmp_path: Path) -> None:
    short, long = run_together(partial_train, str(tmp_path), {"limits": (4, 240), "settings": {"max_steps": 2}})
    assert [seen.steps for seen in (short, long)] == [2, 2]
    assert all(10 * few < many for few, many in zip(short.passes, long.passes, strict=True))
    assert distance(short, long) == 0


def test_a_process_without_anything_to_learn_makes_as_many_passes(tmp_path: Path) -> None:
    """Its group's advantages are all 0, and rows of advantage 0 are left out of the passes."""
    rows = {"per_device_train_batch_size": 2, "max_completion_length": 48, "max_steps": 2}
    settings = {**rows, "gradient_accumulation_steps": 2}
    first, second = run_together(partial_train, str(tmp_path / "pair"), {"silent": True, "settings": settings})
    assert all(any(row) for row in first.advantages) and not any(any(row) for row in second.advantages)
    assert distance(first, second) == 0
    settings = {**rows, "gradient_accumulation_steps": 4}
    [alone] = run_together(partial_train, str(tmp_path / "alone"), {"silent": True, "settings": settings}, count=1)
    assert distance(alone, first) < 1e-3 * alone.moved


def test_ctrl_c_of_one_process_stops_all_in_the_same_step(tmp_path: Path) -> None:
    assert run_together(interrupted_training, str(tmp_path)) == [(True, 1), (True, 1)]
    assert (tmp_path / "checkpoint-1" / "trainer_state.json").exists()
