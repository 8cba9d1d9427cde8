"""The headline as one picture: what training did to length and accuracy, and whether the exit was learnt.

Left: every method against the untrained model. Right: validation length under plain decoding and under the truncated
rollout, over training, for half of each group's members probed and for every member probed. Where the two lines meet,
the model stops by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.experiments.study_results import RowResult, StudyResult
from stepgrpo_lab.viz.style import PALETTE
from stepgrpo_lab.viz.svg import QUIET, Axes, cross, curve, frame, padded_span, picture, text

WIDTH, HEIGHT = 960, 420
_PLAIN, _ROLLOUT = "validation/tokens", "validation/rollout_tokens"


def draw_study(headline: StudyResult, internalisation: StudyResult) -> str:
    """The picture as SVG text.

    Args:
        headline: The study "headline": methods against the untrained model.
        internalisation: The study "internalisation": two methods with the same seeds.

    Raises:
        ValueError: The second study does not hold two methods with validation curves.
    """
    methods = {name: _rows_of(internalisation, name) for name in internalisation.pooled}
    if len(methods) != 2 or not all(_PLAIN in row.curves for rows in methods.values() for row in rows):
        raise ValueError("the study of internalisation needs two methods with several seeds and validation curves")
    longest = max(value for rows in methods.values() for row in rows for _, value in row.curves[_PLAIN])
    panels = [
        line
        for (name, rows), top in zip(methods.items(), (64, 252), strict=True)
        for line in _gap(name, rows, top, longest)
    ]
    return picture(
        WIDTH,
        HEIGHT,
        "Step-GRPO on the Overthinker: accuracy against length, and whether the exit is learnt",
        "; ".join(_told(name, tokens, points) for name, tokens, points in _points(headline, internalisation)),
        [*_plane(_points(headline, internalisation)), *panels],
    )


def _rows_of(study: StudyResult, method: str) -> list[RowResult]:
    return [row for name, row in study.rows.items() if name.startswith(f"{method}, seed ")]


def _points(headline: StudyResult, internalisation: StudyResult) -> list[tuple[str, Interval, Interval]]:
    """Name, tokens in percent of the untrained model's, change of accuracy in points; seeds pooled."""
    comparisons = {**headline.pooled, **internalisation.pooled}
    for name, row in headline.rows.items():
        if name.partition(", seed ")[0] not in comparisons:
            comparisons[name.partition(", seed ")[0]] = row.comparison
    return [(name, c.token_ratio * 100, c.accuracy_points) for name, c in comparisons.items()]


def _told(name: str, tokens: Interval, points: Interval) -> str:
    return f"{name}: {tokens} % of the tokens, {points} points of accuracy"


def _plane(points: Sequence[tuple[str, Interval, Interval]]) -> list[str]:
    untrained = Interval(100.0, 100.0, 100.0), Interval(0.0, 0.0, 0.0)
    bounds = [bound for _, _, accuracy in points for bound in (accuracy.low, accuracy.high, 0.0)]
    longest = max(100.0, *(tokens.high for _, tokens, _ in points))
    axes = Axes(72, 64, 500, 352, (0.0, 1.3 * longest), padded_span(bounds, margin=0.3))
    lines = frame(axes, "Change of accuracy (points) against length", "tokens, % of the untrained model's", "points")
    named = [("untrained", *untrained, QUIET), *((*p, c) for p, c in zip(points, PALETTE, strict=False))]
    for name, tokens, accuracy, colour in named:
        x, y = axes.at(tokens.high, accuracy.estimate)
        lines += cross(axes, tokens, accuracy, colour, square=name == "untrained")
        lines.append(text(name, x + 9, y + (-8 if name == "untrained" else 14), weight="600", fill=colour))
    return lines


def _gap(name: str, rows: Sequence[RowResult], top: float, longest: float) -> list[str]:
    """Validation tokens over training, mean over seeds: plain decoding and truncated rollout."""
    lines: list[str] = []
    for key, label, dash, colour in (
        (_PLAIN, "plain decoding", "", PALETTE[0]),
        (_ROLLOUT, "truncated rollout", "6 4", PALETTE[1]),
    ):
        steps, values = _mean_curve([row.curves[key] for row in rows])
        axes = Axes(580, top, 790, top + 116, (min(steps), max(steps)), (0.0, 1.1 * longest))
        if not lines:
            lines += frame(axes, f"{name}: validation tokens", "optimiser step" if top > 200 else "", "tokens")
        _, end = axes.at(steps[-1], values[-1])
        lines.append(curve(axes, steps, values, colour, dash=dash))
        beside = -4 if key == _PLAIN else 12
        lines.append(text(f"{label} {values[-1]:.0f}", 797, end + beside, fill=colour, weight="600", size=12))
    return lines


def _mean_curve(curves: Sequence[Sequence[Sequence[float]]]) -> tuple[list[float], list[float]]:
    """Steps that every seed has, and the mean over seeds there."""
    tables = [{step: value for step, value in curve} for curve in curves]
    steps = [step for step, _ in curves[0] if all(step in table for table in tables)]
    return steps, [sum(table[step] for table in tables) / len(tables) for step in steps]
