"""The reliability diagram of trial answers, as a small picture."""

from __future__ import annotations

from typing import Any

from stepgrpo_lab.viz.style import PALETTE
from stepgrpo_lab.viz.svg import QUIET, Axes, frame, picture, text

WIDTH, HEIGHT = 480, 440


def draw_reliability(calibration: dict[str, Any], title: str) -> str:
    """Share right against stated probability, one dot for each bin, its area the number of answers in it.

    Args:
        calibration: A :class:`stepgrpo_lab.evaluation.statistics.Calibration` as a dictionary.
        title: What was calibrated.

    Returns:
        SVG text. On the diagonal a probability is worth what it says; below it, the model is too sure.
    """
    bins = [part for part in calibration["bins"] if part["count"]]
    axes = Axes(72, 72, 432, 372, (0.0, 1.0), (0.0, 100.0))
    (start, low), (end, high) = axes.at(0, 0), axes.at(1, 100)
    lines = frame(axes, title, "stated probability", "%")
    lines.append(f'<path d="M{start:.1f} {low:.1f}L{end:.1f} {high:.1f}" stroke="{QUIET}" stroke-dasharray="6 4"/>')
    for part in bins:
        x, y = axes.at(part["confidence"], 100 * part["accuracy"])
        _, even = axes.at(0, 100 * part["confidence"])
        radius = 3 + 17 * (part["count"] / calibration["count"]) ** 0.5
        lines.append(f'<path d="M{x:.1f} {y:.1f}V{even:.1f}" stroke="{PALETTE[1]}" stroke-width="2.5"/>')
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{PALETTE[0]}" fill-opacity="0.75"/>')
    lines.append(text(f"ECE {calibration['ece']:.3f}, {calibration['count']} answers", 88, 92, weight="600"))
    told = "; ".join(f"{part['confidence']:.2f} stated, {part['accuracy']:.2f} right" for part in bins)
    return picture(WIDTH, HEIGHT, title, told, lines)
