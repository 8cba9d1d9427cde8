"""Checks of notebook 08: the ratio behind a bootstrap, what an interval allows one to say, advantages by close."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks._result import exercise, expect

_BEFORE, _AFTER = [100.0, 200.0, 60.0], [50.0, 60.0, 60.0]


@exercise("08.1", "one draw of problems serves both models: that is all the pairing there is")
def drawn_ratio(solution: Callable[[Sequence[float], Sequence[float], Sequence[int]], float]) -> None:
    """Ratio of the mean lengths after and before, over the drawn problems.

    Example:
        >>> def ratio(before, after, drawn):
        ...     return sum(after[i] for i in drawn) / sum(before[i] for i in drawn)
        >>> drawn_ratio(ratio).passed
        True
    """
    mean_of_ratios = "that is the mean of the problems' ratios, in which a short problem counts as much as a long one"
    expect(
        solution(_BEFORE, _AFTER, [0, 1, 2]),
        170 / 360,
        "before [100, 200, 60], after [50, 60, 60], each problem drawn once,",
        mistakes={
            f"{mean_of_ratios}; take the ratio of the means": (0.5 + 0.3 + 1.0) / 3,
            "this is before over after; a model that saves tokens has a ratio below 1": 360 / 170,
        },
    )
    expect(
        solution(_BEFORE, _AFTER, [0, 0, 2]),
        160 / 260,
        "drawn = [0, 0, 2], problem 0 twice,",
        mistakes={
            "that is what all three give: use only the drawn problems": 170 / 360,
            "problem 0 must count twice; a set would lose that": 110 / 160,
        },
    )


@exercise("08.2", "an interval that holds 0 says that we do not know; 'no loss' needs a margin that was named before")
def verdict(solution: Callable[[float, float, float], str]) -> None:
    """What an interval of a change in accuracy allows one to say, given the largest loss that one would accept.

    Example:
        >>> def say(low, high, margin):
        ...     return "no worse" if low > -margin else "worse" if high < -margin else "undecided"
        >>> verdict(say).passed
        True
    """
    cases = [
        ((-0.5, 0.3, 1.0), "no worse", "even the worst end is a smaller loss than the margin"),
        ((-3.2, -1.8, 1.0), "worse", "even the best end is a larger loss than the margin"),
        ((-4.0, 3.0, 1.0), "undecided", "an interval that holds 0 but also a loss of 4 points does not show 'no loss'"),
        ((-0.8, -0.3, 1.0), "no worse", "a loss that is certain, and smaller than the margin that was accepted"),
        ((-1.4, -0.4, 1.0), "undecided", "the margin lies inside the interval"),
        ((0.2, 0.9, 1.0), "no worse", "a gain"),
        ((-0.5, 0.3, 0.2), "undecided", "with a margin of 0.2 points the same interval decides nothing"),
    ]
    for (low, high, margin), right, why in cases:
        expect(solution(low, high, margin), right, f"[{low}, {high}] points, margin {margin}", hint=f"Here: {why}")


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
    expect(
        solution([1.0, 0.5, -0.5, -1.0], [True, True, False, False]),
        (0.75, -0.75),
        "advantages [1, 0.5, -0.5, -1], the first two forced,",
        mistakes={
            "the two are exchanged; return the forced ones first": (-0.75, 0.75),
            "divide by the number of closes of that kind, not by the size of the group": (0.375, -0.375),
        },
    )
    expect(
        solution([0.5, -0.5], [True, True]),
        (0.0, None),
        "two forced closes and no natural one",
        hint="A kind that does not occur has no mean: return None for it",
    )
    expect(solution([0.5, -0.5], [False, False]), (None, 0.0), "two natural closes and no forced one")
