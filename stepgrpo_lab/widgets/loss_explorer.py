"""The loss explorer: ratio, clip, KL and mask on a few tokens, and where the gradient pulls each of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Enum, Float, Int, List

from stepgrpo_lab.method.loss import LOSS_TYPES, LossSettings, token_weights
from stepgrpo_lab.method.token_loss import TokenLoss, token_loss
from stepgrpo_lab.recordings import RecordedGroup, load_recordings
from stepgrpo_lab.viz._html import piece_text, table
from stepgrpo_lab.viz.loss import surrogate_curve, token_pulls
from stepgrpo_lab.widgets import _controls as controls
from stepgrpo_lab.widgets._base import LabWidget

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHOWN = 8
"""Tokens that are shown: around the close of the thoughts, where forced and sampled ones meet."""


LATER = (-0.5, -0.25, -0.1, 0.0, 0.1, 0.2, 0.3, 0.5)
"""Log-ratios after some updates, for a start: inside and outside of the usual clip."""


class LossExplorer(LabWidget):
    """Move the policy on the tokens around one completion's close, and see what the loss makes of it.

    Args:
        group: A recorded group; by default the package's first one with a forced close.
        member: Its member; by default the first one with a forced close.
        state: Traits to start with.

    Attributes:
        token: Which of the shown tokens the log-ratio slider moves.
        log_ratios: ``[tokens]`` log-probability now minus when sampled, of each shown token.
        log_ratio: That of the chosen token.
        advantage: The completion's advantage.
        epsilon_low, epsilon_high, kl_weight, loss_type: As in :class:`stepgrpo_lab.method.loss.LossSettings`.
        reference_gap: Log-probability under the reference minus when sampled, the same for every token.
        train_forced: Whether forced tokens train.
        tokens: ``[tokens]`` what the loss makes of each.
        pulls: ``[tokens]`` minus the derivative of the batch's loss by each log-probability.

    Raises:
        ValueError: No completion with a forced close, or the policy was not asked for its log-probabilities.

    Example:
        >>> explorer = LossExplorer(advantage=1.0, token=0, log_ratio=0.5)
        >>> explorer.tokens[0].clipped, explorer.pulls[0]
        (True, 0.0)
    """

    token = Int(0, min=0, max=SHOWN - 1).tag(state=True)
    log_ratios = List(Float(), [0.0] * SHOWN, minlen=SHOWN, maxlen=SHOWN).tag(state=True)
    log_ratio = Float(0.0, min=-2.0, max=2.0).tag(state=True)
    advantage = Float(1.0, min=-3.0, max=3.0).tag(state=True)
    epsilon_low = Float(0.2, min=0.0, max=1.0).tag(state=True)
    epsilon_high = Float(0.2, min=0.0, max=1.0).tag(state=True)
    kl_weight = Float(0.0, min=0.0, max=1.0).tag(state=True)
    reference_gap = Float(0.0, min=-2.0, max=2.0).tag(state=True)
    loss_type = Enum(LOSS_TYPES, "dapo").tag(state=True)
    train_forced = Bool(True).tag(state=True)

    def __init__(self, group: RecordedGroup | None = None, member: int | None = None, **state: Any) -> None:
        self.recorded = _first_forced(load_recordings()) if group is None else group
        self.member = _forced_member(self.recorded) if member is None else member
        record = self.recorded.members[self.member]
        trajectory = record.trajectory
        if record.policy_logprobs is None:
            raise ValueError(f"{self.recorded.title}: its policy's log-probabilities were not recorded")
        close = next((place for place, forced in enumerate(trajectory.forced) if forced), trajectory.tokens)
        self.first = max(0, min(close - 3, trajectory.tokens - SHOWN))
        self.shown = range(self.first, min(trajectory.tokens, self.first + SHOWN))
        self.pieces = self.recorded.pieces([trajectory.completion_ids[place] for place in self.shown])
        self.forced = [trajectory.forced[place] for place in self.shown]
        self.old_logprobs = [record.policy_logprobs[place] for place in self.shown]
        self.tokens: list[TokenLoss] = []
        self.pulls: list[float] = []
        ratios = list(state.get("log_ratios", [0.0] * SHOWN))
        if "log_ratio" in state:
            ratios[state.get("token", 0)] = state["log_ratio"]
        super().__init__(**{**state, "log_ratios": ratios, "log_ratio": ratios[state.get("token", 0)]})

    @property
    def chosen(self) -> int:
        """The token that is moved."""
        return min(self.token, len(self.pieces) - 1)

    @property
    def settings(self) -> LossSettings:
        """How the loss is made."""
        return LossSettings(
            self.loss_type,
            epsilon_low=self.epsilon_low,
            epsilon_high=self.epsilon_high,
            kl_weight=self.kl_weight,
            max_completion_length=self.recorded.limit,
        )

    def _changed(self, change: Any) -> None:
        with self.lock:
            if change.name == "log_ratio":
                self.log_ratios = [
                    self.log_ratio if index == self.chosen else moved for index, moved in enumerate(self.log_ratios)
                ]
            elif change.name in ("token", "log_ratios"):
                self.log_ratio = self.log_ratios[self.chosen]
            self.refresh()

    def compute(self) -> None:
        settings = self.settings
        self.tokens = [
            token_loss(
                old + moved,
                self.advantage,
                settings,
                old_logprob=old,
                reference_logprob=old + self.reference_gap,
            )
            for old, moved in zip(self.old_logprobs, self.log_ratios, strict=False)
        ]
        masks = [
            [self.train_forced or not forced for forced in record.trajectory.forced] for record in self.recorded.members
        ]
        weights = token_weights(masks, settings)[self.member]
        self.pulls = [
            -token.gradient * weights[place] + 0.0 for place, token in zip(self.shown, self.tokens, strict=True)
        ]
        self.sentence = self._describe()

    def _describe(self) -> str:
        token, pull = self.tokens[self.chosen], self.pulls[self.chosen]
        name = _shown(self.pieces[self.chosen])
        if self.forced[self.chosen] and not self.train_forced:
            verdict = "it is masked, so nothing pulls it"
        elif pull == 0:
            verdict = "clipping decides, so nothing pulls it" if token.clipped else "nothing pulls it"
        else:
            verdict = f"a step of descent makes it {'likelier' if pull > 0 else 'less likely'} (pull {pull:+.2e})"
        kind = "forced" if self.forced[self.chosen] else "sampled"
        return f'Token {self.chosen + 1}, "{name}" ({kind}): ratio {token.ratio:.3f}, KL {token.kl:.3f}; {verdict}.'

    def figures(self) -> list[Figure]:
        return [
            surrogate_curve(self.advantage, self.settings, self.tokens, selected=self.chosen),
            token_pulls(self.pulls, self.pieces, selected=self.chosen),
        ]

    def body(self) -> str:
        cells = "".join(
            f'<span class="cell {"forced" if forced else ""} {"now" if index == self.chosen else ""}">'
            f"{piece_text(piece)}<small>{index + 1}</small></span>"
            for index, (piece, forced) in enumerate(zip(self.pieces, self.forced, strict=True))
        )
        rows = [
            [
                f"{index + 1}: {_shown(self.pieces[index])}",
                "forced" if self.forced[index] else "sampled",
                f"{exp(self.old_logprobs[index]):.3f}",
                f"{token.ratio:.3f}",
                "clipped" if token.clipped else "",
                f"{token.surrogate:+.3f}",
                f"{token.kl:.3f}",
                "no" if self.forced[index] and not self.train_forced else "yes",
                f"{self.pulls[index]:+.2e}" if self.pulls[index] else "0",
            ]
            for index, token in enumerate(self.tokens)
        ]
        head = ["token", "", "probability when sampled", "ratio", "", "surrogate", "KL", "trains", "pull"]
        strip = f'<div class="tokens" role="region" tabindex="0" aria-label="tokens">{cells}</div>'
        return strip + table(
            f"{self.recorded.title}, member {self.member}: around the close", head, rows, chosen=self.chosen
        )

    def controls(self) -> list[Any]:
        options = {f"{index + 1}: {_shown(piece)}": index for index, piece in enumerate(self.pieces)}
        return [
            controls.menu(self, "token", "token", options),
            controls.slider(self, "log_ratio", "its log-ratio", -2.0, 2.0, 0.05, "log-probability now minus then"),
            controls.slider(self, "advantage", "advantage", -3.0, 3.0, 0.1),
            controls.slider(self, "epsilon_low", "clip below", 0.0, 1.0, 0.01),
            controls.slider(self, "epsilon_high", "clip above", 0.0, 1.0, 0.01),
            controls.slider(self, "kl_weight", "KL weight", 0.0, 1.0, 0.01),
            controls.slider(
                self,
                "reference_gap",
                "reference gap",
                -2.0,
                2.0,
                0.05,
                "log-probability then, by the reference minus by the policy",
            ),
            controls.menu(self, "loss_type", "loss type", LOSS_TYPES),
            controls.check(self, "train_forced", "forced tokens train"),
            controls.button(self, "first update", self.first_update, "the policy is the one that sampled"),
            controls.button(self, "later update", self.later_update, "the policy has moved on"),
        ]

    def first_update(self) -> None:
        """The policy as it was when it sampled: every ratio is 1."""
        self.log_ratios = [0.0] * SHOWN

    def later_update(self) -> None:
        """A policy that has moved on, some tokens beyond the clip on either side."""
        self.log_ratios = list(LATER)


def _shown(piece: str) -> str:
    return piece.replace("\n", "⏎")


def _first_forced(groups: Sequence[RecordedGroup]) -> RecordedGroup:
    for group in groups:
        if any(any(member.trajectory.forced) for member in group.members):
            return group
    raise ValueError("no completion has a forced close; record a truncated rollout, or pass a group and a member")


def _forced_member(group: RecordedGroup) -> int:
    return next((index for index, member in enumerate(group.members) if any(member.trajectory.forced)), 0)
