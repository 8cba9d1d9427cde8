"""Files written so that neither a kill nor a power cut leaves half of one: the one place where that is done.

A rename is atomic, but only for names: after a power cut the new name may lead to blocks that never reached the disk.
So what is renamed is brought to the disk first, and the folder that holds the name afterwards.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""Errors of file systems that cannot sync a folder (some network mounts); a disk that is full or broken says others."""


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write a file so that whoever reads it, after a power cut too, sees the old content or the new, never a half.

    Args:
        path: The file; a link is replaced, not followed.
        content: Text is written as UTF-8.

    Raises:
        OSError: It cannot be written; the old content is still there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_atomically(Path(folder) / "a.txt", "whole")
        ...     [path.name for path in Path(folder).iterdir()]
        ['a.txt']
    """
    path = Path(path)
    beside = part_of(path)
    beside.unlink(missing_ok=True)  # left by a kill, or a link that leads elsewhere
    try:
        with beside.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        move_into_place(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """Where a file or folder is written before it is whole.

    Example:
        >>> part_of(Path("run/model")).name
        'model.part'
    """
    return path.with_name(path.name + ".part")


def move_into_place(beside: Path, path: Path) -> None:
    """Rename a finished file or folder to what it shall be called, once all of it is on the disk."""
    sync_tree(beside)
    os.replace(beside, path)
    sync(path.parent)


def sync_tree(path: Path) -> None:
    """:func:`sync` a file, or a folder with everything below it."""
    if path.is_dir() and not path.is_symlink():
        for below in path.iterdir():
            sync_tree(below)
    sync(path)


def sync(path: Path) -> None:
    """Bring what the machine still holds in memory of a file's bytes, or of a folder's names, to the disk (fsync).

    Raises:
        OSError: The disk is full or broken.
    """
    windows = os.name == "nt"
    if windows and path.is_dir():  # it keeps names in a journal, and cannot open a folder
        return
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)
