"""Checks of notebook 02: what a semantic step is, in text and in tokens, and how a model could cheat the count."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

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


# ---- a reader's steps ------------------------------------------------------------------------------------------------


@exercise("02.3", "this is how a person hears a turn, and your function is a segmenter that can train a model")
def split_turns(solution: Callable[[str, Collection[str]], list[str]]) -> None:
    """``solution(text, openings)`` cuts the thoughts before each opening, and returns the parts.

    An opening is one of the words ``openings`` (lower case, matched in any case) that opens a clause: at the start of
    the text or after one of ``. , ; : ! ?`` and a line break, with spaces between at most. What stands in double
    quotation marks or between backticks opens nothing. An opening with no other word since the last one belongs to it.

    Example:
        >>> split_turns(lambda text, openings: [text]).passed
        False
    """
    mistakes: dict[str, Callable[..., list[str]]] = {
        message: partial(_turns, **how) for message, how in _TURN_MISTAKES.items()
    }
    mistakes["the text before the first opening is a step too, even an empty one"] = lambda *case: [
        part for part in _turns(*case) if part
    ]
    mistakes["use the openings you are given"] = lambda text, _: _turns(text, {"wait", "hmm", "but"})
    words = ("wait", "hmm", "but")
    corners = [("So 8, wait, no.", words), ("The wait is long.", words), ("Hmm, wait. 8", words), ("Wait", words)]
    agree(solution, _turns, [*corners, *draws(_prose)], "split_turns", mistakes=mistakes)


def _turns(
    text: str,
    openings: Collection[str],
    *,
    clauses: str = ".,;:!?\n",
    quotes: str = '"`',
    folds: bool = True,
    joins: bool = True,
    joins_all: bool = False,
    closes: bool = True,
    starts: bool = True,
) -> list[str]:
    """The parts, right by default, or with a mistake in them."""
    thoughts = text.partition("</think>")[0] if closes else text
    cuts, opens, fresh, quote = [0], starts, False, ""
    for match in re.finditer(r"\w+|[^\w ]", thoughts):
        part = match[0]
        if quote:
            quote = "" if part == quote else quote
            continue
        quote = part if part in quotes else ""
        is_word = re.match(r"\w", part) is not None
        if opens and (part.lower() if folds else part) in openings:
            if not fresh or not joins:
                cuts.append(match.start())
            fresh = True
        elif is_word and not joins_all:
            fresh = False
        opens = not clauses or (not is_word and part in clauses)
    return [thoughts[start:end] for start, end in pairwise([*cuts, len(thoughts)])]


_TURN_MISTAKES: dict[str, dict[str, Any]] = {
    "only a word that opens a clause is an opening: 'The wait is long' has none": {"clauses": ""},
    "a clause begins after a comma too": {"clauses": ".!?\n"},
    "a clause begins after a line break too": {"clauses": ".,;:!?"},
    "what stands in quotation marks opens nothing": {"quotes": "`"},
    "what stands between backticks opens nothing": {"quotes": '"'},
    "what stands in quotation marks or backticks opens nothing": {"quotes": ""},
    "match an opening in any case: part.lower()": {"folds": False},
    "an opening right after another belongs to it: 'Hmm, wait' is one turn": {"joins": False},
    "two openings are one turn only if no other word stands between": {"joins_all": True},
    "look only at the text before the first </think>": {"closes": False},
    "the text itself begins with a clause": {"starts": False},
}


def _prose(rng: random.Random, size: int) -> tuple[str, tuple[str, ...]]:
    """Clauses with openings, in quotations and code, in the middle of a sentence, one after another."""
    openings = rng.choice([("wait", "hmm", "but"), ("wait",), ("actually", "hmm")])
    text = ""
    for _ in range(1 + size // 2):
        word = rng.choice(openings)
        said = rng.choice([word, word.capitalize(), word.upper()])
        text += rng.choice(
            (
                f"{said}, it is 8{rng.choice('.,;:!?')} ",
                f"The {word} is long. ",
                f'He said "{said}, no. {said}" twice. ',
                f"Call `{said}`, then stop. ",
                f"So `x; {word}` runs. ",
                f"Hmm, {said}, 2+2=4. ",
                f"{said}. {said} 3. ",
                f"So 4{rng.choice('.,;:!?')} {said} it is 5\n",
                f"no {word}\n{said} again. ",
                f"({said}) 4. ",
                f"{said}ing, un{word}. ",
            )
        )
    if rng.random() < 0.3:
        text += f"</think>8. {rng.choice(openings).capitalize()}, done."
    return text, openings


def _renamed(text: str) -> str:
    return re.sub("|".join(MARKERS), "Hmm", text)


@exercise(
    "02.4",
    "not a digit less is thought, and the count is one step: markers measure style as well as thought",
    reference=_renamed,
)
def avoid_markers(solution: Callable[[str], str]) -> None:
    """``solution(text)`` returns a completion that says the same in one step.

    Example:
        >>> avoid_markers(lambda text: text.replace("Wait", "Hmm").replace("Alternatively", "Or"))
        ✔ Exercise 02.4 solved: not a digit less is thought, and the count is one step: markers measure style as well \
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
