"""Commands in processes of their own that start at once: the server that forks them has imported everything."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 300.0
"""Seconds after which a test gives up on a process."""

CLOSED = "closed"
"""In place of a file: the stream is closed, as by ``>&-``."""


@dataclass
class Running:
    """A command that runs, and what it has printed so far."""

    process: Any
    out: Path
    err: Path

    def said(self) -> str:
        return "".join(path.read_text(encoding="utf-8") for path in (self.out, self.err) if path.is_file())

    def wait_for(self, text: str) -> None:
        self.wait_until(lambda: text in self.said(), text)

    def wait_until(self, happened: Callable[[], bool], what: str = "") -> None:
        last = time.monotonic() + PATIENCE
        while not happened():
            if not self.process.is_alive() or time.monotonic() > last:
                self.process.kill()
                raise AssertionError(f"the command ended, or hung, before {what!r}: {self.said()}")
            time.sleep(0.01)

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> int:
        """Its exit code, as shells see it."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"the command does not end: {self.said()}")
        code: int = self.process.exitcode
        return code if code >= 0 else 128 - code


def start(
    arguments: list[str],
    folder: Path,
    *,
    out: str | Path | None = None,
    err: str | Path | None = None,
    first: Callable[[], Any] = int,
) -> Running:
    """Start ``stepgrpo ARGUMENTS``.

    Args:
        arguments: Of the command.
        folder: Where it runs.
        out, err: Files to print into in place of new ones; or :data:`CLOSED`.
        first: Called in the process before the command; a function of a module.
    """
    places = [Path(place or folder.parent / f"{folder.name}.{name}") for name, place in (("out", out), ("err", err))]
    for place in places:
        if place.is_file():
            place.unlink()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["stepgrpo_lab.run.job", "stepgrpo_lab.training.trainer", "trl", "peft", "commands"])
    process = context.Process(target=_serve, args=(arguments, folder, out, err, places, first))
    process.start()
    return Running(process, *places)


def _serve(arguments: list[str], folder: Path, out: Any, err: Any, places: list[Path], first: Any) -> None:
    from stepgrpo_lab.cli import main

    os.chdir(folder)
    for number, (name, place) in enumerate((("stdout", out), ("stderr", err)), start=1):
        os.close(number)
        if place == CLOSED:
            setattr(sys, name, None)
            continue
        opened = os.open(places[number - 1], os.O_WRONLY | os.O_CREAT)  # gets the lowest number that is free
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    first()
    sys.exit(main(arguments))
