"""The house style of every figure, and how a metric is read from its rows.

Colours are Okabe and Ito's (distinguishable with every common form of colour blindness); a dash, a marker shape or a
hatching tells the series apart as well. Backgrounds are transparent and the ink is a grey that reads on white and on
black, so that a figure fits a light or a dark page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepgrpo_lab.evaluation.statistics import Interval

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito, "Color Universal Design" (2008), without black and without yellow, which is too pale on white."""

INK = "#757575"
GRID = "rgba(127, 127, 127, 0.25)"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "x")
MOST_POINTS = 1000
"""Points of a line at most: more than a screen can tell apart."""
HATCHES = ("", "/", ".", "x", "-", "+")


def series(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Training steps and values of one metric, from the rows that hold a finite number for it.

    Example:
        >>> series([{"step": 0, "reward": 0.5}, {"step": 1}], "reward")
        ([0], [0.5])
    """
    rows = [
        (row["step"], row[key])
        for row in metrics
        if "step" in row and isinstance(row.get(key), (int, float)) and math.isfinite(row[key])
    ]
    return [step for step, _ in rows], [value for _, value in rows]


def thinned(metrics: Sequence[Mapping[str, Any]], most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """Rows of metrics, so few that a figure stays light: of long runs, each row is the mean of neighbouring ones.

    A metric that only some rows hold, such as validation, is averaged over those. ``step`` is the last one's.

    Example:
        >>> thinned([{"step": 1, "reward": 0.0}, {"step": 2, "reward": 1.0}, {"step": 3, "tokens": 9}], most=2)
        [{'step': 2, 'reward': 0.5}, {'step': 3, 'tokens': 9}]
    """
    share = math.ceil(len(metrics) / most)
    if share <= 1:
        return [dict(row) for row in metrics]
    return [_mean_row(metrics[start : start + share]) for start in range(0, len(metrics), share)]


def _mean_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if key in row]
        numbers = [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
        averaged = key != "step" and len(values) > 1 and bool(numbers)
        merged[key] = math.fsum(numbers) / len(numbers) if averaged else values[-1]
    return merged


def error_bar(interval: Interval) -> dict[str, Any]:
    """Plotly's error bar of an interval.

    Example:
        >>> from stepgrpo_lab.evaluation.statistics import Interval
        >>> error_bar(Interval(5.0, 4.0, 7.0))["array"]
        [2.0]
    """
    above, below = interval.high - interval.estimate, interval.estimate - interval.low
    return {"type": "data", "symmetric": False, "array": [above], "arrayminus": [below]}


def styled(figure: Figure, *, height: int, title: str | None = None) -> Figure:
    """The house style: transparent paper, neutral ink, a quiet grid, room for the labels."""
    figure.update_layout(
        template="none",
        title={"text": title or "", "font": {"size": 16}},
        height=height,
        autosize=True,
        margin={"l": 64, "r": 24, "t": 56, "b": 56},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font={"color": INK, "family": "system-ui, sans-serif", "size": 13},
        hoverlabel={"font": {"family": "system-ui, sans-serif"}},
    )
    axis = {"color": INK, "gridcolor": GRID, "zeroline": False, "automargin": True, "title_standoff": 8}
    figure.update_xaxes(axis)
    figure.update_yaxes(axis)
    return figure
