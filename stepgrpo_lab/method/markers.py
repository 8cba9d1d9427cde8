"""Marker sets, and the readers that find markers in thoughts, character by character.

A :class:`MarkerReader` takes the characters of the thoughts in any portions and names each marker as soon as it is
certain. The text of a finished completion and a stream of tokens go through the same reader, so they cannot disagree.
"""

from __future__ import annotations

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from stepgrpo_lab.method.names import did_you_mean, listed, shown

MARKER_SETS: dict[str, tuple[str, ...]] = {
    "official": ("Wait",),
    "paper": ("Wait", "Alternatively"),
    "multilingual": (
        *("Wait", "Hmm", "Alternatively"),  # English
        *("等等", "等一下", "等下", "稍等", "且慢", "不过", "不過"),  # Chinese, simplified and traditional
        *("ちょっと待って", "待って", "待てよ", "しかし", "あるいは"),  # Japanese
        *("잠깐", "잠시만", "기다려"),  # Korean; particles may follow
        *("เดี๋ยวก่อน", "เดี๋ยวนะ", "รอก่อน"),  # Thai
        *("Warte", "Halt", "Alternativ"),  # German
        *("Attends", "Attendez", "Attendons", "Alternativement"),  # French
        *("Espera", "Espere", "Esperen", "Alternativamente", "Aspetta", "Aspettate"),  # Spanish, Portuguese, Italian
        *("Подожди", "Подождите", "Погоди", "Постой", "Стоп"),  # Russian
        *("انتظر", "مهلا", "रुको", "रुकिए"),  # Arabic, Hindi
        *("Tunggu", "Bekle", "Czekaj", "Wacht"),  # Indonesian, Turkish, Polish, Dutch
    ),
    "reader": (
        *("Wait", "Hold on", "Hmm", "Let me check", "But", "However", "Actually", "Alternatively"),
        *("Another way", "On second thought"),
        *("等等", "等一下", "不对", "不對", "不过", "不過", "让我", "讓我"),
        *("ちょっと待って", "待って", "待てよ", "でも", "しかし", "잠깐", "잠시만", "하지만"),
    ),
    "blank_lines": ("\n\n",),
}
"""``official``: the public code's marker. ``paper``: the paper's. ``multilingual``: openings of doubt in many languages
(等等 at the end of a Chinese list counts too). ``reader``: what a person would count, by the rules of
:class:`stepgrpo_lab.method.reader.OpeningReader`. ``blank_lines``: no words at all, every paragraph is a step."""

_WORD = re.compile(r"\w+")
_NO_SPACES = re.compile(  # scripts that set no space between words; Hangul is here because particles join its words
    "[\u0e00-\u0fff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf\u1b00-\u1b7f\u2e80-\u2fdf"
    "\u3005-\u3007\u3021-\u3029\u303b\u3040-\u30ff\u3100-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf"
    "\ua960-\ua97f\ua980-\ua9df\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\uffa0-\uffdc\U0001b000-\U0001b16f"
    "\U00020000-\U0003ffff]"
)


class Found(NamedTuple):
    """A marker: the character at which it starts, and its name in the marker set."""

    start: int
    marker: str


class MarkerReader(ABC):
    """Finds markers in the characters of one completion's thoughts; subclasses say what a marker is.

    Attributes:
        at: Characters taken so far.
    """

    at = 0

    @property
    @abstractmethod
    def since(self) -> int:
        """The first character at which a marker may still be found."""

    @abstractmethod
    def feed(self, chars: str) -> list[Found]:
        """Take the next characters; returns the markers that they make certain, in order."""

    @abstractmethod
    def end(self) -> list[Found]:
        """The markers that are certain if the thoughts end here; nothing may be fed after that."""

    def copy(self) -> Self:
        """A reader at the same place, which goes its own way."""
        twin = type(self).__new__(type(self))
        twin.__dict__.update(self.__dict__)  # all that changes is immutable
        return twin


def resolve_markers(markers: str | Sequence[str]) -> tuple[str, ...]:
    """Turn the name of a marker set, or your own words, into the names that markers go by.

    A word of your own may be of any script. In one without spaces between words (Chinese, Japanese, Thai, Korean with
    its particles, ...) it is found inside longer runs of characters.

    Raises:
        ValueError: An unknown set, no words at all, or a marker that is not one word of one kind of script.

    Example:
        >>> resolve_markers("paper"), resolve_markers(["Hmm", "等等"])
        (('Wait', 'Alternatively'), ('Hmm', '等等'))
    """
    if isinstance(markers, str):
        if markers not in MARKER_SETS:
            raise ValueError(
                f"markers: unknown marker set {shown(markers)}: use {listed(MARKER_SETS)}, or a list of words"
                + did_you_mean(markers, MARKER_SETS)
            )
        return MARKER_SETS[markers]
    if not markers:
        raise ValueError("markers is empty: name a marker set or at least one word")
    for marker in markers:
        _check_word(marker)
    return tuple(dict.fromkeys(markers))


def _check_word(marker: object) -> None:
    kinds = {_kind(char) for char in marker} if isinstance(marker, str) else set()
    if not isinstance(marker, str) or None in kinds or not any(map(is_word, marker)):
        raise ValueError(
            f"markers: marker {shown(marker)} is not one word: use words, or write a Segmenter of your own for phrases"
        )
    if len(kinds) > 1:
        raise ValueError(
            f"markers: marker {shown(marker)} mixes a script without spaces between words with one that has them, so "
            "where it ends is not defined: use a marker of one script"
        )


def _kind(char: str) -> str | None:
    """ "joined" for scripts without spaces between words, "word" for the characters of other words; else None."""
    if char >= "\u0e00" and _NO_SPACES.match(char):
        return "joined"
    return "word" if is_word(char) or unicodedata.category(char)[0] == "M" else None


def is_word(char: str) -> bool:
    r"""Whether a character is one of a word in the sense of ``\w``, which takes longer."""
    return char.isalnum() or char == "_"


def is_plain(markers: Iterable[str]) -> bool:
    r"""Whether all markers are words in the sense of ``\w+``, none of them of a script without spaces."""
    return all(_WORD.fullmatch(marker) and not _NO_SPACES.search(marker) for marker in markers)


class WordReader(MarkerReader):
    r"""The official rule: a marker is a longest run of ``\w`` characters that equals one of the words."""

    def __init__(self, markers: Sequence[str]) -> None:
        self._markers = frozenset(markers)
        self._longest = max(map(len, markers))
        self._run, self._start = "", 0  # the word at the end, cut once it is longer than any marker

    @property
    def since(self) -> int:
        """Start of the word at the end, while it can still be a marker."""
        return self._start if self._run and len(self._run) <= self._longest else self.at

    def feed(self, chars: str) -> list[Found]:
        """See :class:`MarkerReader`."""
        found, run, longest = [], self._run, self._longest
        for place, char in enumerate(chars, start=self.at):
            if char.isalnum() or char == "_":
                if not run:
                    self._start = place
                if len(run) <= longest:
                    run += char
            elif run:
                if run in self._markers:
                    found.append(Found(self._start, run))
                run = ""
        self._run = run
        self.at += len(chars)
        return found

    def end(self) -> list[Found]:
        """A marker at the very end counts too."""
        return [Found(self._start, self._run)] if self._run in self._markers else []


class AnyScriptReader(MarkerReader):
    """Markers of any script, for sets with a marker that :class:`WordReader` could not find.

    - A marker of a script without spaces is found anywhere; the longest of those that start at a place counts, and
      markers do not overlap.
    - Any other marker is a whole word. Combining marks belong to the word, and a word ends where such a script begins:
      ``但是Wait`` holds "Wait".

    Lookahead: one character, or up to the length of a longer marker that begins with the one found.
    """

    def __init__(self, markers: Sequence[str]) -> None:
        joined = [marker for marker in markers if _kind(marker[0]) == "joined"]
        self._joined = sorted(joined, key=len, reverse=True)
        self._prefixes = frozenset(marker[:size] for marker in joined for size in range(1, len(marker)))
        self._buffer = ""  # what may begin a joined marker
        self._word = ""
        self._start = 0
        self._markers = frozenset(markers) - set(joined)
        self._longest = max(map(len, markers))

    @property
    def since(self) -> int:
        """Start of what may still become a marker."""
        if self._buffer:
            return self.at - len(self._buffer)
        return self._start if self._word and len(self._word) <= self._longest else self.at

    def feed(self, chars: str) -> list[Found]:
        """See :class:`MarkerReader`."""
        found: list[Found] = []
        for char in chars:
            kind = _kind(char)
            if kind != "word" and self._word:
                found += self._ended_word()
            if kind == "joined":
                self._buffer += char
                found += self._take(self.at + 1, last=False)
            elif self._buffer:
                found += self._take(self.at, last=True)
            if kind == "word":
                self._start = self._start if self._word else self.at
                self._word += char if len(self._word) <= self._longest else ""
            self.at += 1
        return found

    def end(self) -> list[Found]:
        """See :class:`MarkerReader`."""
        return self._take(self.at, last=True) if self._buffer else self._ended_word()

    def _ended_word(self) -> list[Found]:
        word, self._word = self._word, ""
        return [Found(self._start, word)] if word in self._markers else []

    def _take(self, end: int, *, last: bool) -> list[Found]:
        """Take from the buffer, which ends at character ``end``, all that more characters cannot change."""
        found, buffer = [], self._buffer
        while buffer and (last or buffer not in self._prefixes):
            marker = next((each for each in self._joined if buffer.startswith(each)), "")
            if marker:
                found.append(Found(end - len(buffer), marker))
            buffer = buffer[len(marker) or 1 :]
        self._buffer = buffer
        return found


class BlankLineReader(MarkerReader):
    r"""Paragraphs: a step begins at the first visible character after a blank line, outside fenced code.

    Lookahead: none, but for a paragraph that begins like the close: then until it differs from it.
    """

    def __init__(self, close: str) -> None:
        self._close = close
        self._said = ""  # the first characters of the text: an opening tag is no paragraph
        self._newlines = 0  # in the white space at the end
        self._line = ""  # start of the line at the end, as long as it may be a fence
        self._fenced = False
        self._like_close = ""  # the paragraph at the end, while it is a beginning of the close

    @property
    def since(self) -> int:
        """Start of a paragraph that may turn out to be the close."""
        return self.at - len(self._like_close)

    def feed(self, chars: str) -> list[Found]:
        """See :class:`MarkerReader`."""
        found = []
        for char in chars:
            if self._like_close:
                self._like_close += char
                if not self._close.startswith(self._like_close):
                    found.append(Found(self.at + 1 - len(self._like_close), "\n\n"))
                    self._like_close = ""
            self._take(char, found)
            self.at += 1
        return found

    def end(self) -> list[Found]:
        """See :class:`MarkerReader`."""
        return [Found(self.since, "\n\n")] if self._like_close else []

    def _take(self, char: str, found: list[Found]) -> None:
        if char.isspace():
            self._newlines += char == "\n"
            self._line = "" if char == "\n" else self._line
            return
        if self._newlines > 1 and not self._fenced and self._said not in ("", "<think>"):
            if char == self._close[0]:
                self._like_close = char
            else:
                found.append(Found(self.at, "\n\n"))
        self._newlines = 0
        self._said += char if len(self._said) < 8 else ""
        if len(self._line) < 3:
            self._line += char
            self._fenced ^= self._line in ("```", "~~~")
