"""Checks of notebook 05: backtracking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks._result import exercise, expect


@exercise("05.1", "the same places twice: that is all there is to going back")
def places_of_probe(solution: Callable[[int, int, int], list[int]]) -> None:
    """``places_of_probe(base, prompt, trial)``: every place fed for a declined probe, and then the marker's.

    Example:
        >>> places_of_probe(lambda base, prompt, trial: list(range(base, base + prompt + trial))).passed
        False
    """
    for base, prompt, trial in ((13, 6, 4), (2, 4, 5), (0, 1, 1)):
        fed = list(range(base, base + prompt + trial))
        expected = [*fed[:-1], base]
        mistakes = {
            "the last token of a trial answer is chosen, but never fed": [*fed, base],
            "the marker goes back to the place where the probe began": fed,
            "afterwards the marker is fed again, at its old place": fed[:-1],
            "the probe begins at the marker's own place, for the marker is held back": [p + 1 for p in expected],
        }
        what = f"places_of_probe({base}, {prompt}, {trial})"
        expect(solution(base, prompt, trial), expected, what, mistakes=mistakes)


@exercise("05.2", "one comparison hides whatever a probe left behind")
def visible(solution: Callable[[Sequence[int], int], list[list[bool]]]) -> None:
    """``visible(places, width)``: for each row, which cells the token that is fed at its place may attend to.

    Example:
        >>> visible(lambda places, width: [[True] * width for _ in places]).passed
        False
    """
    for places, width in (([2, 0, 3], 4), ([1], 3)):
        expected = [[cell <= place for cell in range(width)] for place in places]
        mistakes = {
            "a token attends to itself as well": [[cell < place for cell in range(width)] for place in places],
            "hide cells behind a row's own place: they hold what an earlier probe left": [
                [True] * width for _ in places
            ],
            "True means visible": [[cell > place for cell in range(width)] for place in places],
        }
        expect(solution(list(places), width), expected, f"visible({places}, {width})", mistakes=mistakes)


@exercise("05.3", "no state, so nothing that a probe or a batch could advance")
def draw(solution: Callable[[float, Sequence[float]], int]) -> None:
    """``draw(number, probabilities)``: the token that a uniform number in [0, 1) picks, in the order of the vocabulary.

    Example:
        >>> draw(lambda number, probabilities: 0).passed
        False
    """
    odds = [0.0, 0.25, 0.5, 0.25]
    mistakes = {
        "that is the likeliest token; the number has to decide": 2,
        "token 0 is impossible: the sum has to be greater than the number, not equal to it": 0,
        "token 1 owns the numbers from 0 up to, but not including, 0.25": 1,
    }
    for number, expected in ((0.1, 1), (0.6, 2), (0.9, 3), (0.25, 2), (0.0, 1)):
        expect(solution(number, list(odds)), expected, f"draw({number}, {odds})", mistakes=mistakes)
