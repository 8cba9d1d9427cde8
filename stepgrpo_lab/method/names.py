"""What to say of a name or a value that cannot be: what is allowed, and what was probably meant."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

MOST_LISTED = 12
"""Longer lists of names are cut off: an error is one line that a person can read."""

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxlong = _repr.maxother = 80


def shown(value: Any) -> str:
    """A value as an error message shows it: cut off where it is long, whatever it is.

    Example:
        >>> shown("paper"), shown(0.00001), shown([1, 2])
        ("'paper'", '1e-05', '[1, 2]')
    """
    if isinstance(value, float):
        return f"{value:g}"
    try:
        return _repr.repr(value)
    except ValueError:  # Python writes out no integer of more than 4300 digits
        return "a huge number"


def listed(names: Iterable[Any]) -> str:
    """The allowed names, the first of them where there are many.

    Example:
        >>> listed(["a", "b"])
        'a, b'
    """
    known = [str(name) for name in names]
    more = f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
    return ", ".join(known[:MOST_LISTED]) + more


def near_name(name: Any, known: Iterable[Any], *, nearness: float = 0.6) -> str | None:
    """The known name that was probably meant, if one is at least so near (1 is the same).

    Example:
        >>> near_name("oficial", ["official", "paper"]), near_name("x", ["official", "paper"])
        ('official', None)
    """
    names = {str(each).lower(): str(each) for each in known}
    found = difflib.get_close_matches(str(name)[:100].lower(), names, n=1, cutoff=nearness)
    return names[found[0]] if found else None


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """The end of a message about an unknown name; empty where no known one is near.

    Example:
        >>> did_you_mean("oficial", ["official", "paper"])
        "; did you mean 'official'?"
    """
    near = near_name(name, known)
    return f"; did you mean {near!r}?" if near else ""
