"""Figures of metrics over training: learning curves in panels, and the shares of the reasons why thoughts ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.viz._style import HATCHES, INK, colour, line_look, new_figure, styled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 1000
"""Points of a line at most: more than a screen can tell apart."""

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


def series(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Training steps and values of one metric, from the rows that hold a finite number for it.

    Example:
        >>> series([{"step": 0, "reward": 0.5}, {"step": 1}], "reward")
        ([0], [0.5])
    """
    rows = [
        (row["step"], row[key])
        for row in metrics
        if "step" in row and isinstance(row.get(key), (int, float)) and math.isfinite(row[key])
    ]
    return [step for step, _ in rows], [value for _, value in rows]


def thinned(metrics: Sequence[Mapping[str, Any]], most: int = MOST_POINTS) -> list[dict[str, Any]]:
    """Rows of metrics, so few that a figure stays light: of long runs, each row is the mean of neighbouring ones.

    A metric that only some rows hold, such as validation, is averaged over those. ``step`` is the last one's.

    Example:
        >>> thinned([{"step": 1, "reward": 0.0}, {"step": 2, "reward": 1.0}, {"step": 3, "tokens": 9}], most=2)
        [{'step': 2, 'reward': 0.5}, {'step': 3, 'tokens': 9}]
    """
    share = math.ceil(len(metrics) / most)
    if share <= 1:
        return [dict(row) for row in metrics]
    return [_mean_row(metrics[start : start + share]) for start in range(0, len(metrics), share)]


def _mean_row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for row in rows for key in row):
        values = [row[key] for row in rows if key in row]
        numbers = [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
        averaged = key != "step" and len(values) > 1 and bool(numbers)
        merged[key] = math.fsum(numbers) / len(numbers) if averaged else values[-1]
    return merged


def learning_curves(metrics: Sequence[Mapping[str, Any]], panels: Sequence[Panel] = PANELS) -> Figure:
    """What happened during training: one panel for each kind of metric that was recorded.

    Args:
        metrics: One dictionary per logged step, with "step" and numbers under the keys of ``metrics.jsonl``; of long
            runs, means of neighbouring steps are drawn.
        panels: What to draw; panels without a record are left out.

    Raises:
        ValueError: No row holds a metric that is plotted.
    """
    from plotly.graph_objects import Scatter
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
                mode = "lines+markers" if len(steps) <= 30 else "lines"
                line = Scatter(x=steps, y=[factor * value for value in values], name=name, mode=mode)
                figure.add_trace(line.update(**line_look(number)), **place)
        bounds = {"minallowed": -2, "maxallowed": 102} if unit.startswith("%") else None
        figure.update_yaxes(title_text=unit, autorangeoptions=bounds, **place)
        figure.update_xaxes(title_text="optimiser step", **place)
        drawn = [(number, name) for number, (key, name) in enumerate(names.items()) if series(metrics, key)[0]]
        figure.layout.annotations[index].update(text=_heading(panels[index][0], drawn), font={"size": 13})
    figure = styled(figure, height=330 * rows)
    return figure.update_xaxes(matches="x").update_layout(showlegend=False, margin={"t": 84})


SIGNS = "●■◆▲✚✖"
"""The markers of :func:`line_look`, as text."""


def _heading(title: str, lines: Sequence[tuple[int, str]]) -> str:
    """A panel's title, and below it what its lines are: a legend that lies on no line."""
    if len(lines) < 2:
        return title
    parts, length = [""], 0
    for number, name in lines:
        if length and length + len(name) > HEADING_LENGTH:
            parts, length = [*parts, ""], 0
        sign = f'<span style="color:{colour(number)}">{SIGNS[number % len(SIGNS)]}</span>'
        parts[-1] += f"{' ' * 2 if length else ''}{sign} {name}"
        length += len(name) + 4
    return "<br>".join([title, *(f"<sub>{part}</sub>" for part in parts)])


HEADING_LENGTH = 34
"""Characters of a line of names: what fits above half of a narrow figure."""


def exit_reasons(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Shares of the reasons why thoughts ended, stacked, over training.

    Raises:
        ValueError: No row holds an ``exits/...`` metric.
    """
    metrics = thinned(metrics)
    title = "Why thoughts ended in training rollouts"
    figure = new_figure("optimiser step", "share of completions (%)", title=title, height=380)
    for number, (key, name) in enumerate(EXITS.items()):
        steps, values = series(metrics, key)
        if steps:
            figure.add_scatter(
                x=steps,
                y=[100 * value for value in values],
                name=name,
                mode="lines",
                stackgroup="exits",
                fillpattern={"shape": HATCHES[number], "fgcolor": INK, "fillmode": "overlay"},
                **line_look(number, width=1.5),
            )
    if not figure.data:
        raise ValueError(f"metrics hold none of {', '.join(EXITS)}; record them during training")
    return figure
