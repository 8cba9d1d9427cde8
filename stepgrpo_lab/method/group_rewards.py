"""The baselines as rewards to train with: each wrapped with the format term, ``.9 r + .1 f``, like Step-GRPO's own.

:class:`OutcomeReward` turns any function of (correct, tokens) into a :class:`~stepgrpo_lab.method.rewards.GroupReward`;
:class:`GRPOLambdaReward` must see every group of a rollout first, and is a
:class:`~stepgrpo_lab.method.rewards.BatchReward`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from stepgrpo_lab.method.baselines import (
    correctness_rewards,
    kimi_length_rewards,
    length_penalty_rewards,
    serial_group_rewards,
    soft_overlong_punishment,
)
from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.method.rewards import GroupReward, check_step_alpha

Outcomes = Callable[[Sequence[bool], Sequence[int]], list[float]]
"""From one group's correctness and lengths in tokens to one number per member, before the format term."""


def outcome_rewards(reward: GroupReward, outcomes: Sequence[Outcome]) -> list[float]:
    """Rewards of one whole group, from its members' outcomes.

    Raises:
        ValueError: The group reward did not return one number for each member.

    Example:
        >>> outcome_rewards(OutcomeReward(), [Outcome(True, True, 3, 40), Outcome(False, False, 5, 60)])
        [1.0, 0.0]
    """
    rewards = reward(
        [outcome.correct for outcome in outcomes],
        [outcome.steps for outcome in outcomes],
        [outcome.formatted for outcome in outcomes],
        [outcome.tokens for outcome in outcomes],
    )
    if len(rewards) != len(outcomes):
        raise ValueError(
            f"group_reward returned {len(rewards)} rewards for a group of {len(outcomes)}: return one for each member"
        )
    return [float(value) for value in rewards]


@dataclass(frozen=True)
class OutcomeReward:
    """``a * r + (1 - a) * f`` of any reward r of correctness and length. Picklable if ``outcomes`` is.

    Attributes:
        outcomes: The reward r, a function of :mod:`stepgrpo_lab.method.baselines` or your own.
        step_alpha: Weight of r against format (a), in [0, 1]; named as in Step-GRPO's reward.

    Example:
        >>> OutcomeReward(partial(length_penalty_rewards, strength=0.4))([True, False], [3, 5], [True, True], [90, 20])
        [0.8200000000000001, 0.09999999999999998]
    """

    outcomes: Outcomes = correctness_rewards
    step_alpha: float = 0.9

    def __post_init__(self) -> None:
        check_step_alpha(self.step_alpha)

    def __call__(
        self, correct: Sequence[bool], steps: Sequence[int], formatted: Sequence[bool], tokens: Sequence[int]
    ) -> list[float]:
        """Reward one group; ``steps`` is not used, because these rewards count tokens."""
        return [
            self.step_alpha * outcome + (1 - self.step_alpha) * bool(is_formatted)
            for outcome, is_formatted in zip(self.outcomes(correct, tokens), formatted, strict=True)
        ]


def kimi_rewards(correct: Sequence[bool], tokens: Sequence[int], *, weight: float = 0.4) -> list[float]:
    """Correctness with Kimi's length reward added, ``weight`` times.

    Example:
        >>> kimi_rewards([True, False], [10, 20])
        [1.2, -0.2]
    """
    return _added(correct, tokens, kimi_length_rewards(correct, tokens), weight)


def soft_overlong_rewards(
    correct: Sequence[bool], tokens: Sequence[int], *, limit: int = 20480, cache: int = 4096
) -> list[float]:
    """Correctness with the soft overlong punishment added (DAPO).

    Example:
        >>> soft_overlong_rewards([True, False], [80, 120], limit=100, cache=40)
        [0.5, -1.0]
    """
    return _added(correct, tokens, soft_overlong_punishment(tokens, limit=limit, cache=cache), 1.0)


def serial_exit_rewards(correct: Sequence[bool], tokens: Sequence[int]) -> list[float]:
    """:func:`serial_group_rewards` of a group whose members are one chain's exits, in order; lengths do not matter.

    Example:
        >>> serial_exit_rewards([False, True, True], [30, 60, 90])
        [0.0, 1.0, 0.5]
    """
    return serial_group_rewards(correct)


def _added(correct: Sequence[bool], tokens: Sequence[int], bonus: Sequence[float], weight: float) -> list[float]:
    return [c + weight * b for c, b in zip(correctness_rewards(correct, tokens), bonus, strict=True)]


def penalized_groups(correct: Sequence[Sequence[bool]], *, share: float = 0.2) -> list[bool]:
    """Which groups of a rollout GRPO-lambda (arXiv 2505.18086) trusts with a length penalty.

    The groups are ranked by their share of correct members; the best ``share`` of them, to the nearest whole number,
    get the penalty, the others plain correctness. Of groups that are equally good the earlier ones are taken.

    Args:
        correct: Whether each member's answer is right, ``[groups][members]``.
        share: Share of the groups that is penalized (lambda), in [0, 1].

    Raises:
        ValueError: There is no group, a group is empty, or ``share`` is out of range.

    Example:
        >>> penalized_groups([[True, False], [True, True], [False, False]], share=0.34)
        [False, True, False]
    """
    if not correct or not all(correct):
        raise ValueError("the rollout holds no group, or an empty one; a group needs at least one completion")
    _check_penalized_share(share)
    ranked = sorted(range(len(correct)), key=lambda group: -statistics.fmean(map(float, correct[group])))
    chosen = set(ranked[: int(share * len(correct) + 0.5)])
    return [group in chosen for group in range(len(correct))]


@dataclass(frozen=True)
class GRPOLambdaReward:
    """GRPO-lambda: a length penalty for the groups that are solved best, plain correctness for the rest.

    Attributes:
        share: Share of the groups that get the penalty (lambda), in [0, 1].
        strength: Weight of the penalty, as in :func:`length_penalty_rewards`.
        step_alpha: Weight of correctness against format, in [0, 1].

    Example:
        >>> easy, hard = GRPOLambdaReward(share=0.5).rewards_of_groups([[True, True], [True, False]])
        >>> easy([True] * 2, [1, 2], [True] * 2, [10, 20])[0] > hard([True] * 2, [1, 2], [True] * 2, [10, 20])[1]
        False
    """

    share: float = 0.2
    strength: float = 0.2
    step_alpha: float = 0.9

    def __post_init__(self) -> None:
        check_step_alpha(self.step_alpha)
        _check_penalized_share(self.share)

    def rewards_of_groups(self, correct: Sequence[Sequence[bool]]) -> list[GroupReward]:
        """The reward of each group, from the correctness of all of them, ``[groups][members]``."""
        plain = OutcomeReward(step_alpha=self.step_alpha)
        shaped = OutcomeReward(partial(length_penalty_rewards, strength=self.strength), self.step_alpha)
        return [shaped if chosen else plain for chosen in penalized_groups(correct, share=self.share)]


def _check_penalized_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; it must lie in [0, 1] (GRPO-lambda uses 0.2)")
