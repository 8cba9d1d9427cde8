"""Long files, long runs, dashboards that stay open: memory and pages stay bounded."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from stepgrpo_lab.evaluation.problems import iterate_problems, load_problems
from stepgrpo_lab.run.report import write_report
from stepgrpo_lab.viz.curves import MOST_POINTS, exit_reasons, learning_curves, series, thinned
from stepgrpo_lab.widgets import LiveDashboard
from tools.campaigns.loading import peak_of, write_rows

DAY = 86_400 // 4
"""Optimiser steps of a day at four seconds each."""


def metrics_of_a_day(steps: int = DAY) -> list[dict[str, Any]]:
    """As ``metrics.jsonl`` has them, with validation at every tenth step."""
    rows = []
    for step in range(1, steps + 1):
        row: dict[str, Any] = {"step": step, "accuracy": 0.5 + 0.4 * math.sin(step / 900), "tokens": 130 - step / 300}
        row |= {"reward": 0.9, "steps/all": 3.0, "steps/correct": 2.5, "probe/joint": 0.8, "probe/right": 0.7}
        row |= {"exits/natural": 0.25, "exits/early": 0.75, "exits/budget": 0.0, "groups/informative": 0.5}
        if step % 10 == 0:
            row |= {"validation/accuracy": 0.9, "validation/tokens": 100.0}
        rows.append(row)
    return rows


# ---- problems --------------------------------------------------------------------------------------------------------


def test_the_first_rows_of_a_long_file_take_memory_for_themselves_alone(tmp_path: Path) -> None:
    """A million rows: ``python -m tools.campaigns load``."""
    short, long = write_rows(tmp_path / "short.jsonl", 1000), write_rows(tmp_path / "long.jsonl", 100_000)
    problems, peak = peak_of(lambda: load_problems(short, limit=500))
    same, peak_of_long = peak_of(lambda: load_problems(long, limit=500))
    assert [problem.prompt for problem in same] == [problem.prompt for problem in problems]
    assert peak_of_long < 1.1 * peak + 20_000


def test_a_long_file_is_never_held_as_a_whole_beside_its_problems(tmp_path: Path) -> None:
    long = write_rows(tmp_path / "long.jsonl", 30_000)
    count, peak = peak_of(lambda: sum(1 for _ in iterate_problems(long)))
    assert count == 30_000
    assert peak < 300 * count, "more than the ids"
    loaded, peak_of_all = peak_of(lambda: load_problems(long))
    assert len(loaded) == 30_000 and peak_of_all < 1200 * count


def test_a_bad_row_at_the_end_of_a_long_file_is_named(tmp_path: Path) -> None:
    long = write_rows(tmp_path / "long.jsonl", 20_000)
    with long.open("a") as file:
        file.write('{"problem": "x?"}\n')
    with pytest.raises(ValueError, match=r"long\.jsonl, row 20001: field 'answer' is missing; add it"):
        load_problems(long)


# ---- metrics ---------------------------------------------------------------------------------------------------------


def test_a_day_of_metrics_is_drawn_with_few_points_that_keep_its_course() -> None:
    rows = metrics_of_a_day()
    kept = thinned(rows)
    assert MOST_POINTS / 2 < len(kept) <= MOST_POINTS
    assert kept[-1]["step"] == DAY and [row["step"] for row in kept] == sorted(row["step"] for row in kept)
    steps, values = series(kept, "accuracy")
    for step, value in zip(steps, values, strict=True):
        assert abs(value - (0.5 + 0.4 * math.sin(step / 900))) < 0.02
    assert len(series(kept, "validation/accuracy")[0]) == len(kept), "validation was thinned away"
    assert sum(len(trace.x) for trace in learning_curves(rows).data) <= MOST_POINTS * len(learning_curves(rows).data)
    shares = [sum(trace.y[place] for trace in exit_reasons(rows).data) for place in (0, 500, -1)]
    assert shares == pytest.approx([100] * 3)


def test_short_runs_are_drawn_as_they_are() -> None:
    rows = metrics_of_a_day(MOST_POINTS)
    assert thinned(rows) == rows and thinned([]) == []


def test_numbers_that_are_none_do_not_spoil_a_mean() -> None:
    rows = [{"step": 1, "loss": math.nan, "note": "a"}, {"step": 2, "loss": 0.5, "note": "b"}]
    assert thinned(rows, most=1) == [{"step": 2, "loss": 0.5, "note": "b"}]


def test_the_report_of_a_day_is_a_megabyte_longer_at_most(tmp_path: Path) -> None:
    rows = metrics_of_a_day()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    size = write_report(tmp_path).stat().st_size
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:100]))
    assert size < write_report(tmp_path).stat().st_size + 1_000_000


# ---- an open dashboard -----------------------------------------------------------------------------------------------


def test_an_open_dashboard_does_not_grow() -> None:
    from ipywidgets.widgets import widget

    living = widget._instances if hasattr(widget, "_instances") else widget.Widget.widgets  # ipywidgets 8, 7
    rows = metrics_of_a_day(6000)
    dashboard = LiveDashboard()
    for row in rows[:-4]:
        dashboard.add(row)
        assert len(dashboard.rows) <= 2 * MOST_POINTS
    view = dashboard.view  # open
    before, sizes = len(living), []
    for row in rows[-4:]:
        dashboard.add(row)
        assert len(living) == before
        sizes.append([len(trace.x) for pane in view.panes for trace in pane.live.data])
    assert all(points <= MOST_POINTS for size in sizes for points in size)
    assert len(view.body.value) < 10_000 and len(view.readout.value) < 1000
    assert dashboard.rows[-1] == rows[-1] and dashboard.latest("step") == 6000


def test_a_long_run_folder_is_shown_bounded_too(tmp_path: Path) -> None:
    rows = metrics_of_a_day()
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dashboard = LiveDashboard.of_run(tmp_path)
    assert len(dashboard.rows) <= MOST_POINTS + 10
    assert dashboard.rows[-8:] == rows[-8:], "the table of the last steps is exact"
    assert dashboard.sentence.startswith(f"Step {DAY}: ")
