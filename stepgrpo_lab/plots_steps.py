"""Figures of thoughts as steps: what each step of a completion was good for, and what stopping early costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stepgrpo_lab.plot_style import DASHES, HATCHES, INK, PALETTE, SHAPES, styled
from stepgrpo_lab.recordings.measures import LabelledSize, RuleTrial
from stepgrpo_lab.report_html import visible_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def labelled_completions(completions: Mapping[str, LabelledSize]) -> Figure:
    """Completions as bars, one piece for each step: its length in tokens, its colour what it was good for.

    Args:
        completions: Name -> the completion; drawn from the top down.

    Raises:
        ValueError: There is no completion.

    Example:
        >>> figure = labelled_completions({"1": LabelledSize(("needed", "redundant"), (16, 15), 7)})
        >>> [(trace.name, list(trace.x)) for trace in figure.data]
        [('needed', [16]), ('redundant', [15]), ('close and answer', [7])]
    """
    from plotly.graph_objects import Bar, Figure

    from stepgrpo_lab.analysis import LABELS

    if not completions:
        raise ValueError("completions is empty; pass at least one")
    pieces: dict[str, list[tuple[str, int, int]]] = {label: [] for label in (*LABELS, "close and answer")}
    for name, size in completions.items():
        place = 0
        for label, tokens in zip(size.labels, size.step_tokens, strict=True):
            pieces[label].append((visible_text(name), place, tokens))
            place += tokens
        pieces["close and answer"].append((visible_text(name), place, size.closing_tokens))
    figure = Figure()
    for number, (label, drawn) in enumerate(pieces.items()):
        if drawn:
            names, places, lengths = zip(*drawn, strict=True)
            bar = Bar(y=names, base=places, x=lengths, name=label, orientation="h")
            bar.marker = {
                "color": PALETTE[number] if label in LABELS else INK,
                "pattern": {"shape": HATCHES[number]},
                "line": {"color": "white", "width": 1.5},
            }
            figure.add_trace(bar)
    figure.update_layout(barmode="overlay", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    figure.update_xaxes(title_text="tokens of the completion")
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=list(reversed(completions)))
    return styled(figure, height=150 + 30 * len(completions))


def stopping_curves(curves: Mapping[str, Sequence[RuleTrial]], marks: Mapping[str, tuple[float, float]]) -> Figure:
    """Right answers against length when thoughts are stopped by rules: up and to the left is better.

    Args:
        curves: Name of a kind of rule -> its trials, joined by a line; bars are 95 % intervals over problems.
        marks: Name -> (tokens, share of right answers) of a single point, such as the whole completions.

    Raises:
        ValueError: There is nothing to draw.
    """
    from plotly.graph_objects import Figure, Scatter

    if not curves and not marks:
        raise ValueError("there is nothing to draw; pass a curve or a mark")
    figure = Figure()
    for number, (name, trials) in enumerate(curves.items()):
        intervals = [trial.right_interval * 100 for trial in trials]
        figure.add_trace(
            Scatter(
                x=[trial.tokens for trial in trials],
                y=[interval.estimate for interval in intervals],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [interval.high - interval.estimate for interval in intervals],
                    "arrayminus": [interval.estimate - interval.low for interval in intervals],
                },
                name=visible_text(name),
                mode="lines+markers",
                line={"color": PALETTE[number % len(PALETTE)], "dash": DASHES[number % len(DASHES)]},
                marker={"symbol": SHAPES[number % len(SHAPES)], "size": 8},
            )
        )
    for number, (name, (tokens, right)) in enumerate(marks.items(), start=len(curves)):
        figure.add_trace(
            Scatter(
                x=[tokens],
                y=[100 * right],
                name=visible_text(name),
                mode="markers",
                marker={"symbol": "star", "size": 15, "color": PALETTE[number % len(PALETTE)]},
            )
        )
    figure.update_xaxes(title_text="tokens per completion (mean)", rangemode="tozero")
    figure.update_yaxes(title_text="right (%)", range=[0, 104])
    return styled(figure, height=400)
