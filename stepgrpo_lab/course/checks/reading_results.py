"""Checks of notebook 08: the ratio behind a bootstrap, what an interval allows one to say, advantages by close."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from statistics import fmean, stdev
from typing import Any

from stepgrpo_lab.course.checks._result import Unsolved, agree, draws, exercise
from stepgrpo_lab.course.checks.tour import lengths
from stepgrpo_lab.method.rewards import group_advantages


@exercise("08.1", "one draw of problems serves both models: that is all the pairing there is")
def drawn_ratio(solution: Callable[[Sequence[float], Sequence[float], Sequence[int]], float]) -> None:
    """Ratio of the mean lengths after and before, over the drawn problems.

    Example:
        >>> def ratio(before, after, drawn):
        ...     return sum(after[i] for i in drawn) / sum(before[i] for i in drawn)
        >>> drawn_ratio(ratio).passed
        True
    """

    def ratio(before: Sequence[float], after: Sequence[float], drawn: Sequence[int]) -> float:
        return fmean(after[place] for place in drawn) / fmean(before[place] for place in drawn)

    mistakes: dict[str, Callable[..., float]] = {
        "that is the mean of the problems' ratios, in which a short problem counts as much as a long one; take the "
        "ratio of the means": lambda before, after, drawn: fmean(after[place] / before[place] for place in drawn),
        "this is before over after; a model that saves tokens has a ratio below 1": lambda *case: 1 / ratio(*case),
        "that is what all problems give: use only the drawn ones": lambda before, after, drawn: (
            sum(after) / sum(before)
        ),
        "a problem that was drawn twice must count twice; a set would lose that": lambda before, after, drawn: ratio(
            before, after, sorted(set(drawn))
        ),
    }
    cases = [([100, 200, 60], [50, 60, 60], [0, 0, 2]), *draws(_resample)]
    agree(solution, ratio, cases, "drawn_ratio", mistakes=mistakes)


def _resample(rng: random.Random, size: int) -> tuple[list[int], list[int], list[int]]:
    before, after = lengths(rng, size)
    return before, after, [rng.randrange(size) for _ in range(size)]


@exercise("08.2", "an interval that holds 0 says that we do not know; 'no loss' needs a margin that was named before")
def verdict(solution: Callable[[float, float, float], str]) -> None:
    """What an interval of a change in accuracy allows one to say, given the largest loss that one would accept.

    Example:
        >>> def say(low, high, margin):
        ...     return "no worse" if low > -margin else "worse" if high < -margin else "undecided"
        >>> verdict(say).passed
        True
    """

    def right(low: float, high: float, margin: float) -> str:
        return "no worse" if low > -margin else "worse" if high < -margin else "undecided"

    def hint(low: float, high: float, margin: float) -> str:
        return {
            "no worse": "here even the worst end is a smaller loss than the margin",
            "worse": "here even the best end is a larger loss than the margin",
            "undecided": "here the margin lies inside the interval, so it decides nothing",
        }[right(low, high, margin)]

    mistakes: dict[str, Callable[..., str]] = {
        "an interval that holds 0 may also hold a large loss: that does not show 'no loss'": lambda low, high, margin: (
            "no worse" if high >= 0 else "worse"
        ),
        "a loss that is certain but smaller than the margin was accepted beforehand": lambda low, high, margin: right(
            low, high, 0.0
        ),
        "use the margin that you are given": lambda low, high, margin: right(low, high, 1.0),
    }
    cases = [
        (-0.5, 0.3, 1.0),
        (-3.2, -1.8, 1.0),
        (-4.0, 3.0, 1.0),
        (-0.8, -0.3, 1.0),
        (-0.5, 0.3, 0.2),
        *draws(_interval),
    ]
    agree(solution, right, cases, "verdict", mistakes=mistakes, hint=hint)


def _interval(rng: random.Random, size: int) -> tuple[float, float, float]:
    """In odd tenths, with margins in even ones: no end ever lies exactly on the margin."""
    low = (2 * rng.randint(-25, 5) + 1) / 10
    return low, (round(low * 10) + 2 * rng.randint(1, 20)) / 10, 2 * rng.randint(1, 10) / 10


RewardedGroup = tuple[Sequence[float], Sequence[bool]]
Signal = tuple[float, float | None, float | None]


@exercise(
    "08.3", "where every close was forced, a close can only be as good as the others: the exit itself gains nothing"
)
def closing_signal(solution: Callable[[Sequence[RewardedGroup]], Signal]) -> None:
    """``solution(groups)``: (share of groups with both kinds of close, mean advantage of forced, of natural ones).

    Each group is ``(rewards, forced)``: the rewards of its members, and whether a probe closed their thoughts. The
    advantages are those of each group by itself; the means are over all members of a kind, None for a kind that does
    not occur.

    Example:
        >>> closing_signal(lambda groups: (0.5, 0.0, 0.0)).passed
        False
    """
    mistakes: dict[str, Callable[..., tuple[float | None, ...]]] = {
        message: partial(_signal, **how) for message, how in _SIGNAL_MISTAKES.items()
    }
    mistakes["the two means are exchanged; return the forced ones first"] = lambda groups: (
        _signal(groups)[0],
        *_signal(groups)[:0:-1],
    )
    mistakes["a kind that does not occur has no mean: return None for it"] = lambda groups: tuple(
        mean or 0.0 for mean in _signal(groups)
    )
    example = [([1.0, 0.5, 0.5, 0.0], [True, True, False, False]), ([0.5, 1.0], [True, True])]
    agree(solution, _signal, [(example,), (example[1:],), *draws(_closed_groups)], "closing_signal", mistakes=mistakes)


def _signal(
    groups: Sequence[RewardedGroup],
    *,
    given: Callable[[Sequence[float]], list[float]] = group_advantages,
    mixed: Callable[[Sequence[bool]], bool] = lambda forced: 0 < sum(forced) < len(forced),
    by_group: bool = False,
    whole: bool = False,
) -> Signal:
    """The signal, right by default, or with a mistake in it."""
    pooled = [reward for rewards, _ in groups for reward in rewards]
    spread = iter(group_advantages(pooled)) if whole and len(pooled) > 1 else None
    rows = []
    for rewards, forced in groups:
        advantages = [next(spread) for _ in rewards] if spread else given(rewards)
        rows.append(list(zip(advantages, forced, strict=True)))
    means = []
    for kind in (True, False):
        kept = [[advantage for advantage, is_forced in row if is_forced == kind] for row in rows]
        values = [fmean(part) for part in kept if part] if by_group else [value for part in kept for value in part]
        means.append(fmean(values) if values else None)
    return fmean(mixed(forced) for _, forced in groups), means[0], means[1]


_SIGNAL_MISTAKES: dict[str, dict[str, Any]] = {
    "those are rewards: subtract each group's mean, and divide by its standard deviation": {"given": list},
    "that only subtracts the mean: divide by the group's standard deviation too": {
        "given": partial(group_advantages, scale="none")
    },
    "that is the population's deviation; GRPO's is unbiased: statistics.stdev": {
        "given": lambda rewards: [a * (len(rewards) / (len(rewards) - 1)) ** 0.5 for a in group_advantages(rewards)]
    },
    "compare each group with itself, not with the whole batch": {"whole": True},
    "a group holds both kinds only if it has a forced and a natural close": {"mixed": any},
    "average over all members of a kind, not over the groups' means": {"by_group": True},
}


def _closed_groups(rng: random.Random, size: int) -> tuple[list[RewardedGroup]]:
    """Groups of one kind of close and of both, some with equal rewards."""
    groups: list[RewardedGroup] = []
    for _ in range(1 + size // 2):
        share, members = rng.choice([0.0, 0.3, 0.5, 1.0]), rng.randint(2, 5)
        rewards = [rng.randint(0, 10) / 8 for _ in range(members)]
        if rng.random() < 0.2:
            rewards = rewards[:1] * members
        groups.append((rewards, [rng.random() < share for _ in range(members)]))
    return (groups,)


Ends = tuple[float, float]


def _library_interval(before: Sequence[float], after: Sequence[float], resamples: int = 2000, seed: int = 0) -> Ends:
    from stepgrpo_lab.evaluation.statistics import paired_bootstrap as library

    interval = library(before, after, resamples=resamples, seed=seed)
    return interval.low, interval.high


def _bootstrap(
    before: Sequence[float],
    after: Sequence[float],
    resamples: int = 2000,
    seed: int = 0,
    *,
    paired: bool = True,
    level: float = 0.95,
    replaced: bool = True,
    drawn: int | None = None,
    divisor: int | None = None,
) -> Ends:
    """The interval as one writes it, right by default, or with a mistake in it."""
    import numpy as np

    old, new = np.asarray(before, float), np.asarray(after, float)
    rng, count = np.random.default_rng(seed), drawn or len(old)

    def draw() -> Any:
        if replaced:
            return rng.integers(len(old), size=(resamples, count))
        return np.argsort(rng.random((resamples, len(old))), axis=1)

    rows = draw()
    sums = new[rows].sum(axis=1) - old[rows if paired else draw()].sum(axis=1)
    means = sums / (divisor or rows.shape[1])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


_BOOTSTRAP_MISTAKES: dict[str, Callable[..., Ends]] = {
    "before and after are drawn apart: one draw of problems serves both": lambda *case: _bootstrap(*case, paired=False),
    "the sign is wrong: the difference is after minus before": lambda before, after, *rest: _bootstrap(
        after, before, *rest
    ),
    "these are the ends of a 90 % interval: 2.5 % lie below and 2.5 % above": lambda *case: _bootstrap(
        *case, level=0.9
    ),
    "that is the spread of single problems: take the mean of each resample": lambda *case: _bootstrap(*case, drawn=1),
    "draw with replacement, or every resample is the same": lambda *case: _bootstrap(*case, replaced=False),
    "that is the sum over the drawn problems: divide by their number": lambda *case: _bootstrap(*case, divisor=1),
    "the divisor is the number of drawn problems, not the number of resamples": lambda *case: _bootstrap(
        *case, divisor=2000
    ),
    "the divisor counts both lists: divide by the number of problems": lambda *case: _bootstrap(
        *case, divisor=2 * len(case[0])
    ),
}

MOST_OFF = 0.15
"""Of the interval's standard error: what chance allows, averaged over all tables, is five times smaller."""


@exercise(
    "08.4",
    "your interval and the library's differ by chance alone: the difficulty of the problems cancels",
    reference=_library_interval,
)
def paired_bootstrap(solution: Callable[[Sequence[float], Sequence[float], int, int], Ends]) -> None:
    """``paired_bootstrap(before, after, resamples=2000, seed=0)`` returns ``(low, high)``.

    ``before`` and ``after`` are lists with one number for each problem, in the same order. Draw as many problems as
    there are, with replacement, ``resamples`` times; each time take mean(after) - mean(before) over the drawn ones. The
    interval holds the middle 95 % of these differences. The same ``seed`` gives the same interval.

    Example:
        >>> paired_bootstrap(lambda before, after, resamples=2000, seed=0: (0.0, 0.0)).passed
        False
    """
    tables = [_Table(before, after) for before, after in draws(_lengths_of_problems, 10)]
    mine = [table.ends(solution) for table in tables]
    if max(map(abs, _off(mine, tables))) > MOST_OFF:
        alike = (message for message, wrong in _BOOTSTRAP_MISTAKES.items() if _alike(mine, wrong, tables))
        near = "".join(f": {message}" for message in islice(alike, 1))
        low, high = mine[0]
        raise Unsolved(
            f"paired_bootstrap({tables[0].before}, {tables[0].after}) gives ({low:.2f}, {high:.2f}); expected about "
            f"({tables[0].right[0]:.2f}, {tables[0].right[1]:.2f}){near}"
        )
    if tables[0].ends(solution) != mine[0]:
        raise Unsolved("the same seed gives another interval: make a generator of the seed in the body", 0.8)


class _Table:
    """Lengths of problems before and after, the library's interval of their difference, and its standard error."""

    def __init__(self, before: list[int], after: list[int]) -> None:
        self.before, self.after = before, after
        self.right = _library_interval(before, after, 10_000)
        self.error = stdev(y - x for x, y in zip(before, after, strict=True)) / len(before) ** 0.5

    def ends(self, solution: Callable[..., Any]) -> Ends:
        return _ends(solution(list(self.before), list(self.after), 2000, 0))


def _ends(interval: Any) -> Ends:
    if interval is None or interval is ...:
        raise Unsolved("paired_bootstrap(before, after) gives nothing yet; write the body (expected (low, high))")
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        raise Unsolved(f"paired_bootstrap gives {interval!r}; expected two numbers, (low, high)") from None
    return low, high


def _off(mine: Sequence[Ends], tables: Sequence[_Table]) -> tuple[float, float]:
    """How far the ends are from the library's, outwards positive, in standard errors, on average over the tables."""
    rows = list(zip(mine, tables, strict=True))
    below = fmean((table.right[0] - ends[0]) / table.error for ends, table in rows)
    return below, fmean((ends[1] - table.right[1]) / table.error for ends, table in rows)


def _alike(mine: Sequence[Ends], wrong: Callable[..., Ends], tables: Sequence[_Table]) -> bool:
    pairs = zip(_off(mine, tables), _off([table.ends(wrong) for table in tables], tables), strict=True)
    return all(abs(ours - theirs) <= MOST_OFF + 0.03 * abs(theirs) for ours, theirs in pairs)


def _lengths_of_problems(rng: random.Random, size: int) -> tuple[list[int], list[int]]:
    """Problems of very different length, each of which becomes shorter by about as much."""
    before = [rng.randint(40, 400) for _ in range(12 + 2 * size)]
    return before, [length - rng.randint(10, 40) for length in before]
