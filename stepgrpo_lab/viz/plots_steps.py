"""Figures of thoughts as steps: what each step of a completion was good for, and what stopping early costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stepgrpo_lab.overthinker.verifier import LABELS
from stepgrpo_lab.recordings.measures import LabelledSize, RuleTrial
from stepgrpo_lab.viz.plot_style import DASHES, HATCHES, INK, PALETTE, SHAPES, styled
from stepgrpo_lab.viz.report_pages import visible_text

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

    if not completions:
        raise ValueError("completions is empty; pass at least one")
    closing = "close and answer"
    names = [visible_text(name) for name in completions]
    pieces: dict[str, list[tuple[str, int, int]]] = {label: [] for label in (*LABELS, closing)}
    for name, size in zip(names, completions.values(), strict=True):
        place = 0
        for step, tokens in zip(size.labels, size.step_tokens, strict=True):
            pieces[step].append((name, place, tokens))
            place += tokens
        pieces[closing].append((name, place, size.closing_tokens))
    figure = Figure()
    for number, (label, drawn) in enumerate(pieces.items()):
        if drawn:
            rows, places, lengths = zip(*drawn, strict=True)
            bar = Bar(y=rows, base=places, x=lengths, name=label, orientation="h")
            bar.marker = {
                "color": INK if label == closing else PALETTE[number],
                "pattern": {"shape": HATCHES[number]},
                "line": {"color": "white", "width": 1.5},
            }
            figure.add_trace(bar)
    figure.update_layout(barmode="overlay", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    figure.update_xaxes(title_text="tokens of the completion")
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=names[::-1])
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


def steps_against_tokens(counts: Mapping[str, Sequence[int]], tokens: Sequence[int]) -> Figure:
    """Number of steps of completions against their length, for several ways to count; a good unit makes a line.

    Args:
        counts: Name of a way to count -> ``[completions]`` steps.
        tokens: ``[completions]`` lengths.

    Raises:
        ValueError: A way to count has not one number for each completion.

    Example:
        >>> figure = steps_against_tokens({"markers": [1, 3]}, [20, 50])
        >>> list(figure.data[0].x), list(figure.data[0].y)
        ([20, 50], [1, 3])
    """
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for number, (name, steps) in enumerate(counts.items()):
        if len(steps) != len(tokens):
            raise ValueError(f"{name!r} counts {len(steps)} completions, but there are {len(tokens)} lengths")
        marker = {"color": PALETTE[number % len(PALETTE)], "symbol": SHAPES[number % len(SHAPES)], "size": 7}
        figure.add_trace(
            Scatter(x=list(tokens), y=list(steps), name=visible_text(name), mode="markers", marker=marker, opacity=0.5)
        )
    figure.update_xaxes(title_text="tokens of the completion", rangemode="tozero")
    figure.update_yaxes(title_text="steps", rangemode="tozero")
    return styled(figure, height=340)
