"""The ``reader`` marker set: where a person would say that the thoughts turn, by rules of context.

What opens a step:

- *wait* and *hold on* in any case where they open a clause and are said to oneself: followed by a sign, or by a word
  that goes on with the doubt ("wait, no", "Wait that's wrong"). "Wait Time", "wait for it", ``wg.Wait()`` do not;
- *hmm*; *let me*, *let us*, *let's* with a verb of checking or trying ("let me double-check");
- *But*, *However,*, *Actually,*, *Alternatively*, *Another way*, *On second thought* at the start of a sentence;
- in Chinese, Japanese and Korean, such openings at the start of a clause, a particle before them allowed (嗯等等).

What does not: anything in quotation marks (up to the end of the line, at most 300 characters), in quoted lines (``>``),
in code (fences, backticks), and an opening right after another, which belongs to it ("But wait", "Hmm, let me check").

A clause starts after a sign or a line break; short words may stand between ("Oh, wait"). All of it is decided in one
pass: most openings are certain with the next character, some with the next two words, all within 40 characters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from stepgrpo_lab.method.markers import Found, MarkerReader, is_word

LOOKAHEAD = 40
"""An opening that is not certain after so many characters, its own included, does not count."""

QUOTATION = 300
"""A quotation that is not closed after so many characters, or at the end of its line, was none."""

_GOES_ON = (  # words with which a doubt goes on
    r"(?:no|nope|not|that|that['’]s|this|these|those|but|if|so|actually|maybe|perhaps|probably|let|let['’]s|what|why|"
    r"what['’]s|how|who|which|where|when|can|could|do|does|did|should|would|will|i|i['’]m|i['’]ve|i['’]ll|we|we['’]re|"
    r"we['’]ve|you|he|she|it|it['’]s|they|there|there['’]s|my|our|because|since|h+m+|hold|wait|isn['’]t|aren['’]t|"
    r"doesn['’]t|don['’]t|didn['’]t|can['’]t|now|again|a\s+(?:minute|moment|second|sec|bit)|"
    r"(?:is|was|are|were)\s+(?:it|that|this|there|they|we|you|the|he|she|these|those))\b(?!['’])"
)
_NOUN_PHRASE = r"(?:the|a|an|each|all|both)\b"
_VERBS = (
    "check|verify|confirm|test|reconsider|rethink|reexamine|reread|recheck|recalculate|recompute|recount|redo|revisit|"
    "retry|try|examine|double|triple|cross|think again|go back|step back|start over"
)
_ADVERBS = "just|now|quickly|also|first|please|carefully"
_LET_ME = rf"let(?:\s+me|\s+us|['’]s)(?:\s+(?:{_ADVERBS}))?\s+(?:(?:{_VERBS})\b|re-)"
_LET = rf"let(?:['’]s)?\s+(?:(?:me|us)\s+)?(?:(?:{_ADVERBS})\s+)?(?:(?:think|go|step|start)\s+)?"
_NOUNS = "way|approach|method|idea|possibility|option|thought|angle|route|strategy"
_NEVER = r"(?!)"


def _said_to_oneself(word: str) -> tuple[str, str, str]:
    """Patterns of an opening such as "wait": it opens a sentence, it opens a clause, it may still do either."""
    pause = rf"{word}\**[,，:：.\s–—-]*"
    clause = rf"{word}\**(?:[!?…—–！？。，]|\.\.)|{pause}\s{_GOES_ON}|{word}\**,\s*(?:{_NOUN_PHRASE}|\d)"
    sentence = rf"{clause}|{word}\**(?:,|[^\S\n]*\n|\.[^\w.])"
    return sentence, clause, rf"{pause}(?:(?:is|was|are|were|a)\s+)?"


_PATTERNS: dict[str, tuple[str, str, str]] = {  # name -> where it opens a sentence, a clause, and where it may yet
    "Wait": _said_to_oneself("wait"),
    "Hold on": _said_to_oneself(r"hold(?:\s+on)"),
    "Hmm": (r"h+m+\**[^\w(=\[{/-]", r"h+m+\**[^\w(=\[{/-]", r"h+m+\*+"),
    "Let me check": (_LET_ME, _LET_ME, _LET),
    "But": (r"but\**(?:[\s,…—–]|\.\.)", _NEVER, r"but(?:\*+|\.)"),
    "However": (r"however\**,", _NEVER, r"however\*+"),
    "Actually": (rf"actually\**(?:,|\s+{_GOES_ON})", _NEVER, r"actually\**\s*(?:(?:is|was|are|were|a)\s+)?"),
    "Alternatively": (r"alternatively\**[\s,:]", _NEVER, r"alternatively\*+"),
    "Another way": (rf"another\s+(?:{_NOUNS})\b", _NEVER, r"another\s+"),
    "On second thought": (r"on\s+second\s+thoughts?\b", _NEVER, r"on\s+(?:second\s+)?"),
}
_PATTERNS["Hold on"] = (*_PATTERNS["Hold on"][:2], _PATTERNS["Hold on"][2] + r"|hold\s+")


class _Rule(NamedTuple):
    """When an opening is certain at the start of a sentence or of a clause, and when it may yet become so."""

    name: str
    sentence: re.Pattern[str]
    clause: re.Pattern[str]
    perhaps: re.Pattern[str]


_RULES = {
    name: _Rule(name, *(re.compile(pattern, re.IGNORECASE) for pattern in patterns))
    for name, patterns in _PATTERNS.items()
}
_FIRST = {name.split()[0].lower(): rule for name, rule in _RULES.items()} | {
    contracted: _RULES["Let me check"] for contracted in ("let's", "let’s")
}
_SENTENCES_ONLY = frozenset(name for name, patterns in _PATTERNS.items() if patterns[1] == _NEVER)
_HMM = re.compile(r"[Hh]m+")

_JOINED = {  # openings in scripts without spaces -> the marker's name
    **{word: word for word in ("等等", "等一下", "不对", "不對", "不过", "不過")},
    **{f"让我{verb}": "让我" for verb in ("检查", "再", "重新", "验证", "确认", "核对", "想想")},
    **{f"讓我{verb}": "讓我" for verb in ("檢查", "再", "重新", "驗證", "確認", "核對", "想想")},
    **{word: word for word in ("ちょっと待って", "待って", "待てよ", "でも", "しかし", "잠깐", "잠시만", "하지만")},
}
_JOINED_PARTICLES = ("嗯", "啊", "哦", "噢", "呃", "咦", "但", "但是", "いや", "あ", "あれ", "아니")
_JOINED_OPENINGS = {
    particle + word: (len(particle), name) for particle in ("", *_JOINED_PARTICLES) for word, name in _JOINED.items()
}
_LONGEST_FIRST = sorted(_JOINED_OPENINGS, key=len, reverse=True)
_BEGINNINGS = frozenset(word[:size] for word in _JOINED_OPENINGS for size in range(1, len(word)))

_PARTICLES = {  # words that may stand between the start of a clause and its opening
    *("so", "ok", "okay", "now", "well", "oh", "ah", "no", "yes", "yeah", "and", "also", "alright", "right", "hey"),
    *("ugh", "oops", "but", "wait", *_JOINED_PARTICLES),
}
_QUOTES = {'"': '"', "“": "”", "„": "“”", "«": "»", "‘": "’", "'": "'", "「": "」", "『": "』"}


class OpeningReader(MarkerReader):
    """The reader of the ``reader`` set; the module says its rules.

    Args:
        close: Text that ends the thoughts; its first character ends a word as the end of the text does.

    Example:
        >>> reader = OpeningReader("</think>")
        >>> [found.marker for found in reader.feed("The wait is long. But wait, is it 8? Hmm, let me check.")]
        ['But', 'Hmm']
    """

    def __init__(self, close: str) -> None:
        self._stop = close[0]
        self._last = "\n"  # character
        self._clause = "sentence"  # what a word here would open: a "sentence", a "clause" or nothing ("")
        self._ended = False  # a sentence, if white space follows
        self._blank = True  # nothing but space in this line so far
        self._said = True  # something since the last opening
        self._word, self._word_at = "", 0
        self._rule: _Rule | None = None  # what the window may be; None for scripts without spaces
        self._window, self._window_at, self._window_clause = "", 0, ""
        self._covered = 0  # the last opening ends here
        self._quote, self._quoted = "", 0  # what closes the quotation, and how long it is so far
        self._ticks, self._code, self._fence = "", 0, ""  # backticks at the end, those that opened code, and a fence

    @property
    def since(self) -> int:
        """Start of the opening, or of the word, that is not finished."""
        return self._window_at if self._window else self._word_at if self._word else self.at

    def feed(self, chars: str) -> list[Found]:
        """See :class:`MarkerReader`."""
        found: list[Found] = []
        for char in chars:
            self._take(char, found)
            self._last = char
            self.at += 1
        return found

    def end(self) -> list[Found]:
        """See :class:`MarkerReader`."""
        found: list[Found] = []
        self._take("\n", found)
        return found

    def _take(self, char: str, found: list[Found]) -> None:
        if self._ticks and char != self._ticks[0]:
            self._end_ticks()
        if char in "`~":
            self._ticks += char if len(self._ticks) < LOOKAHEAD else ""
        if char == "\n":
            self._code, self._quote = 0, ""
        if self._fence or self._code or self._in_quote(char):
            self._blank = char == "\n" or (self._blank and (char.isspace() or char in "`~"))
            return
        if self._window:
            self._judge(char, found)
        if is_word(char) or (char in "'’" and self._word):
            self._grow_word(char)
            return
        if self._word:
            self._end_word(char, found)
        self._sign(char)
        self._blank = char == "\n" or (self._blank and (char.isspace() or char in "-*+>#`~"))

    # ---- words and openings ------------------------------------------------------------------------------------------

    def _grow_word(self, char: str) -> None:
        if not self._word:
            self._word_at = self.at
            if char >= "\u0e00" and self._clause and self._said and not self._window:
                self._rule = None
                self._open(char)
                if char not in _BEGINNINGS:
                    self._window = ""
        self._word += char if len(self._word) < LOOKAHEAD else ""
        self._blank = False

    def _end_word(self, char: str, found: list[Found]) -> None:
        word, self._word = self._word, ""
        rule = _RULES["Hmm"] if _HMM.fullmatch(word) else _FIRST.get(word.lower())
        if rule and self._may_open(rule, word) and not self._window:
            self._rule = rule
            self._open(word)
            self._judge(char, found)
        if word.lower() in _PARTICLES or _HMM.fullmatch(word):
            return
        self._clause = ""
        self._said = self._said or (self.at > self._covered)

    def _may_open(self, rule: _Rule, word: str) -> bool:
        if not (self._clause and self._said):
            return False
        if rule.name in _SENTENCES_ONLY:
            return self._clause == "sentence" and word[0].isupper()
        return rule.name != "Hmm" or word != word.upper()

    def _open(self, text: str) -> None:
        self._window, self._window_at, self._window_clause = text, self._word_at, self._clause

    def _judge(self, char: str, found: list[Found]) -> None:
        """Take one more character into the window, and decide if that is enough."""
        self._window += "\n" if char == self._stop else char
        if self._rule is None:
            self._judge_joined(found)
        elif not (is_word(char) or char in "'’"):
            known = self._rule.sentence if self._window_clause == "sentence" else self._rule.clause
            if known.match(self._window):
                self._accept(self._window_at, self._rule.name, self.at, found)
            elif len(self._window) > LOOKAHEAD or not self._rule.perhaps.fullmatch(self._window):
                self._window = ""

    def _judge_joined(self, found: list[Found]) -> None:
        window = self._window
        if window in _BEGINNINGS:
            return
        opening = next((each for each in _LONGEST_FIRST if window.startswith(each)), "")
        lists = opening.endswith("等等") and self._window_clause == "clause"  # "and so on", or "wait"
        if lists and window == opening:
            return
        self._window = ""
        if opening and not (lists and window[len(opening)] in "。.;；)）】」\n"):
            particle, name = _JOINED_OPENINGS[opening]
            self._accept(self._window_at + particle, name, self._window_at + len(opening), found)

    def _accept(self, start: int, name: str, covered: int, found: list[Found]) -> None:
        found.append(Found(start, name))
        self._window, self._said, self._covered = "", False, covered

    # ---- clauses, quotations, code -----------------------------------------------------------------------------------

    def _sign(self, char: str) -> None:
        """What a sign, a space or a line break makes of the place after it."""
        if char == "\n" or (char == ">" and self._last == "k" and self._clause == ""):
            self._clause, self._ended = "sentence", False
        elif char.isspace():
            self._clause, self._ended = "sentence" if self._ended else self._clause, False
        elif char in _QUOTES and (self._last.isspace() or self._last in "([{—–-:,，：、。" or char not in "\"'"):
            self._quote, self._quoted = _QUOTES[char], 0
        elif char == ">" and self._blank:
            self._quote, self._quoted = "\n", 0
        elif char in "!?…。！？":
            self._clause, self._ended = "sentence", True
        elif char == ".":
            self._clause = "sentence" if self._last.isdigit() or self._last in ")}]$" else ""
            self._ended = True
        elif char in ",;:，；：—–" or (char in "([（" and not is_word(self._last)):
            self._clause, self._ended = self._clause or "clause", False
        elif char in "-#+" and (self._blank or (char == "-" and self._last in " -")):
            self._clause, self._ended = "clause" if char == "#" else self._clause or "clause", False
        elif not (char in ")]}\"'”’»」』*" or (ord(char) > 127 and char != "、")):
            self._clause, self._ended = "", False

    def _in_quote(self, char: str) -> bool:
        if not self._quote:
            return False
        apostrophe = self._quote in "'’"
        if apostrophe and self._last == self._quote and self._quoted > 1 and not is_word(char):
            self._quote = ""
            return False
        self._quoted += 1
        if self._quoted > QUOTATION or (char in self._quote and not apostrophe):
            self._quote, self._clause, self._ended = "", "", self._last in ".!?…。！？"
        return True

    def _end_ticks(self) -> None:
        """Backticks have ended: a fence at the start of a line (so have tildes), code in the line elsewhere."""
        ticks, self._ticks = self._ticks, ""
        if len(ticks) >= 3 and self._blank and self._fence in ("", ticks[0]):
            self._fence = "" if self._fence else ticks[0]
        elif not self._fence and ticks[0] == "`":
            self._code = len(ticks) if not self._code else self._code * (self._code != len(ticks))
        self._clause, self._ended = "", False
