"""Checks of notebook 10: a reward of one's own, a learning curve, and which checkpoint to keep."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from stepgrpo_lab.course.checks._result import agree, draws, exercise

Rows = Sequence[Mapping[str, float]]


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

    def rewards(correct: Sequence[bool], sizes: Sequence[int], least: int | None) -> list[float]:
        return [1.0 if right and n == least else 0.5 * right for right, n in zip(correct, sizes, strict=True)]

    def shortest(correct: Sequence[bool], sizes: Sequence[int]) -> int | None:
        return min((n for right, n in zip(correct, sizes, strict=True) if right), default=None)

    def right(correct: list[bool], steps: list[int], formatted: list[bool], tokens: list[int]) -> list[float]:
        return rewards(correct, tokens, shortest(correct, tokens))

    def one_winner(correct: list[bool], steps: list[int], formatted: list[bool], tokens: list[int]) -> list[float]:
        given = right(correct, steps, formatted, tokens)
        first = given.index(1.0) if 1.0 in given else -1
        return [0.5 if value == 1.0 and place != first else value for place, value in enumerate(given)]

    mistakes: dict[str, Callable[..., list[float]]] = {
        "the shortest member may be wrong: look for the shortest among the right": lambda correct, steps, ok, tokens: (
            rewards(correct, tokens, min(tokens))
        ),
        "a wrong member earns something: short guesses would be learned first": lambda correct, steps, ok, tokens: [
            1.0 if n == min(tokens) else 0.5 * right for right, n in zip(correct, tokens, strict=True)
        ],
        "two right members of the same length are both the shortest": one_winner,
        "the shortest in tokens is asked for, not in steps": lambda correct, steps, ok, tokens: rewards(
            correct, steps, shortest(correct, steps)
        ),
        "wrong answers earn 0": lambda *case: [value or 0.1 for value in right(*case)],
        "the format does not count here": lambda correct, steps, ok, tokens: right(
            [a and b for a, b in zip(correct, ok, strict=True)], steps, ok, tokens
        ),
    }

    def hint(correct: list[bool], steps: list[int], formatted: list[bool], tokens: list[int]) -> str:
        return "" if any(correct) else "in a group without a right answer everybody earns 0"

    golden = ([True, True, False, True], [4, 2, 1, 3], [True] * 4, [90, 60, 20, 75])
    cases = [golden, ([False, False], [3, 3], [True] * 2, [50, 60]), ([True] * 3, [3] * 3, [True] * 3, [60, 60, 80])]
    agree(solution, right, cases + draws(_group), "reward", mistakes=mistakes, hint=hint)


def _group(rng: random.Random, size: int) -> tuple[list[bool], list[int], list[bool], list[int]]:
    places = range(size)
    right = [rng.random() < 0.6 for _ in places]
    return (
        right,
        [rng.randint(1, 6) for _ in places],
        [rng.random() < 0.8 for _ in places],
        [10 * rng.randint(2, 9) for _ in places],
    )


def _validated(rows: Rows) -> list[Mapping[str, float]]:
    return [row for row in rows if "validation/tokens" in row]


@exercise("10.2", "the curve of plain decoding says what was learned; the rollout is short from the first step on")
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

    def right(rows: Rows, share: float, key: str = "validation/tokens") -> float | None:
        start = _validated(rows)[0]["validation/tokens"]
        return next((row["step"] for row in rows if key in row and row[key] < share * start), None)

    def place(rows: Rows, share: float, among: Callable[[Rows], Rows]) -> int | None:
        step = right(rows, share)
        return next((index for index, row in enumerate(among(rows)) if row["step"] == step), None)

    mistakes: dict[str, Callable[..., float | None]] = {
        'that is "tokens", the length of the training rollouts, which the probes cut; plain decoding is '
        '"validation/tokens"': lambda rows, share: right(rows, share, "tokens"),
        'that is a place among the validated rows; return the row\'s "step"': lambda rows, share: place(
            rows, share, _validated
        ),
        'that is a place among all rows; return the row\'s "step"': lambda rows, share: place(rows, share, lambda r: r),
        "that is the last such step; the first is asked for": lambda rows, share: right(
            [{**_validated(rows)[0], "step": -1}, *reversed(rows)][:-1], share
        ),
    }

    def hint(rows: Rows, share: float) -> str:
        if right(rows, share) is None:
            return "it is never reached: return None"
        return 'only rows with "validation/tokens" were validated'

    agree(
        solution,
        right,
        draws(_curve),
        "first_step_below",
        mistakes=mistakes,
        hint=hint,
        show=_of_rows("first_step_below"),
    )


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

    def right(rows: Rows, most_lost: float) -> float:
        known = _validated(rows)
        kept = [row for row in known if row["validation/accuracy"] >= known[0]["validation/accuracy"] - most_lost]
        return min(kept, key=lambda row: row["validation/tokens"])["step"]

    mistakes: dict[str, Callable[..., float]] = {
        "that is the shortest of all; how much accuracy it may lose is limited": lambda rows, most_lost: right(
            rows, 1.0
        ),
        "that is the most accurate one; among those that lose little, take the shortest": lambda rows, most_lost: max(
            _validated(rows), key=lambda row: row["validation/accuracy"]
        )["step"],
        "of two equally short ones, the earlier": lambda rows, most_lost: right(
            [_validated(rows)[0], *reversed(rows)], most_lost
        ),
        "the accuracy is held against the model before training, not against the best": lambda rows, most_lost: right(
            [max(_validated(rows), key=lambda row: row["validation/accuracy"]), *rows], most_lost
        ),
    }
    hint = 'only rows with "validation/tokens" were validated; the first of them is the model before training'
    cases = [(rows, share / 10) for rows, share in draws(_curve)]
    agree(solution, right, cases, "choose_checkpoint", mistakes=mistakes, hint=hint, show=_of_rows("choose_checkpoint"))


def _of_rows(name: str) -> Callable[..., str]:
    """Writes a call by what matters of its rows: step, tokens and accuracy of those that were validated."""

    def show(rows: Rows, number: float) -> str:
        known = ", ".join(
            f"step {row['step']:g}: {row['validation/tokens']:g} tokens, {row['validation/accuracy']:.3f} right"
            for row in _validated(rows)
        )
        return f"{name}(rows, {number:g}), validated at {known},"

    return show


def _curve(rng: random.Random, size: int) -> tuple[list[dict[str, float]], float]:
    """A run's metrics: validated before training and at every tenth step; lengths fall and rise, some are equal."""
    rows: list[dict[str, float]] = [{"step": 0, "validation/tokens": 120.0, "validation/accuracy": 0.975}]
    for index in range(1, 2 + size):
        rows.append({"step": 5 * index, "tokens": 10.0 * rng.randint(3, 6), "accuracy": 0.9})
        if index % 2 == 0:
            rows[-1]["validation/tokens"] = 10.0 * rng.randint(3, 12)
            rows[-1]["validation/accuracy"] = 1 - rng.randint(0, 40) / 200
    return rows, rng.choice([0.2, 0.5, 0.8])
