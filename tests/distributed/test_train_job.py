"""``stepgrpo train`` under a launcher: one run folder, one voice, and every process a share of the work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distributed.jobs import TEST_PROBLEMS, Job, train_job
from distributed.launching import needs_gloo, run_together
from stepgrpo_lab.training.metrics import read_metrics

pytestmark = needs_gloo()

SAME = {"accuracy", "tokens", "reward", "grad_norm", "validation/accuracy", "validation/rollout_tokens"}
"""Metrics that cannot depend on the number of processes."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def alone(folders: tuple[Path, Path]) -> Job:
    [job] = run_together(train_job, str(folders[0]), count=1)
    return job


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> list[Job]:
    return run_together(train_job, str(folders[1]))


def evaluation(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / "run-0" / name).read_text())


def test_one_process_names_the_folder_writes_and_speaks(pair: list[Job], folders: tuple[Path, Path]) -> None:
    assert [path.name for path in folders[1].iterdir()] == ["run-0"]
    main, other = pair
    assert "report:" in main.said and other.said == ""
    assert "metrics.jsonl" in main.wrote and other.wrote == []


def test_each_process_decodes_its_share(alone: Job, pair: list[Job]) -> None:
    # Before training, three kinds of validation, two rollouts, three kinds again, after training.
    assert alone.decoded == [TEST_PROBLEMS, 3, 3, 3, 12, 12, 3, 3, 3, TEST_PROBLEMS]
    assert pair[0].decoded == [4, 2, 2, 2, 6, 6, 2, 2, 2, 4]
    assert pair[1].decoded == [3, 1, 1, 1, 6, 6, 1, 1, 1, 3]


@pytest.mark.usefixtures("alone", "pair")
def test_the_run_is_that_of_one_process(folders: tuple[Path, Path]) -> None:
    single, double = folders
    for name in ("evaluation_before.json", "evaluation_after.json"):
        ours, whole = evaluation(double, name), evaluation(single, name)
        assert ours["outcomes"] == whole["outcomes"] and ours["texts"] == whole["texts"]
        assert ours["cost"]["kept_tokens"] == whole["cost"]["kept_tokens"] > 0
    rows = [read_metrics(folder / "run-0" / "metrics.jsonl") for folder in folders]
    assert len(rows[0]) == len(rows[1]) == 3
    for whole, ours in zip(*rows, strict=True):
        assert ours.keys() == whole.keys()
        for name in SAME & ours.keys():
            assert ours[name] == pytest.approx(whole[name], rel=1e-3), name


def test_a_finished_run_is_not_done_again(pair: list[Job], folders: tuple[Path, Path]) -> None:
    again = run_together(train_job, str(folders[1]), True)
    assert [job.decoded for job in again] == [[], []]
    assert again[0].said.splitlines()[-3:] == pair[0].said.splitlines()[-3:]
    assert again[1].wrote == []
