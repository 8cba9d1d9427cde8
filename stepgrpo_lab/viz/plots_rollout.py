"""Figures of one completion: what its probes scored, and how its rollout went through the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stepgrpo_lab.method.rollout import Phase
from stepgrpo_lab.viz.plot_style import DASHES, INK, PALETTE, SHAPES, styled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepgrpo_lab.recordings.replay import Frame

PHASES = {Phase.THINK: "think", Phase.PROBE: "probe", Phase.CLOSE: "close", Phase.ANSWER: "answer"}


def exit_scores(
    positions: Sequence[int],
    scores: Mapping[str, Sequence[float]],
    right: Sequence[bool],
    *,
    chosen: str,
    threshold: float,
    tokens: int,
    stop: int | None = None,
) -> Figure:
    """Score of every trial answer under every confidence rule, along one completion.

    Args:
        positions: ``[probes]`` place of each probe, in kept tokens.
        scores: Confidence rule -> ``[probes]`` scores in [0, 1].
        right: ``[probes]`` whether the trial answer is right: a disc, or a cross where it is wrong.
        chosen: The rule that decides, drawn heavily.
        threshold: The score that must be exceeded.
        tokens: Length of the completion.
        stop: Place where the rule stops; None if it never does.

    Raises:
        ValueError: ``chosen`` is not among the scores.

    Example:
        >>> scores = {"joint": [0.5, 0.97]}
        >>> figure = exit_scores([12, 30], scores, [False, True], chosen="joint", threshold=0.9, tokens=60)
        >>> list(figure.data[0].y)
        [0.5, 0.97]
    """
    from plotly.graph_objects import Figure, Scatter

    if chosen not in scores:
        raise ValueError(f"no scores of the chosen rule {chosen!r}; there are {', '.join(scores) or 'none'}")
    figure = Figure()
    for number, (rule, values) in enumerate(scores.items()):
        decides = rule == chosen
        symbols = ["circle" if good else "x" for good in right] if decides else SHAPES[number % len(SHAPES)] + "-open"
        figure.add_trace(
            Scatter(
                x=list(positions),
                y=list(values),
                name=f"{rule} (decides)" if decides else rule,
                mode="lines+markers",
                opacity=1.0 if decides else 0.8,
                line={"color": PALETTE[number], "width": 3 if decides else 1.5, "dash": DASHES[number]},
                marker={"symbol": symbols, "size": 11 if decides else 6},
                customdata=["right" if good else "wrong" for good in right],
                hovertemplate=f"{rule} %{{y:.3f}} at token %{{x}}, trial answer %{{customdata}}<extra></extra>",
            )
        )
    figure.add_trace(
        Scatter(
            x=[0, tokens],
            y=[threshold, threshold],
            name="threshold",
            mode="lines",
            line={"color": INK, "width": 1.5, "dash": "dash"},
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        Scatter(
            x=[] if stop is None else [stop, stop],
            y=[] if stop is None else [0, 1.05],
            name="stops here",
            mode="lines",
            line={"color": PALETTE[1], "width": 3},
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(title_text="tokens of the completion", range=[0, tokens])
    figure.update_yaxes(title_text="score of the trial answer", range=[0, 1.05])
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return styled(figure, height=320)


def forward_passes(frames: Sequence[Frame], current: int = 0) -> Figure:
    """The place that each forward pass wrote: thoughts climb, a probe climbs on from the marker and snaps back.

    Args:
        frames: The completion's frames, from :func:`stepgrpo_lab.recordings.replay.replay`.
        current: The frame to ring.

    Raises:
        ValueError: ``current`` is not among the frames.
    """
    from plotly.graph_objects import Figure, Scatter

    if not 0 <= current < len(frames):
        raise ValueError(f"current is {current}, but there are {len(frames)} frames, from 0")
    figure = Figure()
    places = [len(frame.cells) - 1 for frame in frames]
    for number, (phase, name) in enumerate(PHASES.items()):
        passes = [index for index, frame in enumerate(frames) if frame.phase is phase and frame.cells]
        figure.add_trace(
            Scatter(
                x=passes,
                y=[places[index] for index in passes],
                name=name,
                mode="markers",
                marker={"color": PALETTE[number], "symbol": SHAPES[number], "size": 6},
                hovertemplate=f"pass %{{x}} wrote place %{{y}} ({name})<extra></extra>",
            )
        )
    figure.add_trace(
        Scatter(
            x=[current],
            y=[max(0, places[current])],
            name="shown",
            mode="markers",
            marker={"color": INK, "symbol": "circle-open", "size": 16, "line": {"width": 3}},
            hoverinfo="skip",
        )
    )
    figure.update_xaxes(title_text="forward pass", range=[-1, len(frames)])
    figure.update_yaxes(title_text="place in the completion", range=[-2, max(places) + 3])
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return styled(figure, height=280)
