"""Checks of notebook 01: what an oracle would save, and what a cut costs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.course.checks.tour import lengths
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.overthinker.tasks import OPERATIONS_PER_STEP, work_out
from stepgrpo_lab.overthinker.verifier import label_steps, oracle_tokens

Operation = tuple[str, int]
Equation = tuple[int, str, int, int]


def _steps(rng: random.Random, size: int) -> tuple[list[str], list[int], int]:
    labels = rng.choices(["needed", "verifying", "redundant", "malformed"], weights=[3, 2, 2, 1], k=size)
    return labels, [rng.randint(8, 20) for _ in labels], rng.randint(5, 9)


def _needed_only(labels: Sequence[str], sizes: Sequence[int], closing: int) -> int:
    return sum(size for label, size in zip(labels, sizes, strict=True) if label == "needed") + closing


def _until_another(labels: Sequence[str], sizes: Sequence[int], closing: int) -> int:
    other = next((place for place, label in enumerate(labels) if label != "needed"), len(labels))
    return sum(sizes[:other]) + closing


@exercise("01.1", "this is the length of a completion that stops as soon as it may")
def stop_after_needed(solution: Callable[[Sequence[str], Sequence[int], int], int]) -> None:
    """``solution(labels, step_tokens, closing_tokens)`` returns the length after the last needed step.

    Example:
        >>> stop_after_needed(oracle_tokens)
        ✔ Exercise 01.1 solved: this is the length of a completion that stops as soon as it may
    """
    mistakes: dict[str, Callable[..., int]] = {
        "the close and the answer must still be written": lambda *case: oracle_tokens(*case) - case[2],
        "a step in between cannot be left out: it comes before a needed one": _needed_only,
        "a needed step may come after another one: go on to the last": _until_another,
    }
    cases = [
        (["needed", "malformed", "needed", "redundant"], [16, 10, 13, 12], 7),
        (["needed", "verifying"], [16, 13], 7),
        *draws(_steps),
    ]
    hint = "look for the last needed step, and keep everything up to it"
    agree(solution, oracle_tokens, cases, "stop_after_needed", hint=hint, mistakes=mistakes)


@exercise("01.2", "a share of all tokens: long completions count for what they cost")
def pooled_saving(solution: Callable[[Sequence[int], Sequence[int]], float]) -> None:
    """``solution(before, after)`` returns the share of all tokens that is saved, in [0, 1].

    Example:
        >>> pooled_saving(lambda before, after: 1 - sum(after) / sum(before))
        ✔ Exercise 01.2 solved: a share of all tokens: long completions count for what they cost
    """

    def saved(before: Sequence[int], after: Sequence[int]) -> float:
        return 1 - sum(after) / sum(before)

    mistakes: dict[str, Callable[..., float]] = {
        "that is the mean of the shares; a share of all tokens is asked for": lambda before, after: (
            1 - fmean(short / long for long, short in zip(before, after, strict=True))
        ),
        "that is the share that is kept; the share that is saved is asked for": lambda *case: 1 - saved(*case),
        "give a share from 0 to 1, not a percentage": lambda *case: 100 * saved(*case),
    }
    agree(solution, saved, [([200, 50, 50], [50, 40, 50]), *draws(lengths)], "pooled_saving", mistakes=mistakes)


@exercise("01.3", "and so a fixed cut pays for what it saves: where it came too early, the answer is a guess")
def cut_accuracy(solution: Callable[[Sequence[Sequence[bool]], Sequence[bool], int], float]) -> None:
    """``solution(trials_right, own_right, steps)`` returns the share of right answers if all are cut after so many.

    ``trials_right[i][j]`` says whether the trial answer after step j + 1 of completion i is right, ``own_right[i]``
    whether its own final answer is.

    Example:
        >>> cut_accuracy(lambda trials, own, steps: sum(own) / len(own))
        ✘ Exercise 01.3 not solved yet: cut_accuracy([[False]], [True], 1) gives 1.0; expected 0.0: \
trials_right[i][steps - 1] is the answer given after `steps` steps
    """

    def accuracy(trials_right: Sequence[Sequence[bool]], own_right: Sequence[bool], steps: int) -> float:
        rows = zip(trials_right, own_right, strict=True)
        return fmean(trials[steps - 1] if steps <= len(trials) else own for trials, own in rows)

    def hint(trials_right: Sequence[Sequence[bool]], own_right: Sequence[bool], steps: int) -> str:
        if any(steps > len(trials) for trials in trials_right):
            return "a completion with fewer markers ends by itself, so its own answer counts"
        return "trials_right[i][steps - 1] is the answer given after `steps` steps"

    mistakes: dict[str, Callable[..., float]] = {
        "that takes the last trial answer of completions that end earlier; take their own answer": lambda *case: fmean(
            trials[min(case[2], len(trials)) - 1] for trials in case[0]
        ),
        "a completion that ends earlier is not wrong: its own answer counts": lambda *case: fmean(
            len(trials) >= case[2] and trials[case[2] - 1] for trials in case[0]
        ),
        "that is the answer after one step more; the one after the first step stands at index 0": lambda *case: (
            accuracy(case[0], case[1], case[2] + 1)
        ),
    }
    cases = [([[False, True], [True]], [True, False], 1), ([[False]], [True], 1), *draws(_cuts)]
    agree(solution, accuracy, cases, "cut_accuracy", mistakes=mistakes, hint=hint)


def _cuts(rng: random.Random, size: int) -> tuple[list[list[bool]], list[bool], int]:
    trials = [[rng.random() < 0.5 for _ in range(rng.randint(1, 4))] for _ in range(size)]
    return trials, [rng.random() < 0.7 for _ in trials], rng.randint(1, 5)


@exercise(
    "01.4",
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
