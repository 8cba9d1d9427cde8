"""The report's headline as one small hand-written picture, which needs neither a browser nor a plotting library.

Left: before and after on the plane of tokens and accuracy, with their intervals. Right: validation tokens and accuracy
over training. It brings its own light background, so it reads on any page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from stepgrpo_lab.plot_style import PALETTE, series
from stepgrpo_lab.report_files import RunRecord
from stepgrpo_lab.statistics import Interval

WIDTH, HEIGHT = 960, 400
BACKGROUND, INK, QUIET = "#fcfcfa", "#1f2328", "#596069"
_BEFORE, _AFTER = PALETTE[1], PALETTE[0]


@dataclass(frozen=True)
class _Axes:
    """A panel: its box in the picture and the span of its data, with the vertical direction turned around."""

    left: float
    top: float
    right: float
    bottom: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + across * (self.right - self.left), self.bottom - up * (self.bottom - self.top)


def draw_headline(run: RunRecord, description: str) -> str:
    """The picture as SVG text; ``description`` is read out by a screen reader.

    Raises:
        ValueError: The run has neither both evaluations nor validation figures.
    """
    panels = [*_plane(run), *_curves(run)]
    if not panels:
        raise ValueError(f"run {run.name!r} has no evaluations and no validation figures, so there is nothing to draw")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img"'
            ' aria-labelledby="headline-title headline-description" font-family="system-ui, sans-serif">',
            f'<title id="headline-title">Accuracy and length of {escape(run.model)} before and after training</title>',
            f'<desc id="headline-description">{escape(description)}</desc>',
            f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{BACKGROUND}"/>',
            *panels,
            "</svg>",
            "",
        ]
    )


def _plane(run: RunRecord) -> list[str]:
    if not run.summaries:
        return []
    points = [
        (name, figures["tokens"], figures["accuracy"] * 100, colour)
        for name, figures, colour in (
            ("before", run.summaries["before"], _BEFORE),
            ("after", run.summaries["after"], _AFTER),
        )
    ]
    upper = max((0, 1), key=lambda place: points[place][2].estimate)
    axes = _Axes(
        64,
        64,
        450,
        336,
        (0.0, 1.18 * max(tokens.high for _, tokens, *_ in points)),
        _span([bound for _, _, accuracy, *_ in points for bound in (accuracy.low, accuracy.high)], margin=0.35),
    )
    (start, end) = (axes.at(tokens.estimate, accuracy.estimate) for _, tokens, accuracy, *_ in points)
    return [
        *_frame(axes, "Accuracy against length", "tokens per completion", "%"),
        f'<path d="M{_pair(start)} L{_pair(end)}" stroke="{QUIET}" stroke-dasharray="2 4" fill="none"/>',
        # The more accurate one is named above its bar and the other below, so that the names cannot meet.
        *(line for place, point in enumerate(points) for line in _cross(axes, *point, above=place == upper)),
    ]


def _cross(axes: _Axes, name: str, tokens: Interval, accuracy: Interval, colour: str, *, above: bool) -> list[str]:
    """One model: a bar for each interval, a marker with a shape of its own, and its name with figures."""
    x, y = axes.at(tokens.estimate, accuracy.estimate)
    (left, _), (right, _) = axes.at(tokens.low, accuracy.estimate), axes.at(tokens.high, accuracy.estimate)
    (_, low), (_, high) = axes.at(tokens.estimate, accuracy.low), axes.at(tokens.estimate, accuracy.high)
    bars = f"M{left:.1f} {y:.1f}H{right:.1f}M{x:.1f} {low:.1f}V{high:.1f}"
    marker = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{colour}"/>'
        if name == "after"
        else f'<rect x="{x - 5.5:.1f}" y="{y - 5.5:.1f}" width="11" height="11" fill="{colour}"/>'
    )
    anchor, text_x = ("start", x + 10) if x < (axes.left + axes.right) / 2 else ("end", x - 10)
    words = f"{name}: {accuracy.estimate:.1f} %, {tokens.estimate:.0f} tokens"
    return [
        f'<path d="{bars}" stroke="{colour}" stroke-width="2.5" fill="none"/>',
        marker,
        _text(words, text_x, high - 8 if above else low + 18, anchor=anchor, weight="600"),
    ]


def _curves(run: RunRecord) -> list[str]:
    lines = []
    for key, factor, title, unit, top, colour in (
        ("validation/tokens", 1, "Validation tokens over training", "tokens", 64, PALETTE[0]),
        ("validation/accuracy", 100, "Validation accuracy over training", "%", 240, PALETTE[2]),
    ):
        steps, values = series(run.metrics, key)
        if len(steps) > 1 and max(steps) > min(steps):
            values = [factor * value for value in values]
            span = (0.0, 1.1 * max(values)) if unit == "tokens" else _span(values, margin=0.25)
            axes = _Axes(548, top, 880, top + 104, (min(steps), max(steps)), span)
            path = " L".join(_pair(axes.at(step, value)) for step, value in zip(steps, values, strict=True))
            end_x, end_y = axes.at(steps[-1], values[-1])
            lines += [
                *_frame(axes, title, "optimiser step" if top > 200 else "", unit),
                f'<path d="M{path}" stroke="{colour}" stroke-width="2.5" fill="none" stroke-linejoin="round"/>',
                f'<circle cx="{end_x:.1f}" cy="{end_y:.1f}" r="4" fill="{colour}"/>',
                _text(f"{values[-1]:.1f}", end_x + 8, end_y + 4, weight="600"),
            ]
    return lines


def _frame(axes: _Axes, title: str, x_title: str, unit: str) -> list[str]:
    """Title, grid lines with their numbers, and the name of the horizontal axis."""
    lines = [_text(title, axes.left - 32, axes.top - 22, weight="600", size=15)]
    for value in _ticks(axes.y, 5 if axes.bottom - axes.top > 150 else 3):
        if unit == "%" and not 0 <= value <= 100:
            continue
        _, y = axes.at(axes.x[0], value)
        label = f"{value:g} %" if unit == "%" else f"{value:g}"
        lines.append(f'<path d="M{axes.left:.1f} {y:.1f}H{axes.right:.1f}" stroke="#d9dce0" fill="none"/>')
        lines.append(_text(label, axes.left - 6, y + 4, anchor="end", fill=QUIET, size=12))
    for value in _ticks(axes.x, 5):
        x, _ = axes.at(value, axes.y[0])
        lines.append(_text(f"{value:g}", x, axes.bottom + 18, anchor="middle", fill=QUIET, size=12))
    if x_title:
        lines.append(_text(x_title, (axes.left + axes.right) / 2, axes.bottom + 38, anchor="middle", fill=QUIET))
    return lines


def _span(values: Sequence[float], margin: float) -> tuple[float, float]:
    """The values' range in percent with some air around it, never empty."""
    low, high = min(values), max(values)
    air = max(margin * (high - low), 1.0)
    return low - air, high + air


def _ticks(span: tuple[float, float], about: int) -> list[float]:
    """Round numbers inside the span: multiples of 1, 2 or 5 times a power of ten, some ``about`` of them."""
    rough = (span[1] - span[0]) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(multiple for multiple in (1, 2, 5, 10) if multiple * power >= rough * 0.999)
    first, last = math.ceil(span[0] / step), math.floor(span[1] / step)
    return [round(number * step, 9) for number in range(first, last + 1)]


def _pair(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _text(
    words: str, x: float, y: float, *, anchor: str = "start", fill: str = INK, weight: str = "400", size: int = 13
) -> str:
    style = f'text-anchor="{anchor}" fill="{fill}" font-weight="{weight}" font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
