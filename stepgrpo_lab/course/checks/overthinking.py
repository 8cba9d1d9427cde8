"""Checks of notebook 01: what an oracle would save, and what a cut costs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.course.checks.tour import lengths
from stepgrpo_lab.overthinker.verifier import oracle_tokens


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
