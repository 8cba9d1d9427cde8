"""Checks of notebook 01: what an oracle would save, and what a cut costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks._result import Unsolved, exercise, expect
from stepgrpo_lab.method.records import StepLabel
from stepgrpo_lab.overthinker.verifier import oracle_tokens

COMPLETIONS: dict[str, tuple[list[StepLabel], list[int], int]] = {
    "two needed steps, then checks": (["needed", "needed", "verifying", "redundant"], [16, 13, 13, 12], 7),
    "a needed step after a malformed one": (["needed", "malformed", "needed", "redundant"], [16, 10, 13, 12], 7),
    "nothing to cut": (["needed", "needed"], [16, 13], 7),
}
BEFORE, AFTER = [200, 50, 50], [50, 40, 50]
TRIALS = [[False, True, True], [False, False, True, True], [True], [False, True]]
OWN = [True, True, False, True]


@exercise("01.1", "this is the length of a completion that stops as soon as it may")
def stop_after_needed(solution: Callable[[Sequence[str], Sequence[int], int], int]) -> None:
    """``solution(labels, step_tokens, closing_tokens)`` returns the length after the last needed step.

    Example:
        >>> stop_after_needed(oracle_tokens)
        ✔ Exercise 01.1 solved: this is the length of a completion that stops as soon as it may
    """
    for case, (labels, sizes, closing) in COMPLETIONS.items():
        what = f"{case}: stop_after_needed({labels}, {sizes}, {closing})"
        right = oracle_tokens(labels, sizes, closing)
        only = sum(size for label, size in zip(labels, sizes, strict=True) if label == "needed") + closing
        mistakes = {
            "the close and the answer must still be written": right - closing,
            "a step in between cannot be left out, it comes before a needed one": only,
        }
        hint = "look for the last needed step, and keep everything up to it"
        expect(solution(labels, sizes, closing), right, what, hint=hint, mistakes=mistakes)


@exercise("01.2", "a share of all tokens: long completions count for what they cost")
def pooled_saving(solution: Callable[[Sequence[int], Sequence[int]], float]) -> None:
    """``solution(before, after)`` returns the share of all tokens that is saved, in [0, 1].

    Example:
        >>> pooled_saving(lambda before, after: 1 - sum(after) / sum(before))
        ✔ Exercise 01.2 solved: a share of all tokens: long completions count for what they cost
    """
    right = 1 - sum(AFTER) / sum(BEFORE)
    shares = [1 - after / before for before, after in zip(BEFORE, AFTER, strict=True)]
    mistakes = {
        "that is the mean of the shares; a share of all tokens is asked for": sum(shares) / len(shares),
        "that is the share that is kept; the share that is saved is asked for": 1 - right,
        "give a share from 0 to 1, not per cent": 100 * right,
    }
    expect(solution(BEFORE, AFTER), right, f"pooled_saving({BEFORE}, {AFTER})", mistakes=mistakes)


@exercise("01.3", "and so a fixed cut pays for what it saves: where it came too early, the answer is a guess")
def cut_accuracy(solution: Callable[[Sequence[Sequence[bool]], Sequence[bool], int], float]) -> None:
    """``solution(trials_right, own_right, steps)`` returns the share of right answers if all are cut after so many.

    ``trials_right[i][j]`` says whether the trial answer after step j + 1 of completion i is right, ``own_right[i]``
    whether its own final answer is.

    Example:
        >>> cut_accuracy(lambda trials, own, steps: sum(own) / len(own))
        ✘ Exercise 01.3 not solved yet: cut_accuracy(trials_right, own_right, 1) gives 0.75; expected 0.25: \
trials_right[i][steps - 1] is the answer given after `steps` steps
    """
    answers = [[*trials, own] for trials, own in zip(TRIALS, OWN, strict=True)]
    for steps in (1, 2, 3, 9):
        what = f"cut_accuracy(trials_right, own_right, {steps})"
        try:
            found = solution(TRIALS, OWN, steps)
        except IndexError:
            raise Unsolved(
                f"{what} raises IndexError: a completion with fewer markers ends by itself, so its own answer counts"
            ) from None
        after, later = (sum(row[min(cut, len(row) - 1)] for row in answers) / len(OWN) for cut in (steps - 1, steps))
        last = sum(trials[min(steps, len(trials)) - 1] for trials in TRIALS) / len(TRIALS)
        mistakes = {"that is the last trial answer of completions that end before; take their own answer": last}
        if steps == 1:
            mistakes["that is the answers after 2 steps; that after the first stands at index 0"] = later
        hint = "trials_right[i][steps - 1] is the answer given after `steps` steps"
        expect(found, after, what, hint=hint, mistakes=mistakes)
