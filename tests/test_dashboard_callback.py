"""The dashboard's callback in a real training: it is fed every step, and its stop button ends training in order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny, tiny_overrides

from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.run import job as run
from stepgrpo_lab.training.callbacks import read_metrics
from stepgrpo_lab.widgets import LiveDashboard


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def trained(model: Path, folder: Path, dashboard: LiveDashboard, **changes: Any) -> run.RunResult:
    recipe = load_recipe("overthinker", tiny_overrides(model, **changes))
    return run.train(recipe, folder, callbacks=[dashboard.callback()])


def test_a_training_feeds_the_dashboard(model: Path, tmp_path: Path) -> None:
    dashboard = LiveDashboard()
    assert trained(model, tmp_path / "run", dashboard).finished
    assert json.loads(json.dumps(dashboard.rows)) == read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert LiveDashboard.of_run(tmp_path / "run").rows == dashboard.rows
    assert (dashboard.max_steps, dashboard.finished, dashboard.stoppable) == (4, True, True)
    assert dashboard.sentence.startswith("Step 4 of 4: ")


def test_the_stop_button_saves_and_the_run_can_go_on(model: Path, tmp_path: Path) -> None:
    dashboard = LiveDashboard()
    dashboard.observe(lambda change: len(change.new) == 3 and dashboard.stop(), names="rows")  # a click, at step 2
    stopped = trained(model, tmp_path / "run", dashboard)
    assert not stopped.finished
    steps = [row["step"] for row in dashboard.rows]
    assert max(steps) < 4
    assert list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))
    dashboard.unobserve_all("rows")
    again = run.train(None, tmp_path / "run", resume=True, callbacks=[dashboard.callback()])
    assert again.finished
    assert [row["step"] for row in dashboard.rows] == [
        row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")
    ]


def test_training_stops_where_it_was_told_to_and_goes_on(model: Path, tmp_path: Path) -> None:
    dashboard = LiveDashboard()
    recipe = load_recipe("overthinker", tiny_overrides(model))
    before = run.measure_untrained(recipe, tmp_path / "run")
    stopped = run.train(None, tmp_path / "run", resume=True, callbacks=[dashboard.callback(stop_after=2)])
    assert not stopped.finished and stopped.before == before
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-2").is_dir()
    assert dashboard.latest("step") == 2
    result = run.train(None, tmp_path / "run", resume=True, callbacks=[dashboard.callback()])
    assert result.finished and dashboard.latest("step") == 4


def test_a_run_of_another_process_cannot_be_stopped_from_here() -> None:
    assert not LiveDashboard(rows=[{"step": 1}]).stoppable
