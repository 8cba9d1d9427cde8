"""Accuracy against length: every model by itself, or every run's change against a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.viz._html import visible_text
from stepgrpo_lab.viz._style import INK, PALETTE, SHAPES, colour, error_bars, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NAMED = 6
"""Most runs whose names stand beside their markers; of more, the names would lie over each other."""


class TradeoffPoint(TypedDict):
    """One model in the trade-off figure: accuracy as a share in [0, 1], tokens per completion."""

    name: str
    accuracy: Interval
    tokens: Interval


class ChangePoint(TypedDict):
    """One run against the baseline: accuracy in percentage points, tokens as a share of the baseline's."""

    name: str
    accuracy_points: Interval
    token_ratio: Interval


def tradeoff(points: Sequence[TradeoffPoint]) -> Figure:
    """Accuracy against tokens, one marker for each model, with its interval in both directions.

    Up and to the left is better: more correct answers for fewer tokens.

    Raises:
        ValueError: There are no points.
    """
    if not points:
        raise ValueError("there are no points to draw; pass at least one model")
    title = "Accuracy against length, with 95 % intervals"
    figure = new_figure("tokens per completion (mean)", "correct (%)", title=title, height=420)
    for number, point in enumerate(points):
        _add_marker(figure, point["name"], point["tokens"], point["accuracy"] * 100, number)
    _make_room(figure, max(point["tokens"].high for point in points))
    return figure


def tradeoff_changes(points: Sequence[ChangePoint], baseline: str) -> Figure:
    """Change of accuracy against change of length, one marker for each run, with paired intervals in both directions.

    A marker bears its run's name, or with more than :data:`NAMED` runs its place among them, counted from 1.

    Args:
        points: The runs.
        baseline: Name of the run that they are compared with.

    Raises:
        ValueError: There are no points.

    Example:
        >>> accuracy, tokens = Interval(-0.5, -1.0, 0.1), Interval(0.5, 0.4, 0.6)
        >>> change = {"name": "after", "accuracy_points": accuracy, "token_ratio": tokens}
        >>> tradeoff_changes([change], "before").data[0].x
        (50.0,)
    """
    if not points:
        raise ValueError("there are no points to draw; pass at least one run besides the baseline")
    title = "Change against length, with paired 95 % intervals"
    accuracy = "change of accuracy (percentage points)"
    figure = new_figure("tokens, % of the baseline's", accuracy, title=title, height=420)
    for number, point in enumerate(points):
        text = str(number + 1) if len(points) > NAMED else None
        name = visible_text(point["name"])
        _add_marker(figure, name, point["token_ratio"] * 100, point["accuracy_points"], number, text)
    figure.add_scatter(
        x=[100],
        y=[0],
        name=visible_text(baseline),
        text=[visible_text(baseline)],
        mode="markers+text",
        textposition="bottom left",
        cliponaxis=False,
        marker={"size": 12, "color": INK, "symbol": "star"},
    )
    _make_room(figure, max(100.0, *(point["token_ratio"].high * 100 for point in points)))
    return figure.update_yaxes(zeroline=True)


def _add_marker(figure: Figure, name: str, x: Interval, y: Interval, number: int, text: str | None = None) -> None:
    """Add a marker with its interval in both directions and its name, or another text, beside it."""
    figure.add_scatter(
        x=[x.estimate],
        y=[y.estimate],
        error_x=error_bars([x]),
        error_y=error_bars([y]),
        name=name,
        text=[text or name],
        mode="markers+text",
        textposition="top right",
        cliponaxis=False,
        marker={
            "size": 12,
            "color": colour(number),
            "symbol": SHAPES[(number + number // len(PALETTE)) % len(SHAPES)],
        },
    )


def _make_room(figure: Figure, reach: float) -> None:
    """Room on the right for the last marker's name; a legend would say the names again."""
    figure.update_xaxes(range=[0, 1.2 * reach])
    figure.update_layout(showlegend=False)
