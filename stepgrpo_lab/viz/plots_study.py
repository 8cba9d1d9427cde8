"""Figures of experiments: several runs or methods side by side, over training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stepgrpo_lab.viz._style import DASHES, PALETTE, SHAPES, styled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MetricPanels = Mapping[str, tuple[str, str, float]]
"""Metric -> title of its panel, unit, and factor from metric to unit."""

VALIDATION: MetricPanels = {
    "validation/accuracy": ("Validation accuracy, plain decoding", "correct (%)", 100),
    "validation/tokens": ("Validation length, plain decoding", "tokens per completion", 1),
}
ROLLOUT: MetricPanels = {
    "accuracy": ("Right in training rollouts", "correct (%)", 100),
    "tokens": ("Length of training rollouts", "tokens per completion", 1),
}
SIGNALS: MetricPanels = {
    "exits/early": ("Thoughts closed by a probe", "completions (%)", 100),
    "groups/mixed": ("Groups with both kinds of close", "groups (%)", 100),
    "advantage/forced": ("A forced close", "mean advantage", 1),
    "advantage/natural": ("A natural close", "mean advantage", 1),
}
"""What the groups could learn an exit from."""


def method_curves(curves: Mapping[str, Mapping[str, list[list[float]]]], panels: MetricPanels = VALIDATION) -> Figure:
    """Metrics over training: a panel for each metric, in it a line for each run.

    Args:
        curves: Name of the run -> metric -> [[step, value], ...].
        panels: What to draw.

    Raises:
        ValueError: No run holds any of the metrics.
    """
    from plotly.graph_objects import Scatter
    from plotly.subplots import make_subplots

    if not any(key in metrics for metrics in curves.values() for key in panels):
        raise ValueError(f"no run holds a curve of {', '.join(panels)}; record them during training")
    rows = math.ceil(len(panels) / 2)
    titles = [title for title, *_ in panels.values()]
    figure = make_subplots(rows=rows, cols=min(2, len(panels)), subplot_titles=titles, vertical_spacing=0.3 / rows)
    for index, (key, (_, unit, factor)) in enumerate(panels.items()):
        place = {"row": index // 2 + 1, "col": index % 2 + 1}
        for number, (name, metrics) in enumerate(curves.items()):
            curve = metrics.get(key, [])
            line = Scatter(
                x=[step for step, _ in curve],
                y=[factor * value for _, value in curve],
                name=name,
                legendgroup=name,
                showlegend=index == 0,
                mode="lines+markers",
                marker={"symbol": SHAPES[number % len(SHAPES)], "size": 6},
                line={
                    "color": PALETTE[number % len(PALETTE)],
                    "width": 2,
                    "dash": DASHES[number // len(PALETTE) % len(DASHES)],
                },
            )
            figure.add_trace(line, **place)
        figure.update_yaxes(title_text=unit, **place)
        figure.update_xaxes(title_text="optimiser step", **place)
    figure.update_layout(legend={"orientation": "h", "y": -0.2 / rows, "yanchor": "top"})
    return styled(figure, height=460 if rows == 1 else 330 * rows)
