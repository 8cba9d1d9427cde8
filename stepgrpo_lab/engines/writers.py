"""One writer at a time: a lock on a run folder, or on a file that a command writes, with the name of who holds it.

The operating system holds the lock for its process and frees it when that ends, however it ends: after a kill, a reboot
or a copy of the folder the lock file is an ordinary file that means nothing. No process number is trusted, as another
process may have it by now. The file beside it only says whom to name.

On a network file system the lock reaches as far as the mount carries ``flock``: NFS passes it to the server, so it
holds between machines, but not under ``local_lock=flock`` or Lustre's ``localflock``, where it holds on one machine.
Where there is none at all, commands go on without.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypedDict

from filelock import FileLock, Timeout

from stepgrpo_lab.engines.files import SMALL, read_json, write_atomically
from stepgrpo_lab.method.records import from_json

LOCK = ".writer.lock"
"""In a run folder while somebody writes there; beside it the holder's name."""

PROBE = ".writable"
"""In a folder for a moment, to see that it can be written into."""

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)


class InUseError(Timeout):
    """Somebody else is writing there; the message names them and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Writer:
    """The right to write somewhere, for as long as the context lasts. It may be entered again by who holds it.

    Only one thread may use it. Both files go when it is left; a folder that the lock had to make stays.

    Args:
        target: What is written, for the message.
        lock_file: The lock; :meth:`in_folder` and :meth:`beside` choose one.

    Raises:
        InUseError: On entering: another writer is there. Nothing has been touched.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, Writer.in_folder(Path(folder)):
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['.writer.holder', '.writer.lock']
    """

    def __init__(self, target: Path, lock_file: Path) -> None:
        self.target, self.lock_file = target, lock_file
        self.holder = lock_file.with_suffix(".holder")
        self._held = FileLock(lock_file, timeout=0)
        self._entered = 0

    @classmethod
    def in_folder(cls, folder: Path) -> Writer:
        """With the lock in the folder itself, present or future, with which it moves."""
        return cls(folder, folder / LOCK)

    @classmethod
    def beside(cls, target: Path) -> Writer:
        """With the lock beside a file or folder, which may then be replaced as a whole."""
        return cls(target, target.with_name(f".{target.name}.lock"))

    def __enter__(self) -> Writer:
        if not self._entered:
            self._acquire()
        self._entered += 1
        return self

    def __exit__(self, *error: object) -> None:
        self._entered -= 1
        if not self._entered:
            self._release()

    def _release(self) -> None:
        for path in (self.holder, self.lock_file):
            with suppress(OSError):  # a folder that is gone, or a disk that has become read-only
                path.unlink(missing_ok=True)
        self._held.release()

    def _acquire(self) -> None:
        folder = self.lock_file.parent
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        try:
            self._held.acquire()
        except Timeout:
            raise InUseError(f"{self.target} is being written by {self._named()}") from None
        except NotImplementedError:
            return
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return
        try:
            write_atomically(self.holder, json.dumps(_myself()))
        except BaseException:
            self._release()
            raise

    def _named(self) -> str:
        """Who holds the lock, and what to do about it, in words; a file that says something else is passed over."""
        try:
            found = read_json(self.holder, partial(from_json, _Holder), "remove it", SMALL)
            on = "" if found["host"] == platform.node() else f" on {found['host']}"
            who = f"process {found['pid']}{on} since {found['since']} ({found['command']})"
            stop = f"kill {found['pid']}{on}"
        except (OSError, ValueError):
            who, stop = "another process", "stop it"
        return f"{who}: wait until it has ended, end it ({stop}), or give another folder"


class _Holder(TypedDict):
    pid: int
    host: str
    command: str
    since: str


def _myself() -> _Holder:
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "command": shlex.join([name, *sys.argv[1:]]),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def is_unused(folder: Path) -> bool:
    """Whether a folder holds nothing but what this package leaves of a start that was cut off.

    Example:
        >>> is_unused(Path("no/such/folder"))
        True
    """
    own = {LOCK, ".writer.holder", ".writer.holder.part", "recipe.yaml.part", PROBE}
    return not folder.exists() or all(path.name in own for path in folder.iterdir())
