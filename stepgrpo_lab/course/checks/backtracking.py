"""Checks of notebook 05: backtracking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks.result import exercise, expect


@exercise("05.1", "the same places twice: that is all there is to going back")
def places_of_probe(solution: Callable[[int, int, int], list[int]]) -> None:
    """``places_of_probe(base, prompt, trial)``: every place fed for a declined probe, and then the marker's.

    Example:
        >>> places_of_probe(lambda base, prompt, trial: list(range(base, base + prompt + trial))).passed
        False
    """
    for base, prompt, trial in ((13, 6, 4), (2, 4, 5), (0, 1, 1)):
        expected = [*range(base, base + prompt + trial - 1), base]
        actual = solution(base, prompt, trial)
        hint = ""
        if actual == [*range(base, base + prompt + trial), base]:
            hint = "The last token of a trial answer is chosen, but never fed"
        elif actual == list(range(base, base + prompt + trial)):
            hint = "The marker goes back to the place where the probe began"
        elif actual == expected[:-1]:
            hint = "Afterwards the marker is fed again, at its old place"
        elif actual == [place + 1 for place in expected]:
            hint = "The probe begins at the marker's own place, for the marker is held back"
        expect(actual, expected, f"places_of_probe({base}, {prompt}, {trial})", hint=hint)


@exercise("05.2", "one comparison hides whatever a probe left behind")
def visible(solution: Callable[[Sequence[int], int], list[list[bool]]]) -> None:
    """``visible(places, width)``: for each row, which cells the token that is fed at its place may attend to.

    Example:
        >>> visible(lambda places, width: [[True] * width for _ in places]).passed
        False
    """
    for places, width in (([2, 0, 3], 4), ([1], 3)):
        expected = [[cell <= place for cell in range(width)] for place in places]
        actual = solution(list(places), width)
        hint = ""
        if actual == [[cell < place for cell in range(width)] for place in places]:
            hint = "A token attends to itself as well"
        elif actual == [[True] * width for _ in places]:
            hint = "Cells behind a row's own place hold what an earlier probe left: they must be hidden"
        elif actual == [[cell > place for cell in range(width)] for place in places]:
            hint = "True means visible"
        expect(actual, expected, f"visible({places}, {width})", hint=hint)


@exercise("05.3", "no state, so nothing that a probe or a batch could advance")
def draw(solution: Callable[[float, Sequence[float]], int]) -> None:
    """``draw(number, probabilities)``: the token that a uniform number in [0, 1) picks, in the order of the vocabulary.

    Example:
        >>> draw(lambda number, probabilities: 0).passed
        False
    """
    odds = [0.0, 0.25, 0.5, 0.25]
    for number, expected in ((0.1, 1), (0.6, 2), (0.9, 3), (0.25, 2), (0.0, 1)):
        actual, hint = solution(number, list(odds)), ""
        if actual == odds.index(max(odds)) and expected != actual:
            hint = "That is the likeliest token; the number has to decide"
        elif number == 0.0 and actual == 0:
            hint = "Token 0 is impossible: the sum has to be greater than the number, not equal to it"
        elif number == 0.25 and actual == 1:
            hint = "Token 1 owns the numbers from 0 up to, but not including, 0.25"
        expect(actual, expected, f"draw({number}, {odds})", hint=hint)
