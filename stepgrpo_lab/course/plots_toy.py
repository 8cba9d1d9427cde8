"""Figures of the toy policy: what it came to write, run beside run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stepgrpo_lab.course.toy_policy import ToyRun
from stepgrpo_lab.viz.html import visible_text
from stepgrpo_lab.viz.style import DASHES, PALETTE, styled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def toy_policies(runs: Mapping[str, ToyRun]) -> Figure:
    """Probability of each completion over training: one panel for each run.

    Args:
        runs: Name -> run; all of the same completions.

    Raises:
        ValueError: There is no run, or the runs are of different completions.

    Example:
        >>> from stepgrpo_lab.course.toy_policy import ToyCompletion
        >>> run = ToyRun((ToyCompletion("a", 1, 1, 1.0),), [[1.0], [1.0]], [0.0])
        >>> list(toy_policies({"one": run}).data[0].y)
        [1.0, 1.0]
    """
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    if len({run.completions for run in runs.values()}) != 1:
        raise ValueError(f"{len(runs)} runs of different completions, or none; pass runs of the same completions")
    figure = make_subplots(
        rows=1,
        cols=len(runs),
        subplot_titles=[visible_text(name) for name in runs],
        shared_yaxes=True,
        horizontal_spacing=0.06,
    )
    for column, run in enumerate(runs.values(), start=1):
        for number, completion in enumerate(run.completions):
            figure.add_trace(
                Scatter(
                    y=[row[number] for row in run.probabilities],
                    name=visible_text(completion.name),
                    legendgroup=completion.name,
                    showlegend=column == 1,
                    mode="lines",
                    line={
                        "color": PALETTE[number % len(PALETTE)],
                        "dash": DASHES[number % len(DASHES)],
                        "width": 3,
                    },
                ),
                row=1,
                col=column,
            )
        figure.update_xaxes(title_text="rollout", row=1, col=column)
    figure.update_yaxes(title_text="probability", range=[0, 1], row=1, col=1)
    figure.update_layout(legend={"orientation": "h", "y": -0.25, "x": 0})
    return styled(figure, height=340)
