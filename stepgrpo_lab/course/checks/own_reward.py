"""The check of a reward that the learner is free to invent: it holds three rules, and asks for no particular values."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from typing import Any

from stepgrpo_lab.course.checks._result import Unsolved, draws, exercise

Group = tuple[list[bool], list[int], list[bool], list[int]]
Reward = Callable[[Sequence[bool], Sequence[int], Sequence[bool], Sequence[int]], Sequence[float]]


def _shortest_over_own(
    correct: Sequence[bool], steps: Sequence[int], formatted: Sequence[bool], tokens: Sequence[int]
) -> list[float]:
    """A reward that keeps the rules, for whoever has none yet."""
    pairs = list(zip(correct, tokens, strict=True))
    shortest = min((count for right, count in pairs if right), default=0)
    return [0.5 + 0.5 * shortest / count if right else 0.0 for right, count in pairs]


@exercise(
    "10.1",
    "right beats wrong, and wrong answers gain nothing by being short: go and race",
    reference=_shortest_over_own,
)
def own_reward(solution: Reward) -> None:
    """``my_reward(correct, steps, formatted, tokens)``: one number for each member of a group, under three rules.

    In one group every right answer earns more than every wrong one; a wrong answer's reward does not depend on its own
    length; a right answer with fewer steps and fewer tokens than another right one never earns less, and in some group
    it earns more.

    Example:
        >>> own_reward(lambda correct, steps, formatted, tokens: [float(right) for right in correct]).message[:57]
        'being shorter never pays: in some group a shorter right a'
    """
    pays = False
    for group in draws(_group):
        rewards = _rewards(solution, group)
        _hold_right_above_wrong(group, rewards)
        _hold_wrong_still(solution, group, rewards)
        for shorter, longer in _shorter_pairs(group):
            if rewards[shorter] < rewards[longer] - 1e-9:
                raise Unsolved(
                    f"{_shown(group)} gives {_rounded(rewards)}: right member {shorter} has fewer steps and fewer "
                    f"tokens than right member {longer}, and earns less",
                    0.6,
                )
            pays = pays or rewards[shorter] > rewards[longer] + 1e-9
    if not pays:
        raise Unsolved("being shorter never pays: in some group a shorter right answer must earn more")


def _group(rng: random.Random, size: int) -> Group:
    count = 1 + size
    correct = [rng.random() < 0.6 for _ in range(count)]
    steps = [rng.randint(1, 12) for _ in range(count)]
    tokens = [5 * k + rng.randint(1, 40) for k in steps]
    return correct, steps, [right or rng.random() < 0.5 for right in correct], tokens


def _rewards(solution: Reward, group: Group) -> list[float]:
    correct, steps, formatted, tokens = group
    given: Any = solution(list(correct), list(steps), list(formatted), list(tokens))
    if given is None or given is ...:
        raise Unsolved("my_reward gives nothing yet; write the body (expected one number for each member)")
    values = list(given.tolist() if hasattr(given, "tolist") else given)
    if len(values) != len(group[0]):
        raise Unsolved(f"{_shown(group)} gives {len(values)} numbers; expected one for each of {len(group[0])} members")
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise Unsolved(f"{_shown(group)} gives {values}; expected finite numbers")
    return [float(value) for value in values]


def _hold_right_above_wrong(group: Group, rewards: list[float]) -> None:
    right = [reward for reward, is_right in zip(rewards, group[0], strict=True) if is_right]
    wrong = [reward for reward, is_right in zip(rewards, group[0], strict=True) if not is_right]
    if right and wrong and min(right) <= max(wrong):
        raise Unsolved(f"{_shown(group)} gives {_rounded(rewards)}: a wrong answer earns as much as a right one")


def _hold_wrong_still(solution: Reward, group: Group, rewards: list[float]) -> None:
    correct, steps, formatted, tokens = group
    for place, is_right in enumerate(correct):
        if is_right:
            continue
        moved = [3 if at == place else k for at, k in enumerate(steps)]
        longer = [tokens[place] + 60 if at == place else n for at, n in enumerate(tokens)]
        again = _rewards(solution, (correct, moved, formatted, longer))
        if abs(again[place] - rewards[place]) > 1e-9:
            raise Unsolved(
                f"{_shown(group)} gives {_rounded(rewards)}: wrong member {place} earns {again[place]:.4g} when its "
                "own length changes; a wrong answer's reward must not depend on it",
                0.4,
            )


def _shorter_pairs(group: Group) -> Iterator[tuple[int, int]]:
    correct, steps, _, tokens = group
    right = [place for place, is_right in enumerate(correct) if is_right]
    for one, other in permutations(right, 2):
        if steps[one] < steps[other] and tokens[one] < tokens[other]:
            yield one, other


def _shown(group: Group) -> str:
    return f"my_reward({', '.join(map(str, group))})"


def _rounded(rewards: list[float]) -> list[float]:
    return [round(reward, 3) for reward in rewards]
