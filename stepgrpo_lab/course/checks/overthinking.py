"""Checks of notebook 01: what an oracle would save, and what a cut costs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import fmean
from typing import TypedDict

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.overthinker.tasks import OPERATIONS_PER_STEP, work_out
from stepgrpo_lab.overthinker.verifier import label_steps, oracle_tokens

Operation = tuple[str, int]
Equation = tuple[int, str, int, int]


LabelledSteps = tuple[Sequence[str], Sequence[int], int]


@exercise("01.2", "a share of all tokens, and no rule can save more: it would have to know what is needed")
def oracle_saving(solution: Callable[[Sequence[LabelledSteps]], float]) -> None:
    """``solution(completions)`` returns the share of all tokens that an oracle saves, from 0 to 1.

    Each completion is ``(labels, step_tokens, closing)``: its steps with their tokens, and those of close and answer.
    The oracle stops after the last needed step and writes close and answer.

    Example:
        >>> oracle_saving(lambda completions: 0.5).passed
        False
    """

    def saved(completions: Sequence[LabelledSteps], kept: Callable[..., int] = oracle_tokens) -> float:
        return 1 - sum(kept(*row) for row in completions) / sum(
            sum(sizes) + closing for _, sizes, closing in completions
        )

    def mean_of_shares(completions: Sequence[LabelledSteps]) -> float:
        return fmean(saved([row]) for row in completions)

    def until_another(labels: Sequence[str], sizes: Sequence[int], closing: int) -> int:
        other = next((place for place, label in enumerate(labels) if label != "needed"), len(labels))
        return sum(sizes[:other]) + closing

    def needed_only(labels: Sequence[str], sizes: Sequence[int], closing: int) -> int:
        return sum(size for label, size in zip(labels, sizes, strict=True) if label == "needed") + closing

    mistakes: dict[str, Callable[..., float]] = {
        "the close and the answer must still be written": lambda rows: saved(
            rows, lambda *row: oracle_tokens(*row) - row[2]
        ),
        "a step in between cannot be left out: it comes before a needed one": lambda rows: saved(rows, needed_only),
        "a needed step may come after another one: go on to the last": lambda rows: saved(rows, until_another),
        "that is the mean of the shares; a share of all tokens is asked for": mean_of_shares,
        "that is the share that is kept; the share that is saved is asked for": lambda rows: 1 - saved(rows),
        "give a share from 0 to 1, not a percentage": lambda rows: 100 * saved(rows),
        "a whole completion has its steps' tokens, and those of close and answer": lambda rows: (
            1 - sum(oracle_tokens(*row) for row in rows) / max(1, sum(sum(sizes) for _, sizes, _ in rows))
        ),
    }
    example = [(["needed", "malformed", "needed", "redundant"], [16, 10, 13, 12], 7), (["needed"], [16], 7)]
    cases = [(example,), ([(["redundant"], [16], 7)],), *draws(_labelled_steps)]
    agree(solution, saved, cases, "oracle_saving", mistakes=mistakes)


def _labelled_steps(rng: random.Random, size: int) -> tuple[list[LabelledSteps]]:
    rows: list[LabelledSteps] = []
    for _ in range(1 + size // 2):
        count = rng.randint(1, size)
        labels = rng.choices(["needed", "verifying", "redundant", "malformed"], weights=[3, 2, 2, 1], k=count)
        rows.append((labels, [rng.randint(8, 20) for _ in labels], rng.randint(5, 9)))
    return (rows,)


class WatchedCompletion(TypedDict):
    """A completion that was asked at each marker and never stopped: the tokens up to there, whether the trial answer is
    right, the tokens that close and answer take, and the whole completion's tokens and outcome."""

    ends: list[int]
    trials_right: list[bool]
    closing: int
    tokens: int
    right: bool


@exercise("01.3", "what a fixed cut saves it pays for: where it came too early, the answer is a guess")
def cut_curve(solution: Callable[[Sequence[WatchedCompletion], int], Sequence[tuple[float, float]]]) -> None:
    """``solution(completions, most)``: for cuts after 1 to ``most`` steps, (mean tokens, share of right answers).

    A completion that is cut after ``n`` steps has ``ends[n - 1]`` tokens and ``closing`` more, and its answer is the
    trial answer ``trials_right[n - 1]``. One with fewer trial answers stays as it is.

    Example:
        >>> cut_curve(lambda completions, most: [(0.0, 0.0)] * most).passed
        False
    """
    mistakes: dict[str, Callable[..., list[tuple[float, float]]]] = {
        "that takes the last trial answer of completions that end earlier; they end as they are": lambda *case: _cut(
            *case, clamps=True
        ),
        "a completion that ends earlier is not wrong: its own answer counts": lambda *case: _cut(*case, own=False),
        "the answer after the first step stands at index 0": lambda *case: _cut(*case, shift=1),
        "the close and the answer must still be written": lambda *case: _cut(*case, closes=False),
        "a completion that ends earlier keeps all its tokens": lambda *case: _cut(*case, free=True),
        "the first row is the cut after one step, not after none": lambda *case: [_uncut(case[0]), *_cut(*case)[:-1]],
        "give the mean over the completions, not the sum": lambda *case: [
            (tokens * len(case[0]), right * len(case[0])) for tokens, right in _cut(*case)
        ],
        "give the share of right answers, from 0 to 1": lambda *case: [(x, 100 * y) for x, y in _cut(*case)],
    }
    example: list[WatchedCompletion] = [
        {"ends": [16, 29], "trials_right": [False, True], "closing": 7, "tokens": 49, "right": True},
        {"ends": [15], "trials_right": [True], "closing": 7, "tokens": 36, "right": False},
    ]
    agree(solution, _cut, [(example, 2), (example[:1], 3), *draws(_watched)], "cut_curve", mistakes=mistakes)


def _cut(
    completions: Sequence[WatchedCompletion],
    most: int,
    *,
    clamps: bool = False,
    own: bool = True,
    shift: int = 0,
    closes: bool = True,
    free: bool = False,
) -> list[tuple[float, float]]:
    """The curve, right by default, or with a mistake in it."""
    rows = []
    for steps in range(1, most + 1):
        tokens, right = [], []
        for one in completions:
            place = min(steps, len(one["ends"])) if clamps else steps + shift
            if place <= len(one["ends"]):
                tokens.append(one["ends"][place - 1] + one["closing"] * closes)
                right.append(one["trials_right"][place - 1])
            else:
                tokens.append(one["tokens"] * (not free))
                right.append(one["right"] and own)
        rows.append((fmean(tokens), fmean(right)))
    return rows


def _uncut(completions: Sequence[WatchedCompletion]) -> tuple[float, float]:
    return fmean(one["tokens"] for one in completions), fmean(one["right"] for one in completions)


def _watched(rng: random.Random, size: int) -> tuple[list[WatchedCompletion], int]:
    rows: list[WatchedCompletion] = []
    for _ in range(size):
        ends = [*accumulate(rng.randint(8, 20) for _ in range(rng.randint(1, 4)))]
        trials = [rng.random() < 0.5 for _ in ends]
        tokens = ends[-1] + rng.randint(15, 30)
        closing, right = rng.randint(5, 9), rng.random() < 0.7
        rows.append({"ends": ends, "trials_right": trials, "closing": closing, "tokens": tokens, "right": right})
    return rows, rng.randint(1, 5)


@exercise(
    "01.1",
    "these are the library's labels: what a completion needed is known exactly, where for a large model one guesses",
)
def label_chain(solution: Callable[[int, Sequence[Operation], int, Sequence[Sequence[Equation]]], list[str]]) -> None:
    """``solution(start, operations, answer, steps)`` labels each step of a completion of a chain problem.

    ``operations`` are (symbol, operand). Each step is a list of equations (left, symbol, operand, result).
    The labels are those of :func:`stepgrpo_lab.overthinker.verifier.label_steps`.

    Example:
        >>> label_chain(lambda start, operations, answer, steps: ["needed"] * len(steps)).passed
        False
    """
    mistakes: dict[str, Callable[..., list[str]]] = {
        "a wrong result is a slip, not a malformation: the step is legal, and the pass goes on from what was written": (
            lambda *case: _labelled(*case, slips_are_legal=False)
        ),
        "after a malformed step the next pass begins at the start": lambda *case: _labelled(*case, restarts=False),
        "only a pass that reaches the right answer ends what is needed": lambda *case: _labelled(
            *case, any_answer=True
        ),
        "only the first right pass afterwards verifies; later ones are redundant": lambda *case: _labelled(
            *case, verifies_once=False
        ),
        "all steps of the verifying pass verify, not only its last": lambda *case: _labelled(*case, whole_pass=False),
        "a pass that does not reach the answer again verifies nothing": lambda *case: _labelled(*case, any_check=True),
        "a step without an equation is no move on this problem": lambda *case: _labelled(*case, empty_is_legal=True),
        f"a step takes at most {OPERATIONS_PER_STEP} operations": lambda *case: _labelled(*case, most=99),
    }
    operations = [("+", 5), ("*", 3), ("-", 4)]
    first, second = [(7, "+", 5, 2), (2, "*", 3, 6)], [(6, "-", 4, 2)]
    cases = [
        (7, operations, 2, [first, second, first, second, second]),
        (7, operations, 2, [first, [(6, "-", 4, 1)], first, second]),
        *draws(_completion),
    ]
    agree(solution, _by_library, cases, "label_chain", mistakes=mistakes)


def _by_library(
    start: int, operations: Sequence[Operation], answer: int, steps: Sequence[Sequence[Equation]]
) -> list[str]:
    meta = {"start": start, "operations": [list(operation) for operation in operations]}
    written = (" ".join("{}{}{}={}".format(*equation) for equation in step) for step in steps)
    return [*label_steps(Problem("exercise", "", str(answer), "chain", meta=meta), " Wait ".join(written))]


def _labelled(
    start: int,
    operations: Sequence[Operation],
    answer: int,
    steps: Sequence[Sequence[Equation]],
    *,
    slips_are_legal: bool = True,
    restarts: bool = True,
    any_answer: bool = False,
    verifies_once: bool = True,
    whole_pass: bool = True,
    any_check: bool = False,
    most: int = OPERATIONS_PER_STEP,
    empty_is_legal: bool = False,
) -> list[str]:
    """The labels, by default right, or with a mistake."""
    moves, place, value = [], 0, start
    for equations in steps:
        legal, before = (empty_is_legal or len(equations) > 0) and len(equations) <= most, (place, value)
        for left, symbol, operand, result in equations:
            legal = legal and left == value and [(symbol, operand)] == [*operations[place : place + 1]]
            legal = legal and (slips_are_legal or work_out(left, [(symbol, operand)]) == result)
            place, value = (place + 1, result) if legal else (place, value)
        completes = legal and place == len(operations)
        moves.append((legal, completes, completes and (value == answer)))
        if completes or not legal:
            place, value = (0, start) if completes or restarts else before
    labels, solved, confirmed = [], False, False
    for index, (legal, completes, right) in enumerate(moves):
        ends = next((move for move in moves[index:] if move[1] or not move[0]), (False, False, False))
        confirms = (ends[1] if any_check else ends[2]) and (whole_pass or completes)
        if not legal:
            labels.append("malformed")
        elif not solved:
            labels.append("needed")
            solved = completes if any_answer else right
        elif confirms and not confirmed:
            labels.append("verifying")
            confirmed = completes and verifies_once
        else:
            labels.append("redundant")
    return labels


def _completion(rng: random.Random, size: int) -> tuple[int, list[Operation], int, list[list[Equation]]]:
    """Passes over a chain: most of them right, some with a slip, broken off, or taken up in the middle."""
    start = rng.randint(0, 9)
    operations = [(rng.choice("+-*"), rng.randint(1, 9)) for _ in range(rng.randint(2, 5))]
    steps: list[list[Equation]] = []
    for _ in range(1 + size // 2):
        slip, value, written = rng.random() < 0.35, start, []
        for place in range(0, len(operations), OPERATIONS_PER_STEP):
            step = []
            for symbol, operand in operations[place : place + OPERATIONS_PER_STEP]:
                result = work_out(value, [(symbol, operand)])
                if slip and rng.random() < 0.5:
                    result = (result + rng.randint(1, 9)) % 10
                step.append((value, symbol, operand, result))
                value = result
            written.append(step)
        kind = rng.random()
        if kind < 0.15:
            written = written[:-1] or written
        elif kind < 0.3:
            written = [written[-1], *written]
        elif kind < 0.4:
            written = [[equation for step in written for equation in step]]
        elif kind < 0.45:
            written = [[], *written]
        steps += written
    return start, operations, work_out(start, operations), steps
