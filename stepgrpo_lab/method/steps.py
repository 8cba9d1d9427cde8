"""Semantic steps (Eq. 3): where a chain of thought turns to a new attempt, on text, on token ids, and while streaming.

A *marker* is a standalone, case-sensitive word: a longest run of word characters (Python's ``\\w``: letters, digits and
underscore of any script) that equals one of the marker words. "Wait," holds one, "Waiting" and "await" do not. Markers
count before the first ``</think>``; the number of steps is ``k = 1 + markers``.

To cut thoughts otherwise (blank lines, entropy peaks), subclass :class:`Segmenter` and write a :class:`StepScanner`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple, Protocol

from stepgrpo_lab.method.names import did_you_mean, shown
from stepgrpo_lab.method.records import Step
from stepgrpo_lab.method.token_text import THINK_CLOSE, TokenText, decode_partial

MARKER_SETS: dict[str, tuple[str, ...]] = {"official": ("Wait",), "paper": ("Wait", "Alternatively")}
"""The public code's marker, and the paper's."""

_WORD = re.compile(r"\w+")


def resolve_markers(markers: str | Sequence[str]) -> tuple[str, ...]:
    """Turn the name of a marker set, or your own words, into marker words.

    Raises:
        ValueError: An unknown set, no words at all, or a marker that is not one word.

    Example:
        >>> resolve_markers("paper"), resolve_markers(["Hmm", "Wait"])
        (('Wait', 'Alternatively'), ('Hmm', 'Wait'))
    """
    if isinstance(markers, str):
        if markers not in MARKER_SETS:
            raise ValueError(
                f"markers: unknown marker set {shown(markers)}: use {' or '.join(MARKER_SETS)}, or a list of words"
                + did_you_mean(markers, MARKER_SETS)
            )
        return MARKER_SETS[markers]
    if not markers:
        raise ValueError("markers is empty: name a marker set or at least one word")
    for marker in markers:
        if not isinstance(marker, str) or not _WORD.fullmatch(marker):
            raise ValueError(
                f"markers: marker {shown(marker)} is not one word: use words, or write a Segmenter of your own for "
                "phrases"
            )
    return tuple(dict.fromkeys(markers))


@dataclass(frozen=True)
class MarkerHit:
    """A new step has just become certain.

    Attributes:
        marker: What opens it.
        held: How many of the last pushed tokens to hold back while probing, the lookahead token included.
    """

    marker: str
    held: int


class StepScanner(Protocol):
    """Finds the steps of one completion while its tokens arrive."""

    @property
    def steps(self) -> int:
        """Steps that are certain so far, at least 1."""

    @property
    def closed(self) -> bool:
        """Whether the thoughts have ended; no step begins after that."""

    def push(self, token_id: int) -> MarkerHit | None:
        """Take the next token; returns the first step that it makes certain, if any."""

    def drop(self, count: int) -> None:
        """Forget the last ``count`` tokens, which will not be part of the completion; only those of the last hit."""

    def finish(self) -> int:
        """Number of steps if the completion ends here; changes nothing."""


class Segmenter(Protocol):
    """A way to cut a completion into semantic steps. The three ways to count must agree."""

    @abstractmethod
    def split(self, text: str) -> list[Step]:
        """The steps of a completion, in order: they partition the text before its close."""

    @abstractmethod
    def scanner(self, token_text: TokenText) -> StepScanner:
        """A fresh scanner for one completion."""

    def count(self, text: str) -> int:
        """Number of steps ``k`` of a completion."""
        return len(self.split(text))

    def count_ids(self, token_ids: Sequence[int], token_text: TokenText) -> int:
        """Number of steps ``k`` of a completion in token ids."""
        return self.count(token_text.decode(token_ids))

    def split_ids(self, token_ids: Sequence[int], token_text: TokenText) -> list[Step]:
        """The steps with their token spans, which partition the tokens before the close.

        A token that holds the end of one step and the start of the next goes by the rule of :class:`MarkerScanner`.
        """
        text = token_text.decode(token_ids)
        steps = self.split(text)
        spans = token_text.spans(token_ids)
        cuts = [0, *(_first_token(step.start, text, spans) for step in steps[1:])]
        cuts.append(_first_token(steps[-1].end, text, spans))
        return [
            replace(step, token_start=start, token_end=end)
            for step, (start, end) in zip(steps, pairwise(cuts), strict=True)
        ]


class MarkerSegmenter(Segmenter):
    """The paper's steps: each marker word before the close opens one.

    Args:
        markers: Name of a marker set, or your own words.
        close: Text that ends the thoughts.

    Raises:
        ValueError: Bad markers, or a close that starts with a word character or holds a marker: then a marker could
            not be told from the start of the close.

    Example:
        >>> [step.text for step in MarkerSegmenter().split("2+2=4. Wait, Waiting is none.</think>4 Wait")]
        ['2+2=4. ', 'Wait, Waiting is none.']
    """

    def __init__(self, markers: str | Sequence[str] = "paper", close: str = THINK_CLOSE) -> None:
        self.markers = resolve_markers(markers)
        self.close = close
        if not close or _WORD.match(close) or set(self.markers) & set(_WORD.findall(close)):
            raise ValueError(f"close {close!r} must start with a sign, not a letter or digit, and hold no marker")

    def split(self, text: str) -> list[Step]:
        """The steps of a completion; step 0 is the text before the first marker, and may be empty."""
        thoughts = text.partition(self.close)[0]
        found = sorted((start, marker) for marker in set(self.markers) for start in _places(marker, thoughts))
        starts, names = [0, *(start for start, _ in found)], [None, *(marker for _, marker in found)]
        bounds = zip(names, starts, [*starts[1:], len(thoughts)], strict=True)
        return [Step(index, name, text[start:stop], start, stop) for index, (name, start, stop) in enumerate(bounds)]

    def count(self, text: str) -> int:
        """Number of steps, without the steps: a completion may be long."""
        thoughts = text.partition(self.close)[0]
        return 1 + sum(1 for marker in set(self.markers) for _ in _places(marker, thoughts))

    def scanner(self, token_text: TokenText) -> MarkerScanner:
        """A fresh :class:`MarkerScanner` for one completion."""
        return MarkerScanner(token_text, self.markers, self.close)


class _State(NamedTuple):
    """All that the scanner knows after some tokens; of bounded size, so that earlier states can be kept for a while."""

    tokens: int = 0  # pushed so far
    steps: int = 1
    closed: bool = False
    run: str = ""  # the word characters at the end of the thoughts, cut once they are longer than any marker
    run_token: int = 0  # place of the first token that a hit on this run would hold back
    tail: str = ""  # end of the text, as long as the close can still begin in it
    pending: bytes = b""  # an unfinished character
    pending_token: int = 0  # as run_token, for a run that begins with the unfinished character


class MarkerScanner:
    """Finds markers while tokens arrive, in constant time a token.

    A marker is certain only once the character after it is known ("Wait" + "ing" is none), so a hit comes with the
    lookahead token. What to hold back then is every whole token that covers the marker, and all that follow it:

    - whitespace and punctuation at the start of a covering token go with it (``.Wait``, ``(W`` + ``ait``): after an
      exit the thoughts may well end without them;
    - content never goes: a covering token whose part before the marker has a word character in it (``12 Wait``), or
      ends a character that an earlier token began, stays. Then only the tokens after it are held, possibly none.

    Held tokens that are put back are not pushed again; tokens dropped for good are taken out with :meth:`drop`.

    Example:
        >>> toy = TokenText.from_pieces(["so", ".Wait", ",", "ing", "</think>"])
        >>> scanner = MarkerSegmenter().scanner(toy)
        >>> [scanner.push(token) for token in (0, 1, 2)]
        [None, None, MarkerHit(marker='Wait', held=2)]
    """

    def __init__(self, token_text: TokenText, markers: Sequence[str], close: str) -> None:
        self._token_text = token_text
        self._markers = frozenset(markers)
        self._close = close
        self._longest = max(map(len, markers))
        self._state = _State()
        self._earlier: deque[_State] = deque()  # before each of the last tokens, as far back as a hit can reach

    @property
    def steps(self) -> int:
        """1 + the markers that are certain so far."""
        return self._state.steps

    @property
    def closed(self) -> bool:
        """Whether the close is complete; nothing is a marker after it."""
        return self._state.closed

    def push(self, token_id: int) -> MarkerHit | None:
        """Take the next token.

        Returns:
            The first marker that it makes certain; None if there is none, or if the same token also completes the
            close and must stay, so that there is nothing left to exit from. ``steps`` counts every marker.
        """
        before = self._state
        after, hit = self._advance(before, self._token_text.pieces(token_id))
        self._state = after
        self._earlier.append(before)
        if hit is not None:
            reach = after.tokens - hit.held
        elif after.run and len(after.run) <= self._longest:
            reach = after.run_token
        else:
            reach = after.pending_token if after.pending else after.tokens
        while self._earlier and self._earlier[0].tokens < reach:
            self._earlier.popleft()
        return None if hit is not None and hit.held == 0 and after.closed else hit

    def drop(self, count: int) -> None:
        """Forget the last ``count`` tokens, as if they had never been pushed.

        Raises:
            ValueError: More tokens than the last hit held.
        """
        if not 0 <= count <= len(self._earlier):
            raise ValueError(
                f"cannot drop {count} tokens: the last hit leaves {len(self._earlier)}; drop at most `held`"
            )
        for _ in range(count):
            self._state = self._earlier.pop()

    def finish(self) -> int:
        """Number of steps if the completion ends here: a marker at the very end counts too."""
        return self._state.steps + (self._state.run in self._markers)

    def _advance(self, state: _State, piece: bytes) -> tuple[_State, MarkerHit | None]:
        place, tokens = state.tokens, state.tokens + 1
        chars, pending = decode_partial(state.pending + piece)
        _, steps, closed, run, run_token, tail, _, pending_token = state
        carries = False  # whether this token's characters so far must stay when what follows them is held back
        found: tuple[str, int] | None = None
        for offset, char in enumerate("" if closed else chars):
            if _is_word(char):
                if not run:
                    unfinished = offset == 0 and state.pending
                    run_token = pending_token if unfinished else place + carries
                run = run + char if len(run) <= self._longest else run
            else:
                if run in self._markers:
                    steps += 1
                    found = found or (run, run_token)
                run = ""
            tail = (tail + char)[-len(self._close) :]
            carries = carries or _is_word(char) or bool(state.pending)
            if tail == self._close:
                closed, run = True, ""
                break
        if pending and (chars or not state.pending):
            pending_token = place + carries
        after = _State(tokens, steps, closed, run, run_token, tail, pending, pending_token)
        return after, MarkerHit(found[0], tokens - found[1]) if found else None


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"  # the same as \w, and faster


def _places(word: str, thoughts: str) -> Iterator[int]:
    """Where ``word`` stands alone; a plain search takes a tenth of the time of a look at every word."""
    start = -1
    while (start := thoughts.find(word, start + 1)) >= 0:
        after = start + len(word)
        if not (_is_word(thoughts[start - 1 : start]) or _is_word(thoughts[after : after + 1])):
            yield start


def _first_token(position: int, text: str, spans: Sequence[tuple[int, int]]) -> int:
    """Place of the first token that belongs to what begins at character ``position``: the rule of MarkerScanner."""
    place = bisect_right(spans, position, key=lambda span: span[1])
    if place == len(spans):
        return place
    start = spans[place][0]
    shares = start < position and place > 0 and spans[place - 1][1] > start
    return place + (shares or _WORD.search(text, start, position) is not None)
