"""Step-aware relative reward (Eq. 4 and 5), its ablations, and advantages: pure functions of one group.

A *group* is the G completions of one prompt in one rollout. Each function takes one group as parallel sequences of
length G (lists, numpy arrays or torch tensors), and knows nothing of problems, models or processes; :func:`grouped`
cuts a flat batch into groups.

Source: Step-GRPO (arXiv 2604.16890), Eq. 3-5; group-relative advantages: DeepSeekMath (arXiv 2402.03300).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.method.token_text import plain_values

MeanOver = Literal["correct", "all"]
AdvantageScale = Literal["group", "batch", "none"]
Value = TypeVar("Value")


class GroupReward(Protocol):
    """What any reward of this package is: a callable that turns one group into one reward per member.

    Example, a reward of your own (a function does as well as a class):
        >>> def short_and_right(correct, steps, formatted, tokens):
        ...     return [1 - 0.001 * n if c else 0.0 for c, n in zip(correct, tokens, strict=True)]
        >>> short_and_right([True, False], [2, 1], [True, True], [100, 50])
        [0.9, 0.0]
    """

    def __call__(
        self, correct: Sequence[bool], steps: Sequence[int], formatted: Sequence[bool], tokens: Sequence[int]
    ) -> list[float]:
        """Return G rewards from G correctness flags, step counts (Eq. 3), format flags and lengths in tokens."""


@runtime_checkable
class BatchReward(Protocol):
    """A reward that must see every group of a rollout before it can reward one."""

    def rewards_of_groups(self, correct: Sequence[Sequence[bool]]) -> Sequence[GroupReward]:
        """Return each group's reward, from the correctness of all groups, ``[groups][members]``."""


@dataclass(frozen=True)
class StepAwareReward:
    """Step-GRPO's reward (Eq. 4 and 5), a :class:`GroupReward`: ``R = a*c*(1 - b*tanh((k - mu)/mu)) + (1 - a)*f``.

    With the defaults a correct, formatted member earns between 0.55 and 1.343 and a wrong one at most 0.1.

    Attributes:
        step_alpha: Weight of correctness against format (alpha), in [0, 1].
        step_beta: Strength of the step term (beta), in [0, 1).
        mean_over: Whose mean steps are the group's baseline mu: "correct" members (the paper) or "all" (ablation).
        step_reward: False sets the efficiency factor to 1 (ablation: plain GRPO with a format term).
        penalize_wrong: True adds ``-a*b*tanh((k - mu)/mu)`` to each *wrong* member (ablation); where no member is
            correct, mu is then the mean over all. It shows why the paper spares wrong answers: failing fast pays.

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> StepAwareReward()([True, False], [3, 5], [True, False], [90, 150])
        [1.0, 0.0]
    """

    step_alpha: float = 0.9
    step_beta: float = 0.5
    mean_over: MeanOver = "correct"
    step_reward: bool = True
    penalize_wrong: bool = False

    def __post_init__(self) -> None:
        check_step_alpha(self.step_alpha)
        if not 0 <= self.step_beta < 1:
            raise ValueError(f"step_beta is {self.step_beta}; it must lie in [0, 1) (the paper's value is 0.5)")
        _check_mean_over(self.mean_over)
        if self.penalize_wrong and not self.step_reward:
            raise ValueError("penalize_wrong has no effect without step_reward; set step_reward=True")

    def __call__(
        self, correct: Sequence[bool], steps: Sequence[int], formatted: Sequence[bool], tokens: Sequence[int] = ()
    ) -> list[float]:
        """Reward one group; ``tokens`` is not used, because this reward counts steps.

        Args:
            correct: Whether each member's answer is right (c), length G.
            steps: Semantic steps of each member (k, Eq. 3), each at least 1.
            formatted: Whether each member has a non-empty box after its first ``</think>`` (f): one that says
                something, see :func:`stepgrpo_lab.extract_boxed`.
            tokens: Ignored.

        Returns:
            G rewards, in the members' order.

        Raises:
            ValueError: The sequences differ in length or are empty, or a step count is below 1 or NaN.
        """
        correct, steps, formatted = plain_values(correct), plain_values(steps), plain_values(formatted)
        if len(formatted) != len(correct):
            raise ValueError(
                f"formatted has {len(formatted)} entries but correct has {len(correct)}; give one per member"
            )
        mean = group_mean_steps(correct, steps, self.mean_over)
        if mean is None:
            mean = statistics.fmean(steps)  # nobody is correct: only penalize_wrong will look at it
        return [
            self._outcome(is_correct, step_excess(k, mean)) + (1 - self.step_alpha) * bool(is_formatted)
            for is_correct, k, is_formatted in zip(correct, steps, formatted, strict=True)
        ]

    def _outcome(self, is_correct: bool, excess: float) -> float:
        penalty = self.step_beta * excess if self.step_reward else 0.0
        if is_correct:
            return self.step_alpha * (1 - penalty)
        return -self.step_alpha * penalty if self.penalize_wrong else 0.0


def step_aware_rewards(
    correct: Sequence[bool],
    steps: Sequence[int],
    formatted: Sequence[bool],
    *,
    step_alpha: float = 0.9,
    step_beta: float = 0.5,
    mean_over: MeanOver = "correct",
    step_reward: bool = True,
    penalize_wrong: bool = False,
) -> list[float]:
    """Reward one group with a :class:`StepAwareReward` of these settings.

    Example:
        >>> [round(r, 6) for r in step_aware_rewards([1, 1, 1, 0, 0], [2, 4, 6, 3, 9], [1, 1, 1, 1, 1])]
        [1.207953, 1.0, 0.792047, 0.1, 0.1]
    """
    reward = StepAwareReward(step_alpha, step_beta, mean_over, step_reward, penalize_wrong)
    return reward(correct, steps, formatted)


def step_excess(steps: float, mean: float) -> float:
    """How far a step count lies above its group's mean (Eq. 4): ``tanh((k - mu) / mu)``, in (-0.762, 1).

    Example:
        >>> step_excess(4, 4.0), round(step_excess(6, 4.0), 4)
        (0.0, 0.4621)
    """
    return math.tanh((steps - mean) / mean)


def group_mean_steps(correct: Sequence[bool], steps: Sequence[int], mean_over: MeanOver = "correct") -> float | None:
    """Mean step count mu of one group (Eq. 4), over its correct members or over all.

    Returns:
        mu in steps; None if ``mean_over`` is "correct" and no member is.

    Raises:
        ValueError: The sequences differ in length or are empty, or a step count is below 1 or NaN.

    Example:
        >>> group_mean_steps([True, True, False], [2, 4, 9])
        3.0
    """
    correct, steps = plain_values(correct), plain_values(steps)
    if len(correct) != len(steps):
        raise ValueError(f"steps has {len(steps)} entries but correct has {len(correct)}; give one per member")
    if not steps:
        raise ValueError("the group is empty; a group needs at least one completion")
    bad = [k for k in steps if not 1 <= k < math.inf]  # NaN among them
    if bad:
        raise ValueError(f"steps contains {bad[0]}; a completion has at least 1 step (k = 1 + markers)")
    _check_mean_over(mean_over)
    counted = [k for k, is_correct in zip(steps, correct, strict=True) if is_correct or mean_over == "all"]
    return statistics.fmean(counted) if counted else None


def group_advantages(
    rewards: Sequence[float],
    *,
    scale: AdvantageScale = "group",
    eps: float = 1e-4,
    batch_std: float | None = None,
) -> list[float]:
    """Group-relative advantages: reward minus the group's mean, divided by ``std + eps``.

    Args:
        rewards: The G rewards of one group.
        scale: "group" divides by the group's own unbiased standard deviation (GRPO), "batch" by ``batch_std``,
            "none" does not divide (Dr. GRPO). Under "group" beta is inert where every member is correct.
        eps: Added to the standard deviation; TRL's value by default.
        batch_std: Unbiased standard deviation of all rewards of the batch; needed by "batch" only.

    Returns:
        G advantages; exactly zero in a group whose rewards are all equal.

    Raises:
        ValueError: Fewer than 2 rewards, a reward that is not finite, an unknown scale, or no ``batch_std``.

    Example:
        >>> [round(a, 4) for a in group_advantages([1.207953, 1.0, 0.792047, 0.1, 0.1])]
        [1.1039, 0.6997, 0.2955, -1.0495, -1.0495]
    """
    rewards = plain_values(rewards)
    if len(rewards) < 2:
        raise ValueError(f"a group needs at least 2 rewards to be compared, got {len(rewards)}")
    if not all(math.isfinite(reward) for reward in rewards):
        raise ValueError(f"rewards must be finite numbers, got {list(rewards)}")
    if scale not in ("group", "batch", "none"):
        raise ValueError(f"scale is {scale!r}; use 'group', 'batch' or 'none'")
    if scale == "batch" and batch_std is None:
        raise ValueError("scale 'batch' needs batch_std, the standard deviation of the batch's rewards")
    if not is_informative(rewards):
        return [0.0] * len(rewards)
    mean = statistics.fmean(rewards)
    divisor = 1.0
    if scale == "group":
        divisor = statistics.stdev(rewards) + eps
    elif batch_std is not None and scale == "batch":
        divisor = batch_std + eps
    return [(reward - mean) / divisor for reward in rewards]


def grouped(values: Sequence[Value], group_size: int) -> list[list[Value]]:
    """Cut a flat batch into its groups: member ``i`` belongs to group ``i // group_size``.

    Raises:
        ValueError: The batch does not divide into groups of this size.

    Example:
        >>> grouped([1, 2, 3, 4], 2)
        [[1, 2], [3, 4]]
    """
    if group_size < 1 or len(values) % group_size:
        raise ValueError(f"{len(values)} completions do not divide into groups of {group_size}")
    return [list(values[start : start + group_size]) for start in range(0, len(values), group_size)]


def outcome_rewards(reward: GroupReward, outcomes: Sequence[Outcome]) -> list[float]:
    """Rewards of one whole group, from its members' outcomes.

    Raises:
        ValueError: The group reward did not return one number for each member.

    Example:
        >>> outcome_rewards(StepAwareReward(), [Outcome(True, True, 3, 40), Outcome(False, False, 5, 60)])
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


def is_informative(rewards: Sequence[float]) -> bool:
    """Whether a group's rewards differ at all; if not, it contributes no gradient.

    Example:
        >>> is_informative([0.1, 0.1]), is_informative([0.1, 1.0])
        (False, True)
    """
    return len(set(rewards)) > 1


def check_step_alpha(step_alpha: float) -> None:
    """Refuse a weight of correctness outside [0, 1] with a ValueError."""
    if not 0 <= step_alpha <= 1:
        raise ValueError(f"step_alpha is {step_alpha}; it must lie in [0, 1] (the paper's value is 0.9)")


def _check_mean_over(mean_over: str) -> None:
    if mean_over not in ("correct", "all"):
        raise ValueError(f"mean_over is {mean_over!r}; use 'correct' or 'all'")
