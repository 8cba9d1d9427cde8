"""Arrays and tensors as plain Python values, and a group's values checked, without importing numpy or torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from stepgrpo_lab.method.names import shown


def plain(value: Any) -> Any:
    """A NumPy array, a tensor or a scalar of either as Python values; lists and tuples item by item, the rest as it is.

    Example:
        >>> import numpy as np
        >>> plain(np.array([[1, 2]])), plain([np.float64(0.5), True]), plain("text")
        ([[1, 2]], [0.5, True], 'text')
    """
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def number(name: str, value: Any) -> Any:
    """One finite number, from a Python number or a scalar of an array library.

    Raises:
        ValueError: It is not a finite number; the message begins with ``name``.

    Example:
        >>> import numpy as np
        >>> number("mean", np.float32(2.0)), number("mean", np.array(2))
        (2.0, 2)
    """
    value = plain(value)
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} is {shown(value)}; give a finite number")
    return value


def one_row(name: str, values: Any) -> list[Any]:
    """The values of one row, such as a group's, one for each member, from a sequence, an array or a tensor.

    Raises:
        ValueError: They are not in one dimension.
    """
    values = plain(values)
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise ValueError(f"{name} is {shown(values)}; give a sequence with one value for each member of the group")
    values = [plain(value) for value in values]
    for place, value in enumerate(values):
        if isinstance(value, (list, tuple)):
            raise ValueError(f"{name}[{place}] is {shown(value)}; give {name} in one dimension, one group at a time")
    return values


def numbers(name: str, values: Any, least: float = -math.inf, remedy: str = "give a finite number") -> list[Any]:
    """A row of finite numbers.

    Raises:
        ValueError: One is not finite or below ``least``; the message names it and ends with ``remedy``.

    Example:
        >>> import numpy as np
        >>> numbers("steps", np.array([3, 5]), least=1)
        [3, 5]
    """
    found = one_row(name, values)
    for place, value in enumerate(found):
        if not isinstance(value, (int, float)) or not math.isfinite(value) or value < least:
            raise ValueError(f"{name}[{place}] is {shown(value)}; {remedy}")
    return found


def flags(name: str, values: Any) -> list[bool]:
    """A row of truth values; 0 and 1 will do.

    Raises:
        ValueError: One is anything else, such as a score of 0.5; the message names it.

    Example:
        >>> import numpy as np
        >>> flags("correct", np.array([1.0, 0.0]))
        [True, False]
    """
    found = one_row(name, values)
    for place, value in enumerate(found):
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise ValueError(f"{name}[{place}] is {shown(value)}; give True or False")
    return [bool(value) for value in found]


def check_lengths(**rows: Sequence[Any]) -> None:
    """Refuse rows that differ in length, or are all empty; the first one is what the others are held to.

    Raises:
        ValueError: The message names the row.
    """
    (first, members), *others = rows.items()
    for name, values in others:
        if len(values) != len(members):
            raise ValueError(f"{name} has {len(values)} entries but {first} has {len(members)}; give one per member")
    if not members:
        raise ValueError("the group is empty; a group needs at least one completion")


def token_list(token_ids: Iterable[Any]) -> list[int]:
    """The token ids of one completion, from a list, an array or a tensor of shape (tokens,).

    Raises:
        ValueError: They are no whole numbers in one dimension.

    Example:
        >>> import numpy as np
        >>> token_list(np.array([5, 7])), token_list([np.int64(5)])
        ([5, 7], [5])
    """
    ids = token_ids.tolist() if hasattr(token_ids, "tolist") else token_ids
    try:
        return list(map(index, ids))
    except TypeError as error:
        raise ValueError(
            f"token_ids must be whole numbers of shape (tokens,) ({error}): pass one completion at a time"
        ) from error
