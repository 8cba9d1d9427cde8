"""The group explorer: what rewards make of one group's members, and the push on every token."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from traitlets import Bool, Enum, Float, Int, TraitError, Unicode, validate

from stepgrpo_lab.method.baselines import (
    OutcomeReward,
    Outcomes,
    kimi_rewards,
    length_penalty_rewards,
    soft_overlong_rewards,
)
from stepgrpo_lab.method.loss import LOSS_TYPES, LossSettings
from stepgrpo_lab.method.rewards import (
    AdvantageScale,
    GroupReward,
    MeanOver,
    StepAwareReward,
    group_advantages,
    group_mean_steps,
    is_informative,
    outcome_rewards,
)
from stepgrpo_lab.method.token_loss import token_push
from stepgrpo_lab.recordings import RecordedGroup, load_recordings
from stepgrpo_lab.viz._html import table, visible_text
from stepgrpo_lab.viz.groups import group_advantages_chart, token_push_map
from stepgrpo_lab.widgets import _controls as controls
from stepgrpo_lab.widgets._base import LabWidget

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

METHODS = ("Step-GRPO", "GRPO", "LP", "SOP", "Kimi")
"""Step-aware relative reward, plain correctness, length penalty, soft overlong punishment, Kimi's length reward."""


class GroupExplorer(LabWidget):
    """Change the reward of a recorded group and see its advantages, and what they do to every token.

    Every reward of the package is ``step_alpha * r + (1 - step_alpha) * format``, so that they differ in r alone.

    Args:
        groups: Recorded groups; by default the package's own.
        methods: Name -> reward of your own, shown beside the package's.
        state: Traits to start with.

    Attributes:
        group: Which group is shown.
        method: Whose push is drawn, one of :data:`METHODS` or of your own.
        step_alpha, step_beta, mean_over: The step-aware reward's settings.
        penalty: Strength of the length penalty (LP).
        overlong_limit: Length of the full soft overlong punishment (SOP), in tokens; the slope takes a fifth of it.
        scale: How advantages are scaled; "batch" means the groups of the same model and rollout.
        loss_type: How the loss weighs tokens.
        train_forced: Whether forced tokens train, as published.
        rewards, advantages: Method -> ``[members]``.

    Raises:
        ValueError: There are no groups; a reward of your own has the name of one of the package's, or does not return
            one finite number for each member.
        TypeError: A reward of your own is not a function.

    Example:
        >>> explorer = GroupExplorer(step_beta=0.0)
        >>> explorer.rewards["Step-GRPO"] == explorer.rewards["GRPO"]
        True

        >>> def shortest(correct, steps, formatted, tokens):
        ...     return [float(c and n == min(tokens)) for c, n in zip(correct, tokens)]
        >>> GroupExplorer(methods={"mine": shortest}, method="mine").method
        'mine'
    """

    group = Int(0, min=0).tag(state=True)
    method = Unicode(METHODS[0]).tag(state=True)
    step_alpha = Float(0.9, min=0.0, max=1.0).tag(state=True)
    step_beta = Float(0.5, min=0.0, max=0.95).tag(state=True)
    mean_over = Enum(("correct", "all"), "correct").tag(state=True)
    penalty = Float(0.2, min=0.0, max=0.95).tag(state=True)
    overlong_limit = Int(128, min=16, max=32768).tag(state=True)
    scale = Enum(("group", "batch", "none"), "group").tag(state=True)
    loss_type = Enum(LOSS_TYPES, "dapo").tag(state=True)
    train_forced = Bool(True).tag(state=True)

    def __init__(
        self,
        groups: Sequence[RecordedGroup] | None = None,
        *,
        methods: Mapping[str, GroupReward] | None = None,
        **state: Any,
    ) -> None:
        self.groups = load_recordings() if groups is None else list(groups)
        if not self.groups:
            raise ValueError("there are no groups to explore; pass at least one")
        self.own_rewards = dict(methods or {})
        _check_own(self.own_rewards)
        self.methods = (*METHODS, *self.own_rewards)
        self.rewards: dict[str, list[float]] = {}
        self.advantages: dict[str, list[float]] = {}
        super().__init__(**state)

    @property
    def recorded(self) -> RecordedGroup:
        """The group that is shown."""
        return self.groups[min(self.group, len(self.groups) - 1)]

    @validate("method")
    def _known_method(self, proposal: Any) -> str:
        if proposal["value"] not in self.methods:
            raise TraitError(f"there is no method {proposal['value']!r}; there are {', '.join(self.methods)}")
        return str(proposal["value"])

    def reward(self, method: str) -> GroupReward:
        """A method's reward with the settings as they are."""
        if method in self.own_rewards:
            return self.own_rewards[method]
        limit = self.overlong_limit
        outcomes: dict[str, Outcomes] = {
            "LP": partial(length_penalty_rewards, strength=self.penalty),
            "SOP": partial(soft_overlong_rewards, limit=limit, cache=max(1, limit // 5)),
            "Kimi": kimi_rewards,
        }
        if method == "Step-GRPO":
            return StepAwareReward(self.step_alpha, self.step_beta, cast(MeanOver, self.mean_over))
        if method in outcomes:
            return OutcomeReward(outcomes[method], self.step_alpha)
        return OutcomeReward(step_alpha=self.step_alpha)

    def _rewarded(self, group: RecordedGroup, method: str) -> list[float]:
        rewards = outcome_rewards(self.reward(method), [member.outcome for member in group.members])
        if not all(map(math.isfinite, rewards)):
            raise ValueError(f"the reward {method!r} gives {rewards}: return a finite number for each member")
        return rewards

    def _advantages(self, method: str) -> list[float]:
        batch_std = None
        if self.scale == "batch":
            kind = (self.recorded.model, self.recorded.rollout)
            batch = [group for group in self.groups if (group.model, group.rollout) == kind]
            batch_std = statistics.stdev(reward for group in batch for reward in self._rewarded(group, method))
        return group_advantages(self.rewards[method], scale=cast(AdvantageScale, self.scale), batch_std=batch_std)

    def compute(self) -> None:
        self.clamp("group", len(self.groups) - 1)
        self.rewards = {method: self._rewarded(self.recorded, method) for method in self.methods}
        self.advantages = {method: self._advantages(method) for method in self.methods}
        members = [member.outcome for member in self.recorded.members]
        correct = [member.correct for member in members]
        mean = group_mean_steps(correct, [member.steps for member in members], cast(MeanOver, self.mean_over))
        summary = f"{sum(correct)} of {len(correct)} members are right"
        summary += "" if mean is None else f", mean steps {mean:.2f}"
        rewards = self.rewards[self.method]
        if not is_informative(rewards):
            self.sentence = f"{summary}. {self.method} gives every member the same reward: no token is pushed."
            return
        advantages = self.advantages[self.method]
        best, worst = advantages.index(max(advantages)), advantages.index(min(advantages))
        self.sentence = (
            f"{summary}. {self.method} likes member {best} most (reward {rewards[best]:.3f}, advantage "
            f"{advantages[best]:+.3f}) and member {worst} least (reward {rewards[worst]:.3f}, advantage "
            f"{advantages[worst]:+.3f})."
        )

    @property
    def names(self) -> list[str]:
        """How the members are called on the axes."""
        return [
            f"{index} {'✓' if member.outcome.correct else '✗'}\n{_count(member.outcome.steps, 'step')}"
            for index, member in enumerate(self.recorded.members)
        ]

    @property
    def forced(self) -> list[list[bool]]:
        """``[members][tokens]``: whether a token was forced."""
        return [member.trajectory.forced for member in self.recorded.members]

    @property
    def push(self) -> list[list[float]]:
        """``[members][tokens]``: how hard the first update pushes each token."""
        masks = [[self.train_forced or not forced for forced in row] for row in self.forced]
        settings = LossSettings(self.loss_type, max_completion_length=self.recorded.limit)
        return token_push(self.advantages[self.method], masks, settings)

    def figures(self) -> list[Figure]:
        ids = [member.trajectory.completion_ids for member in self.recorded.members]
        return [
            group_advantages_chart(self.advantages, self.names, chosen=self.method),
            token_push_map(self.push, [self.recorded.pieces(row) for row in ids], self.names, forced=self.forced),
        ]

    def body(self) -> str:
        rows = [
            [
                str(index),
                "right" if member.outcome.correct else "wrong",
                "yes" if member.outcome.formatted else "no",
                str(member.outcome.steps),
                str(member.outcome.tokens),
                member.outcome.close or "never",
                *(
                    f"{self.rewards[method][index]:.3f} ({self.advantages[method][index]:+.2f})"
                    for method in self.methods
                ),
            ]
            for index, member in enumerate(self.recorded.members)
        ]
        problem = self.recorded.problem
        head = ["member", "answer", "boxed", "steps", "tokens", "thoughts closed", *map(visible_text, self.methods)]
        question = f"<p>{visible_text(problem.prompt)} <span class='quiet'>(gold answer {visible_text(problem.answer)})"
        return f"{question}</span></p>" + table("Reward of every method, and its advantage in brackets", head, rows)

    def controls(self) -> list[Any]:
        return [
            controls.group_menu(self, "group", self.groups),
            controls.menu(self, "method", "method", self.methods, "whose push is drawn"),
            controls.slider(
                self, "step_alpha", "all methods: step_alpha", 0.0, 1.0, 0.05, "correctness against format"
            ),
            controls.slider(self, "step_beta", "Step-GRPO: step_beta", 0.0, 0.95, 0.05, "strength of the step term"),
            controls.menu(
                self, "mean_over", "Step-GRPO: mean steps over", {"correct members": "correct", "all members": "all"}
            ),
            controls.slider(self, "penalty", "LP: strength", 0.0, 0.95, 0.05, "what the longest right answer loses"),
            controls.slider(self, "overlong_limit", "SOP: limit", 16, 256, 8, "tokens at which the punishment is full"),
            controls.menu(self, "scale", "divide by std of", ("group", "batch", "none")),
            controls.menu(self, "loss_type", "loss type", LOSS_TYPES),
            controls.check(self, "train_forced", "forced tokens train"),
        ]


def _check_own(rewards: Mapping[str, GroupReward]) -> None:
    taken = sorted(set(rewards) & set(METHODS))
    if taken:
        raise ValueError(f"{taken[0]!r} is the name of one of the package's rewards; give yours another")
    for name, reward in rewards.items():
        if not callable(reward):
            raise TypeError(
                f"methods[{name!r}] is {reward!r}: pass the function itself, which takes correct, steps, formatted and "
                "tokens of one group"
            )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
