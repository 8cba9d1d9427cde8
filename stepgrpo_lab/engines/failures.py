"""What the errors of a machine mean: no memory, no more threads, a full disk.

Each library has words of its own for them. They are told apart by their text, because most of them are a plain
``RuntimeError``.
"""

from __future__ import annotations

import errno
import re

_MEMORY = re.compile(
    r"out of memory|allocate memory|unable to allocate|not enough memory|bad_alloc|alloc_failed|memoryerror"
    r"|failed to map segment|memory allocation of",
    re.IGNORECASE,
)
_THREADS = re.compile(
    r"can't start new thread|thread creation failed|ThreadPoolBuildError|Resource temporarily unavailable"
)
_DISK = re.compile(r"No space left on device|Disk quota exceeded|File too large|inline_container|PytorchStreamWriter")
_GPU = re.compile(r"cuda|cublas|hip |mps ", re.IGNORECASE)

_DETAIL = 300
"""Characters of a library's own words; some list all of its settings."""


def in_words(error: BaseException) -> str:
    """An error's text on one line, or its kind where it has none.

    Example:
        >>> in_words(MemoryError()), in_words(ValueError("two\\n lines"))
        ('MemoryError', 'two lines')
    """
    return " ".join(str(error).split()) or type(error).__name__


def machine_trouble(error: BaseException) -> str | None:
    """What the machine lacks, with the remedy, on one line; None if the error is about something else.

    Example:
        >>> machine_trouble(RuntimeError("can't start new thread"))[:45]
        'no further thread or process can be started ('
        >>> machine_trouble(ValueError("seed is -1"))
    """
    text = f"{type(error).__name__}: {in_words(error)}"
    detail = in_words(error)[:_DETAIL]
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM or _MEMORY.search(text):
        whose = "the GPU's" if _GPU.search(text) else "the machine's"
        return (
            f"{whose} memory, or a limit on it, is used up ({detail}): lower optimisation.rows_per_pass, rollout.rows "
            "or rollout.max_tokens, end other programs, or raise the limit (ulimit -v); stepgrpo plan says what a "
            "recipe needs"
        )
    if number == errno.EAGAIN or _THREADS.search(text):
        return (
            f"no further thread or process can be started ({detail}): end other programs, or raise the limit "
            "(ulimit -u, or ulimit -v for their memory)"
        )
    return None


def full_disk(error: BaseException) -> str | None:
    """An error of writing in words, if it says that there is no room, which torch calls an unexpected position.

    Example:
        >>> full_disk(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"))
        'the disk or a quota is full: [enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0'
    """
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or _DISK.search(str(error))
    return f"the disk or a quota is full: {in_words(error)}" if full else None
