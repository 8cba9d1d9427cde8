"""Files that a stranger may have written: every reader reads them, or refuses in one line that names the file.

A slice of the campaign ``python -m tools.campaigns mutate``, which also measures time and memory.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stepgrpo_lab.engines.files import open_regular
from stepgrpo_lab.engines.writers import InUseError, Writer
from tools.campaigns.mutating import READERS, Bench

MUTANTS = 24


@pytest.mark.parametrize("reader", READERS)
def test_broken_files_are_read_or_refused_in_one_line(reader: str, tmp_path: Path) -> None:
    bench = Bench(reader, tmp_path / "bench")
    verdicts = [bench.examine(number, seed=1) for number in range(MUTANTS)]
    assert [verdict for verdict in verdicts if verdict.fault] == []
    # A damaged checkpoint is passed over, for the one before.
    assert any(verdict.refused for verdict in verdicts) == (reader != "checkpoint")


# ---- what is no file -------------------------------------------------------------------------------------------------

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
KINDS = ("pipe", "socket", "folder", "device")


def put(path: Path, kind: str) -> None:
    """Something that is no file, in a file's place."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        here = os.getcwd()
        os.chdir(path.parent)  # a socket's path has 108 characters at most
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
        os.chdir(here)


@contextmanager
def soon(seconds: int = 60) -> Iterator[None]:
    """Turn a hang into a failure."""

    def stop(*_: Any) -> None:
        raise AssertionError(f"it hung for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@needs_pipes
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_hangs_no_reader(reader: str, tmp_path: Path) -> None:
    bench = Bench(reader, tmp_path / "bench")
    for name in bench.reader.files:
        path = bench.folder / name
        for kind in KINDS:
            put(path, kind)
            with soon():
                try:
                    bench.reader.read(bench.folder)
                except (ValueError, OSError) as error:
                    message = str(error)
                    assert "\n" not in message and (path.name in message or path.parent.name in message)
            bench.restore()


@needs_pipes
@pytest.mark.parametrize("kind", KINDS)
def test_only_files_are_opened(tmp_path: Path, kind: str) -> None:
    put(tmp_path / "it", kind)
    with soon(), pytest.raises(ValueError, match="it is not a file"):
        open_regular(tmp_path / "it")


@needs_pipes
@pytest.mark.parametrize("content", [*KINDS, b"", b"{", b"[" * 100_000, b'{"pid": "x"}', b"\xff", b'{"pid": 1e999}'])
def test_who_holds_a_lock_is_read_with_care(tmp_path: Path, content: str | bytes) -> None:
    with Writer.in_folder(tmp_path):
        holder = tmp_path / ".writer.holder"
        if isinstance(content, bytes):
            holder.write_bytes(content)
        else:
            put(holder, content)
        with soon(), pytest.raises(InUseError, match="another process") as caught, Writer.in_folder(tmp_path):
            pass
        assert "\n" not in str(caught.value)
        if content == "folder":
            holder.rmdir()
