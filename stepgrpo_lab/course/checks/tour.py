"""Checks of notebook 00: two easy exercises that show how all of them work."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TypedDict

from stepgrpo_lab.course.checks._result import agree, draws, exercise


def _first(confidences: Sequence[float], threshold: float) -> int | None:
    return next((place for place, confidence in enumerate(confidences) if confidence > threshold), None)


def _first_or_equal(confidences: Sequence[float], threshold: float) -> int | None:
    return next((place for place, confidence in enumerate(confidences) if confidence >= threshold), None)


def _last(confidences: Sequence[float], threshold: float) -> int | None:
    return max((place for place, confidence in enumerate(confidences) if confidence > threshold), default=None)


def _probes(rng: random.Random, size: int) -> tuple[list[float], float]:
    """On a grid, so that a confidence often equals the threshold."""
    return [rng.randint(10, 20) / 20 for _ in range(size)], rng.randint(10, 20) / 20


@exercise("00.1", "that is the exit rule: the first trial answer above the threshold ends the thoughts")
def first_confident(solution: Callable[[Sequence[float], float], int | None]) -> None:
    """``solution(confidences, threshold)`` returns the place of the first confidence above the threshold, or None.

    Example:
        >>> first_confident(lambda confidences, threshold: 1)
        ✘ Exercise 00.1 not solved yet: first_confident([], 0.95) gives 1; expected None. No trial answer is confident \
enough
    """

    def hint(confidences: Sequence[float], threshold: float) -> str:
        if _first(confidences, threshold) is None:
            return "no trial answer is confident enough"
        return "the first place whose confidence is greater than the threshold"

    cases = [([0.7, 0.99, 0.97], 0.95), ([], 0.95), ([0.96], 0.95), ([0.95], 0.95), *draws(_probes)]
    mistakes = {
        "the confidence must be greater than the threshold, not equal to it": _first_or_equal,
        "that is the last one above the threshold; the thoughts end at the first": _last,
    }
    agree(solution, _first, cases, "first_confident", mistakes=mistakes, hint=hint)


@exercise("00.2", "this is the number that the result of the course is stated in")
def kept_share(solution: Callable[[Sequence[float], Sequence[float]], float]) -> None:
    """``solution(before, after)`` returns the percentage of the tokens that is kept.

    Example:
        >>> kept_share(lambda before, after: 100 * sum(after) / sum(before))
        ✔ Exercise 00.2 solved: this is the number that the result of the course is stated in
    """

    def kept(before: Sequence[float], after: Sequence[float]) -> float:
        return 100 * sum(after) / sum(before)

    mistakes: dict[str, Callable[..., float]] = {
        "that is a fraction; multiply by 100 for a percentage": lambda before, after: kept(before, after) / 100,
        "that is what is saved; what is kept is asked for": lambda before, after: 100 - kept(before, after),
        "that is before over after; a model that saves tokens keeps less than 100 %": lambda before, after: (
            1e4 / kept(before, after)
        ),
        "that is the mean of the percentages; divide all tokens by all tokens": lambda before, after: (
            100 * fmean(short / long for long, short in zip(before, after, strict=True))
        ),
    }
    agree(solution, kept, [([100, 300], [50, 50]), *draws(lengths)], "kept_share", mistakes=mistakes)


def lengths(rng: random.Random, size: int) -> tuple[list[int], list[int]]:
    """Lengths of completions before and after training, in tokens."""
    return [rng.randint(20, 400) for _ in range(size)], [rng.randint(10, 300) for _ in range(size)]


class RecordedExits(TypedDict):
    """A completion that was asked at each marker, and never stopped: its tokens, whether its answer is right, how many
    tokens close and answer take, and (place, confidence, right) of each trial answer."""

    tokens: int
    right: bool
    closing: int
    probes: list[tuple[int, float, bool]]


@exercise(
    "00.2", "the same thoughts with a rule that stops them: this is how every exit rule of the course is tried out"
)
def replay_exits(solution: Callable[[Sequence[RecordedExits], float], tuple[float, float]]) -> None:
    """``solution(completions, threshold)`` returns the percentages of tokens kept and of answers right.

    Each completion is a dictionary with ``tokens``, ``right``, ``closing`` and ``probes``. It ends at the first probe
    whose confidence is above the threshold: then it has the tokens before that probe and ``closing`` more, and is right
    if the trial answer is. Without such a probe it stays as it is.

    Example:
        >>> replay_exits(lambda completions, threshold: (100.0, 100.0)).passed
        False
    """
    mistakes: dict[str, Callable[..., tuple[float, float]]] = {
        "the close and the answer must still be written: `closing` tokens": lambda *case: _replayed(
            *case, closes=False
        ),
        "a completion that is stopped answers with its trial answer, not with its own": lambda *case: _replayed(
            *case, trial=False
        ),
        "the confidence must be greater than the threshold, not equal to it": lambda *case: _replayed(
            *case, find=_first_or_equal
        ),
        "that stops at the last confident probe; the thoughts end at the first": lambda *case: _replayed(
            *case, find=_last
        ),
        "give percentages, not shares": lambda *case: tuple(share / 100 for share in _replayed(*case)),
        "divide all tokens by all tokens; that is the mean of the completions' percentages": _mean_of_kept,
        "a completion without a confident probe stays as it is": lambda completions, threshold: _replayed(
            [row for row in completions if _first([c for _, c, _ in row["probes"]], threshold) is not None]
            or completions,
            threshold,
        ),
    }
    example: list[RecordedExits] = [
        {"tokens": 158, "right": True, "closing": 7, "probes": [(16, 0.7, False), (31, 0.99, True)]},
        {"tokens": 42, "right": False, "closing": 7, "probes": [(20, 0.6, True)]},
    ]
    agree(solution, _replayed, [(example, 0.95), *draws(_exits)], "replay_exits", mistakes=mistakes)


def _replayed(
    completions: Sequence[RecordedExits],
    threshold: float,
    *,
    closes: bool = True,
    trial: bool = True,
    find: Callable[[Sequence[float], float], int | None] = _first,
) -> tuple[float, float]:
    after = hits = 0
    for row in completions:
        stop = find([confidence for _, confidence, _ in row["probes"]], threshold)
        if stop is None:
            after, hits = after + row["tokens"], hits + row["right"]
        else:
            place, _, right = row["probes"][stop]
            after, hits = after + place + closes * row["closing"], hits + (right if trial else row["right"])
    return 100 * after / sum(row["tokens"] for row in completions), 100 * hits / len(completions)


def _mean_of_kept(completions: Sequence[RecordedExits], threshold: float) -> tuple[float, float]:
    return fmean(_replayed([row], threshold)[0] for row in completions), _replayed(completions, threshold)[1]


def _exits(rng: random.Random, size: int) -> tuple[list[RecordedExits], float]:
    """Confidences on a grid, so that some equal the threshold."""
    completions: list[RecordedExits] = []
    for _ in range(size):
        places = sorted(rng.sample(range(10, 150), rng.randint(0, 5)))
        probes = [(place, rng.randint(10, 20) / 20, rng.random() < 0.5) for place in places]
        closing = rng.randint(5, 9)
        completions.append({"tokens": 160 + closing, "right": rng.random() < 0.7, "closing": closing, "probes": probes})
    for row in completions:
        row["tokens"] = max([place for place, *_ in row["probes"]], default=20) + rng.randint(10, 60)
    return completions, rng.randint(14, 19) / 20
