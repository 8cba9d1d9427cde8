"""Figures of many probes: whether what they state can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.evaluation.statistics import Calibration
from stepgrpo_lab.viz.plot_style import DASHES, INK, PALETTE, SHAPES, styled
from stepgrpo_lab.viz.report_pages import visible_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure, Scatter


def reliability_diagram(calibration: Calibration) -> Figure:
    """Share of correct trial answers against their stated probability; calibrated answers lie on the diagonal.

    Args:
        calibration: Reliability of one set of answers; the bars are the shares of its bins.
    """
    from plotly.graph_objects import Bar, Figure

    filled = [row for row in calibration.bins if row.count]
    figure = Figure()
    figure.add_trace(
        Bar(
            x=[(row.low + row.high) / 2 for row in filled],
            y=[100 * row.count / calibration.count for row in filled],
            width=[row.high - row.low for row in filled],
            name="share of the answers",
            marker={"color": INK, "opacity": 0.4, "pattern": {"shape": "/"}},
        )
    )
    figure.add_trace(_diagonal())
    style = {"line": {"color": PALETTE[0], "width": 2}, "marker": {"size": 9}}
    figure.add_trace(_line_of_bins(calibration, "correct", style))
    figure.update_xaxes(title_text="joint probability of the trial answer", range=[0, 1])
    figure.update_yaxes(title_text="%", range=[0, 102])
    title = f"Reliability of {calibration.count} trial answers (ECE {calibration.ece:.3f})"
    return styled(figure, title=title, height=420)


def reliability_lines(calibrations: Mapping[str, Calibration], *, score: str = "stated probability") -> Figure:
    """Share right against what was stated, one line for each set of answers; the area of a mark is its bin's share.

    Args:
        calibrations: Name -> reliability; the legend adds its calibration error.
        score: What was stated, for the axis.

    Raises:
        ValueError: There is nothing to draw.

    Example:
        >>> from stepgrpo_lab.evaluation.statistics import calibration
        >>> figure = reliability_lines({"sure": calibration([0.9, 0.9], [True, False])})
        >>> figure.data[1].name, list(figure.data[1].y)
        ('sure (ECE 0.400)', [50.0])
    """
    from plotly.graph_objects import Figure

    if not calibrations:
        raise ValueError("calibrations is empty; pass at least one")
    figure = Figure()
    figure.add_trace(_diagonal())
    for number, (name, calibration) in enumerate(calibrations.items()):
        style = {
            "line": {"color": PALETTE[number % len(PALETTE)], "dash": DASHES[number % len(DASHES)]},
            "marker": {
                "symbol": SHAPES[number % len(SHAPES)],
                "size": [6 + 24 * (row.count / calibration.count) ** 0.5 for row in calibration.bins if row.count],
                "opacity": 0.75,
            },
        }
        figure.add_trace(_line_of_bins(calibration, f"{visible_text(name)} (ECE {calibration.ece:.3f})", style))
    figure.update_xaxes(title_text=score, range=[0, 1.03])
    figure.update_yaxes(title_text="right (%)", range=[-3, 106])
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return styled(figure, height=420)


def _diagonal() -> Scatter:
    from plotly.graph_objects import Scatter

    return Scatter(x=[0, 1], y=[0, 100], mode="lines", name="calibrated", line={"color": INK, "dash": "dash"})


def _line_of_bins(calibration: Calibration, name: str, style: dict[str, Any]) -> Scatter:
    """Share right of each filled bin against its mean stated probability."""
    from plotly.graph_objects import Scatter

    filled = [row for row in calibration.bins if row.count]
    return Scatter(
        x=[row.confidence for row in filled],
        y=[100 * (row.accuracy or 0.0) for row in filled],
        customdata=[row.count for row in filled],
        hovertemplate="stated %{x:.2f}, right %{y:.1f} %, %{customdata} answers<extra></extra>",
        name=name,
        mode="lines+markers",
        **style,
    )
