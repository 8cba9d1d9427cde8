"""Checks of notebook 00: two easy exercises that show how all of them work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks._result import exercise, expect

CONFIDENCES: tuple[tuple[list[float], float, int | None], ...] = (
    ([0.70, 0.99, 0.97], 0.95, 1),
    ([0.96], 0.95, 0),
    ([0.70, 0.80], 0.95, None),
    ([], 0.95, None),
    ([0.95, 0.96], 0.95, 1),
    ([0.60, 0.70, 0.99], 0.5, 0),
)


@exercise("00.1", "that is the exit rule: the first trial answer above the threshold ends the thoughts")
def first_confident(solution: Callable[[Sequence[float], float], int | None]) -> None:
    """``solution(confidences, threshold)`` returns the place of the first confidence above the threshold, or None.

    Example:
        >>> first_confident(lambda confidences, threshold: 1)
        ✘ Exercise 00.1 not solved yet: first_confident([0.96], 0.95) gives 1; expected 0. The first place whose \
confidence is greater than the threshold
    """
    for confidences, threshold, right in CONFIDENCES:
        what = f"first_confident({confidences}, {threshold})"
        mistakes = {}
        if threshold in confidences:
            mistakes["the confidence must be greater than the threshold, not equal"] = confidences.index(threshold)
        hint = "the first place whose confidence is greater than the threshold"
        if right is None:
            hint = "no trial answer is confident enough"
        expect(solution(list(confidences), threshold), right, what, hint=hint, mistakes=mistakes)


@exercise("00.2", "this is the number that the result of the course is stated in")
def kept_share(solution: Callable[[Sequence[float], Sequence[float]], float]) -> None:
    """``solution(before, after)`` returns which per cent of the tokens is kept.

    Example:
        >>> kept_share(lambda before, after: 100 * sum(after) / sum(before))
        ✔ Exercise 00.2 solved: this is the number that the result of the course is stated in
    """
    for before, after in (([100.0, 300.0], [50.0, 50.0]), ([128.0], [32.0])):
        what = f"kept_share({before}, {after})"
        right = 100 * sum(after) / sum(before)
        shares = [100 * short / long for long, short in zip(before, after, strict=True)]
        mistakes = {
            "that is a share; multiply by 100 for per cent": right / 100,
            "that is what is saved; what is kept is asked for": 100 - right,
            "that is the mean of the shares; divide all tokens by all tokens": sum(shares) / len(shares),
        }
        expect(solution(before, after), right, what, mistakes=mistakes)
