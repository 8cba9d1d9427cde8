"""A command in a process of its own, which numbers what it does to the files of a folder and may kill itself before any
of these events: what a kill leaves depends on them alone, so no moment between two of them needs to be tried.

Python tells of every file that it opens, renames, makes or removes (:func:`sys.addaudithook`). The writers in Rust and
C++ tell nothing, so their callers do it here.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

NAMES = {
    **{"open": "write", "tensors": "write", "os.rename": "rename", "os.mkdir": "mkdir"},
    **{"os.remove": "remove", "os.rmdir": "rmdir", "os.truncate": "truncate"},
}
"""Audit event -> what it does."""

NEEDS = {"remove": True, "rmdir": True, "mkdir": False}
"""What must be there before it, or must not, for it to change anything."""

FOLDER_DESCRIPTOR = {"os.remove": 1, "os.rmdir": 1, "os.mkdir": 2, "os.rename": 2}
"""Place of the open folder that a path starts from, among the arguments."""

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
KILLED = -signal.SIGKILL

Work = Callable[[], int]


@dataclass(frozen=True)
class Event:
    """Something that happens to a file.

    Attributes:
        what: "write", "append", "rename" and so on.
        path: Within the watched folder; of a rename, what is renamed.
        main: It happens in the main thread.
    """

    what: str
    path: str
    main: bool = True

    @property
    def kind(self) -> str:
        """The event without the numbers of its steps.

        Example:
            >>> Event("rename", "checkpoints/checkpoint-12/manifest.json.part").kind
            'rename checkpoints/checkpoint-*/manifest.json.part'
        """
        return f"{self.what} {re.sub(r'-[0-9]+', '-*', self.path)}"


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        number: Before which event, counted from 1: of those in the main thread, whose order is always the same, or of
            one kind.
        kind: That kind.
        torn: Share that is kept of what was just being written; None keeps it whole.
    """

    number: int
    kind: str | None = None
    torn: float | None = None


@dataclass
class Sitting:
    """What one process did.

    Attributes:
        code: Its exit code, :data:`KILLED` if it was killed.
        events: All of them; before the last one it was killed.
        words: What it printed.
        torn: The file that was cut off.
    """

    code: int
    events: list[Event] = field(default_factory=list)
    words: str = ""
    torn: str | None = None

    @property
    def killed(self) -> bool:
        """Whether it came to its moment."""
        return self.code == KILLED


class Watch:
    """An audit hook that notes the events in a folder, and kills the process at a moment."""

    def __init__(self, folder: Path, moment: Moment | None, tell: Callable[[Any], None]) -> None:
        self.folder, self.moment, self.tell = os.path.abspath(folder), moment, tell
        self.events: list[Event] = []
        self._writing: tuple[str, int, int] | None = None  # path, bytes that are older, thread
        self._one = threading.RLock()
        self._dying = False

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in NAMES and not self._dying:
            path = self._path(name, arguments)
            if path is not None and f"{path}/".startswith(f"{self.folder}/"):
                with self._one:
                    self._note(name, path, arguments)

    def _path(self, name: str, arguments: tuple[Any, ...]) -> str | None:
        """The full path, if the event is one that changes files."""
        if not arguments or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return None
        if name == "open" and not arguments[2] & WRITES:
            return None
        place = FOLDER_DESCRIPTOR.get(name)
        start = arguments[place] if place is not None else -1
        if start >= 0 and sys.platform != "linux":  # only there an open folder has its name
            return None
        path = os.fsdecode(arguments[0])
        path = os.path.join(os.readlink(f"/proc/self/fd/{start}"), path) if start >= 0 else os.path.abspath(path)
        needs = NEEDS.get(NAMES[name])
        return None if needs is not None and os.path.lexists(path) != needs else path

    def _note(self, name: str, path: str, arguments: tuple[Any, ...]) -> None:
        appends = name == "open" and bool(arguments[2] & os.O_APPEND)
        main = threading.current_thread() is threading.main_thread()
        event = Event("append" if appends else NAMES[name], os.path.relpath(path, self.folder), main)
        self.events.append(event)
        if self._is_moment(event):
            self._die()
        size = os.path.getsize(path) if appends and os.path.exists(path) else 0
        self._writing = (path, size, threading.get_ident()) if NAMES[name] == "write" else None

    def _is_moment(self, event: Event) -> bool:
        if self.moment is None:
            return False
        kind = self.moment.kind
        if not (event.main if kind is None else event.kind == kind):
            return False
        return self.moment.number == sum(e.main if kind is None else e.kind == kind for e in self.events)

    def _die(self) -> None:
        self._dying = True
        torn = None
        if self.moment is not None and self.moment.torn is not None and self._writing is not None:
            path, old, thread = self._writing
            if thread == threading.get_ident() and os.path.isfile(path):
                os.truncate(path, old + int((os.path.getsize(path) - old) * self.moment.torn))
                torn = os.path.relpath(path, self.folder)
        self.tell((self.events, torn))
        os.kill(os.getpid(), signal.SIGKILL)


def _telling(function: Callable[..., Any]) -> Callable[..., Any]:
    """A writer of ``(what, path)`` that tells of it."""

    @wraps(function)
    def wrapper(what: Any, path: Any, *more: Any, **options: Any) -> Any:
        sys.audit("tensors", path)
        return function(what, path, *more, **options)

    return wrapper


def _obey(work: Work, folder: Path, moment: Moment | None, pipe: Any, printed: Path) -> None:
    """The process: does the work, watched."""
    import safetensors.torch
    import torch

    os.setsid()  # so that whatever it starts can be found
    gc.freeze()  # what was imported is no garbage, and looking for some in it takes a second
    with printed.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.save = _telling(torch.save)
    safetensors.torch.serialize_file = _telling(safetensors.torch.serialize_file)  # type: ignore[attr-defined]
    watch = Watch(folder, moment, pipe.send)
    sys.addaudithook(watch)
    code = work()
    watch._dying = True
    pipe.send((watch.events, None))
    sys.exit(code)


def processes() -> Any:
    """Processes that start at once: the server that forks them has imported everything."""
    context = multiprocessing.get_context("forkserver")
    ours = ("run.job", "run.report", "training.trainer", "training.fine_tuning", "cli._commands", "experiments.run")
    theirs = ("peft", "trl.models", "plotly.io")
    context.set_forkserver_preload([*(f"stepgrpo_lab.{module}" for module in ours), *theirs])
    return context


def sit(work: Work, folder: Path, moment: Moment | None = None) -> Sitting:
    """Do some work in a process of its own, and kill it at a moment, if one is given.

    Args:
        work: Returns the exit code; it must be picklable.
        folder: The events in it count.
        moment: None lets it end.
    """
    printed = folder.with_name(folder.name + ".printed")
    ours, theirs = processes().Pipe(duplex=False)
    process = processes().Process(target=_obey, args=(work, folder, moment, theirs, printed))
    process.start()
    theirs.close()
    try:
        events, torn = ours.recv()
    except EOFError:  # it died of something else
        events, torn = [], None
    process.join()
    ours.close()
    words = printed.read_text(errors="replace") if printed.exists() else ""
    return Sitting(process.exitcode or 0, events, words, torn)
