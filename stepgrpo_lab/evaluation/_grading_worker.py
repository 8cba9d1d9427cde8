"""One math-verify process: its program, and :class:`WorkerProcess` that starts it, asks it and kills it.

The two speak JSON lines over pipes. After one line ``{"ready": true}`` (or ``{"error": ...}`` if math-verify does not
load) the program answers each ``{"gold": str, "answer": str | null}`` with ``{"correct": bool, "error": str | null}``;
an ``answer`` of null asks only whether the gold can be graded against.

math-verify's own timeouts are off: they need the main thread and cannot stop C code. The parent kills the process
instead, so nothing that an answer provokes can outlive its time or its memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

Question = tuple[str, str | None]
"""A gold and an answer, both cleaned; no answer asks whether the gold can be graded against."""

STARTUP_SECONDS = 120.0
"""How long a worker may take to load math-verify on a busy machine."""

ORPHAN_GRACE_SECONDS = 10
"""How long past its time a worker ends itself, should this process die before it can kill the worker."""

KEPT = 4096
"""Verdicts, and parsed golds, that a worker remembers: groups, epochs and evaluations ask the same again."""

_DIED: dict[str, Any] = {}
"""The reply of a worker that has died."""

MEMORY_LIMIT_BYTES = 4 * 1024**3
"""Address space of a worker, where the platform can limit it."""


class WorkerProcess:
    """Handle of one process with its reader thread. It starts when first asked, and again after it was stopped.

    Only one thread at a time may use it.

    Args:
        timeout: Seconds that one question may take.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def ask(self, question: Question) -> dict[str, Any]:
        """Return the process's reply; a question that takes too much time or memory is answered as wrong.

        A process that dies over a question may have been killed by the system to free memory: another is asked once
        more, and if it dies as well, the question is the reason.

        Raises:
            RuntimeError: The process cannot start; the message says why.
        """
        try:
            reply = self._exchange(self._running_process(), question)
            if reply == _DIED:
                self.stop()
                reply = self._exchange(self._running_process(), question)
        except BaseException:  # an interrupt must not leave this reply for the next question
            self.stop()
            raise
        if reply is None or reply == _DIED:
            self.stop()
            too_slow = f"math-verify needed more than {self._timeout:g} s or all of its memory"
            return {"correct": False, "error": too_slow}
        return reply

    def stop(self) -> None:
        """Kill the process, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):  # what was not yet flushed has no reader any more
                cast(IO[str], process.stdin).close()

    def _exchange(self, process: subprocess.Popen[str], question: Question) -> dict[str, Any] | None:
        """The worker's reply; None if its time is up, and :data:`_DIED` if it has died."""
        gold, answer = question
        try:
            cast(IO[str], process.stdin).write(json.dumps({"gold": gold, "answer": answer}) + "\n")
            cast(IO[str], process.stdin).flush()
            line = self._lines.get(timeout=self._timeout)
        except queue.Empty:
            return None
        except BrokenPipeError:
            return _DIED
        return cast(dict[str, Any], json.loads(line)) if line else _DIED

    def _running_process(self) -> subprocess.Popen[str]:
        alive = self._process is not None and self._process.poll() is None
        if not alive and not self._start() and not self._start():  # once more: the system may kill it to free memory
            module = "stepgrpo_lab.evaluation._grading_worker"
            raise RuntimeError(f"a grading worker cannot start: it ended at once, twice; run: python -m {module} 9")
        return cast("subprocess.Popen[str]", self._process)

    def _start(self) -> bool:
        """Start a process and wait until it is ready; False if it died before."""
        self.stop()
        root = str(Path(__file__).resolve().parents[2])
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "stepgrpo_lab.evaluation._grading_worker",
                str(int(self._timeout) + ORPHAN_GRACE_SECONDS),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,  # not the caller's folder, where a random.py would shadow the library's
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
            text=True,
            encoding="utf-8",
        )
        self._lines = queue.Queue()
        threading.Thread(target=_read_lines, args=(self._process.stdout, self._lines), daemon=True).start()
        try:
            line = self._lines.get(timeout=STARTUP_SECONDS)
        except queue.Empty:
            raise RuntimeError(
                f"a grading worker was not ready within {STARTUP_SECONDS:g} s; free the machine and try again"
            ) from None
        greeting = json.loads(line) if line else {}
        if "error" in greeting:
            raise RuntimeError(f"a grading worker cannot start: {greeting['error']}")
        return bool(line)


def _read_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put("")  # the end of the stream: whoever waits learns that the worker is gone


@lru_cache(maxsize=KEPT)
def judge(gold: str, answer: str) -> bool:
    """Whether math-verify finds the answer equal to the gold.

    Only LaTeX is read, never Python-like expressions, whose parser evaluates code.
    """
    return _verify(list(_parsed_gold(gold)), _parse(answer))


@lru_cache(maxsize=KEPT)
def _parsed_gold(gold: str) -> tuple[Any, ...]:
    """A group's answers share their gold, and parsing takes half of the time."""
    return tuple(_parse(gold))


def gold_error(gold: str) -> str | None:
    """Why a gold answer cannot be graded against; None if it can."""
    expressions = [item for item in _parse(gold) if not isinstance(item, str)]  # text is math-verify's fallback
    if not expressions:
        return "math-verify cannot parse it as LaTeX"
    _verify(expressions, _parse("12345"))  # a gold must also survive the comparison with something else
    return None if _verify(expressions, expressions) else "it does not equal itself"


def _parse(latex: str) -> list[Any]:
    from math_verify import LatexExtractionConfig, parse

    boxed_only = LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)
    return list(parse(f"\\boxed{{{latex}}}", extraction_config=[boxed_only], parsing_timeout=None))


def _verify(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify

    return bool(verify(gold, answer, timeout_seconds=None))


def serve(requests: IO[str], replies: IO[str], alarm: Callable[[int], object], alarm_seconds: int) -> None:
    """Answer requests until the parent closes the pipe.

    ``alarm(seconds)`` arms the last resort that ends a worker whose parent has died; ``alarm(0)`` disarms it.
    """
    for line in requests:
        request = json.loads(line)
        alarm(alarm_seconds)
        reply: dict[str, Any] = {"correct": False, "error": None}
        try:
            if request["answer"] is None:
                reply["error"] = gold_error(request["gold"])
            else:
                reply["correct"] = judge(request["gold"], request["answer"])
        except Exception as problem:  # whatever an untrusted answer provokes makes it wrong, not the worker unusable
            reply["error"] = f"{type(problem).__name__} inside math-verify"
        alarm(0)
        _send(replies, reply)


def _send(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _claim_stdout() -> IO[str]:
    """Keep the real stdout for the protocol and send every print of a library to stderr instead."""
    protocol = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return protocol


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):  # no such limit on this platform
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))


def _alarm() -> Callable[[int], object]:
    if not hasattr(signal, "SIGALRM"):
        return lambda seconds: None
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process even inside C code
    return signal.alarm


def main() -> None:
    """Serve on stdin and stdout; the first argument is the seconds after which a stuck orphan ends itself."""
    replies = _claim_stdout()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they reach whole groups of processes; whoever asks ends in order
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _limit_memory()
    try:
        import math_verify  # noqa: F401  (slow: load it before the first clock starts)
    except Exception as problem:
        _send(replies, {"error": f"math-verify does not load ({problem}); run: pip install 'math-verify>=0.9,<0.10'"})
        return
    _send(replies, {"ready": True})
    serve(sys.stdin, replies, _alarm(), int(sys.argv[1]))


if __name__ == "__main__":
    main()
