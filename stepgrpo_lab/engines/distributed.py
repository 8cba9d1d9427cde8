"""One training in several processes: who writes, which share each one does, and the collectives between them.

Without ``torchrun`` (or accelerate's launcher) there is one process, and everything here is the identity. Collectives
(broadcast, all-gather, all-reduce) must be called by every process, in the same order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def process_count() -> int:
    """Number of processes that were started together (the world size).

    Example:
        >>> process_count()
        1
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes the files and the log; under ``torchrun`` that is rank 0."""
    return os.environ.get("RANK", "0") == "0"


def broadcast(value: T) -> T:
    """The main process's value, in every process."""
    if process_count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    values = [value]
    broadcast_object_list(values)
    return values[0]


def all_gather(value: T) -> list[T]:
    """Each process's value, in the order of their ranks, in every process.

    Example:
        >>> all_gather("mine")
        ['mine']
    """
    if process_count() == 1:
        return [value]
    from accelerate.utils import gather_object

    gathered: list[T] = gather_object([value])
    return gathered


def all_reduce_any(flag: bool) -> bool:
    """Whether the flag is set in at least one process."""
    return any(all_gather(flag))


def rank_share(count: int) -> range:
    """This process's part of ``count`` things: every n-th, so that neighbours of like difficulty are spread.

    Example:
        >>> list(rank_share(3))
        [0, 1, 2]
    """
    return range(int(os.environ.get("RANK", "0")), count, process_count())


def all_gather_shares(share: Sequence[T]) -> list[T]:
    """The results of every :func:`rank_share`, in the order of the things, in every process."""
    shares = all_gather(list(share))
    return [shares[place % len(shares)][place // len(shares)] for place in range(sum(map(len, shares)))]
