"""Figures of the policy loss: the clipped surrogate over the ratio, and what the update does to each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stepgrpo_lab.method.loss import LossSettings, TokenLoss, token_loss
from stepgrpo_lab.viz.plot_style import HATCHES, INK, PALETTE, styled
from stepgrpo_lab.viz.report_pages import visible_text

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
    from math import log

    from plotly.graph_objects import Figure, Scatter

    ratios = [0.02 * step for step in range(1, round(LARGEST_RATIO / 0.02) + 1)]
    without_kl = LossSettings(
        epsilon_low=settings.epsilon_low, epsilon_high=settings.epsilon_high, delta=settings.delta
    )
    clipped = [token_loss(log(ratio), advantage, without_kl, old_logprob=0.0).surrogate for ratio in ratios]
    low, high = 1 - settings.epsilon_low, 1 + settings.epsilon_high
    reach = [min(0.0, LARGEST_RATIO * advantage) * 1.05 - 0.05, max(0.0, LARGEST_RATIO * advantage) * 1.05 + 0.05]
    others = [index for index in range(len(tokens)) if index != selected]
    chosen = [] if selected is None else [selected]
    figure = Figure()
    figure.add_trace(
        Scatter(
            x=[low, low, high, high],
            y=[*reach, *reach[::-1]],
            name="inside the clip",
            fill="toself",
            mode="lines",
            line={"width": 0, "color": INK},
            fillcolor="rgba(127, 127, 127, 0.15)",
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        Scatter(
            x=ratios,
            y=[ratio * advantage for ratio in ratios],
            name="ratio × advantage",
            mode="lines",
            line={"color": INK, "dash": "dash", "width": 1.5},
        )
    )
    figure.add_trace(
        Scatter(x=ratios, y=clipped, name="clipped surrogate", mode="lines", line={"color": PALETTE[0], "width": 3})
    )
    for name, which, size, colour in (
        ("other tokens", others, 9, PALETTE[5]),
        ("chosen token", chosen, 15, PALETTE[1]),
    ):
        figure.add_trace(
            Scatter(
                x=[tokens[index].ratio for index in which],
                y=[tokens[index].surrogate for index in which],
                text=[f"token {index + 1}" for index in which],
                name=name,
                mode="markers",
                marker={"size": size, "color": colour, "symbol": "circle" if which is others else "diamond"},
                hovertemplate="%{text}: ratio %{x:.3f}, surrogate %{y:.3f}<extra></extra>",
            )
        )
    figure.update_xaxes(title_text="ratio: probability now / when sampled", range=[0, LARGEST_RATIO])
    figure.update_yaxes(title_text="surrogate", range=reach)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return styled(figure, height=340)


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
    from plotly.graph_objects import Bar, Figure

    labels = [f"{index + 1}: {visible_text(piece.replace(chr(10), '⏎'))}" for index, piece in enumerate(pieces)]
    figure = Figure(
        Bar(
            x=labels,
            y=list(pulls),
            marker={
                "color": [PALETTE[0] if pull >= 0 else PALETTE[1] for pull in pulls],
                "pattern": {"shape": [HATCHES[0] if pull >= 0 else HATCHES[1] for pull in pulls]},
                "line": {"color": INK, "width": [3 if index == selected else 0 for index in range(len(pulls))]},
            },
            hovertemplate="%{x}<br>pull %{y:.5f}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(type="category")
    figure.update_yaxes(title_text="pull on the log-probability", exponentformat="e", zeroline=True)
    return styled(figure, height=300)
