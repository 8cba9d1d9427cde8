"""Files: a stranger's are read with care, and our own are written whole or not at all.

Reading: every reader of JSON in this package comes here; what a file must hold is said by the data class that it fills,
by :func:`stepgrpo_lab.method.records.from_json`. A file can be a pipe that never ends, a link that leads elsewhere, a
few kilobytes that unpack to gigabytes, or ten thousand brackets: each becomes a ValueError of one line that names it.

Writing: a rename is atomic, but only for names. After a power cut the new name may lead to blocks that never reached
the disk. So what is renamed is brought there first, and the folder that holds the name afterwards.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, TypeVar, cast

Value = TypeVar("Value")

MIB = 2**20
SMALL, LARGE = MIB, 256 * MIB
"""Most bytes of a file of settings, and of one of results. Parsed, JSON takes up to twenty times its size."""

MOST_LINE = 32 * MIB
"""Most bytes of one line of a packed file."""

MOST_RATIO = 100
"""How many times larger a file may unpack to: our recordings shrink tenfold, a bomb a thousandfold."""

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""Errors of file systems that cannot sync a folder (some network mounts); a disk that is full or broken says others."""


# ---- reading ---------------------------------------------------------------------------------------------------------


def inside(folder: str | Path, name: str) -> Path:
    """Path of a file in a folder that may be a stranger's: it is not a link to something outside.

    Raises:
        ValueError: It is such a link.

    Example:
        >>> inside("runs/mine", "metrics.jsonl").name
        'metrics.jsonl'
    """
    folder = Path(folder)
    path = folder / name
    if os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), "")):
        return path
    raise ValueError(f"{path} leads out of its folder: put the file itself there")


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file to read its bytes.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is a folder, a pipe or a device.
    """
    path = Path(path)
    if path.is_file() or not path.exists():
        # It may have been replaced since. Without O_NONBLOCK, opening a pipe waits for somebody who writes into it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return open(descriptor, "rb")
        os.close(descriptor)
    raise ValueError(f"{path} is not a file: give the path of one")


def read_text(path: str | Path, most: int = LARGE) -> str:
    """The text of a UTF-8 file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not UTF-8 text, not a file, or longer than ``most`` bytes; the message names it.
    """
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error


def read_bytes(path: str | Path, most: int = LARGE) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is not a file, or longer than ``most`` bytes; the message names it.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} is larger than {_size(most)}, the most that is read: make it smaller")
    return content


def parse_json(text: str | bytes) -> Any:
    """Plain values from JSON text.

    Raises:
        ValueError: It is not JSON, or nested too deeply; one line.

    Example:
        >>> parse_json('{"step": 1}')
        {'step': 1}
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg}, column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error
    except ValueError as error:  # bytes that are no text, or an integer of thousands of digits
        raise ValueError(f"not valid JSON ({str(error).partition(';')[0]})") from error


def read_json(path: str | Path, parse: Callable[[Any], Value], remedy: str, most: int = LARGE) -> Value:
    """A file that holds one JSON value.

    Args:
        path: The file.
        parse: Makes of the plain value what it stands for; raises ValueError where that cannot be.
        remedy: What to do about a broken one, for the message.
        most: Most bytes that are read.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is broken; the message names file, field and remedy.
    """
    text = read_text(path, most)
    try:
        return parse(parse_json(text))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {remedy}") from error


def iterate_rows(path: str | Path, parse: Callable[[Any], Value], remedy: str) -> Iterator[Value]:
    """The rows of a JSON Lines file, one after the other; a last one without line break that is not JSON is left out.

    Such a row was cut off by a kill, or is just being written.

    Args:
        path: The file; unpacked if it is gzipped.
        parse: Makes of a row's plain value what it stands for, as for :func:`read_json`.
        remedy: What to do about a broken row, for the message.

    Raises:
        FileNotFoundError: There is none.
        ValueError: A row is broken or the file too large; the message names file, row, field and remedy.
    """
    number = 0
    try:
        for line in iterate_lines(path):
            number += 1
            try:
                row = parse_json(line)
            except ValueError:
                if line.endswith(b"\n"):
                    raise
                return
            yield parse(row)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        where = f", row {number}" if number else ""
        raise ValueError(f"{path}{where}: {error}; {remedy}") from error


def iterate_lines(path: str | Path, most: int = LARGE) -> Iterator[bytes]:
    """The lines of a file with their breaks, which are "\\n" alone: JSON text may hold U+2028.

    Args:
        path: The file; unpacked if it is gzipped.
        most: Most bytes of the whole file, unpacked.

    Raises:
        FileNotFoundError: There is none.
        ValueError: A line, or the whole, is too long.
    """
    with open_regular(path) as file:
        packed = file.peek(2).startswith(b"\x1f\x8b")  # of gzip
        most = max(SMALL, min(most, MOST_RATIO * os.fstat(file.fileno()).st_size)) if packed else most
        longest, left = min(MOST_LINE if packed else LARGE, most), most
        source = cast("IO[bytes]", gzip.GzipFile(fileobj=file) if packed else file)
        while line := source.readline(min(longest, left) + 1):
            left -= len(line)
            if left < 0 or len(line) > longest:
                raise ValueError(f"it holds more than {_size(longest)} in a line, or {_size(most)} in all")
            yield line


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count // 1024} KiB"


# ---- writing ---------------------------------------------------------------------------------------------------------


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
