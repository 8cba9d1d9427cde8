"""Figures of many probes: whether what they state can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stepgrpo_lab.plot_style import DASHES, INK, PALETTE, SHAPES, styled
from stepgrpo_lab.report_html import visible_text
from stepgrpo_lab.statistics import Calibration

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def reliability_lines(calibrations: Mapping[str, Calibration], *, score: str = "stated probability") -> Figure:
    """Share right against what was stated, one line for each set of answers; the area of a mark is its bin's share.

    Args:
        calibrations: Name -> reliability; the legend adds its calibration error.
        score: What was stated, for the axis.

    Raises:
        ValueError: There is nothing to draw.

    Example:
        >>> from stepgrpo_lab.statistics import calibration
        >>> figure = reliability_lines({"sure": calibration([0.9, 0.9], [True, False])})
        >>> figure.data[1].name, list(figure.data[1].y)
        ('sure (ECE 0.400)', [50.0])
    """
    from plotly.graph_objects import Figure, Scatter

    if not calibrations:
        raise ValueError("calibrations is empty; pass at least one")
    figure = Figure()
    figure.add_trace(
        Scatter(x=[0, 1], y=[0, 100], mode="lines", name="calibrated", line={"color": INK, "dash": "dash"})
    )
    for number, (name, calibration) in enumerate(calibrations.items()):
        filled = [row for row in calibration.bins if row.count]
        figure.add_trace(
            Scatter(
                x=[row.confidence for row in filled],
                y=[100 * (row.accuracy or 0.0) for row in filled],
                customdata=[row.count for row in filled],
                hovertemplate="stated %{x:.2f}, right %{y:.1f} %, %{customdata} answers<extra></extra>",
                name=f"{visible_text(name)} (ECE {calibration.ece:.3f})",
                mode="lines+markers",
                line={"color": PALETTE[number % len(PALETTE)], "dash": DASHES[number % len(DASHES)]},
                marker={
                    "symbol": SHAPES[number % len(SHAPES)],
                    "size": [6 + 24 * (row.count / calibration.count) ** 0.5 for row in filled],
                    "opacity": 0.75,
                },
            )
        )
    figure.update_xaxes(title_text=score, range=[0, 1.03])
    figure.update_yaxes(title_text="right (%)", range=[-3, 106])
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return styled(figure, height=420)
