"""The comparison as figures, from its record alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.experiments.results import ComparisonRecord, Curves, RowResult
from stepgrpo_lab.experiments.tables import LABELS
from stepgrpo_lab.viz import completions, curves, tradeoff
from stepgrpo_lab.viz.plots_study import VALIDATION, method_curves

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def comparison_figures(record: ComparisonRecord) -> dict[str, Figure]:
    """Every figure for which the record has rows, by name: "tradeoff", "labels", "curves", and "exits-ROW"."""
    main = [row for row in record.rows if row.kind in ("untrained", "method")]
    shown = main or record.rows
    figures = {"tradeoff": tradeoff.tradeoff(_points(shown)), "labels": completions.step_labels(_steps(shown))}
    # So many names beside their markers would cover each other.
    figures["tradeoff"].update_traces(mode="markers").update_layout(showlegend=True)
    trained = [row for row in record.rows if row.kind in ("method", "ablation") and row.seeds[0].curves]
    if any(key in row.seeds[0].curves for row in trained for key in VALIDATION):
        figures["curves"] = method_curves({row.title: row.seeds[0].curves for row in trained}, VALIDATION)
    for row in trained:
        metrics = _metric_rows(row.seeds[0].curves)
        if any(key in line for line in metrics for key in curves.EXITS):
            figure = curves.exit_reasons(metrics)
            figures[f"exits-{row.name}"] = figure.update_layout(title_text=f"{row.title}: why thoughts ended")
    return figures


def _points(rows: Sequence[RowResult]) -> list[tradeoff.TradeoffPoint]:
    return [{"name": row.title, "accuracy": row.test.accuracy, "tokens": row.test.tokens} for row in rows]


def _steps(rows: Sequence[RowResult]) -> dict[str, dict[str, float]]:
    return {row.title: {label: row.structure["all"][label] for label in LABELS} for row in rows}


def _metric_rows(curves: Curves) -> list[dict[str, Any]]:
    """Curves as the rows of a metrics file, which the other figures read."""
    return [{"step": step, key: value} for key, curve in curves.items() for step, value in curve]
