"""Figures of one group: what each reward makes of its members, and the push on every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stepgrpo_lab.method.rewards import step_aware_rewards
from stepgrpo_lab.viz._html import piece_text, visible_text
from stepgrpo_lab.viz._style import INK, bar_look, line_look, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DIVERGING = ((0.0, "#D55E00"), (0.5, "rgba(127, 127, 127, 0.3)"), (1.0, "#0072B2"))
"""Vermillion through nothing to blue: less likely, unmoved, likelier."""


MEAN_STEPS = 20
"""Steps of the group behind :func:`step_reward_curve`; a curve has as many points for each mean."""


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
    if not advantages:
        raise ValueError("advantages is empty; pass at least one reward")
    figure = new_figure("", "advantage", height=340)
    for number, (name, values) in enumerate(advantages.items()):
        figure.add_bar(
            x=[visible_text(member).replace("\n", "<br>") for member in members],
            y=list(values),
            name=visible_text(name),
            opacity=1.0 if chosen in (None, name) else 0.75,
            marker={**bar_look(number), "line": {"color": INK, "width": 2 if name == chosen else 0}},
            hovertemplate="%{y:.3f}",
        )
    return figure.update_layout(barmode="group", hovermode="x unified", xaxis_type="category")


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
    if not step_betas or not reach > 0:
        raise ValueError("give at least one step_beta, and a reach greater than 0")
    steps = range(1, round(MEAN_STEPS * reach) + 1)
    ratios = [count / MEAN_STEPS for count in steps]
    figure = new_figure("steps / mean steps of the right members", "reward of a right answer", height=340)
    for number, step_beta in enumerate(step_betas):
        rewards = [_reward_of(count, step_alpha, step_beta) for count in steps]
        look = line_look(number, width=3)
        figure.add_scatter(x=ratios, y=rewards, name=f"step_beta {step_beta:g}", mode="lines", **look)
    figure.add_hline(
        y=1 - step_alpha,
        line={"color": INK, "dash": "dot"},
        annotation_text="wrong, with a box",
        annotation_position="top left",
    )
    return figure.update_yaxes(rangemode="tozero")


def _reward_of(steps: int, step_alpha: float, step_beta: float) -> float:
    """Reward of a right member with so many steps, in a group of right members whose mean is :data:`MEAN_STEPS`."""
    share, rest = divmod(MEAN_STEPS * (steps + 1) - steps, steps)
    others = [share + 1] * rest + [share] * (steps - rest)
    right = [True] * (steps + 1)
    return step_aware_rewards(right, [steps, *others], right, step_alpha=step_alpha, step_beta=step_beta)[0]


def token_push_map(
    push: Sequence[Sequence[float]],
    pieces: Sequence[Sequence[str]],
    members: Sequence[str],
    *,
    forced: Sequence[Sequence[bool]] | None = None,
) -> Figure:
    """How hard the update pushes every token of every member: blue likelier, vermillion less likely.

    Args:
        push: ``[members][tokens]`` from :func:`stepgrpo_lab.method.token_loss.token_push`.
        pieces: ``[members][tokens]`` text of each token.
        members: ``[members]`` names for the axis.
        forced: ``[members][tokens]`` whether a token was forced: ringed.

    Raises:
        ValueError: There is no token.
    """
    longest = max(map(len, push), default=0)
    if not longest:
        raise ValueError("push holds no token; pass at least one member with tokens")
    strongest = max(abs(value) for row in push for value in row) or 1.0
    names = [visible_text(member.replace("\n", ", ")) for member in members]
    figure = new_figure("token of the completion (ringed: forced)", "", height=120 + 26 * len(push))
    figure.add_heatmap(
        z=[[*row, *[None] * (longest - len(row))] for row in push],
        x=list(range(longest)),
        y=names,
        text=[[*map(piece_text, row), *[""] * (longest - len(row))] for row in pieces],
        zmin=-strongest,
        zmax=strongest,
        colorscale=[list(stop) for stop in DIVERGING],
        hovertemplate="token %{x}: %{text}<br>push %{z:.5f}<extra></extra>",
        colorbar={"title": {"text": "push"}, "thickness": 12, "exponentformat": "e"},
        xgap=0.5,
        ygap=3,
        hoverongaps=False,
    )
    rings = [
        (place, name)
        for name, row in zip(names, forced or [], strict=False)
        for place, is_forced in enumerate(row)
        if is_forced
    ]
    figure.add_scatter(
        x=[place for place, _ in rings],
        y=[name for _, name in rings],
        mode="markers",
        name="forced",
        marker={"symbol": "circle-open", "color": INK},
        hoverinfo="skip",
    )
    figure.update_xaxes(range=[-0.5, longest - 0.5], showgrid=False)
    return figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
