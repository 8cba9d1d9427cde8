"""Checks of notebook 10: a reward of one's own, a learning curve, and which checkpoint to keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from stepgrpo_lab.course.checks._result import exercise, expect

Rows = Sequence[Mapping[str, float]]

_GROUP = {"correct": [True, True, False, True], "steps": [4, 2, 1, 3], "formatted": [True] * 4}
_TOKENS = [90, 60, 20, 75]


@exercise(
    "10.1", "whoever is right earns 0.5 or more, the shortest of them 1: wrong answers cannot gain by being short"
)
def shortest_right_reward(solution: Callable[..., Sequence[float]]) -> None:
    """A group reward: 1 for the shortest right completions of a group, 0.5 for the other right ones, 0 for wrong ones.

    Example:
        >>> def reward(correct, steps, formatted, tokens):
        ...     shortest = min((n for n, c in zip(tokens, correct) if c), default=None)
        ...     return [0.0 if not c else 1.0 if n == shortest else 0.5 for n, c in zip(tokens, correct)]
        >>> shortest_right_reward(reward).passed
        True
    """

    def reward(correct: Sequence[bool], tokens: Sequence[int]) -> Sequence[float]:
        return solution(list(correct), [3] * len(correct), [True] * len(correct), list(tokens))

    expect(
        solution(**_GROUP, tokens=_TOKENS),
        [0.5, 1.0, 0.0, 0.5],
        "correct [True, True, False, True], tokens [90, 60, 20, 75]",
        mistakes={
            "nobody earns 1. The shortest member is wrong: look for the shortest among the right": [0.5, 0.5, 0.0, 0.5],
            "the third member is wrong and earns 1: short guesses would be learnt first": [0.5, 0.5, 1.0, 0.5],
        },
    )
    expect(reward([False, False], [50, 60]), [0.0, 0.0], "a group without a right answer")
    expect(reward([True, True, True], [60, 60, 80]), [1.0, 1.0, 0.5], "two right members of the same length")
    expect(reward([True, True], [80, 70]), [0.5, 1.0], "a group in which everybody is right")


_CURVE = [
    {"step": 0, "validation/tokens": 120.0, "validation/accuracy": 0.99},
    {"step": 1, "tokens": 50.0, "accuracy": 0.9},
    {"step": 10, "tokens": 40.0, "accuracy": 0.9, "validation/tokens": 90.0, "validation/accuracy": 0.98},
    {"step": 20, "tokens": 38.0, "accuracy": 0.9, "validation/tokens": 55.0, "validation/accuracy": 0.985},
    {"step": 30, "tokens": 36.0, "accuracy": 0.9, "validation/tokens": 40.0, "validation/accuracy": 0.90},
    {"step": 40, "tokens": 36.0, "accuracy": 0.9, "validation/tokens": 50.0, "validation/accuracy": 0.975},
]


@exercise("10.2", "the curve of plain decoding says what was learnt; the rollout is short from the first step on")
def first_step_below(solution: Callable[[Rows, float], int | None]) -> None:
    """First step whose validation length is below a share of the length before training; None if there is none.

    Example:
        >>> def first(rows, share):
        ...     known = [row for row in rows if "validation/tokens" in row]
        ...     start = known[0]["validation/tokens"]
        ...     return next((row["step"] for row in known if row["validation/tokens"] < share * start), None)
        >>> first_step_below(first).passed
        True
    """
    hint = 'Only rows with "validation/tokens" were validated'
    expect(
        solution([dict(row) for row in _CURVE], 0.5),
        20,
        "with half the length (120 tokens before training) it",
        hint=hint,
        mistakes={
            'that is "tokens", the length of the training rollouts, which the probes cut; plain decoding is '
            '"validation/tokens"': 1,
            'that is a place among the validated rows; return the row\'s "step"': 2,
            'that is a place among all rows; return the row\'s "step"': 3,
        },
    )
    expect(solution([dict(row) for row in _CURVE], 0.8), 10, "with a share of 0.8", hint=hint)
    expect(solution([dict(row) for row in _CURVE], 0.2), None, "with a share of 0.2, which is never reached")


@exercise("10.3", "short enough and still right: chosen on validation problems, so the test problems stay unseen")
def choose_checkpoint(solution: Callable[[Rows, float], int]) -> None:
    """Step of the shortest validated model that loses at most some accuracy against the start; the earlier of equals.

    Example:
        >>> def choose(rows, most_lost):
        ...     known = [row for row in rows if "validation/tokens" in row]
        ...     least = known[0]["validation/accuracy"] - most_lost
        ...     kept = [row for row in known if row["validation/accuracy"] >= least]
        ...     return min(kept, key=lambda row: row["validation/tokens"])["step"]
        >>> choose_checkpoint(choose).passed
        True
    """
    expect(
        solution([dict(row) for row in _CURVE], 0.02),
        40,
        "with at most 0.02 of accuracy lost it",
        mistakes={
            "that is the shortest of all, which lost 9 points; at most 2 are allowed": 30,
            "that is the most accurate one; among those that lose little, take the shortest": 0,
            'that step was not validated: keep only rows with "validation/tokens"': 1,
        },
    )
    expect(solution([dict(row) for row in _CURVE], 0.5), 30, "with at most 0.5 lost")
    expect(solution([dict(row) for row in _CURVE], 0.0), 0, "with nothing to lose: the model before training")
    tie = [{"step": step, "validation/tokens": 60.0, "validation/accuracy": 0.9} for step in (0, 10)]
    expect(solution(tie, 0.1), 0, "two models of the same length: the earlier one")
