"""The report's headline as one small hand-written picture, which needs neither a browser nor a plotting library.

Left: before and after on the plane of tokens and accuracy, with their intervals. Right: validation tokens and accuracy
over training. It brings its own light background, so it reads on any page.
"""

from __future__ import annotations

from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.run.folder import RunRecord
from stepgrpo_lab.viz._style import PALETTE
from stepgrpo_lab.viz._svg import QUIET, Axes, cross, curve, frame, padded_span, picture, text, xy
from stepgrpo_lab.viz.curves import series

WIDTH, HEIGHT = 960, 400
_BEFORE, _AFTER = PALETTE[1], PALETTE[0]


def draw_headline(run: RunRecord, description: str) -> str:
    """The picture as SVG text; ``description`` is read out by a screen reader.

    Raises:
        ValueError: The run has neither both evaluations nor validation figures.
    """
    panels = [*_plane(run), *_curves(run)]
    if not panels:
        raise ValueError(f"run {run.name!r} has no evaluations and no validation figures, so there is nothing to draw")
    return picture(WIDTH, HEIGHT, f"Accuracy and length of {run.model} before and after training", description, panels)


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
    axes = Axes(
        64,
        64,
        450,
        336,
        (0.0, 1.18 * max(tokens.high for _, tokens, *_ in points)),
        padded_span([bound for _, _, accuracy, *_ in points for bound in (accuracy.low, accuracy.high)], margin=0.35),
    )
    (start, end) = (axes.at(tokens.estimate, accuracy.estimate) for _, tokens, accuracy, *_ in points)
    return [
        *frame(axes, "Accuracy against length", "tokens per completion", "%"),
        f'<path d="M{xy(start)} L{xy(end)}" stroke="{QUIET}" stroke-dasharray="2 4" fill="none"/>',
        # The more accurate one is named above its bar and the other below, so that the names cannot meet.
        *(line for place, point in enumerate(points) for line in _cross(axes, *point, above=place == upper)),
    ]


def _cross(axes: Axes, name: str, tokens: Interval, accuracy: Interval, colour: str, *, above: bool) -> list[str]:
    """One model: a bar for each interval, a marker with a shape of its own, and its name with figures."""
    x, _ = axes.at(tokens.estimate, accuracy.estimate)
    (_, low), (_, high) = axes.at(tokens.estimate, accuracy.low), axes.at(tokens.estimate, accuracy.high)
    anchor, text_x = ("start", x + 10) if x < (axes.left + axes.right) / 2 else ("end", x - 10)
    words = f"{name}: {accuracy.estimate:.1f} %, {tokens.estimate:.0f} tokens"
    return [
        *cross(axes, tokens, accuracy, colour, square=name == "before"),
        text(words, text_x, high - 8 if above else low + 18, anchor=anchor, weight="600"),
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
            span = (0.0, 1.1 * max(values)) if unit == "tokens" else padded_span(values, margin=0.25)
            axes = Axes(548, top, 880, top + 104, (min(steps), max(steps)), span)
            end_x, end_y = axes.at(steps[-1], values[-1])
            lines += [
                *frame(axes, title, "optimiser step" if top > 200 else "", unit),
                curve(axes, steps, values, colour),
                f'<circle cx="{end_x:.1f}" cy="{end_y:.1f}" r="4" fill="{colour}"/>',
                text(f"{values[-1]:.1f}", end_x + 8, end_y + 4, weight="600"),
            ]
    return lines
