"""Checks of notebook 02: what a semantic step is, in text and in tokens, and how a model could cheat the count."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks._result import Unsolved, exercise, expect
from stepgrpo_lab.method.steps import MarkerSegmenter

MARKERS = ("Wait", "Alternatively")
TEXTS = {
    "no marker": ("2+2=4", ""),
    "two markers": ("2+2=4 Wait, 2+2=4 Alternatively 4", ""),
    "the markers inside longer words": ("Waiting to await the Waiter", "only standalone words count"),
    "a marker in lower case": ("4 wait 4", "markers are case-sensitive"),
    "a marker in brackets": ("4 (Wait) 4", "a marker ends where its letters end, also at a bracket"),
    "a marker after the close": ("4 Wait 4</think>4 Wait 4", "look only at the text before the first </think>"),
    "a marker at the very start": ("Wait 4", "each marker counts, also the first word; step 0 is then empty"),
}

TOY = ("12", " Wa", "it", ",", " so")
COVERS = {
    (2, 7): [1, 2],
    (3, 7): [1, 2],
    (7, 8): [3],
    (0, 2): [0],
}


@exercise("02.1", "your count is k = 1 + markers of Eq. 3, the same as the library's")
def count_steps(solution: Callable[[str, Sequence[str]], int]) -> None:
    """``solution(text, markers)`` returns the number of semantic steps.

    Example:
        >>> count_steps(lambda text, markers: MarkerSegmenter(markers).count(text))
        ✔ Exercise 02.1 solved: your count is k = 1 + markers of Eq. 3, the same as the library's
    """
    for text, hint in TEXTS.values():
        found, right = solution(text, MARKERS), MarkerSegmenter(MARKERS).count(text)
        mistakes = {} if hint else {"the text before the first marker is a step too: k = 1 + markers": right - 1}
        expect(found, right, f"count_steps({text!r}, {MARKERS})", hint=hint, mistakes=mistakes)
    expect(solution("4 Hmm 4", ("Hmm",)), 2, "count_steps('4 Hmm 4', ('Hmm',))", hint="use the markers you are given")


@exercise("02.2", "these are the tokens that a marker takes with it when it is held back")
def covering_tokens(solution: Callable[[Sequence[str], int, int], list[int]]) -> None:
    """``solution(pieces, start, end)`` returns the places of the tokens that hold characters start to end (excluded).

    Example:
        >>> covering_tokens(lambda pieces, start, end: [])
        ✘ Exercise 02.2 not solved yet: covering_tokens(['12', ' Wa', 'it', ',', ' so'], 3, 7) gives []; expected [1, 2]
    """
    for start, end in ((3, 7), *COVERS):
        what = f"covering_tokens({list(TOY)}, {start}, {end})"
        found, right = solution(list(TOY), start, end), COVERS[start, end]
        if isinstance(found, list) and [*found[:-1]] == right and len(found) > 1:
            raise Unsolved(f"{what} gives {found}: the end is excluded, a token that starts there holds none of it")
        mistakes = {"token 1 starts before the marker but holds its first letters": [2]}
        expect(found, right, what, mistakes=mistakes)
    expect(solution(["a ", "Wait"], 2, 6), [1], "covering_tokens(['a ', 'Wait'], 2, 6)", hint="do not fix the pieces")


@exercise("02.3", "not a digit less is thought, and the count is one step: markers measure style as well as thought")
def avoid_markers(solution: Callable[[str], str]) -> None:
    """``solution(text)`` returns thoughts that say the same in one step.

    Example:
        >>> avoid_markers(lambda text: text.replace("Wait", "Hmm").replace("Alternatively", "Or"))
        ✔ Exercise 02.3 solved: not a digit less is thought, and the count is one step: markers measure style as well \
as thought
    """
    texts = (
        "<think>\nA 1+1=2 no Alternatively B 3-3=0 yes Wait B 3-3=0 yes\n</think>\n\n\\boxed{B}",
        "<think>\n2*9=8 8+4=2 Wait 2*7=4 4-6=8 Wait 8+9=7\n</think>\n\n\\boxed{7}",
    )
    for text in texts:
        changed = solution(text)
        if not isinstance(changed, str):
            expect(changed, "the same thoughts in one step", f"avoid_markers({text!r})")
        expect(MarkerSegmenter("paper").count(changed), 1, "MarkerSegmenter('paper').count(avoid_markers(text))")
        if "</think>" not in changed:
            raise Unsolved("the close is gone: keep </think>, or nothing can be graded")
        work = r"\d[-+*]\d=\d"
        expect(
            re.findall(work, changed.partition("</think>")[0]),
            re.findall(work, text),
            "the equations before the close after avoid_markers",
            hint="the work must stay, all of it and before the close; change only the marker words",
        )
