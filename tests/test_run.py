"""The train job from recipe to run folder: what it writes, how it stops, how it goes on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import save_tiny, tiny_overrides

from stepgrpo_lab.engines.files import write_atomically
from stepgrpo_lab.evaluation.problems import write_problems
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.recipes import _building as building
from stepgrpo_lab.run import job as run
from stepgrpo_lab.training.metrics import read_metrics


@pytest.fixture(autouse=True)
def random_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model is never right: reward its groups by position, or no weight would move."""

    def by_position(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
        return [float(position) for position in range(len(correct))]

    monkeypatch.setattr(building, "recipe_reward", lambda reward: by_position)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def tiny_recipe(model: Path, **changes: Any) -> Recipe:
    return load_recipe("overthinker", tiny_overrides(model, **changes))


def test_an_interrupted_run_ends_like_an_undisturbed_one(model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(model)
    straight = run.train(recipe, tmp_path / "straight")
    assert straight.finished and straight.after is not None

    def press_after_two_steps(line: str) -> None:
        if line.startswith("step 2/"):
            signal.raise_signal(signal.SIGINT)

    folder = tmp_path / "stopped"
    stopped = run.train(recipe, folder, progress=press_after_two_steps)
    assert not stopped.finished and stopped.after is None
    # Ctrl-C is heard while step 2 is logged, so one more step is done.
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == [0, 1, 2, 3]
    measured = (folder / "evaluation_before.json").stat().st_mtime_ns
    seconds = json.loads((folder / "environment.json").read_text())["seconds"]

    resumed = run.train(None, folder, resume=True)
    assert resumed.finished
    assert (folder / "evaluation_before.json").stat().st_mtime_ns == measured
    assert json.loads((folder / "environment.json").read_text())["seconds"]["rollout"] > seconds["rollout"]
    ours, theirs = (load_file(path / "model" / "model.safetensors") for path in (folder, tmp_path / "straight"))
    start = load_file(model / "model.safetensors")
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert any((theirs[name] != start[name]).any() for name in theirs)
    for name in ("evaluation_before.json", "evaluation_after.json", "completions.jsonl"):
        assert (folder / name).read_text() == (tmp_path / "straight" / name).read_text()
    timings = ("seconds/", "step_time", "epoch")
    curves = [
        [
            {key: value for key, value in row.items() if not key.startswith(timings)}
            for row in read_metrics(path / "metrics.jsonl")
        ]
        for path in (folder, tmp_path / "straight")
    ]
    assert curves[0] == curves[1]
    assert [row["step"] for row in curves[0]] == [0, 1, 2, 3, 4]
    assert ["validation/tokens" in row for row in curves[0]] == [True, False, True, False, True]


def test_a_run_folder_tells_the_run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    lines: list[str] = []
    made: list[Any] = []
    config = building.recipe_config
    monkeypatch.setattr(building, "recipe_config", lambda *given: made.append(given) or config(*given))
    result = run.train(tiny_recipe(model, **{"optimisation.max_steps": 1}), folder, progress=lines.append)
    assert len(made) == 1
    assert {path.name for path in folder.iterdir()} == {
        "recipe.yaml",
        "metrics.jsonl",
        "evaluation_before.json",
        "evaluation_after.json",
        "completions.jsonl",
        "checkpoints",
        "model",
        "environment.json",
        "report.html",
    }
    assert load_recipe(folder / "recipe.yaml").model.path == str(model)
    rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert set(rows[0]) == {"problem", "gold", "before", "after"}
    environment = json.loads((folder / "environment.json").read_text())
    assert {"rollout", "grading", "update", "validation", "evaluation_before", "evaluation_after"} <= set(
        environment["seconds"]
    )
    assert environment["device"] == "cpu" and "torch" in environment["versions"]
    assert not list(folder.rglob("*.part")) and not list((folder / "model").glob("*.bin"))
    assert any(line.startswith("step 1/1 | ") for line in lines)
    assert len(result.before.problem_ids) == 6
    # A finished run is not trained again, only reported again.
    (folder / "evaluation_after.json").unlink()
    again = run.train(None, folder, resume=True)
    assert again.after == result.after


def test_an_adapter_run_keeps_only_the_adapter(model: Path, tmp_path: Path) -> None:
    run.train(tiny_recipe(model, **{"optimisation.max_steps": 1, "model.lora.r": 4}), tmp_path / "run")
    written = {path.name for path in (tmp_path / "run" / "model").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= written
    assert "model.safetensors" not in written


def test_folders_in_use_and_runs_that_are_none(model: Path, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty: give another --output"):
        run.train(tiny_recipe(model), tmp_path / "used")
    with pytest.raises(ValueError, match="holds no run to resume"):
        run.train(None, tmp_path / "used", resume=True)
    with pytest.raises(ValueError, match="no recipe given"):
        run.train(None, tmp_path / "new")


def test_golds_that_cannot_be_graded_stop_the_run_first(model: Path, tmp_path: Path) -> None:
    write_problems(tmp_path / "bad.jsonl", [Problem("fine", "1+1?", "2"), Problem("odd", "?", "\\frac{")])
    recipe = tiny_recipe(model, **{"data.test": tmp_path / "bad.jsonl"})
    with pytest.raises(ValueError, match=r"bad\.jsonl.*'odd'"):
        run.train(recipe, tmp_path / "run")


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def full_disk(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"


def test_the_untrained_model_is_measured_once(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    before = run.measure_untrained(tiny_recipe(model), folder)
    assert before.problem_ids and not (folder / "metrics.jsonl").exists()
    assert json.loads((folder / "environment.json").read_text())["seconds"]["evaluation_before"] > 0
    written = (folder / "evaluation_before.json").stat().st_mtime_ns
    assert run.train(None, folder, resume=True).before == before
    assert (folder / "evaluation_before.json").stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="is not empty"):
        run.measure_untrained(tiny_recipe(model), folder)
