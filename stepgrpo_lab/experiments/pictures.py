"""A record as figures (Plotly), and as one picture (SVG): change of accuracy against length, rows numbered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.experiments.record import Curves, Record, RowResult, mean_curves
from stepgrpo_lab.experiments.rows import STEP_GRPO, VANILLA
from stepgrpo_lab.overthinker.verifier import shown_labels
from stepgrpo_lab.viz import completions, curves, tradeoff
from stepgrpo_lab.viz._style import PALETTE
from stepgrpo_lab.viz._svg import BACKGROUND, QUIET, Axes, cross, frame, padded_span, picture, text, xy
from stepgrpo_lab.viz.plots_study import ROLLOUT, SIGNALS, VALIDATION, method_curves

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# ---- figures ---------------------------------------------------------------------------------------------------------

CURVE_FIGURES = {
    "curves": (VALIDATION, "Plain decoding on validation problems during training, mean over seeds."),
    "rollouts": (ROLLOUT, "Training rollouts, mean over seeds: what the probes cut is not yet what the model learned."),
    "signals": (SIGNALS, "What the groups could learn an exit from, mean over seeds."),
}
"""Name of each figure of curves -> its panels and its caption."""


def record_figures(record: Record) -> dict[str, Figure]:
    """Every figure that the record has data for: "tradeoff", "labels", those of CURVE_FIGURES, and "exits-ROW"."""
    main = [row for row in record.rows if row.kind in ("untrained", "method")] or record.rows
    figures = {}
    if any(row.test.accuracy and row.test.tokens for row in main):
        # So many names beside their markers would cover each other.
        figures["tradeoff"] = (
            tradeoff.tradeoff(_points(main)).update_traces(mode="markers").update_layout(showlegend=True)
        )
    if any(row.structure for row in main):
        figures["labels"] = completions.step_labels(_steps(main))
    trained = [row for row in record.rows if row.kind in ("method", "ablation") and row.seeds[0].curves]
    means = mean_curves(Record(trained, record.plan))
    for name, (panels, _) in CURVE_FIGURES.items():
        if any(key in metrics for metrics in means.values() for key in panels):
            figures[name] = method_curves(means, panels)
    for row in trained:
        metrics = _metric_rows(row.seeds[0].curves)
        if any(key in line for line in metrics for key in curves.EXITS):
            figure = curves.exit_reasons(metrics)
            figures[f"exits-{row.name}"] = figure.update_layout(title_text=f"{row.title}: why thoughts ended")
    return figures


def _points(rows: Sequence[RowResult]) -> list[tradeoff.TradeoffPoint]:
    return [
        {"name": row.title, "accuracy": row.test.accuracy, "tokens": row.test.tokens}
        for row in rows
        if row.test.accuracy and row.test.tokens
    ]


def _steps(rows: Sequence[RowResult]) -> dict[str, dict[str, float]]:
    labels = shown_labels(*(row.structure["all"] for row in rows if row.structure))
    return {
        row.title: {label: row.structure["all"].get(label, 0.0) for label in labels} for row in rows if row.structure
    }


def _metric_rows(curves: Curves) -> list[dict[str, Any]]:
    """Curves as the rows of a metrics file, which the other figures read."""
    return [{"step": step, key: value} for key, curve in curves.items() for step, value in curve]


# ---- the picture -----------------------------------------------------------------------------------------------------

WIDTH, PANEL = 960, 330
LINE = 21

Place = tuple[float, float]

DIRECTIONS = [math.radians(degrees) for degrees in (-45, 45, -135, 135, 0, 180, -90, 90)]
"""Where a label is tried around its marker, in this order; the picture's y grows downwards."""

REACHES, CLEARANCE = (20.0, 32.0, 44.0), 15.0
"""How far a label may lie from its marker, and how far it should lie from everything else."""


def draw_record(record: Record) -> str:
    """The picture as SVG text: a panel of the methods, and one of Step-GRPO's ablations once there are any.

    Raises:
        ValueError: The record holds no method and no untrained row.
    """
    methods = [row for row in record.rows if row.kind in ("untrained", "method")]
    if not methods:
        raise ValueError("there is neither a method nor an untrained row to draw: run one first")
    ablations = [row for row in record.rows if row.kind == "ablation"]
    panels = [("Methods, each with its own learning rate" if record.plan.learning_rates else "Methods", methods)]
    if ablations:
        own = [row for row in methods if row.name == STEP_GRPO]
        panels.append(("Step-GRPO with one thing changed", [*own, *ablations]))
    reach = 110 * max(1.0, *(row.test.token_ratio.high for _, rows in panels for row in rows))
    parts = [
        line
        for number, (title, rows) in enumerate(panels)
        for line in _panel(title, rows, 64 + number * (PANEL + 60), reach, last=number == len(panels) - 1)
    ]
    return picture(
        WIDTH,
        64 + len(panels) * (PANEL + 60),
        "Step-GRPO and its alternatives on the Overthinker: change of accuracy against length",
        "; ".join(_in_words(row) for _, rows in panels for row in rows),
        parts,
    )


def _in_words(row: RowResult) -> str:
    return f"{row.title}: {row.test.token_ratio * 100} % of the tokens, {row.test.accuracy_points} points of accuracy"


def _panel(title: str, rows: Sequence[RowResult], top: float, reach: float, *, last: bool) -> list[str]:
    bounds = [bound for row in rows for bound in (row.test.accuracy_points.low, row.test.accuracy_points.high, 0.0)]
    axes = Axes(72, top, 600, top + PANEL - 40, (0.0, reach), padded_span(bounds, margin=0.1))
    below = "tokens, % of the untrained model's" if last else ""
    lines = frame(axes, f"{title}: change of accuracy (points) against length", below, "points")
    colours = [QUIET if row.name == VANILLA else PALETTE[place % len(PALETTE)] for place, row in enumerate(rows)]
    spans = [(row.test.token_ratio * 100, row.test.accuracy_points) for row in rows]
    for row, (tokens, accuracy), colour in zip(rows, spans, colours, strict=True):
        lines += cross(axes, tokens, accuracy, colour, square=row.kind == "untrained")
    markers = [axes.at(tokens.estimate, accuracy.estimate) for tokens, accuracy in spans]
    ends = [axes.at(tokens.estimate, end) for tokens, accuracy in spans for end in (accuracy.low, accuracy.high)]
    places = zip(markers, label_places(markers, ends), colours, rows, strict=True)
    for number, (marker, place, colour, row) in enumerate(places, start=1):
        weight = "600" if row.name == STEP_GRPO else "400"
        lines.append(f'<path d="M{xy(marker)}L{xy(place)}" stroke="{colour}" stroke-width="0.8"/>')
        lines.append(f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="8" fill="{BACKGROUND}"/>')
        lines.append(text(str(number), place[0], place[1] + 4.5, anchor="middle", weight="600", fill=colour))
        lines.append(text(f"{number}  {row.title}", 632, top + LINE * number, fill=colour, weight=weight))
    return lines


def label_places(markers: Sequence[Place], obstacles: Sequence[Place] = ()) -> list[Place]:
    """A place near each marker for the middle of its label, clear of all markers, obstacles and labels before it.

    Of eight directions at growing distances the first clear one is taken; where none is, the one with most room.

    Example:
        >>> [(round(x), round(y)) for x, y in label_places([(0, 0), (16, -16)])]
        [(14, 14), (30, -30)]
    """
    taken, places = [*markers, *obstacles], []
    for x, y in markers:
        around = [
            (x + reach * math.cos(angle), y + reach * math.sin(angle)) for reach in REACHES for angle in DIRECTIONS
        ]
        place = max(around, key=lambda at: min(CLEARANCE, *(math.dist(at, other) for other in taken)))
        taken.append(place)
        places.append(place)
    return places
