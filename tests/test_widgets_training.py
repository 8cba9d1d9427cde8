"""The live dashboard and the trade-off explorer, without a browser."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.widgets import LiveDashboard, TradeoffExplorer, dashboard

ROWS = [
    {"step": 0, "validation/accuracy": 0.9, "validation/tokens": 100.0},
    {"step": 1, "accuracy": 0.5, "tokens": 80.0, "steps/all": 4.0, "exits/early": 0.25, "probe/confidence": 0.75},
    {"step": 2, "accuracy": 0.625, "tokens": 60.0, "steps/all": 3.0, "exits/early": 0.5, "probe/confidence": 0.875},
]


def drawn(widget: LiveDashboard) -> dict[str, list[float]]:
    return {trace.name: list(trace.y) for figure in widget.figures() for trace in figure.data}


def wait_until(holds: Callable[[], bool]) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("waited too long")


def test_the_dashboard_follows_its_rows() -> None:
    live = LiveDashboard()
    assert live.sentence == "Waiting for the first step."
    assert drawn(live) == {}
    for row in ROWS:
        live.add(row)
    assert live.sentence == (
        "Step 2: 62.5 % right, 60.0 tokens, 3.0 steps, 50 % early exits, 0.88 mean confidence, "
        "90.0 % right in validation."
    )
    assert drawn(live)["confident probe"] == [25.0, 50.0]
    assert "<td>62.5</td>" in live.body()
    live.max_steps, live.finished = 50, True
    assert live.sentence.startswith("Step 2 of 50: ")
    assert live.sentence.endswith(" Finished.")


def test_a_panel_that_appears_late_is_drawn() -> None:
    live = LiveDashboard()
    pane = live.view.panes[0]
    assert len(pane.live.data) == 0
    for row in ROWS:
        live.add(row)
    assert {trace.name for trace in pane.live.data} >= {"validation", "training rollouts", "confidence"}


def test_the_recorded_run_is_shown() -> None:
    live = LiveDashboard.of_run(data_path("results", "overthinker"))
    assert len(live.rows) > 10
    assert live.sentence.startswith("Step ")


def test_a_run_folder_is_followed_while_it_grows(tmp_path: Path) -> None:
    live = LiveDashboard()
    live.follow(tmp_path, every=0.02)
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n")
    wait_until(lambda: len(live.rows) == 1)
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + '{"step": 3, "accu')
    wait_until(lambda: len(live.rows) == 3)  # the half line waits
    live.unfollow()
    time.sleep(0.1)
    path.write_text("")
    time.sleep(0.1)
    assert len(live.rows) == 3


@pytest.mark.parametrize(
    ("versions", "elsewhere", "delivered"),
    [
        ({"ipykernel": (7, 0), "jupyterlab": (4, 4)}, False, True),
        ({"ipykernel": (6, 30), "jupyterlab": (4, 6)}, False, False),
        ({"ipykernel": (7, 1), "jupyterlab": (4, 3)}, False, False),
        ({"ipykernel": (7, 1), "jupyterlab": (0,)}, False, False),
        ({"ipykernel": (7, 1), "jupyterlab": (4, 6)}, True, False),
    ],
)
def test_the_stop_button_is_there_where_a_click_is_heard(
    versions: dict[str, Any], elsewhere: bool, delivered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in dashboard.os.environ if name.startswith("VSCODE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(dashboard, "_installed", versions.__getitem__)
    if elsewhere:
        monkeypatch.setitem(sys.modules, "google.colab", None)
    assert dashboard.stop_is_delivered() is delivered
    live = LiveDashboard()
    [row] = live.controls()
    words = [getattr(part, "description", "") for part in row.children]
    assert ("Stop training" in words) is delivered
    assert "interrupt the kernel" in row.children[-1].value
    assert row.layout.display == "none"  # nothing trains yet
    live.stoppable = True
    assert row.layout.display == "flex"
    if delivered:
        row.children[0].click()
        assert live.stop_requested
    live.finished = True
    assert row.layout.display == "none"


def test_versions_are_read() -> None:
    assert dashboard._installed("traitlets") >= (5,)
    assert dashboard._installed("no-such-package") == (0,)


def evaluation(correct: list[bool], tokens: list[int], families: list[str]) -> Evaluation:
    return Evaluation(
        problem_ids=[str(index) for index in range(len(correct))],
        families=families,
        levels=[None] * len(correct),
        outcomes=[[Outcome(c, True, 1, t)] for c, t in zip(correct, tokens, strict=True)],
    )


FAMILIES = ["easy", "easy", "hard", "hard"]
RUNS = {
    "before": evaluation([True, True, True, False], [100, 100, 200, 200], FAMILIES),
    "<after>": evaluation([True, True, False, False], [50, 50, 100, 100], FAMILIES),
}


def test_the_trade_off_of_two_runs() -> None:
    explorer = TradeoffExplorer(RUNS)
    before, after = explorer.figures()[0].data
    assert (before.x[0], before.y[0]) == (150, 75)
    assert (after.x[0], after.y[0], after.text[0]) == (75, 50, "&lt;after&gt;")
    assert explorer.table_rows[0][-2:] == ["baseline", ""]
    assert explorer.table_rows[1][-2] == "50.0 [50.0, 50.0] %"
    assert "<after>" not in explorer.static_html()


def test_a_family_and_the_changes_against_a_baseline() -> None:
    explorer = TradeoffExplorer(RUNS, relative=True, family="hard", baseline="<after>")
    run, star = explorer.figures()[0].data
    assert (run.name, run.x[0], run.y[0]) == ("before", 200.0, 50.0)
    assert star.name == "&lt;after&gt;"
    explorer.relative = False
    assert [trace.y[0] for trace in explorer.figures()[0].data] == [50, 0]


def test_the_recorded_runs_are_the_default() -> None:
    explorer = TradeoffExplorer()
    assert len(explorer.names) == 2
    assert explorer.names[0].endswith("before")


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no evaluations"):
        TradeoffExplorer({})
    with pytest.raises(ValueError, match="family is 'none'; use one of all families, easy, hard"):
        TradeoffExplorer(RUNS, family="none")
    with pytest.raises(ValueError, match="baseline is 'x'"):
        TradeoffExplorer(RUNS, baseline="x")
    other = evaluation([True], [10], ["easy"])
    with pytest.raises(ValueError, match="in one evaluation only"):
        TradeoffExplorer({**RUNS, "other": other})
    with pytest.raises(ValueError, match="does not exist"):
        TradeoffExplorer.of_runs(tmp_path / "none")
