"""Plotly figures from plain records: dictionaries, intervals and tables, never data frames.

Plotly is imported when the first figure is drawn. The style is :mod:`stepgrpo_lab.viz.plot_style`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.viz.plot_style import DASHES, HATCHES, INK, PALETTE, SHAPES, error_bar, series, styled, thinned

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

EXITS = {
    "exits/natural": "closed by itself",
    "exits/early": "confident probe",
    "exits/near_budget": "probe near the budget",
    "exits/budget": "think budget used up",
    "exits/none": "never",
}
"""Metric key of each reason why thoughts ended, and how the figures call it."""

Panel = tuple[str, str, float, dict[str, str]]
"""Title, unit of the vertical axis, factor from metric to unit, and metric key -> name of its line."""

PANELS: tuple[Panel, ...] = (
    (
        "Validation accuracy",
        "correct (%)",
        100,
        {
            "validation/accuracy": "right, plain decoding",
            "validation/rollout_accuracy": "right, truncated rollout",
            "validation/first_cut_accuracy": "right, cut at the first marker",
        },
    ),
    (
        "Validation length",
        "tokens per completion",
        1,
        {"validation/tokens": "tokens, plain decoding", "validation/rollout_tokens": "tokens, truncated rollout"},
    ),
    ("Training reward", "mean reward", 1, {"reward": "reward"}),
    (
        "Semantic steps",
        "steps per completion",
        1,
        {"steps/all": "rollout, all", "steps/correct": "rollout, correct", "validation/steps": "validation"},
    ),
    (
        "Trial answers in training rollouts",
        "%",
        100,
        {"probe/joint": "stated probability", "probe/right": "correct"},
    ),
    (
        "What the update can learn from",
        "share (%)",
        100,
        {
            "groups/informative": "informative groups",
            "forced_close/signal": "forced closes with a signal",
            "truncated": "truncated completions",
            "validation/first_probe_ece": "calibration error of the first probe",
        },
    ),
)

CURVES = tuple(key for panel in PANELS for key in panel[3])
"""The metrics that :func:`learning_curves` draws."""


class TradeoffPoint(TypedDict):
    """One model in the trade-off figure: accuracy as a share in [0, 1], tokens per completion."""

    name: str
    accuracy: Interval
    tokens: Interval


def learning_curves(metrics: Sequence[Mapping[str, Any]], panels: Sequence[Panel] = PANELS) -> Figure:
    """What happened during training: one panel for each kind of metric that was recorded.

    Args:
        metrics: One dictionary per logged step, with "step" and numbers under the keys of ``metrics.jsonl``; of long
            runs, means of neighbouring steps are drawn.
        panels: What to draw; panels without a record are left out.

    Raises:
        ValueError: No row holds a metric that is plotted.
    """
    from plotly.subplots import make_subplots

    metrics = thinned(metrics)
    panels = [panel for panel in panels if any(series(metrics, key)[0] for key in panel[3])]
    if not panels:
        raise ValueError("metrics hold no value that is plotted; expected rows with 'step' and keys such as 'reward'")
    rows = math.ceil(len(panels) / 2)
    figure = make_subplots(
        rows=rows,
        cols=min(2, len(panels)),
        subplot_titles=[title for title, *_ in panels],
        vertical_spacing=0.36 / rows,
        horizontal_spacing=0.1,
    )
    for index, (_, unit, factor, names) in enumerate(panels):
        place = {"row": index // 2 + 1, "col": index % 2 + 1}
        for number, (key, name) in enumerate(names.items()):
            steps, values = series(metrics, key)
            if steps:
                line = _line(steps, [factor * value for value in values], name, number)
                figure.add_trace(line.update(legend=_legend_name(index)), **place)
        figure.update_yaxes(title_text=unit, **place)
        figure.update_xaxes(title_text="optimiser step", **place)
        _place_legend(figure, index)
    return styled(figure, height=330 * rows)


def _legend_name(panel: int) -> str:
    return "legend" if panel == 0 else f"legend{panel + 1}"


def _place_legend(figure: Figure, panel: int) -> None:
    """Give a panel with several lines a legend of its own, in its upper corner, and room for it above the lines."""
    suffix = "" if panel == 0 else str(panel + 1)
    across, up = figure.layout[f"xaxis{suffix}"].domain, figure.layout[f"yaxis{suffix}"].domain
    lines = [trace.y for trace in figure.data if trace.legend == _legend_name(panel)]
    several = len(lines) > 1
    if several:
        low, high = min(map(min, lines)), max(map(max, lines))
        air = (high - low) or 1.0
        figure.layout[f"yaxis{suffix}"].range = [low - 0.05 * air, high + 0.5 * air]
    figure.layout[_legend_name(panel)] = {
        "x": across[1],
        "y": up[1],
        "xanchor": "right",
        "yanchor": "top",
        "bgcolor": "rgba(0, 0, 0, 0)",
        "visible": several,
        "font": {"size": 11},
    }


def _line(steps: Sequence[float], values: Sequence[float], name: str, number: int) -> Any:
    from plotly.graph_objects import Scatter

    colour = PALETTE[number % len(PALETTE)]
    return Scatter(
        x=list(steps),
        y=list(values),
        name=name,
        mode="lines+markers" if len(steps) <= 30 else "lines",
        line={"color": colour, "width": 2, "dash": DASHES[number % len(DASHES)]},
        marker={"symbol": SHAPES[number % len(SHAPES)], "size": 7},
    )


def interval_marker(name: str, x: Interval, y: Interval, number: int) -> Any:
    """A named marker with its interval in both directions; ``number`` chooses colour and shape."""
    from plotly.graph_objects import Scatter

    return Scatter(
        x=[x.estimate],
        y=[y.estimate],
        error_x=error_bar(x),
        error_y=error_bar(y),
        name=name,
        text=[name],
        mode="markers+text",
        textposition="top right",
        cliponaxis=False,
        marker={
            "size": 12,
            "color": PALETTE[number % len(PALETTE)],
            "symbol": SHAPES[(number + number // len(PALETTE)) % len(SHAPES)],
        },
    )


def tradeoff(points: Sequence[TradeoffPoint]) -> Figure:
    """Accuracy against tokens, one marker for each model, with its interval in both directions.

    Up and to the left is better: more correct answers for fewer tokens.

    Raises:
        ValueError: There are no points.
    """
    from plotly.graph_objects import Figure

    if not points:
        raise ValueError("there are no points to draw; pass at least one model")
    figure = Figure()
    for number, point in enumerate(points):
        accuracy, tokens = point["accuracy"] * 100, point["tokens"]
        figure.add_trace(interval_marker(point["name"], tokens, accuracy, number))
    # Room on the right for the last point's name.
    reach = 1.2 * max(point["tokens"].high for point in points)
    figure.update_xaxes(title_text="tokens per completion (mean)", range=[0, reach])
    figure.update_yaxes(title_text="correct (%)")
    figure.update_layout(showlegend=False)  # every marker has its name beside it
    return styled(figure, title="Accuracy against length, with 95 % intervals", height=420)


def exit_reasons(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Shares of the reasons why thoughts ended, stacked, over training.

    Raises:
        ValueError: No row holds an ``exits/...`` metric.
    """
    from plotly.graph_objects import Figure, Scatter

    figure, metrics = Figure(), thinned(metrics)
    for number, (key, name) in enumerate(EXITS.items()):
        steps, values = series(metrics, key)
        if steps:
            colour = PALETTE[number]
            figure.add_trace(
                Scatter(
                    x=steps,
                    y=[100 * value for value in values],
                    name=name,
                    mode="lines",
                    stackgroup="exits",
                    line={"color": colour, "width": 1.5, "dash": DASHES[number]},
                    fillpattern={"shape": HATCHES[number], "fgcolor": INK, "fillmode": "overlay"},
                )
            )
    if not figure.data:
        raise ValueError(f"metrics hold none of {', '.join(EXITS)}; record them during training")
    figure.update_xaxes(title_text="optimiser step")
    figure.update_yaxes(title_text="share of completions (%)")
    return styled(figure, title="Why thoughts ended in training rollouts", height=380)


def step_labels(counts: Mapping[str, Mapping[str, float]]) -> Figure:
    """What the steps were good for: stacked bars, one for each run.

    Args:
        counts: Run -> label ("needed", "verifying", "redundant", "malformed") -> mean number of steps per completion.

    Raises:
        ValueError: There is no run.
    """
    from plotly.graph_objects import Bar, Figure

    if not counts:
        raise ValueError("counts is empty; pass at least one run")
    labels = list(dict.fromkeys(label for run in counts.values() for label in run))
    figure = Figure()
    for number, label in enumerate(labels):
        figure.add_trace(
            Bar(
                x=list(counts),
                y=[run.get(label, 0.0) for run in counts.values()],
                name=label,
                marker={
                    "color": PALETTE[number % len(PALETTE)],
                    "pattern": {"shape": HATCHES[number % len(HATCHES)]},
                },
            )
        )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(title_text="steps per completion (mean)")
    return styled(figure, title="What the semantic steps were good for", height=400)
