"""What Step-GRPO is compared with: the length-aware rewards of other methods, as pure functions of one group.

Each function takes the members of one group as parallel sequences (whether each answer is right, its length in tokens)
and gives the *published* reward, without a format term. Below them, :class:`OutcomeReward` wraps any such function with
the format term, ``.9 r + .1 f`` like Step-GRPO's own, to train with; :class:`GRPOLambdaReward` must see every group of
a rollout first, and is a :class:`~stepgrpo_lab.method.rewards.BatchReward`.

Lengths are tokens of the completion, never characters; minima, maxima and means are the group's, never the batch's.

Constants in tokens were set by their authors for thousands of tokens: :func:`scaled_tokens` brings them to another
scale.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from stepgrpo_lab.method.arrays import check_lengths, flags, number, numbers, plain
from stepgrpo_lab.method.rewards import GroupReward, check_step_alpha, group_advantages

THINKPRUNE_LIMITS = (4000, 3000, 2000)
"""Completion limits of ThinkPrune's rounds, in tokens (arXiv 2504.01296)."""

_STD_EPS = 1e-7
"""Added to the standard deviation of the length penalty, as its authors do."""


def correctness_rewards(correct: Sequence[bool], tokens: Sequence[int]) -> list[float]:
    """Plain GRPO (DeepSeekMath, arXiv 2402.03300): 1 for a right answer, 0 for a wrong one, whatever the length.

    Example:
        >>> correctness_rewards([True, False], [10, 20])
        [1.0, 0.0]
    """
    correct, tokens = _group(correct, tokens)
    return [float(is_correct) for is_correct in correct]


def length_penalty_rewards(correct: Sequence[bool], tokens: Sequence[int], *, strength: float = 0.2) -> list[float]:
    """Length penalty of Arora and Zanette (arXiv 2502.04463): ``c * (1 - a * sigmoid((l - mean) / std))``.

    Mean and population standard deviation are those of the correct members, so wrong answers get no length signal and
    a right answer always earns more than a wrong one.

    Args:
        correct: Whether each member's answer is right (c), length G.
        tokens: Length of each member in tokens (l).
        strength: Weight of the penalty (a), in [0, 1); the paper uses 0.05, 0.1, 0.2 and 0.4.

    Returns:
        G rewards, in the members' order.

    Raises:
        ValueError: The sequences differ in length or are empty, or ``strength`` is out of range.

    Example:
        >>> [round(r, 6) for r in length_penalty_rewards([True] * 3, [1000, 2000, 3000])]
        [0.954579, 0.9, 0.845421]
    """
    correct, tokens = _group(correct, tokens)
    if not 0 <= strength < 1:
        raise ValueError(f"strength is {strength}; it must lie in [0, 1) (the paper uses 0.05 to 0.4)")
    right = [length for length, is_correct in zip(tokens, correct, strict=True) if is_correct]
    if not right:
        return [0.0] * len(correct)
    mean, std = statistics.fmean(right), statistics.pstdev(right)
    return [
        1 - strength * _sigmoid((length - mean) / (std + _STD_EPS)) if is_correct else 0.0
        for is_correct, length in zip(correct, tokens, strict=True)
    ]


def kimi_length_rewards(correct: Sequence[bool], tokens: Sequence[int]) -> list[float]:
    """Length reward of Kimi k1.5 (arXiv 2501.12599), to be added to correctness with a weight (0.4 in public ports).

    ``0.5 - (l - min) / (max - min)`` over all members; a wrong answer gets no more than 0, and nobody gets anything
    where all lengths are equal.

    Example:
        >>> kimi_length_rewards([True, True, False, False], [1000, 2000, 3000, 1500])
        [0.5, 0.0, -0.5, 0.0]
    """
    correct, tokens = _group(correct, tokens)
    low, high = min(tokens), max(tokens)
    if low == high:
        return [0.0] * len(tokens)
    shares = [0.5 - (length - low) / (high - low) for length in tokens]
    return [share if is_correct else min(0.0, share) for share, is_correct in zip(shares, correct, strict=True)]


def soft_overlong_punishment(tokens: Sequence[int], *, limit: int = 20480, cache: int = 4096) -> list[float]:
    """Soft overlong punishment (DAPO, arXiv 2503.14476, Eq. 13), to be added to correctness.

    0 up to ``limit - cache``, then falling in a straight line to -1 at ``limit``, and -1 beyond. TRL's
    ``get_soft_overlong_punishment`` says the same of token ids; this one needs lengths alone, and no torch.

    Args:
        tokens: Length of each member in tokens.
        limit: Length of the full punishment, in tokens.
        cache: Width of the slope, in tokens; at least 1, at most ``limit``.

    Raises:
        ValueError: There are no lengths, or ``cache`` and ``limit`` make no slope.

    Example:
        >>> soft_overlong_punishment([16384, 17408, 18432, 20480, 20481])
        [0.0, -0.25, -0.5, -1.0, -1.0]
    """
    tokens = _lengths(tokens)
    check_lengths(tokens=tokens)
    if not 1 <= cache <= limit:
        raise ValueError(f"cache is {cache} and limit is {limit}; use 1 <= cache <= limit")
    return [-min(1.0, max(0.0, (length - (limit - cache)) / cache)) + 0.0 for length in tokens]


def l1_exact_rewards(
    correct: Sequence[bool], tokens: Sequence[int], *, target: int, per_token: float = 3e-4
) -> list[float]:
    """L1-Exact (arXiv 2503.04697): ``c - a * |target - l|``; every token too many or too few costs the same.

    Args:
        correct: Whether each member's answer is right (c), length G.
        tokens: Length of each member in tokens (l).
        target: The length asked for, in tokens.
        per_token: Price of one token off the target (a).

    Raises:
        ValueError: The sequences differ in length or are empty, or a value is out of range.

    Example:
        >>> l1_exact_rewards([True], [2500], target=2000)
        [0.85]
    """
    correct, tokens = _group(correct, tokens)
    _check_target(target, per_token)
    return [is_correct - per_token * abs(target - length) for is_correct, length in zip(correct, tokens, strict=True)]


def l1_max_rewards(
    correct: Sequence[bool], tokens: Sequence[int], *, target: int, per_token: float = 3e-4, offset: float = 0.5
) -> list[float]:
    """L1-Max (arXiv 2503.04697): ``c * clip(a * (target - l) + d, 0, 1)``; shorter than asked for is welcome.

    Args:
        correct, tokens, target, per_token: As in :func:`l1_exact_rewards`.
        offset: Reward of a right answer of exactly the target length (d), in [0, 1].

    Raises:
        ValueError: The sequences differ in length or are empty, or a value is out of range.

    Example:
        >>> l1_max_rewards([True], [2500], target=2000)
        [0.35]
    """
    correct, tokens = _group(correct, tokens)
    _check_target(target, per_token)
    if not 0 <= offset <= 1:
        raise ValueError(f"offset is {offset}; it must lie in [0, 1] (the paper's value is 0.5)")
    return [
        is_correct * min(1.0, max(0.0, per_token * (target - length) + offset))
        for is_correct, length in zip(correct, tokens, strict=True)
    ]


def shorter_better_rewards(
    correct: Sequence[bool], tokens: Sequence[int], *, weight: float = 2.0, per_token: float = 1e-3
) -> list[float]:
    """ShorterBetter (arXiv 2504.21370): ``w * c - b * |l - shortest correct|``, wrong answers included.

    Where nobody is correct, the group's mean length takes the place of the shortest correct one.

    Args:
        correct: Whether each member's answer is right (c), length G.
        tokens: Length of each member in tokens (l).
        weight: Reward of a right answer (w).
        per_token: Price of one token away from the shortest correct answer (b).

    Raises:
        ValueError: The sequences differ in length or are empty, or a weight is negative.

    Example:
        >>> shorter_better_rewards([True, True, False], [1000, 2000, 500])
        [2.0, 1.0, -0.5]
    """
    correct, tokens = _group(correct, tokens)
    if weight < 0 or per_token < 0:
        raise ValueError(f"weight is {weight} and per_token is {per_token}; neither may be negative")
    right = [length for length, is_correct in zip(tokens, correct, strict=True) if is_correct]
    best = min(right) if right else statistics.fmean(tokens)
    return [
        weight * is_correct - per_token * abs(length - best) for is_correct, length in zip(correct, tokens, strict=True)
    ]


def serial_group_rewards(correct: Sequence[bool], *, decay: float = 0.5) -> list[float]:
    """S-GRPO (arXiv 2505.07686): of one chain's exits in order, the j-th *correct* one earns ``decay ** (j - 1)``.

    Args:
        correct: Whether the answer at each exit is right, from the earliest exit to the whole chain.
        decay: What each later correct exit is worth of the one before, in (0, 1].

    Raises:
        ValueError: There is no exit, or ``decay`` is out of range.

    Example:
        >>> serial_group_rewards([False, True, False, True, True])
        [0.0, 1.0, 0.0, 0.5, 0.25]
    """
    correct = flags("correct", correct)
    check_lengths(correct=correct)
    if not 0 < decay <= 1:
        raise ValueError(f"decay is {decay}; it must lie in (0, 1] (the paper's value is 0.5)")
    rewards, reward = [], 1.0
    for is_correct in correct:
        rewards.append(reward if is_correct else 0.0)
        reward *= decay if is_correct else 1.0
    return rewards


def shortest_correct(prompts: Sequence[Hashable], correct: Sequence[bool], tokens: Sequence[int]) -> list[int]:
    """Which completions DEER + SFT learns from: for each prompt the shortest correct one, if there is one.

    Args:
        prompts: What tells the prompt of each completion (its text, or its problem's id).
        correct: Whether each completion's answer is right.
        tokens: Length of each completion in tokens.

    Returns:
        Indices into the completions, in the order of the prompts; of equally short ones the first.

    Raises:
        ValueError: The sequences differ in length or are empty.

    Example:
        >>> shortest_correct(["p", "p", "p", "q"], [True, True, False, False], [30, 20, 10, 10])
        [1]
    """
    correct, tokens = _group(correct, tokens)
    prompts = plain(prompts)
    check_lengths(correct=correct, prompts=prompts)
    best: dict[Hashable, int] = {}
    for index, (prompt, is_correct, length) in enumerate(zip(prompts, correct, tokens, strict=True)):
        if is_correct and (prompt not in best or length < tokens[best[prompt]]):
            best[prompt] = index
    return list(best.values())


def imitation_advantages(correct: Sequence[bool], tokens: Sequence[int]) -> list[float]:
    """On-policy SFT (arXiv 2602.13407): 1 for the shortest right member of the group, 0 for the others.

    With these as advantages, a policy gradient step on the policy's own samples *is* a step of supervised fine-tuning
    on the completions that were kept, which are drawn anew at every step.

    Example:
        >>> imitation_advantages([True, True, False], [30, 20, 10])
        [0.0, 1.0, 0.0]
    """
    kept = shortest_correct([0] * len(correct), correct, tokens)
    return [float(index in kept) for index in range(len(correct))]


def gfpo_advantages(correct: Sequence[bool], tokens: Sequence[int], *, keep: int | None = None) -> list[float]:
    """GFPO (arXiv 2508.09726): of a group only the shortest members train, compared with each other.

    Args:
        correct: Whether each member's answer is right, length G.
        tokens: Length of each member in tokens; of equally long ones the earlier are kept.
        keep: How many members are kept (k), at least 2; None for half of them.

    Returns:
        G advantages: correctness minus the mean of the kept, over their standard deviation; 0 for those filtered out.

    Raises:
        ValueError: The sequences differ in length or are empty, or ``keep`` is out of range.

    Example:
        >>> [round(a, 2) for a in gfpo_advantages([True, False, True, True], [40, 10, 20, 90], keep=2)]
        [0.0, -0.71, 0.71, 0.0]
    """
    correct, tokens = _group(correct, tokens)
    keep = max(2, len(tokens) // 2) if keep is None else keep
    if not 2 <= keep <= len(tokens):
        raise ValueError(f"keep is {keep}; it must lie between 2 and the {len(tokens)} members of the group")
    kept = sorted(range(len(tokens)), key=lambda member: tokens[member])[:keep]
    advantages = group_advantages([float(correct[member]) for member in kept])
    by_member = dict(zip(kept, advantages, strict=True))
    return [by_member.get(member, 0.0) for member in range(len(tokens))]


def round_limit(step: int, steps: int, limits: Sequence[int] = THINKPRUNE_LIMITS) -> int:
    """ThinkPrune's completion limit at a training step: rounds of equal length, each with its own limit.

    Args:
        step: The optimiser step, from 0.
        steps: Optimiser steps of the whole run.
        limits: The limit of each round, in tokens.

    Raises:
        ValueError: There is no limit, or the step lies outside the run.

    Example:
        >>> [round_limit(step, 6) for step in range(6)]
        [4000, 4000, 3000, 3000, 2000, 2000]
    """
    if not limits:
        raise ValueError("limits is empty; give the completion limit of at least one round")
    if not 0 <= step < steps:
        raise ValueError(f"step is {step}; it must lie in 0..{steps - 1}")
    return limits[step * len(limits) // steps]


def scaled_tokens(published: int, scale: float) -> int:
    """A published length on our scale, rounded, and at least 1.

    Args:
        published: The constant as its authors give it, in tokens.
        scale: Mean length of our untrained model over that of theirs.

    Example:
        >>> scaled_tokens(4096, 0.01)
        41
    """
    published, scale = number("published", published), number("scale", scale)
    if not scale > 0:
        raise ValueError(f"scale is {scale}; it must be greater than 0")
    return max(1, round(published * scale))


def _sigmoid(value: float) -> float:
    return 0.5 * (1 + math.tanh(value / 2))  # never overflows, unlike 1 / (1 + exp(-value))


def _group(correct: Sequence[bool], tokens: Sequence[int]) -> tuple[list[bool], list[Any]]:
    correct, tokens = flags("correct", correct), _lengths(tokens)
    check_lengths(correct=correct, tokens=tokens)
    return correct, tokens


def _lengths(tokens: Sequence[int]) -> list[Any]:
    return numbers("tokens", tokens, 0, "a completion's length is a finite number of tokens, at least 0")


def _check_target(target: int, per_token: float) -> None:
    if target < 1 or per_token < 0:
        raise ValueError(f"target is {target} and per_token is {per_token}; use a target of at least 1 token, a >= 0")


# ---- as rewards to train with ----------------------------------------------------------------------------------------

Outcomes = Callable[[Sequence[bool], Sequence[int]], list[float]]
"""From one group's correctness and lengths in tokens to one number per member, before the format term."""


@dataclass(frozen=True)
class GivenAdvantages:
    """A group's advantages themselves, where the method does not compare rewards with their mean.

    The trainer takes them as they are (``gives_advantages``): it neither centres nor scales them.

    Attributes:
        outcomes: The advantages, from correctness and length.

    Example:
        >>> GivenAdvantages()([True, True, False], [1, 1, 1], [True] * 3, [30, 20, 10])
        [0.0, 1.0, 0.0]
    """

    outcomes: Outcomes = imitation_advantages
    gives_advantages: ClassVar[bool] = True

    def __call__(
        self, correct: Sequence[bool], steps: Sequence[int], formatted: Sequence[bool], tokens: Sequence[int]
    ) -> list[float]:
        """The advantages of one group; ``steps`` and ``formatted`` are not used."""
        correct, tokens = _group(correct, tokens)
        return plain(self.outcomes(correct, tokens))


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
        formatted, (correct, tokens) = flags("formatted", formatted), _group(correct, tokens)
        check_lengths(correct=correct, formatted=formatted)
        return [
            self.step_alpha * outcome + (1 - self.step_alpha) * is_formatted
            for outcome, is_formatted in zip(plain(self.outcomes(correct, tokens)), formatted, strict=True)
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
    correct = [flags(f"correct[{group}]", members) for group, members in enumerate(plain(correct))]
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
