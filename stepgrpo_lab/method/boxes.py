"""Boxed answers: where a box is, in a text or in the tokens of a trial answer, and what it says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from stepgrpo_lab.method.token_text import THINK_CLOSE

_BRACES = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)  # an escaped brace is a character of the answer
_NOTHING = re.compile(  # layout and placeholders: no answer is made of these alone
    r"(?:[\s{}()\[\]?.,;:…·_~$？。，；：]|\\[,;:!>_$\s]|\\(?:boxed|text[a-z]*|math[a-z]+|mbox|hbox|operatorname|"
    r"q?quad|[lchvd]?dots|square|displaystyle|left|right|underline)(?![A-Za-z]))*"
)
_LOOKED_AT = 256
"""Characters of a box in which its answer begins; a longer run of nothing is read no further, to stay linear."""
_JOINT_SPACE = r"(?:[\s$]|\\[,;: ]|\\q?quad(?![A-Za-z])|\\[()\[\]])*"
_JOINT = re.compile(
    rf"{_JOINT_SPACE}(?:,?{_JOINT_SPACE}(?:and|or|\\text\s*\{{\s*(?:and|or)\s*\}})|[,;]|\\text\s*\{{\s*,\s*\}}){_JOINT_SPACE}"
)
MAX_JOINT_CHARS = 40
"""Longer text between two boxes is no joint."""


def extract_boxed(text: str) -> str | None:
    r"""Content of the last complete, non-empty ``\boxed{...}`` after the first ``</think>``, in linear time.

    Boxes that only a comma, *and* or *or* joins are one list: ``\boxed{-2} and \boxed{1}`` is ``-2, 1``. With any other
    words between them the last box counts: it may revise what an earlier one says, and a box that is repeated says
    nothing new. Of nested boxes the innermost of the last one counts. ``\{`` and ``\}`` are set braces, not groups.

    *Non-empty* means that something is answered: a box that holds nothing but space, brackets, LaTeX's layout
    (``\text{}``, ``\quad``) and the signs of a blank (``?``, ``...``, ``\ldots``, ``_``) is empty.

    Returns:
        The stripped content; None without a ``</think>``, or without a box that is closed and not empty.

    Example:
        >>> extract_boxed("<think>\\boxed{1}</think> so \\boxed{\\frac{1}{2}}.")
        '\\frac{1}{2}'
        >>> extract_boxed("</think>\\boxed{7} \\boxed{?}"), extract_boxed("</think>\\boxed{\\text{...}}")
        ('7', None)
        >>> extract_boxed("</think>$\\boxed{-2}$ and $\\boxed{1}$"), extract_boxed("</think>\\boxed{3}. No: \\boxed{4}")
        ('-2, 1', '4')
    """
    close = text.find(THINK_CLOSE)
    if close < 0:
        return None
    boxes: list[tuple[int, int, int]] = []  # of each box that counts: command, content, closing brace
    open_groups: list[tuple[int, int]] = []  # command and content of each open box; (-1, -1) for another group
    for token in _BRACES.finditer(text, close + len(THINK_CLOSE)):
        if token[0] == "{":
            open_groups.append((-1, -1))
        elif token[0].startswith("\\boxed"):
            open_groups.append((token.start(), token.end()))
        elif token[0] == "}" and open_groups:
            command, start = open_groups.pop()
            if start > (boxes[-1][1] if boxes else -1) and _answers(text, start, token.start()):
                boxes.append((command, start, token.start()))
    return _last_run(text, boxes) if boxes else None


def _last_run(text: str, boxes: Sequence[tuple[int, int, int]]) -> str:
    """The contents of the last boxes that joints connect, each once."""
    place = len(boxes) - 1
    while place > 0 and _joined(text[boxes[place - 1][2] + 1 : boxes[place][0]]):
        place -= 1
    contents = [text[start:end].strip() for _, start, end in boxes[place:]]
    return ", ".join(dict.fromkeys(contents))


def _joined(between: str) -> bool:
    return len(between) <= MAX_JOINT_CHARS and _JOINT.fullmatch(between) is not None


def _answers(text: str, start: int, end: int) -> bool:
    seen = min(end, start + _LOOKED_AT)
    nothing = _NOTHING.match(text, start, seen)
    cut = 0 if seen == end else 32  # the last command may be cut off
    return nothing is None or nothing.end() < seen - cut


def boxed_answer_span(pieces: Sequence[str], opened: bool) -> tuple[int, int] | None:
    r"""Which greedy tokens spell the boxed answer and its closing brace.

    The joint confidence of the answer is the product of these tokens' probabilities. A token that holds the opening
    brace and more (``{4``) belongs to the answer, a bare ``{`` does not. Braces are balanced; ``\{`` and ``\}`` are
    characters of the answer.

    Args:
        pieces: Text of each greedy token.
        opened: Whether the inducing prompt already ended in ``\boxed{``; otherwise the first ``{`` opens the box.

    Returns:
        A half-open span of token places, or None when the box is never closed.

    Example:
        >>> boxed_answer_span(["{", "\\frac", "{1}{", "2", "}}", "\n"], opened=False)
        (1, 5)
    """
    ends = list(accumulate(map(len, pieces)))

    def place(character: int) -> int:
        return next(index for index, end in enumerate(ends) if character < end)

    depth, start = int(opened), 0
    for brace in _BRACES.finditer("".join(pieces)):
        if brace[0].endswith("{") and brace[0] != "\\{":
            if depth == 0:
                start = place(brace.end() - 1)
                start += not pieces[start][brace.end() - (ends[start] - len(pieces[start])) :].strip()
            depth += 1
        elif brace[0] == "}" and depth > 0:
            depth -= 1
            if depth == 0:
                return start, place(brace.start()) + 1
    return None


def opening_tokens(pieces: Sequence[str], opened: bool) -> int:
    """How many leading tokens hold nothing of the answer: white space, and the brace that opens the box.

    Args:
        pieces: Text of each greedy token.
        opened: Whether the inducing prompt already opened the box; a leading brace is then part of the answer.

    Example:
        >>> [opening_tokens(pieces, opened=False) for pieces in (["{", "x", "}"], ["{x", "}"], [" ", "{", "4"])]
        [1, 0, 2]
        >>> opening_tokens(["{", "1", "}"], opened=True)
        0
    """
    empty = ("",) if opened else ("", "{")
    return next((count for count, text in enumerate(accumulate(pieces)) if text.strip() not in empty), len(pieces))
