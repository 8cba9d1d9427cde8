"""One math-verify process: its program, and :class:`WorkerProcess` that starts it, asks it and kills it.

The two speak JSON lines over pipes. After one line ``{"ready": true}`` (or ``{"error": ...}`` if math-verify does not
load) the program answers each ``{"gold": str, "answer": str | null, "raw": bool}`` with ``{"correct": bool, "error":
str | null}``; an ``answer`` of null asks only whether the gold can be graded against.

math-verify's own timeouts are off: they need the main thread and cannot stop C code. The system kills the process when
a question has used its CPU time, so neither a busy machine nor a suspended one makes a right answer wrong; the parent
kills it after a much longer wall time.
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
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast


@dataclass(frozen=True)
class Question:
    """A gold and an answer, both cleaned.

    Attributes:
        gold: The gold answer.
        answer: None asks whether the gold can be graded against.
        raw: Ask math-verify with its own settings, as the literature does.
    """

    gold: str
    answer: str | None = None
    raw: bool = False


STARTUP_SECONDS = 120.0
"""How long a worker may take to load math-verify on a busy machine."""

WALL_FACTOR = 60
"""Wall seconds that a question may take for each second of CPU time: a machine may be busy or suspended."""

SPARE_AFTER_SECONDS = 0.5
"""A question that takes longer than this may cost its worker, so another is started beside it."""

STARTS = 3
"""How often a worker is started that dies before it is ready: the system may kill it to free memory."""

KEPT = 4096
"""Parsed golds that a worker remembers: a group's answers share theirs."""

MEMORY_LIMIT_BYTES = 4 * 1024**3
"""Address space of a worker, where the platform can limit it."""

_DIED: dict[str, Any] = {}
"""The reply of a worker that has died of something else than its time."""


class _Running:
    """A started process with the thread that reads its lines."""

    def __init__(self, cpu_seconds: float) -> None:
        root = str(Path(__file__).resolve().parents[2])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stepgrpo_lab.evaluation._grading_worker", str(cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,  # not the caller's folder, where a random.py would shadow the library's
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
            text=True,
            encoding="utf-8",
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read_lines, args=(self.process.stdout, self.lines), daemon=True).start()

    def wait_until_ready(self) -> bool:
        """False if it died before.

        Raises:
            RuntimeError: It is not ready in time, or says that it cannot work.
        """
        try:
            line = self.lines.get(timeout=STARTUP_SECONDS)
        except queue.Empty:
            raise RuntimeError(
                f"a grading worker was not ready within {STARTUP_SECONDS:g} s; free the machine and try again"
            ) from None
        greeting = json.loads(line) if line else {}
        if "error" in greeting:
            raise RuntimeError(f"a grading worker cannot start: {greeting['error']}")
        return bool(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):  # what was not yet flushed has no reader any more
            cast(IO[str], self.process.stdin).close()


def _started(cpu_seconds: float, stopped: threading.Event) -> _Running:
    """A worker that is ready.

    Raises:
        RuntimeError: It cannot start; the message says why.
    """
    for attempt in range(STARTS):
        running = _Running(cpu_seconds)
        try:
            if running.wait_until_ready() and not stopped.is_set():
                return running
        except BaseException:
            running.kill()
            raise
        running.kill()
        if attempt + 1 < STARTS and stopped.wait(attempt / 2):
            break
    module = "stepgrpo_lab.evaluation._grading_worker"
    raise RuntimeError(f"a grading worker cannot start: it ended at once, {STARTS} times; run: python -m {module} 9")


class WorkerProcess:
    """Handle of one process. It starts when first asked, and again after it was stopped.

    Only one thread at a time may use it.

    Args:
        timeout: Seconds of CPU time that one question may take.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._running: _Running | None = None
        self._spare: Future[_Running] | None = None
        self._stopped = threading.Event()

    @property
    def process(self) -> subprocess.Popen[str] | None:
        """The process that answers now; None before the first question and after :meth:`stop`."""
        return None if self._running is None else self._running.process

    def ask(self, question: Question) -> dict[str, Any]:
        """Return the process's reply; a question that takes too much time or memory is answered as wrong.

        A process that dies, or is silent for a long wall time, may be the machine's fault: another is asked once more,
        and if that one fails as well, the question is the reason. A question that has used its CPU time is not asked
        again.

        Returns:
            ``correct``, ``error``, and ``timeout`` if time or memory ran out.

        Raises:
            RuntimeError: The process cannot start; the message says why.
        """
        self._stopped.clear()
        try:
            reply = self._exchange(question)
            if reply == _DIED:
                self._discard()
                reply = self._exchange(question)
        except BaseException:  # an interrupt must not leave this reply for the next question
            self.stop()
            raise
        if reply is None or reply == _DIED:
            self._discard()
            too_slow = f"math-verify needed more than {self._timeout:g} s or all of its memory"
            return {"correct": False, "error": too_slow, "timeout": True}
        return reply

    def stop(self) -> None:
        """Kill the process, if it runs, and the spare one."""
        self._stopped.set()
        self._discard()
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(Exception):
                spare.result().kill()

    def _discard(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.kill()

    def _exchange(self, question: Question) -> dict[str, Any] | None:
        """The worker's reply; None if its CPU time is up, and :data:`_DIED` if it has died or stands still."""
        running = self._current()
        try:
            cast(IO[str], running.process.stdin).write(json.dumps(asdict(question)) + "\n")
            cast(IO[str], running.process.stdin).flush()
            line = self._next_line(running)
        except (queue.Empty, BrokenPipeError):
            return _DIED
        if line:
            return cast(dict[str, Any], json.loads(line))
        return None if running.process.wait() == -getattr(signal, "SIGPROF", 0) else _DIED

    def _next_line(self, running: _Running) -> str:
        try:
            return running.lines.get(timeout=SPARE_AFTER_SECONDS)
        except queue.Empty:
            self._start_spare()
        return running.lines.get(timeout=self._timeout * (WALL_FACTOR if hasattr(signal, "setitimer") else 1))

    def _start_spare(self) -> None:
        if self._spare is None:
            spare: Future[_Running] = Future()
            self._spare = spare
            threading.Thread(target=_fill, args=(spare, self._timeout, self._stopped), daemon=True).start()

    def _current(self) -> _Running:
        if self._running is not None and self._running.process.poll() is None:
            return self._running
        self._discard()
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(RuntimeError):
                self._running = spare.result()
                if self._running.process.poll() is None:
                    return self._running
                self._discard()
        self._running = _started(self._timeout, self._stopped)
        return self._running


def _fill(spare: Future[_Running], cpu_seconds: float, stopped: threading.Event) -> None:
    try:
        spare.set_result(_started(cpu_seconds, stopped))
    except BaseException as error:
        spare.set_exception(error)


def _read_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put("")  # the end of the stream: whoever waits learns that the worker is gone


# ---- the program: math-verify in a process of its own ----------------------------------------------------------------

ROUNDING_PLACES = 12
"""Decimal places that math-verify compares, in place of its 6: values that differ are not the same."""

PRECISION_DIGITS = 40
"""Digits to which it evaluates, in place of its 15."""


def judge(gold: str, answer: str) -> bool:
    """Whether math-verify finds the answer equal to the gold, both as
    :func:`stepgrpo_lab.evaluation.answer_rules.for_math_verify` writes them.

    Only LaTeX is read, never Python-like expressions, whose parser evaluates code.
    """
    return _verify(list(_parsed_gold(gold)), _parse(answer))


def judge_raw(gold: str, answer: str) -> bool:
    """What math-verify says with its own settings, as published figures have it."""
    from math_verify import verify

    return bool(verify(_parse(gold, raw=True), _parse(answer, raw=True), timeout_seconds=None))


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


def _parse(latex: str, raw: bool = False) -> list[Any]:
    """The units are gone already; math-verify would drop the letters of ``5t`` and ``3h`` with them."""
    from math_verify import LatexExtractionConfig, parse

    config = LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)
    if not raw:
        import dataclasses

        normal = dataclasses.replace(config.normalization_config, units=False)
        config = dataclasses.replace(config, normalization_config=normal)
    return list(parse(f"\\boxed{{{latex}}}", extraction_config=[config], parsing_timeout=None))


def _verify(gold: list[Any], answer: list[Any]) -> bool:
    from math_verify import verify

    options = {"float_rounding": ROUNDING_PLACES, "numeric_precision": PRECISION_DIGITS, "timeout_seconds": None}
    return bool(verify(gold, answer, allow_set_relation_comp=True, **options))


def parse_in_two_stages() -> None:
    """Let ANTLR try its fast prediction first (SLL) and its thorough one (LL) only where that fails.

    SLL finds the same tree or none, so this changes the speed alone (ANTLR 4 reference, 13.7).
    """
    try:
        from antlr4.atn.PredictionMode import PredictionMode
        from latex2sympy2_extended.latex2sympy2 import _Latex2Sympy

        create, parse = _Latex2Sympy.create_parser, _Latex2Sympy.parse
    except (ImportError, AttributeError):
        return  # another version: slower, and as right

    def create_parser(self: Any, latex: str) -> Any:
        parser = create(self, latex)
        parser._interp.predictionMode = getattr(self, "_prediction", PredictionMode.LL)
        return parser

    def parse_twice(self: Any, latex: str) -> Any:
        self._prediction = PredictionMode.SLL
        try:
            return parse(self, latex)
        except Exception:
            self._prediction = PredictionMode.LL
            return parse(self, latex)

    _Latex2Sympy.create_parser, _Latex2Sympy.parse = create_parser, parse_twice


def serve(requests: IO[str], replies: IO[str], limit: Callable[[float], object], cpu_seconds: float) -> None:
    """Answer requests until the parent closes the pipe.

    ``limit(seconds)`` ends the process once it has used so much more CPU time; ``limit(0)`` lifts that.
    """
    for line in requests:
        question = Question(**json.loads(line))
        limit(cpu_seconds)
        reply: dict[str, Any] = {"correct": False, "error": None}
        try:
            if question.answer is None:
                reply["error"] = gold_error(question.gold)
            else:
                reply["correct"] = (judge_raw if question.raw else judge)(question.gold, question.answer)
        except MemoryError:
            reply |= {"error": "math-verify needed all of its memory", "timeout": True}
        except Exception as problem:  # whatever an untrusted answer provokes makes it wrong, not the worker unusable
            reply["error"] = f"{type(problem).__name__} inside math-verify"
        limit(0)
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


def _cpu_limit() -> Callable[[float], object]:
    if not hasattr(signal, "setitimer"):
        return lambda seconds: None
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process even inside C code
    return lambda seconds: signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Serve on stdin and stdout; the first argument is the CPU seconds that one question may take."""
    replies = _claim_stdout()
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they reach whole groups of processes; whoever asks ends in order
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _limit_memory()
    try:
        parse_in_two_stages()
        judge("x^2+1", "\\frac{2x^2+2}{2}")  # the first parse loads and learns what the others need
    except Exception as problem:
        _send(replies, {"error": f"math-verify does not load ({problem}); run: pip install 'math-verify>=0.9,<0.10'"})
        return
    _send(replies, {"ready": True})
    serve(sys.stdin, replies, _cpu_limit(), float(sys.argv[1]))


if __name__ == "__main__":
    main()
