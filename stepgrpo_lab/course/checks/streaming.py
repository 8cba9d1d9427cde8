"""The check of the second exercise of notebook 02 on tokens: markers that are found while the tokens arrive."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText

Certain = list[str | None]


@exercise("02.4", "your scanner sees every token once, and says the same as the library's")
def certain_markers(solution: Callable[[Sequence[str], Sequence[str]], Certain]) -> None:
    """``solution(pieces, markers)`` returns for each token the marker that it makes certain, or None.

    A marker is certain once the character after it is known, and ends the word. The close, ``</think>``, is a token of
    its own; after it there are no markers.

    Example:
        >>> certain_markers(lambda pieces, markers: [None] * len(pieces)).passed
        False
    """
    mistakes: dict[str, Callable[..., Certain]] = {
        "only the character after a word says that it has ended: this is one token early": _early,
        "a marker may be spread over several tokens: carry the unfinished word over": _each_token_alone,
        "only standalone words count: a marker inside a longer word is none": _anywhere,
        "after </think> there are no markers": lambda pieces, markers: _scanned(
            [piece.replace("</think>", "<>") for piece in pieces], markers
        ),
        "markers are case-sensitive": lambda pieces, markers: _scanned(
            [piece.lower() for piece in pieces], [marker.lower() for marker in markers]
        ),
        "use the markers you are given": lambda pieces, markers: _scanned(pieces, ("Wait", "Alternatively")),
    }
    cases = [(["4", ".Wait", "ing", " Wa", "it", ","], ("Wait",)), (["Wait"], ("Wait",)), *draws(_stream)]
    agree(solution, _scanned, cases, "certain_markers", mistakes=mistakes)


def _scanned(pieces: Sequence[str], markers: Sequence[str]) -> Certain:
    scanner = MarkerSegmenter(list(markers)).scanner(TokenText.from_pieces(list(pieces)))
    hits = [scanner.push(token) for token in range(len(pieces))]
    return [hit.marker if hit else None for hit in hits]


def _early(pieces: Sequence[str], markers: Sequence[str]) -> Certain:
    found: Certain = []
    text = ""
    for piece in pieces:
        before, text = text, text + piece
        new = _words(text, markers) - _words(before, markers)
        last = [word for word in re.findall(r"\w+", text.partition("</think>")[0]) if word in markers]
        found.append(last[-1] if new > 0 else None)
    return found


def _words(text: str, markers: Sequence[str]) -> int:
    return sum(word in markers for word in re.findall(r"\w+", text.partition("</think>")[0]))


def _each_token_alone(pieces: Sequence[str], markers: Sequence[str]) -> Certain:
    closed = list(pieces).index("</think>") if "</think>" in pieces else len(pieces)
    words = [[word for word in re.findall(r"\w+", piece) if word in markers] for piece in pieces]
    return [held[0] if held and place < closed else None for place, held in enumerate(words)]


def _anywhere(pieces: Sequence[str], markers: Sequence[str]) -> Certain:
    found: Certain = []
    text = ""
    for piece in pieces:
        before, text = text.partition("</think>")[0], text + piece
        after = text.partition("</think>")[0]
        found.append(next((m for m in markers if after.count(m) > before.count(m)), None))
    return found


def _stream(rng: random.Random, size: int) -> tuple[list[str], tuple[str, ...]]:
    """Tokens of which none holds two markers; markers in one token or two, alone or inside longer words."""
    markers = rng.choice((("Wait", "Alternatively"), ("Wait",), ("Hmm", "But")))
    pieces: list[str] = []
    for _ in range(1 + size // 2):
        word = rng.choice(markers)
        cut = rng.randint(1, len(word) - 1)
        pieces += rng.choice(
            (
                [f" {word}"],
                [f".{word},"],
                [f" {word[:cut]}", word[cut:]],
                [word[:cut], f"{word[cut:]} "],
                [f" {word}", "ing"],
                [f" {word.lower()}", ","],
                [f" a{word}", "."],
            )
        )
        pieces += rng.choice((["4"], [","], [" 2+2"], ["="], [" so"], ["\n"]))
    if rng.random() < 0.4:
        pieces.insert(rng.randint(0, len(pieces)), " so ")
        pieces += ["\n", "</think>", " Wait", ",", " Hmm", "."]
    return pieces, markers
