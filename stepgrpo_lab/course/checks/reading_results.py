"""Checks of notebook 08: the ratio behind a bootstrap, what an interval allows one to say, advantages by close."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.course.checks.tour import lengths


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


@exercise("08.3", "where every member was closed by force, its close can only be as good as the others': zero")
def advantage_by_close(
    solution: Callable[[Sequence[float], Sequence[bool]], tuple[float | None, float | None]],
) -> None:
    """Mean advantage of the forced and of the natural closes; None for a kind that does not occur.

    Example:
        >>> def split(advantages, forced):
        ...     kinds = ([a for a, f in zip(advantages, forced) if f is kind] for kind in (True, False))
        ...     return tuple(sum(kind) / len(kind) if kind else None for kind in kinds)
        >>> advantage_by_close(split).passed
        True
    """
    Means = tuple[float | None, float | None]

    def kinds(advantages: Sequence[float], forced: Sequence[bool]) -> tuple[list[float], list[float]]:
        rows = list(zip(advantages, forced, strict=True))
        return [value for value, is_forced in rows if is_forced], [value for value, is_forced in rows if not is_forced]

    def means(advantages: Sequence[float], forced: Sequence[bool]) -> Means:
        first, second = (fmean(kind) if kind else None for kind in kinds(advantages, forced))
        return first, second

    mistakes: dict[str, Callable[..., tuple[float | None, ...]]] = {
        "the two are exchanged; return the forced ones first": lambda *case: means(*case)[::-1],
        "divide by the number of closes of that kind, not by the size of the group": lambda *case: tuple(
            sum(kind) / len(case[0]) if kind else None for kind in kinds(*case)
        ),
        "a kind that does not occur has no mean: return None for it": lambda *case: tuple(
            mean or 0.0 for mean in means(*case)
        ),
    }

    def hint(advantages: Sequence[float], forced: Sequence[bool]) -> str:
        return "" if 0 < sum(forced) < len(forced) else "a kind that does not occur has no mean: return None for it"

    cases = [([1.0, 0.5, -0.5, -1.0], [True, True, False, False]), ([0.5, -0.5], [True, True]), *draws(_closes)]
    agree(solution, means, cases, "advantage_by_close", mistakes=mistakes, hint=hint)


def _closes(rng: random.Random, size: int) -> tuple[list[float], list[bool]]:
    share = rng.choice([0.0, 0.5, 0.5, 1.0])
    return [rng.randint(-20, 20) / 10 for _ in range(size)], [rng.random() < share for _ in range(size)]
