"""Figures of one group: what each reward makes of its members, and the push on every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stepgrpo_lab.method.rewards import StepAwareReward, step_excess
from stepgrpo_lab.viz.plot_style import DASHES, HATCHES, INK, PALETTE, styled
from stepgrpo_lab.viz.report_pages import visible_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DIVERGING = ((0.0, "#D55E00"), (0.5, "rgba(127, 127, 127, 0.3)"), (1.0, "#0072B2"))
"""Vermillion through nothing to blue: less likely, unmoved, likelier."""


def group_advantages_chart(
    advantages: Mapping[str, Sequence[float]], members: Sequence[str], *, chosen: str | None = None
) -> Figure:
    """The advantages that several rewards give the members of one group.

    Args:
        advantages: Name of a reward -> ``[members]`` advantages.
        members: ``[members]`` names for the axis; a line break may stand in them.
        chosen: The reward to draw heavily.

    Raises:
        ValueError: There is no reward.

    Example:
        >>> chart = group_advantages_chart({"LP": [1.0, -1.0]}, ["1", "2"])
        >>> chart.data[0].name, list(chart.data[0].y)
        ('LP', [1.0, -1.0])
    """
    from plotly.graph_objects import Bar, Figure

    if not advantages:
        raise ValueError("advantages is empty; pass at least one reward")
    figure = Figure()
    for number, (name, values) in enumerate(advantages.items()):
        figure.add_trace(
            Bar(
                x=[visible_text(member).replace("\n", "<br>") for member in members],
                y=list(values),
                name=visible_text(name),
                opacity=1.0 if chosen in (None, name) else 0.75,
                marker={
                    "color": PALETTE[number % len(PALETTE)],
                    "pattern": {"shape": HATCHES[number % len(HATCHES)], "fgcolor": INK, "fillmode": "overlay"},
                    "line": {"color": INK, "width": 2 if name == chosen else 0},
                },
                hovertemplate="%{y:.3f}",
            )
        )
    figure.update_layout(
        barmode="group",
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    figure.update_xaxes(type="category")
    figure.update_yaxes(title_text="advantage")
    return styled(figure, height=340)


def step_reward_curve(step_betas: Sequence[float], *, step_alpha: float = 0.9, reach: float = 4.0) -> Figure:
    """Reward of a right, formatted completion over its steps, in means of its group (Eq. 4 and 5).

    Args:
        step_betas: Strengths of the step term, one curve each.
        step_alpha: Weight of correctness against format.
        reach: How far the steps go, in means.

    Raises:
        ValueError: There is no strength, or a value is out of range.

    Example:
        >>> curve = step_reward_curve([0.5]).data[0]
        >>> round(curve.y[list(curve.x).index(1.0)], 6)
        1.0
    """
    from plotly.graph_objects import Figure, Scatter

    if not step_betas or not reach > 0:
        raise ValueError("give at least one step_beta, and a reach greater than 0")
    for step_beta in step_betas:
        StepAwareReward(step_alpha, step_beta)  # refuses what is out of range
    ratios = [step / 20 for step in range(1, round(20 * reach) + 1)]
    figure = Figure()
    for number, step_beta in enumerate(step_betas):
        figure.add_trace(
            Scatter(
                x=ratios,
                y=[step_alpha * (1 - step_beta * step_excess(ratio, 1.0)) + (1 - step_alpha) for ratio in ratios],
                name=f"step_beta {step_beta:g}",
                mode="lines",
                line={"color": PALETTE[number % len(PALETTE)], "dash": DASHES[number % len(DASHES)], "width": 3},
            )
        )
    figure.add_hline(
        y=1 - step_alpha,
        line={"color": INK, "dash": "dot"},
        annotation_text="wrong, with a box",
        annotation_position="top left",
    )
    figure.update_xaxes(title_text="steps / mean steps of the right members")
    figure.update_yaxes(title_text="reward of a right answer", rangemode="tozero")
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return styled(figure, height=340)


def token_push_map(
    push: Sequence[Sequence[float]],
    pieces: Sequence[Sequence[str]],
    members: Sequence[str],
    *,
    forced: Sequence[Sequence[bool]] | None = None,
) -> Figure:
    """How hard the update pushes every token of every member: blue likelier, vermillion less likely.

    Args:
        push: ``[members][tokens]`` from :func:`stepgrpo_lab.method.loss.token_push`.
        pieces: ``[members][tokens]`` text of each token.
        members: ``[members]`` names for the axis.
        forced: ``[members][tokens]`` whether a token was forced: ringed.

    Raises:
        ValueError: There is no token.
    """
    from plotly.graph_objects import Figure, Heatmap, Scatter

    longest = max(map(len, push), default=0)
    if not longest:
        raise ValueError("push holds no token; pass at least one member with tokens")
    strongest = max(abs(value) for row in push for value in row) or 1.0
    names = [visible_text(member.replace("\n", ", ")) for member in members]
    rings = [
        (place, name)
        for name, row in zip(names, forced or [], strict=False)
        for place, is_forced in enumerate(row)
        if is_forced
    ]
    figure = Figure(
        [
            Heatmap(
                z=[[*row, *[None] * (longest - len(row))] for row in push],
                x=list(range(longest)),
                y=names,
                text=[[*map(_shown, row), *[""] * (longest - len(row))] for row in pieces],
                zmin=-strongest,
                zmax=strongest,
                colorscale=[list(stop) for stop in DIVERGING],
                hovertemplate="token %{x}: %{text}<br>push %{z:.5f}<extra></extra>",
                colorbar={"title": {"text": "push"}, "thickness": 12, "exponentformat": "e"},
                xgap=0.5,
                ygap=3,
                hoverongaps=False,
            ),
            Scatter(
                x=[place for place, _ in rings],
                y=[name for _, name in rings],
                mode="markers",
                name="forced",
                marker={"symbol": "circle-open", "color": INK, "size": 7},
                hoverinfo="skip",
            ),
        ]
    )
    figure.update_xaxes(
        title_text="token of the completion (ringed: forced)", range=[-0.5, longest - 0.5], showgrid=False
    )
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    return styled(figure, height=120 + 26 * len(push))


def _shown(piece: str) -> str:
    return visible_text(piece.replace("\n", "⏎"))
