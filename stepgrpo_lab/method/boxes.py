"""Boxed answers: where one is, and what it says."""

from __future__ import annotations

import re

from stepgrpo_lab.method.token_text import THINK_CLOSE

_BOX_TOKENS = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)


_CONTENT = re.compile(r"[^\s{}]")


def extract_boxed(text: str) -> str | None:
    r"""Content of the last complete, non-empty ``\boxed{...}`` after the first ``</think>``, in linear time.

    Of nested boxes the innermost of the last one counts. ``\{`` and ``\}`` are set braces, not groups.

    Returns:
        The stripped content; None without a ``</think>``, or without a box that is closed and holds more than braces
        and space.

    Example:
        >>> extract_boxed("<think>\\boxed{1}</think> so \\boxed{\\frac{1}{2}}.")
        '\\frac{1}{2}'
    """
    close = text.find(THINK_CLOSE)
    if close < 0:
        return None
    answer, answer_start = None, -1
    open_groups: list[int] = []  # where the content of each open box starts; -1 for a group that is no box
    for token in _BOX_TOKENS.finditer(text, close + len(THINK_CLOSE)):
        if token[0] == "{":
            open_groups.append(-1)
        elif token[0].startswith("\\boxed"):
            open_groups.append(token.end())
        elif token[0] == "}" and open_groups:
            start = open_groups.pop()
            if start > answer_start and _CONTENT.search(text, start, token.start()):
                answer, answer_start = slice(start, token.start()), start
    return text[answer].strip() if answer else None
