"""Regular expressions of strangers: told apart from those that would backtrack without end."""

from __future__ import annotations

import math
import re

MOST_PATTERN = 4096
"""Most characters of a pattern; the longest of the known tokenizers has 700."""

_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?[#:=!<>aiLmsux^-]*|[()|]|[*+?]|\{\d*,?\d*\}|.", re.DOTALL)
_REPEAT = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")

MOST_TIMES = 8
"""From how many times on a counted repetition is as bad as an open one."""


def check_pattern(pattern: str, *, most_open: int) -> None:
    """Check that a regular expression takes polynomial time, of low degree.

    Repeating what itself repeats or chooses (``(a+)+``, ``(a|aa)*``) takes exponential time where it fails, and ``n``
    open repetitions in a row take time to the power ``n``. Patterns of tokenizers and adapters do without the former.

    Args:
        pattern: In Python's syntax or Oniguruma's.
        most_open: How many repetitions without an upper bound it may have in a row.

    Raises:
        ValueError: It may take longer, or is too long itself.

    Example:
        >>> check_pattern(r"model\\.layers\\.[0-9]+\\.(q|v)_proj", most_open=4)
        >>> check_pattern("(a+)+$", most_open=4)
        Traceback (most recent call last):
        ...
        ValueError: the regular expression '(a+)+$' repeats what repeats or chooses itself: write it without
    """
    if len(pattern) > MOST_PATTERN:
        raise ValueError(f"the regular expression has {len(pattern)} characters: at most {MOST_PATTERN} are read")
    groups = [_Group()]
    for piece in _PIECE.findall(pattern):
        if _adds(groups, piece):
            raise ValueError(
                f"the regular expression {_shown(pattern)} repeats what repeats or chooses itself: write it without"
            )
    if max(group.open for group in groups) > most_open:
        raise ValueError(
            f"the regular expression {_shown(pattern)} has more than {most_open} open repetitions in a row"
        )


class _Group:
    """What is known of a group, or of the whole: the repetitions of its longest alternative, and of the present one."""

    def __init__(self) -> None:
        self.longest = self.present = 0.0
        self.varies = False  # it holds a repetition or a choice
        self.closed: _Group | None = None  # the group that ended just now
        self.repeated = False  # the piece before is a repetition

    @property
    def open(self) -> float:
        return max(self.longest, self.present)


def _adds(groups: list[_Group], piece: str) -> bool:
    """Take the next piece of a pattern; returns whether it repeats what varies."""
    group = groups[-1]
    closed, group.closed = group.closed, None
    repeated, group.repeated = group.repeated, False
    if piece[0] == "(":
        groups.append(_Group())
    elif piece == ")" and len(groups) > 1:
        inner = groups.pop()
        groups[-1].present += inner.open
        groups[-1].varies |= inner.varies
        groups[-1].closed = inner
    elif piece == "|":
        group.longest, group.present, group.varies = group.open, 0, True
    elif repeated and piece in "?+":  # lazy or possessive
        return False
    elif times := _times(piece):
        varies = not piece[1:-1].isdecimal()  # {3} is the same each time
        group.present += 1 if times == math.inf else varies / 4  # sixteen choices cost as much as four loops
        group.varies |= varies
        group.repeated = True
        return repeated or (closed is not None and closed.varies and times > MOST_TIMES)
    return piece == "\\g"  # Oniguruma's call of a group, which may be its own


def _times(piece: str) -> float:
    """How often a repetition repeats at most; 0 for anything else."""
    found = _REPEAT.fullmatch(piece)
    if found is None or piece in ("{}", "{,}"):
        return 0
    if piece in "*+?":
        return 1 if piece == "?" else math.inf
    least, comma, most = found.groups()
    times = int((most if comma else least) or 10**9)
    return times if times < 100 else math.inf


def _shown(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 80 else pattern[:77] + "...")
