"""The check of notebook 02's scanner: markers that are found, and held back, while the tokens arrive."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from stepgrpo_lab.course.checks._result import agree, draws, exercise
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText

Hits = list[tuple[str, int] | None]


@exercise("02.2", "your scanner sees every token once, and holds back the very tokens that the library's does")
def scan_markers(solution: Callable[[Sequence[str], Sequence[str]], Hits]) -> None:
    """``solution(pieces, markers)`` returns for each token ``(marker, held)`` if it makes a marker certain, else None.

    A marker is certain once the character after it is known, and ends the word. ``held`` is how many of the tokens so
    far, the newest included, are held back: those that hold a part of the marker, and all that follow. A token with
    content before the marker stays. The close, ``</think>``, is a token of its own; after it there are no markers.

    Example:
        >>> scan_markers(lambda pieces, markers: [None] * len(pieces)).passed
        False
    """
    mistakes: dict[str, Callable[..., Hits]] = {message: partial(_by_hand, **how) for message, how in _MISTAKES.items()}
    mistakes["markers are case-sensitive"] = lambda pieces, markers: _by_hand(
        [piece.lower() for piece in pieces], [marker.lower() for marker in markers]
    )
    mistakes["use the markers you are given"] = lambda pieces, _: _by_hand(pieces, ("Wait", "Alternatively"))
    cases = [(["4", ".Wait", "ing", " Wa", "it", ","], ("Wait",)), (["12 Wait", ","], ("Wait",)), *draws(_stream)]
    agree(solution, _scanned, cases, "scan", mistakes=mistakes)


def _scanned(pieces: Sequence[str], markers: Sequence[str]) -> Hits:
    scanner = MarkerSegmenter(list(markers)).scanner(TokenText.from_pieces(list(pieces)))
    hits = [scanner.push(token) for token in range(len(pieces))]
    return [(hit.marker, hit.held) if hit else None for hit in hits]


def _by_hand(
    pieces: Sequence[str],
    markers: Sequence[str],
    *,
    carries: bool = True,
    waits: bool = True,
    lookahead: bool = True,
    content_stays: bool = True,
    signs_go: bool = True,
    closes: bool = True,
) -> Hits:
    """The scanner as one writes it, right by default, or with a mistake in it."""
    hits: Hits = []
    word, held, closed = "", 0, False
    for piece in pieces:
        hit: tuple[str, int] | None = None
        content = signs = False
        held, closed, word = held + 1, closed or (closes and piece == "</think>"), word if carries else ""
        for character in piece:
            if character.isalnum() or character == "_":
                if not word:
                    held = 0 if (content and content_stays) or (signs and not signs_go) else 1
                word, content = word + character, True
                continue
            if word in markers and not closed:
                hit = hit or (word, held - (not lookahead))
            word, signs = "", True
        if not waits and word in markers and not closed:
            hit, word = (word, held), word + "_"
        hits.append(hit)
    return hits


_MISTAKES: dict[str, dict[str, Any]] = {
    "only the character after a word says that it has ended: this is one token early": {"waits": False},
    "a marker may be spread over several tokens: carry the unfinished word over": {"carries": False},
    "the token that makes a marker certain is held back too": {"lookahead": False},
    "content never goes: a token with a word or number before the marker stays": {"content_stays": False},
    "space and signs in front of a marker go with it: its first token is held back too": {"signs_go": False},
    "after </think> there are no markers": {"closes": False},
}


def _stream(rng: random.Random, size: int) -> tuple[list[str], tuple[str, ...]]:
    """Tokens of which none holds two markers; markers in one token or two, alone, after content or in longer words."""
    markers = rng.choice((("Wait", "Alternatively"), ("Wait",), ("Hmm", "But")))
    pieces: list[str] = []
    for _ in range(1 + size // 2):
        word = rng.choice(markers)
        cut = rng.randint(1, len(word) - 1)
        pieces += rng.choice(
            (
                [f" {word}"],
                [f".{word},"],
                [f"12 {word}"],
                [f"={word}, "],
                [f"so {word[:cut]}", word[cut:]],
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
