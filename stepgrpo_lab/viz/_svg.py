"""Small hand-written pictures (SVG) that need neither a browser nor a plotting library.

They bring their own light background, so they read on any page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from stepgrpo_lab.evaluation.statistics import Interval

BACKGROUND, INK, QUIET = "#fcfcfa", "#1f2328", "#596069"


def picture(width: int, height: int, title: str, description: str, parts: Sequence[str]) -> str:
    """A whole picture; title and description are read out by a screen reader."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
            ' aria-labelledby="picture-title picture-description" font-family="system-ui, sans-serif">',
            f'<title id="picture-title">{escape(title)}</title>',
            f'<desc id="picture-description">{escape(description)}</desc>',
            f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


@dataclass(frozen=True)
class Axes:
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


def frame(axes: Axes, title: str, x_title: str, unit: str) -> list[str]:
    """Title, grid lines with their numbers, and the name of the horizontal axis."""
    lines = [text(title, axes.left - 32, axes.top - 22, weight="600", size=15)]
    for value in round_ticks(axes.y, 5 if axes.bottom - axes.top > 150 else 3):
        if unit == "%" and not 0 <= value <= 100:
            continue
        _, y = axes.at(axes.x[0], value)
        label = f"{value:g} %" if unit == "%" else f"{value:g}"
        lines.append(f'<path d="M{axes.left:.1f} {y:.1f}H{axes.right:.1f}" stroke="#d9dce0" fill="none"/>')
        lines.append(text(label, axes.left - 6, y + 4, anchor="end", fill=QUIET, size=12))
    for value in round_ticks(axes.x, 5):
        x, _ = axes.at(value, axes.y[0])
        lines.append(text(f"{value:g}", x, axes.bottom + 18, anchor="middle", fill=QUIET, size=12))
    if x_title:
        lines.append(text(x_title, (axes.left + axes.right) / 2, axes.bottom + 38, anchor="middle", fill=QUIET))
    return lines


def padded_span(values: Sequence[float], margin: float) -> tuple[float, float]:
    """The values' range in percent with some air around it, never empty."""
    low, high = min(values), max(values)
    air = max(margin * (high - low), 1.0)
    return low - air, high + air


def round_ticks(span: tuple[float, float], about: int) -> list[float]:
    """Round numbers inside the span: multiples of 1, 2 or 5 times a power of ten, some ``about`` of them."""
    rough = (span[1] - span[0]) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(multiple for multiple in (1, 2, 5, 10) if multiple * power >= rough * 0.999)
    first, last = math.ceil(span[0] / step), math.floor(span[1] / step)
    return [round(number * step, 9) for number in range(first, last + 1)]


def xy(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def text(
    words: str, x: float, y: float, *, anchor: str = "start", fill: str = INK, weight: str = "400", size: int = 13
) -> str:
    style = f'text-anchor="{anchor}" fill="{fill}" font-weight="{weight}" font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def curve(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, *, dash: str = "") -> str:
    """A line through the points."""
    path = " L".join(xy(axes.at(*place)) for place in zip(x, y, strict=True))
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="M{path}" stroke="{colour}" stroke-width="2.5" fill="none" stroke-linejoin="round"{dashed}/>'


def cross(axes: Axes, x: Interval, y: Interval, colour: str, *, square: bool = False) -> list[str]:
    """A point with a bar for each of its intervals, round or square."""
    across, up = axes.at(x.estimate, y.estimate)
    (left, _), (right, _) = axes.at(x.low, y.estimate), axes.at(x.high, y.estimate)
    (_, low), (_, high) = axes.at(x.estimate, y.low), axes.at(x.estimate, y.high)
    bars = f"M{left:.1f} {up:.1f}H{right:.1f}M{across:.1f} {low:.1f}V{high:.1f}"
    marker = (
        f'<rect x="{across - 5.5:.1f}" y="{up - 5.5:.1f}" width="11" height="11" fill="{colour}"/>'
        if square
        else f'<circle cx="{across:.1f}" cy="{up:.1f}" r="6" fill="{colour}"/>'
    )
    return [f'<path d="{bars}" stroke="{colour}" stroke-width="2.5" fill="none"/>', marker]
