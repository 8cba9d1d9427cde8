"""Checks of notebook 05: backtracking."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import accumulate

from stepgrpo_lab.course.checks._result import agree, draws, exercise


@exercise("05.1", "the same places twice: that is all there is to going back")
def places_of_probe(solution: Callable[[int, int, int], list[int]]) -> None:
    """``places_of_probe(base, prompt, trial)``: every place fed for a declined probe, and then the marker's.

    Example:
        >>> places_of_probe(lambda base, prompt, trial: list(range(base, base + prompt + trial))).passed
        False
    """

    def fed(base: int, prompt: int, trial: int) -> list[int]:
        return [*range(base, base + prompt + trial - 1), base]

    mistakes: dict[str, Callable[..., list[int]]] = {
        "the last token of a trial answer is chosen, but never fed": lambda base, prompt, trial: fed(
            base, prompt, trial + 1
        ),
        "the marker goes back to the place where the probe began": lambda base, prompt, trial: [
            *range(base, base + prompt + trial)
        ],
        "afterwards the marker is fed again, at its old place": lambda *case: fed(*case)[:-1],
        "the probe begins at the marker's own place, because the marker is held back": lambda base, prompt, trial: fed(
            base + 1, prompt, trial
        ),
        "only the marker's return starts from its place; the probe's tokens lie one further": lambda *case: [
            *fed(case[0] + 1, *case[1:])[:-1],
            case[0],
        ],
    }
    cases = [
        (13, 6, 4),
        (0, 1, 1),
        *draws(lambda rng, size: (rng.randint(0, 30), rng.randint(1, 8), rng.randint(1, 6))),
    ]
    agree(solution, fed, cases, "places_of_probe", mistakes=mistakes)


def _probe(rng: random.Random, size: int) -> tuple[int, int, int]:
    return rng.randint(0, 30), rng.randint(1, size), rng.randint(1, 6)


@exercise("05.2", "one comparison hides whatever a probe left behind")
def visible(solution: Callable[[Sequence[int], int], list[list[bool]]]) -> None:
    """``visible(places, width)``: for each row, which cells the token that is fed at its place may attend to.

    Example:
        >>> visible(lambda places, width: [[True] * width for _ in places]).passed
        False
    """

    def mask(places: Sequence[int], width: int) -> list[list[bool]]:
        return [[cell <= place for cell in range(width)] for place in places]

    mistakes: dict[str, Callable[..., list[list[bool]]]] = {
        "a token attends to itself as well": lambda places, width: mask([place - 1 for place in places], width),
        "hide the cells behind a row's own place: they hold what an earlier probe left": lambda places, width: mask(
            [width] * len(places), width
        ),
        "every row has its own place: one row's mask is not the others'": lambda places, width: mask(
            [max(places)] * len(places), width
        ),
        "True means visible": lambda places, width: [[not cell for cell in row] for row in mask(places, width)],
    }
    agree(solution, mask, [([2, 0, 3], 4), ([1], 3), *draws(_rows)], "visible", mistakes=mistakes)


def _rows(rng: random.Random, size: int) -> tuple[list[int], int]:
    width = rng.randint(size, size + 3)
    return [rng.randrange(width) for _ in range(rng.randint(1, 4))], width


@exercise("05.3", "no state, so nothing that a probe or a batch could advance")
def draw(solution: Callable[[float, Sequence[float]], int]) -> None:
    """``draw(number, probabilities)``: the token that a uniform number in [0, 1) picks, in the order of the vocabulary.

    Example:
        >>> draw(lambda number, probabilities: 0).passed
        False
    """

    def token(number: float, probabilities: Sequence[float]) -> int:
        return next(place for place, total in enumerate(accumulate(probabilities)) if total > number)

    def too_early(number: float, probabilities: Sequence[float]) -> int:
        return next(place for place, total in enumerate(accumulate(probabilities)) if total >= number)

    mistakes: dict[str, Callable[..., int]] = {
        "that is the likeliest token; the number has to decide": lambda number, odds: odds.index(max(odds)),
        "the sum has to be greater than the number, not equal to it: token 0 may be impossible": too_early,
        "compare the number with the sum of the probabilities so far, not with each of them": lambda number, odds: next(
            (place for place, odd in enumerate(odds) if odd > number), len(odds) - 1
        ),
    }
    cases = [(0.25, [0.0, 0.25, 0.5, 0.25]), (0.0, [0.0, 1.0]), *draws(_odds)]
    agree(solution, token, cases, "draw", mistakes=mistakes)


def _odds(rng: random.Random, size: int) -> tuple[float, list[float]]:
    """In eighths, whose sums are exact, some of them 0; the number often lies exactly on a sum."""
    cuts = sorted(rng.randint(0, 8) for _ in range(size))
    odds = [(stop - start) / 8 for start, stop in zip([0, *cuts], [*cuts, 8], strict=True)]
    return rng.randrange(16) / 16, odds
