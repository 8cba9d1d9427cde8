"""The house style of every figure: one plotly template, and what tells the series of a figure apart.

Colours are Okabe and Ito's (distinguishable with every common form of colour blindness); a dash, a marker shape or a
hatching tells the series apart as well. Backgrounds are transparent and the ink is a grey that reads on white and on
black, so that a figure fits a light or a dark page. Plotly is imported when the first figure is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepgrpo_lab.evaluation.statistics import Interval

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito, "Color Universal Design" (2008), without black and without yellow, which is too pale on white."""

INK = "#757575"
GRID = "rgba(127, 127, 127, 0.25)"
CLEAR = "rgba(0, 0, 0, 0)"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SHAPES = ("circle", "square", "diamond", "triangle-up", "cross", "x")
HATCHES = ("", "/", ".", "x", "-", "+")
TEMPLATE = "stepgrpo_lab"
"""Name of the template in ``plotly.io.templates``, once a figure has been drawn."""

LEGEND_BESIDE = {"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"}
"""For figures with a title, above which there is no room for a legend."""


@cache
def _register_template() -> None:
    from plotly import io
    from plotly.graph_objects import Bar, Scatter

    axis = {"color": INK, "gridcolor": GRID, "zeroline": False, "automargin": True, "title": {"standoff": 8}}
    layout = {
        "colorway": PALETTE,
        "title": {"font": {"size": 16}},
        "margin": {"l": 64, "r": 24, "t": 56, "b": 56},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"color": INK, "family": "system-ui, sans-serif", "size": 13},
        "hoverlabel": {"font": {"family": "system-ui, sans-serif"}},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": axis,
        "yaxis": axis,
    }
    data = {
        "bar": [Bar(marker={"pattern": {"fgcolor": "white", "fillmode": "overlay", "solidity": 0.2}})],
        "scatter": [Scatter(line={"width": 2}, marker={"size": 7})],
    }
    io.templates[TEMPLATE] = {"layout": layout, "data": data}


def styled(figure: Figure, *, height: int, title: str | None = None) -> Figure:
    """Give a figure the house style, its height in pixels, and a title."""
    _register_template()
    return figure.update_layout(template=TEMPLATE, height=height, title_text=title or "")


def new_figure(x: str, y: str, *, height: int, title: str | None = None) -> Figure:
    """An empty figure in the house style.

    Args:
        x, y: Titles of the axes.
        height: In pixels.
        title: Above the figure; then the legend stands beside it.

    Example:
        >>> new_figure("step", "reward", height=300).layout.yaxis.title.text
        'reward'
    """
    from plotly.graph_objects import Figure

    figure = styled(Figure(), height=height, title=title)
    if title:
        figure.update_layout(legend=LEGEND_BESIDE)
    return figure.update_layout(xaxis_title_text=x, yaxis_title_text=y)


def colour(number: int) -> str:
    """Colour of a figure's series, counted from 0."""
    return PALETTE[number % len(PALETTE)]


def line_look(number: int, **line: Any) -> dict[str, Any]:
    """Colour, dash and marker of a line, counted from 0; ``line`` adds to it or replaces parts.

    Example:
        >>> line_look(1, width=3)["line"]
        {'color': '#D55E00', 'dash': 'dash', 'width': 3}
    """
    return {
        "line": {"color": colour(number), "dash": DASHES[number % len(DASHES)], **line},
        "marker": {"symbol": SHAPES[number % len(SHAPES)]},
    }


def bar_look(number: int) -> dict[str, Any]:
    """Colour and hatching of bars, counted from 0.

    Example:
        >>> bar_look(1)
        {'color': '#D55E00', 'pattern': {'shape': '/'}}
    """
    return {"color": colour(number), "pattern": {"shape": HATCHES[number % len(HATCHES)]}}


def error_bars(intervals: Sequence[Interval]) -> dict[str, Any]:
    """Plotly's error bars of intervals, one for each point.

    Example:
        >>> from stepgrpo_lab.evaluation.statistics import Interval
        >>> error_bars([Interval(5.0, 4.0, 7.0)])["array"]
        [2.0]
    """
    return {
        "type": "data",
        "symmetric": False,
        "array": [interval.high - interval.estimate for interval in intervals],
        "arrayminus": [interval.estimate - interval.low for interval in intervals],
    }
