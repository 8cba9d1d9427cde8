"""Semantic steps (Eq. 3): where a chain of thought turns to a new attempt, on text, on token ids, and while streaming.

By the paper's rule a *marker* is a standalone, case-sensitive word: a longest run of word characters (Python's ``\\w``:
letters, digits and underscore of any script) that equals one of the marker words. "Wait," holds one, "Waiting" and
"await" do not. Markers count before the first ``</think>``; the number of steps is ``k = 1 + markers``.

:data:`MARKER_SETS` also names sets for other languages, for what a person would count, and for paragraphs. To cut
thoughts otherwise (lines, entropy peaks), subclass :class:`Segmenter` and write ``split``.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from typing import NamedTuple, Protocol

from stepgrpo_lab.method.markers import (
    MARKER_SETS,
    AnyScriptReader,
    BlankLineReader,
    Found,
    MarkerReader,
    WordReader,
    is_plain,
    is_word,
    resolve_markers,
)
from stepgrpo_lab.method.reader import OpeningReader
from stepgrpo_lab.method.records import Step
from stepgrpo_lab.method.token_text import THINK_CLOSE, TokenText, decode_partial

__all__ = [
    "MARKER_SETS",
    "BlankLineSegmenter",
    "MarkerHit",
    "MarkerScanner",
    "MarkerSegmenter",
    "Segmenter",
    "SplitScanner",
    "StepScanner",
    "resolve_markers",
]

_WORD = re.compile(r"\w+")


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
    """A way to cut a completion into semantic steps. The three ways to count must agree.

    One of your own needs :meth:`split` alone.

    Example:
        >>> class Lines(Segmenter):
        ...     def split(self, text):
        ...         steps, end = [], 0
        ...         for line in text.partition("</think>")[0].splitlines(keepends=True) or [""]:
        ...             steps.append(Step(len(steps), None, line, end, end := end + len(line)))
        ...         return steps
        >>> Lines().count("2+2=4\\nagain 4\\n</think>4")
        2
    """

    @abstractmethod
    def split(self, text: str) -> list[Step]:
        """The steps of a completion, in order: they partition the text before its close."""

    def scanner(self, token_text: TokenText) -> StepScanner:
        """A fresh scanner for one completion; by default a :class:`SplitScanner`."""
        return SplitScanner(self, token_text)

    def count(self, text: str) -> int:
        """Number of steps ``k`` of a completion."""
        return len(self.split(text))

    def may_open(self, piece: str) -> bool:
        """Whether a token with this text is likely to open a step: an engine had better look up there.

        It only saves work. By default, whether the text holds a marker all by itself.
        """
        return self.count(piece) > 1

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


class SplitScanner:
    """The scanner of a segmenter that has :meth:`Segmenter.split` alone: the text is split anew after every token.

    A step is certain once it is still there after one more token. That takes time in proportion to the square of the
    completion's length, which does for hundreds of tokens; a long completion deserves a scanner of its own.

    Example:
        >>> toy = TokenText.from_pieces(["so", " Wait", ",", "ing", "</think>"])
        >>> scanner = SplitScanner(MarkerSegmenter(), toy)
        >>> [scanner.push(token) for token in (0, 1, 2)], scanner.steps
        ([None, None, MarkerHit(marker='Wait', held=2)], 2)
    """

    def __init__(self, segmenter: Segmenter, token_text: TokenText) -> None:
        self._segmenter, self._token_text = segmenter, token_text
        self._ids: list[int] = []
        self._last: list[Step] = []
        self._steps = self._steps_before = 1
        self._closed = False
        self._droppable = 0

    @property
    def steps(self) -> int:
        """Steps that are certain so far."""
        return self._steps

    @property
    def closed(self) -> bool:
        """Whether the thoughts have ended."""
        return self._closed

    def push(self, token_id: int) -> MarkerHit | None:
        """Take the next token; returns the first step that it makes certain. See :meth:`StepScanner.push`."""
        self._droppable = 0
        if self._closed:
            return None
        self._ids.append(token_id)
        text = self._token_text.decode(self._ids)
        last, self._last = self._last, self._segmenter.split(text)
        if THINK_CLOSE in text:
            self._closed, self._steps = True, len(self._last)
            return None
        stayed = sum(
            1 for _ in takewhile(lambda pair: pair[0].start == pair[1].start, zip(last, self._last, strict=False))
        )
        self._steps_before, self._steps = self._steps, max(self._steps, stayed)
        if self._steps == self._steps_before:
            return None
        step = self._last[self._steps_before]
        self._droppable = len(self._ids) - _first_token(step.start, text, self._token_text.spans(self._ids))
        return MarkerHit(step.marker or "", self._droppable)

    def drop(self, count: int) -> None:
        """Forget the last ``count`` tokens.

        Raises:
            ValueError: More tokens than the last hit held.
        """
        if not 0 <= count <= self._droppable:
            raise ValueError(f"cannot drop {count} tokens: the last hit leaves {self._droppable}; drop at most `held`")
        if count:
            del self._ids[-count:]
            self._droppable, self._steps = self._droppable - count, self._steps_before
            self._last = self._segmenter.split(self._token_text.decode(self._ids))

    def finish(self) -> int:
        """Number of steps if the completion ends here."""
        return self._steps if self._closed else self._segmenter.count(self._token_text.decode(self._ids))


class MarkerSegmenter(Segmenter):
    """Steps that open at markers: each marker before the close opens one.

    Args:
        markers: Name of a marker set, or your own words (see :func:`resolve_markers`).
        close: Text that ends the thoughts.

    Raises:
        ValueError: Bad markers, or a close that starts with a word character or holds a marker: then a marker could
            not be told from the start of the close.

    Example:
        >>> [step.text for step in MarkerSegmenter().split("2+2=4. Wait, Waiting is none.</think>4 Wait")]
        ['2+2=4. ', 'Wait, Waiting is none.']
        >>> MarkerSegmenter(["等等"]).count("嗯等等，2+2=4"), MarkerSegmenter("reader").count("8, wait, that's 9.")
        (2, 2)
    """

    def __init__(self, markers: str | Sequence[str] = "paper", close: str = THINK_CLOSE) -> None:
        self.markers = resolve_markers(markers)
        self.name = markers if isinstance(markers, str) else None
        self.close = close
        self._plain = self.name not in ("reader", "blank_lines") and is_plain(self.markers)
        if not close or _WORD.match(close) or self._found("*. " + close):
            raise ValueError(f"close {close!r} must start with a sign, not a letter or digit, and hold no marker")
        if self.name in ("reader", "blank_lines") and close[0].isspace():
            raise ValueError(f"close {close!r} must not start with white space, which marker set {self.name!r} reads")

    def split(self, text: str) -> list[Step]:
        """The steps of a completion; step 0 is the text before the first marker, and may be empty."""
        thoughts = text.partition(self.close)[0]
        found = self._found(thoughts)
        starts, names = [0, *(start for start, _ in found)], [None, *(marker for _, marker in found)]
        bounds = zip(names, starts, [*starts[1:], len(thoughts)], strict=True)
        return [Step(index, name, text[start:stop], start, stop) for index, (name, start, stop) in enumerate(bounds)]

    def count(self, text: str) -> int:
        """Number of steps, without the steps: a completion may be long."""
        return 1 + len(self._found(text.partition(self.close)[0]))

    def scanner(self, token_text: TokenText) -> MarkerScanner:
        """A fresh :class:`MarkerScanner` for one completion."""
        return MarkerScanner(token_text, self.reader(), self.close)

    def reader(self) -> MarkerReader:
        """What finds this segmenter's markers in the characters of one completion's thoughts."""
        if self.name == "reader":
            return OpeningReader(self.close)
        if self.name == "blank_lines":
            return BlankLineReader(self.close)
        return WordReader(self.markers) if self._plain else AnyScriptReader(self.markers)

    def may_open(self, piece: str) -> bool:
        """See :meth:`Segmenter.may_open`; a blank line needs a paragraph before it and one after."""
        return super().may_open(f"x{piece}x" if self.name == "blank_lines" else piece)

    def _found(self, thoughts: str) -> list[Found]:
        if self._plain:
            return sorted(Found(start, word) for word in set(self.markers) for start in _places(word, thoughts))
        reader = self.reader()
        return [*reader.feed(thoughts), *reader.end()]


class BlankLineSegmenter(MarkerSegmenter):
    """Steps without marker words: each paragraph after a blank line is one, for models that never say "Wait".

    The paper names its dependence on marker words as a limitation. This is a way past it, with one of its own: it
    counts layout, not turns. The same as marker set ``blank_lines``, by which recipes and commands name it.

    Example:
        >>> BlankLineSegmenter().count("2+2=4.\\n\\nAgain: 4.\\n\\n</think>4")
        2
    """

    def __init__(self, close: str = THINK_CLOSE) -> None:
        super().__init__("blank_lines", close)


class _Pushed(NamedTuple):
    """A pushed token, and all that the scanner knew before it."""

    reader: MarkerReader
    steps: int
    tail: str  # end of the text, in which the close may begin
    pending: bytes  # an unfinished character
    chars: str  # what this token completes
    end: int  # the character at which the token ends, an unfinished one included

    @property
    def start(self) -> int:
        """The first character that the token touches."""
        return self.reader.at


class MarkerScanner:
    """Finds markers while tokens arrive, in constant time a token.

    A marker is certain only once the character after it is known ("Wait" + "ing" is none), or a few more (see the
    marker's reader), so a hit comes with its lookahead. What to hold back then is every whole token that covers the
    marker's start, and all that follow it:

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

    def __init__(self, token_text: TokenText, reader: MarkerReader, close: str) -> None:
        self._token_text = token_text
        self._reader = reader
        self._close = close
        self._steps, self._closed = 1, False
        self._tail, self._pending = "", b""
        self._pushed: deque[_Pushed] = deque()  # the last tokens, as far back as a hit can reach
        self._droppable = 0

    @property
    def steps(self) -> int:
        """1 + the markers that are certain so far."""
        return self._steps

    @property
    def closed(self) -> bool:
        """Whether the close is complete; nothing is a marker after it."""
        return self._closed

    def push(self, token_id: int) -> MarkerHit | None:
        """Take the next token.

        Returns:
            The first marker that it makes certain; None if there is none, or if the same token also completes the
            close and must stay, so that there is nothing left to exit from. ``steps`` counts every marker.
        """
        if self._closed:
            self._pushed.clear()
            self._droppable = 0
            return None
        pending = self._pending
        chars, self._pending = decode_partial(pending + self._token_text.pieces(token_id))
        before = self._reader.copy()
        end = before.at + len(chars) + bool(self._pending)
        self._pushed.append(_Pushed(before, self._steps, self._tail, pending, chars, end))
        found = self._reader.feed(self._until_close(chars))
        self._steps += len(found)
        hit = MarkerHit(found[0].marker, self._held(found[0].start)) if found else None
        self._forget(hit)
        return None if hit is not None and hit.held == 0 and self._closed else hit

    def drop(self, count: int) -> None:
        """Forget the last ``count`` tokens, as if they had never been pushed.

        Raises:
            ValueError: More tokens than the last hit held.
        """
        if not 0 <= count <= self._droppable:
            raise ValueError(f"cannot drop {count} tokens: the last hit leaves {self._droppable}; drop at most `held`")
        self._droppable -= count
        for _ in range(count):
            first = self._pushed.pop()
            self._reader, self._steps, self._closed = first.reader, first.steps, False
            self._tail, self._pending = first.tail, first.pending

    def finish(self) -> int:
        """Number of steps if the completion ends here: a marker at the very end counts too."""
        if self._closed:
            return self._steps
        reader = self._reader.copy()
        return self._steps + len(reader.feed("\ufffd" if self._pending else "")) + len(reader.end())

    def _until_close(self, chars: str) -> str:
        """The characters up to the end of the close, if they complete it."""
        joined = self._tail + chars
        place = joined.find(self._close)
        if place < 0:
            self._tail = joined[-len(self._close) + 1 :] if len(self._close) > 1 else ""
            return chars
        self._closed, self._pending = True, b""
        return chars[: place + len(self._close) - len(self._tail)]

    def _held(self, start: int) -> int:
        """How many tokens go with a marker that starts at this character; those forgotten hold content."""
        for place, token in enumerate(self._pushed):
            if token.end > start:
                shares = token.start < start and token.pending
                stays = shares or _WORD.search(token.chars, 0, max(0, start - token.start))
                return len(self._pushed) - place - bool(stays)
        return 0

    def _forget(self, hit: MarkerHit | None) -> None:
        """Forget the tokens that no hit can hold back any more, from here or from where :meth:`drop` may lead back."""
        since = self._pushed[-1].end if self._closed else self._reader.since
        self._droppable = hit.held if hit else self._droppable + 1
        while hit is None and self._droppable and self._pushed[-self._droppable].end <= since:
            self._droppable -= 1
        if self._droppable:
            since = self._pushed[-self._droppable].reader.since
        while len(self._pushed) > self._droppable and self._pushed[0].end <= since:
            self._pushed.popleft()


def _places(word: str, thoughts: str) -> Iterator[int]:
    """Where ``word`` stands alone; a plain search takes a tenth of the time of a look at every word."""
    start = -1
    while (start := thoughts.find(word, start + 1)) >= 0:
        after = start + len(word)
        if not (is_word(thoughts[start - 1 : start]) or is_word(thoughts[after : after + 1])):
            yield start


def _first_token(position: int, text: str, spans: Sequence[tuple[int, int]]) -> int:
    """Place of the first token that belongs to what begins at character ``position``: the rule of MarkerScanner."""
    place = bisect_right(spans, position, key=lambda span: span[1])
    if place == len(spans):
        return place
    start = spans[place][0]
    shares = start < position and place > 0 and spans[place - 1][1] > start
    return place + (shares or _WORD.search(text, start, position) is not None)
