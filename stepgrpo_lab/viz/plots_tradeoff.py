"""The trade-off figure relative to one run: how accuracy and length changed, problem by problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.viz.plot_style import INK, styled
from stepgrpo_lab.viz.plots import interval_marker
from stepgrpo_lab.viz.report_pages import visible_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


NAMED = 6
"""Most runs whose names stand beside their markers; of more, the names would lie over each other."""


class ChangePoint(TypedDict):
    """One run against the baseline: accuracy in percentage points, tokens as a share of the baseline's."""

    name: str
    accuracy_points: Interval
    token_ratio: Interval


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
    from plotly.graph_objects import Figure, Scatter

    if not points:
        raise ValueError("there are no points to draw; pass at least one run besides the baseline")
    figure = Figure()
    for number, point in enumerate(points):
        tokens, accuracy = point["token_ratio"] * 100, point["accuracy_points"]
        marker = interval_marker(visible_text(point["name"]), tokens, accuracy, number)
        figure.add_trace(marker.update(text=[str(number + 1)]) if len(points) > NAMED else marker)
    figure.add_trace(
        Scatter(
            x=[100],
            y=[0],
            name=visible_text(baseline),
            text=[visible_text(baseline)],
            mode="markers+text",
            textposition="bottom left",
            cliponaxis=False,
            marker={"size": 12, "color": INK, "symbol": "star"},
        )
    )
    reach = 1.2 * max(100.0, *(point["token_ratio"].high * 100 for point in points))
    figure.update_xaxes(title_text="tokens, % of the baseline's", range=[0, reach])
    figure.update_yaxes(title_text="change of accuracy (percentage points)", zeroline=True)
    figure.update_layout(showlegend=False)
    return styled(figure, title="Change against length, with paired 95 % intervals", height=420)
