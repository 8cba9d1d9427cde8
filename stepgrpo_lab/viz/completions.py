"""Figures of completions: their steps, their probes, their forward passes, and what stopping early costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.evaluation.statistics import Calibration
from stepgrpo_lab.method.rollout import Phase
from stepgrpo_lab.overthinker.verifier import LABELS
from stepgrpo_lab.recordings.measures import LabelledSize, RuleTrial
from stepgrpo_lab.viz._html import visible_text
from stepgrpo_lab.viz._style import HATCHES, INK, PALETTE, SHAPES, bar_look, colour, error_bars, line_look, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepgrpo_lab.recordings.replay import Frame

PHASES = {Phase.THINK: "think", Phase.PROBE: "probe", Phase.CLOSE: "close", Phase.ANSWER: "answer"}


# ---- steps -----------------------------------------------------------------------------------------------------------


def step_labels(counts: Mapping[str, Mapping[str, float]]) -> Figure:
    """Steps by label, as stacked bars, one for each run.

    Args:
        counts: Run -> label ("needed", "verifying", ...) -> mean number of steps per completion.

    Raises:
        ValueError: There is no run.
    """
    if not counts:
        raise ValueError("counts is empty; pass at least one run")
    title = "Semantic steps by label"
    figure = new_figure("", "steps per completion (mean)", title=title, height=400)
    labels = dict.fromkeys(label for run in counts.values() for label in run)
    for number, label in enumerate(labels):
        shares = [run.get(label, 0.0) for run in counts.values()]
        figure.add_bar(x=list(counts), y=shares, name=label, marker=bar_look(number))
    return figure.update_layout(barmode="stack")


def labelled_completions(completions: Mapping[str, LabelledSize]) -> Figure:
    """Completions as bars, one piece for each step: its length in tokens, its colour the label.

    Args:
        completions: Name -> the completion; drawn from the top down.

    Raises:
        ValueError: There is no completion.

    Example:
        >>> figure = labelled_completions({"1": LabelledSize(("needed", "redundant"), (16, 15), 7)})
        >>> [(trace.name, list(trace.x)) for trace in figure.data]
        [('needed', [16]), ('redundant', [15]), ('close and answer', [7])]
    """
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
    figure = new_figure("tokens of the completion", "", height=150 + 30 * len(completions))
    for number, (label, drawn) in enumerate(pieces.items()):
        if drawn:
            rows, places, lengths = zip(*drawn, strict=True)
            look = {"color": INK if label == closing else colour(number), "pattern": {"shape": HATCHES[number]}}
            edge = {"line": {"color": "white", "width": 1.5}}
            figure.add_bar(y=rows, base=places, x=lengths, name=label, orientation="h", marker={**look, **edge})
    figure.update_layout(barmode="overlay")
    return figure.update_yaxes(type="category", categoryorder="array", categoryarray=names[::-1])


def steps_against_tokens(counts: Mapping[str, Sequence[int]], tokens: Sequence[int]) -> Figure:
    """Number of steps of completions against their length, for several ways to count; a good unit makes a line.

    Args:
        counts: Name of a way to count -> ``[completions]`` steps.
        tokens: ``[completions]`` lengths.

    Raises:
        ValueError: A way to count has more or fewer numbers than there are completions.

    Example:
        >>> figure = steps_against_tokens({"markers": [1, 3]}, [20, 50])
        >>> list(figure.data[0].x), list(figure.data[0].y)
        ([20, 50], [1, 3])
    """
    figure = new_figure("tokens of the completion", "steps", height=340)
    for number, (name, steps) in enumerate(counts.items()):
        if len(steps) != len(tokens):
            raise ValueError(f"{name!r} counts {len(steps)} completions, but there are {len(tokens)} lengths")
        x, y = list(tokens), list(steps)
        figure.add_scatter(x=x, y=y, name=visible_text(name), mode="markers", opacity=0.5, **line_look(number))
    return figure.update_layout(xaxis_rangemode="tozero", yaxis_rangemode="tozero")


# ---- probes ----------------------------------------------------------------------------------------------------------


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
    if chosen not in scores:
        raise ValueError(f"no scores of the chosen rule {chosen!r}; there are {', '.join(scores) or 'none'}")
    figure = new_figure("tokens of the completion", "score of the trial answer", height=320)
    for number, (rule, values) in enumerate(scores.items()):
        decides = rule == chosen
        symbols = ["circle" if good else "x" for good in right] if decides else SHAPES[number % len(SHAPES)] + "-open"
        figure.add_scatter(
            x=list(positions),
            y=list(values),
            name=f"{rule} (decides)" if decides else rule,
            mode="lines+markers",
            opacity=1.0 if decides else 0.8,
            line=line_look(number, width=3 if decides else 1.5)["line"],
            marker={"symbol": symbols, "size": 11 if decides else 6},
            customdata=["right" if good else "wrong" for good in right],
            hovertemplate=f"{rule} %{{y:.3f}} at token %{{x}}, trial answer %{{customdata}}<extra></extra>",
        )
    dashed, heavy = {"color": INK, "width": 1.5, "dash": "dash"}, {"color": PALETTE[1], "width": 3}
    for name, x, y, line in (
        ("threshold", [0, tokens], [threshold, threshold], dashed),
        ("stops here", [] if stop is None else [stop, stop], [] if stop is None else [0, 1.05], heavy),
    ):
        figure.add_scatter(x=x, y=y, name=name, mode="lines", line=line, hoverinfo="skip")
    return figure.update_layout(xaxis_range=[0, tokens], yaxis_range=[0, 1.05])


def stopping_curves(curves: Mapping[str, Sequence[RuleTrial]], marks: Mapping[str, tuple[float, float]]) -> Figure:
    """Right answers against length when thoughts are stopped by rules: up and to the left is better.

    Args:
        curves: Name of a kind of rule -> its trials, joined by a line; bars are 95 % intervals over problems.
        marks: Name -> (tokens, share of right answers) of a single point, such as the whole completions.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not curves and not marks:
        raise ValueError("there is nothing to draw; pass a curve or a mark")
    figure = new_figure("tokens per completion (mean)", "right (%)", height=400)
    for number, (name, trials) in enumerate(curves.items()):
        intervals = [trial.right_interval * 100 for trial in trials]
        figure.add_scatter(
            x=[trial.tokens for trial in trials],
            y=[interval.estimate for interval in intervals],
            error_y=error_bars(intervals),
            name=visible_text(name),
            mode="lines+markers",
            **line_look(number),
        )
    for number, (name, (tokens, right)) in enumerate(marks.items(), start=len(curves)):
        star = {"symbol": "star", "size": 15, "color": colour(number)}
        figure.add_scatter(x=[tokens], y=[100 * right], name=visible_text(name), mode="markers", marker=star)
    return figure.update_layout(xaxis_rangemode="tozero", yaxis_range=[0, 104])


def reliability_diagram(calibration: Calibration) -> Figure:
    """Share of correct trial answers against their stated probability; calibrated answers lie on the diagonal.

    Args:
        calibration: Reliability of one set of answers; the bars are the shares of its bins.
    """
    filled = [row for row in calibration.bins if row.count]
    title = f"Reliability of {calibration.count} trial answers (ECE {calibration.ece:.3f})"
    figure = new_figure("joint probability of the trial answer", "%", title=title, height=420)
    figure.add_bar(
        x=[(row.low + row.high) / 2 for row in filled],
        y=[100 * row.count / calibration.count for row in filled],
        width=[row.high - row.low for row in filled],
        name="share of the answers",
        marker={"color": INK, "opacity": 0.4, "pattern": {"shape": "/"}},
    )
    _add_diagonal(figure)
    _add_bins(figure, calibration, "correct", {"line": {"color": PALETTE[0]}, "marker": {"size": 9}})
    return figure.update_layout(xaxis_range=[0, 1], yaxis_range=[0, 102])


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
    if not calibrations:
        raise ValueError("calibrations is empty; pass at least one")
    figure = new_figure(score, "right (%)", height=420)
    _add_diagonal(figure)
    for number, (name, calibration) in enumerate(calibrations.items()):
        sizes = [6 + 24 * (row.count / calibration.count) ** 0.5 for row in calibration.bins if row.count]
        look = line_look(number)
        look["marker"] |= {"size": sizes, "opacity": 0.75}
        _add_bins(figure, calibration, f"{visible_text(name)} (ECE {calibration.ece:.3f})", look)
    return figure.update_layout(xaxis_range=[0, 1.03], yaxis_range=[-3, 106])


def _add_diagonal(figure: Figure) -> None:
    figure.add_scatter(x=[0, 1], y=[0, 100], mode="lines", name="calibrated", line={"color": INK, "dash": "dash"})


def _add_bins(figure: Figure, calibration: Calibration, name: str, look: dict[str, Any]) -> None:
    """Share right of each filled bin against its mean stated probability."""
    filled = [row for row in calibration.bins if row.count]
    figure.add_scatter(
        x=[row.confidence for row in filled],
        y=[100 * (row.accuracy or 0.0) for row in filled],
        customdata=[row.count for row in filled],
        hovertemplate="stated %{x:.2f}, right %{y:.1f} %, %{customdata} answers<extra></extra>",
        name=name,
        mode="lines+markers",
        **look,
    )


# ---- forward passes --------------------------------------------------------------------------------------------------


def forward_passes(frames: Sequence[Frame], current: int = 0) -> Figure:
    """The place that each forward pass wrote: thoughts climb, a probe climbs on from the marker and snaps back.

    Args:
        frames: The completion's frames, from :func:`stepgrpo_lab.recordings.replay.replay`.
        current: The frame to ring.

    Raises:
        ValueError: ``current`` is not among the frames.
    """
    if not 0 <= current < len(frames):
        raise ValueError(f"current is {current}, but there are {len(frames)} frames, from 0")
    figure = new_figure("forward pass", "place in the completion", height=280)
    places = [len(frame.cells) - 1 for frame in frames]
    for number, (phase, name) in enumerate(PHASES.items()):
        passes = [index for index, frame in enumerate(frames) if frame.phase is phase and frame.cells]
        figure.add_scatter(
            x=passes,
            y=[places[index] for index in passes],
            name=name,
            mode="markers",
            marker={"color": PALETTE[number], "symbol": SHAPES[number], "size": 6},
            hovertemplate=f"pass %{{x}} wrote place %{{y}} ({name})<extra></extra>",
        )
    ring = {"color": INK, "symbol": "circle-open", "size": 16, "line": {"width": 3}}
    shown = [max(0, places[current])]
    figure.add_scatter(x=[current], y=shown, name="shown", mode="markers", marker=ring, hoverinfo="skip")
    return figure.update_layout(xaxis_range=[-1, len(frames)], yaxis_range=[-2, max(places) + 3])
