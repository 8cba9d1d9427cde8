"""Figures of the policy loss: the clipped surrogate over the ratio, and what the update does to each token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import TYPE_CHECKING

from stepgrpo_lab.method.loss import LossSettings
from stepgrpo_lab.method.token_loss import TokenLoss, token_loss
from stepgrpo_lab.viz._html import piece_text
from stepgrpo_lab.viz._style import HATCHES, INK, PALETTE, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LARGEST_RATIO = 2.5


def surrogate_curve(
    advantage: float, settings: LossSettings, tokens: Sequence[TokenLoss] = (), *, selected: int | None = None
) -> Figure:
    """The clipped surrogate over the importance ratio, and where some tokens stand on it.

    Args:
        advantage: The completion's advantage.
        settings: The clip's bounds.
        tokens: Tokens to mark.
        selected: Index of the token to mark heavily.

    Example:
        >>> len(surrogate_curve(1.0, LossSettings()).data)
        5
    """
    ratios = [0.02 * step for step in range(1, round(LARGEST_RATIO / 0.02) + 1)]
    without_kl = replace(settings, kl_weight=0.0)
    clipped = [token_loss(log(ratio), advantage, without_kl, old_logprob=0.0).surrogate for ratio in ratios]
    low, high = 1 - settings.epsilon_low, 1 + settings.epsilon_high
    reach = [min(0.0, LARGEST_RATIO * advantage) * 1.05 - 0.05, max(0.0, LARGEST_RATIO * advantage) * 1.05 + 0.05]
    figure = new_figure("ratio: probability now / when sampled", "surrogate", height=340)
    figure.add_scatter(
        x=[low, low, high, high],
        y=[*reach, *reach[::-1]],
        name="inside the clip",
        fill="toself",
        mode="lines",
        line={"width": 0, "color": INK},
        fillcolor="rgba(127, 127, 127, 0.15)",
        hoverinfo="skip",
    )
    straight, bent = {"color": INK, "dash": "dash", "width": 1.5}, {"color": PALETTE[0], "width": 3}
    for name, values, line in (
        ("ratio × advantage", [ratio * advantage for ratio in ratios], straight),
        ("clipped surrogate", clipped, bent),
    ):
        figure.add_scatter(x=ratios, y=values, name=name, mode="lines", line=line)
    for name, is_chosen, marker in (
        ("other tokens", False, {"size": 9, "color": PALETTE[5]}),
        ("chosen token", True, {"size": 15, "color": PALETTE[1], "symbol": "diamond"}),
    ):
        which = [index for index in range(len(tokens)) if (index == selected) == is_chosen]
        figure.add_scatter(
            x=[tokens[index].ratio for index in which],
            y=[tokens[index].surrogate for index in which],
            text=[f"token {index + 1}" for index in which],
            name=name,
            mode="markers",
            marker=marker,
            hovertemplate="%{text}: ratio %{x:.3f}, surrogate %{y:.3f}<extra></extra>",
        )
    return figure.update_layout(xaxis_range=[0, LARGEST_RATIO], yaxis_range=reach)


def token_pulls(pulls: Sequence[float], pieces: Sequence[str], *, selected: int | None = None) -> Figure:
    """What a step of gradient descent does to each token's log-probability: up makes it likelier.

    Args:
        pulls: ``[tokens]`` minus the derivative of the batch's loss by the token's log-probability.
        pieces: ``[tokens]`` text of each token.
        selected: Index of the token to outline.

    Example:
        >>> list(token_pulls([0.1, -0.2], ["a", "b"]).data[0].y)
        [0.1, -0.2]
    """
    figure = new_figure("", "pull on the log-probability", height=300)
    figure.add_bar(
        x=[f"{index + 1}: {piece_text(piece)}" for index, piece in enumerate(pieces)],
        y=list(pulls),
        marker={
            "color": [PALETTE[0] if pull >= 0 else PALETTE[1] for pull in pulls],
            "pattern": {"shape": [HATCHES[0] if pull >= 0 else HATCHES[1] for pull in pulls]},
            "line": {"color": INK, "width": [3 if index == selected else 0 for index in range(len(pulls))]},
        },
        hovertemplate="%{x}<br>pull %{y:.5f}<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(type="category")
    return figure.update_yaxes(exponentformat="e", zeroline=True)
