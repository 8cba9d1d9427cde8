"""The comparison as one picture (SVG): change of accuracy against length, rows numbered, with their names beside."""

from __future__ import annotations

from collections.abc import Sequence

from stepgrpo_lab.comparison.results import ComparisonRecord, RowResult
from stepgrpo_lab.comparison.rows import STEP_GRPO, VANILLA
from stepgrpo_lab.plot_style import PALETTE
from stepgrpo_lab.svg import QUIET, Axes, cross, frame, padded_span, picture, text

WIDTH, PANEL = 960, 330
LINE = 21


def draw_comparison(record: ComparisonRecord) -> str:
    """The picture as SVG text: a panel of the methods, and one of Step-GRPO's ablations once there are any.

    Raises:
        ValueError: The record holds no method and no untrained row.
    """
    methods = [row for row in record.rows if row.kind in ("untrained", "method")]
    if not methods:
        raise ValueError("there is neither a method nor an untrained row to draw: carry one out first")
    ablations = [row for row in record.rows if row.kind == "ablation"]
    panels = [("Methods, each with its own learning rate", methods)]
    if ablations:
        own = [row for row in methods if row.name == STEP_GRPO]
        panels.append(("Step-GRPO with one thing changed", [*own, *ablations]))
    parts = [
        line
        for number, (title, rows) in enumerate(panels)
        for line in _panel(title, rows, 64 + number * (PANEL + 60), last=number == len(panels) - 1)
    ]
    return picture(
        WIDTH,
        64 + len(panels) * (PANEL + 60),
        "Step-GRPO and its alternatives on the Overthinker: change of accuracy against length",
        "; ".join(_told(row) for _, rows in panels for row in rows),
        parts,
    )


def _told(row: RowResult) -> str:
    return f"{row.title}: {row.test.token_ratio * 100} % of the tokens, {row.test.accuracy_points} points of accuracy"


def _panel(title: str, rows: Sequence[RowResult], top: float, *, last: bool) -> list[str]:
    bounds = [bound for row in rows for bound in (row.test.accuracy_points.low, row.test.accuracy_points.high, 0.0)]
    longest = 100 * max(1.0, *(row.test.token_ratio.high for row in rows))
    axes = Axes(72, top, 600, top + PANEL - 40, (0.0, 1.1 * longest), padded_span(bounds, margin=0.1))
    below = "tokens, % of the untrained model's" if last else ""
    lines = frame(axes, f"{title}: change of accuracy (points) against length", below, "points")
    for number, row in enumerate(rows, start=1):
        colour = QUIET if row.name == VANILLA else PALETTE[(number - 1) % len(PALETTE)]
        tokens, accuracy = row.test.token_ratio * 100, row.test.accuracy_points
        lines += cross(axes, tokens, accuracy, colour, square=row.kind == "untrained")
        x, y = axes.at(tokens.high, accuracy.estimate)
        lines.append(text(str(number), x + 9, y - 7, weight="600", fill=colour))
        weight = "600" if row.name == STEP_GRPO else "400"
        lines.append(text(f"{number}  {row.title}", 632, top + LINE * number, fill=colour, weight=weight))
    return lines
