"""Checks of notebook 02: what a semantic step is, in text and in tokens, and how a model could cheat the count."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import accumulate

from stepgrpo_lab.course.checks._result import Unsolved, agree, draws, exercise, expect
from stepgrpo_lab.method.steps import MarkerSegmenter

MARKERS = ("Wait", "Alternatively")

_PARTS = ("2+2=4", "4.", ".", " ", "\n", ", ", "(", ")", "so", "</think>")
_LIKE_MARKERS = ("{}", "{}", "{}", "{}ing", "a{}", "{}s", "lower")


@exercise("02.1", "your count is k = 1 + markers of Eq. 3, the same as the library's")
def count_steps(solution: Callable[[str, Sequence[str]], int]) -> None:
    """``solution(text, markers)`` returns the number of semantic steps.

    Example:
        >>> count_steps(lambda text, markers: MarkerSegmenter(markers).count(text))
        ✔ Exercise 02.1 solved: your count is k = 1 + markers of Eq. 3, the same as the library's
    """

    def right(text: str, markers: Sequence[str]) -> int:
        return MarkerSegmenter(markers).count(text)

    def thoughts(text: str, close: str = "</think>") -> str:
        return text.partition(close)[0]

    mistakes: dict[str, Callable[..., int]] = {
        "the text before the first marker is a step too: k = 1 + markers": lambda *case: right(*case) - 1,
        "only standalone words count: a marker inside a longer word does not": lambda text, markers: (
            1 + sum(thoughts(text).count(marker) for marker in markers)
        ),
        "markers are case-sensitive": lambda text, markers: (
            1 + sum(word.lower() in {m.lower() for m in markers} for word in re.findall(r"\w+", thoughts(text)))
        ),
        "look only at the text before the first </think>": lambda text, markers: (
            1 + sum(word in markers for word in re.findall(r"\w+", text))
        ),
        "look only at the text before the first </think>, not the last": lambda text, markers: right(
            text.rpartition("</think>")[0].replace("</think>", " ") or text, markers
        ),
        "a marker ends where its letters end: at any punctuation or bracket, on both sides": lambda text, markers: (
            1 + sum(word.strip(".,") in markers for word in thoughts(text).split())
        ),
        "each marker counts, also a first word: step 0 is then empty": lambda text, markers: sum(
            bool(step.text) for step in MarkerSegmenter(markers).split(text)
        ),
        "use the markers you are given": lambda text, markers: right(text, MARKERS),
    }
    cases = [("2+2=4", MARKERS), ("Wait", MARKERS), ("4 (Wait) 4", MARKERS), ("4 Hmm 4", ("Hmm",)), *draws(_thoughts)]
    agree(solution, right, cases, "count_steps", mistakes=mistakes)


def _thoughts(rng: random.Random, size: int) -> tuple[str, tuple[str, ...]]:
    markers = rng.choice((MARKERS, MARKERS, ("Wait",), ("Hmm", "But")))
    words = [form.format(rng.choice(markers)) for form in rng.choices(_LIKE_MARKERS, k=size)]
    words = [rng.choice(markers).lower() if word == "lower" else word for word in words]
    weights = [4] * (len(_PARTS) - 1) + [1]
    return "".join(part + word for part, word in zip(rng.choices(_PARTS, weights, k=size), words, strict=True)), markers


@exercise("02.2", "these are the tokens that a marker takes with it when it is held back")
def covering_tokens(solution: Callable[[Sequence[str], int, int], list[int]]) -> None:
    """``solution(pieces, start, end)`` returns the places of the tokens that hold characters start to end (excluded).

    Example:
        >>> covering_tokens(lambda pieces, start, end: [])
        ✘ Exercise 02.2 not solved yet: covering_tokens([','], 0, 1) gives []; expected [0]
    """

    def covering(pieces: Sequence[str], start: int, end: int) -> list[int]:
        ends = list(accumulate(map(len, pieces)))
        return [i for i, stop in enumerate(ends) if stop - len(pieces[i]) < end and stop > start]

    def inside(pieces: Sequence[str], start: int, end: int) -> list[int]:
        ends = list(accumulate(map(len, pieces)))
        return [i for i, stop in enumerate(ends) if stop - len(pieces[i]) >= start and stop <= end]

    def begun(pieces: Sequence[str], start: int, end: int) -> list[int]:
        ends = list(accumulate(map(len, pieces)))
        return [i for i, stop in enumerate(ends) if start <= stop - len(pieces[i]) < end]

    mistakes: dict[str, Callable[..., list[int]]] = {
        "the end is excluded: a token that starts there holds none of it": lambda pieces, start, end: covering(
            pieces, start, end + 1
        ),
        "a token that starts before the marker but holds its first letters covers it too": begun,
        "a token counts when it holds some of the characters; it need not lie between start and end": inside,
    }
    cases = [(["12", " Wa", "it", ",", " so"], 3, 7), (["so"], 1, 2), *draws(_pieces)]
    agree(solution, covering, cases, "covering_tokens", mistakes=mistakes)


def _pieces(rng: random.Random, size: int) -> tuple[list[str], int, int]:
    pieces = rng.choices(["12", " Wa", "it", ",", " so", "W", "ait", " Wait,", "</think>"], k=size)
    places = sorted(rng.sample(range(len("".join(pieces)) + 1), 2))
    return pieces, places[0], places[1]


def _renamed(text: str) -> str:
    return re.sub("|".join(MARKERS), "Hmm", text)


@exercise(
    "02.3",
    "not a digit less is thought, and the count is one step: markers measure style as well as thought",
    reference=_renamed,
)
def avoid_markers(solution: Callable[[str], str]) -> None:
    """``solution(text)`` returns a completion that says the same in one step.

    Example:
        >>> avoid_markers(lambda text: text.replace("Wait", "Hmm").replace("Alternatively", "Or"))
        ✔ Exercise 02.3 solved: not a digit less is thought, and the count is one step: markers measure style as well \
as thought
    """
    for (text,) in draws(_completion, 12):
        changed = solution(text)
        if not isinstance(changed, str):
            expect(changed, "the same thoughts in one step", f"avoid_markers({text!r})")
        if "</think>" not in changed:
            raise Unsolved("the close is gone: keep </think>, or nothing can be graded")
        what = f"MarkerSegmenter('paper').count(avoid_markers({text!r}))"
        expect(MarkerSegmenter("paper").count(changed), 1, what)
        thoughts, _, answer = text.partition("</think>")
        new_thoughts, _, new_answer = changed.partition("</think>")
        gone = _missing(thoughts, new_thoughts)
        if gone:
            raise Unsolved(
                f"{gone!r} is gone from the thoughts of {text!r}: the work must stay, all of it, in its order and "
                "before the close; change only the marker words"
            )
        expect(new_answer.strip(), answer.strip(), "what follows the close", hint="leave the answer as it is")


def _missing(thoughts: str, changed: str) -> str | None:
    """The first word of the thoughts, markers aside, that the changed ones do not hold in its order."""
    words = iter(re.findall(r"[^\s,.;]+", changed))
    kept = (word for word in re.findall(r"[^\s,.;]+", thoughts) if word not in MARKERS)
    return next((word for word in kept if word not in words), None)


def _completion(rng: random.Random, size: int) -> tuple[str]:
    tries = [
        f"{rng.choice('ABC')} {rng.randint(1, 9)}+{rng.randint(1, 9)}={rng.randint(0, 9)} {rng.choice(['yes', 'no'])}"
    ]
    for _ in range(1 + size // 2):
        tries += [rng.choice(MARKERS), tries[0]]
    return (f"<think>\n{' '.join(tries)}\n</think>\n\n\\boxed{{{rng.choice('ABC')}}}",)
