"""Grading: the boxed answer of a completion against the gold answer, with math-verify in processes of its own.

A model's answer is untrusted text. Computer algebra on it can run for ever or eat all memory, and math-verify's own
timeouts work neither outside the main thread nor inside C code. So plain numbers are compared here, exactly, and
everything else goes to worker processes that are killed when their time is up. The workers are started by command, not
forked and not re-importing the caller's script: they work alike in scripts without a ``__main__`` guard, in a widget's
thread and beside CUDA.
"""

from __future__ import annotations

import queue
import re
import threading
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

from stepgrpo_lab.evaluation._grading_worker import Question, WorkerProcess

MAX_ANSWER_CHARS = 2000
"""Longer answers count as wrong unread: no gold comes near it, and parsers are not linear."""

ROUNDING_TOLERANCE = Fraction(1, 100_000)
"""math-verify rounds decimals to 6 places: decimals that differ by less than this are left to it."""

_NUMBER = re.compile(
    r"""(?P<sign>[+-]?)
    (?: \\[dt]?frac\{(?P<top>[+-]?[0-9]+)\}\{(?P<bottom>[+-]?[0-9]+)\}
      | (?P<over>[0-9]+)/(?P<under>[0-9]+)
      | (?P<whole>[1-9][0-9]{0,2}(?:,[0-9]{3})+ | [0-9]+)? (?P<decimals>\.[0-9]+)?
    )""",
    re.VERBOSE,
)


def compare_numbers(gold: str, answer: str) -> bool | None:
    r"""Compare two plain numbers exactly: integers, decimals, fractions, thousands separators.

    Returns:
        Whether they are equal; None if either is anything else, or if they differ by so little that math-verify's
        rounding of decimals has to decide.

    Example:
        >>> compare_numbers("1,234", "1234.0"), compare_numbers("\\frac{1}{2}", "2"), compare_numbers("x", "2")
        (True, False, None)
    """
    gold_number, answer_number = _number(gold), _number(answer)
    if gold_number is None or answer_number is None:
        return None
    difference = abs(gold_number - answer_number)
    return None if 0 < difference <= ROUNDING_TOLERANCE else difference == 0


class Grader:
    r"""Grades answers against golds; holds a pool of worker processes, started when first needed.

    Thread-safe; usable from any thread. Close it, or use it as a context manager; the interpreter's end closes it too.
    Pickling carries the settings only.

    Args:
        workers: Number of worker processes at most.
        timeout: Seconds that one comparison may take; after that the worker is killed and the answer is wrong.

    Raises:
        ValueError: A setting is out of range.

    Example:
        >>> with Grader() as grader:
        ...     grader.grade(["0.5", "(1+x)^2", None], ["\\frac{1}{2}", "x^2+2x+1", "3"])
        [True, True, False]
    """

    def __init__(self, workers: int = 1, timeout: float = 5.0) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; give at least 1")
        if timeout <= 0:
            raise ValueError(f"timeout is {timeout}; give a positive number of seconds")
        self.workers = workers
        self.timeout = timeout
        self._closing = threading.Lock()
        self._idle: queue.LifoQueue[WorkerProcess] = queue.LifoQueue()
        pool = [WorkerProcess(timeout) for _ in range(workers)]
        for worker in pool:
            self._idle.put(worker)
        self._stop_all = weakref.finalize(self, _stop, pool)

    def __reduce__(self) -> tuple[type[Grader], tuple[int, float]]:
        return type(self), (self.workers, self.timeout)

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def grade(self, answers: Sequence[str | None], golds: Sequence[str]) -> list[bool]:
        """Grade each answer against the gold at the same place.

        Args:
            answers: Extracted answers (see :func:`extract_boxed`), without ``\\boxed``; None counts as wrong.
            golds: Gold answers, as many.

        Returns:
            One flag per answer. What does not parse, exceeds its time or memory, or is too long is wrong.

        Raises:
            ValueError: The sequences differ in length.
            RuntimeError: The grader is closed, or a worker cannot start; the message says why.
        """
        if len(answers) != len(golds):
            raise ValueError(f"{len(answers)} answers but {len(golds)} golds; give one gold per answer")
        verdicts = [_decide_here(gold, answer) for gold, answer in zip(golds, answers, strict=True)]
        questions = {
            place: (_clean(golds[place]), _clean(answers[place] or ""))
            for place, verdict in enumerate(verdicts)
            if verdict is None
        }
        replies = self._ask_all(questions.values())
        return [
            bool(replies[questions[place]]["correct"]) if verdict is None else verdict
            for place, verdict in enumerate(verdicts)
        ]

    def check_golds(self, golds: Sequence[str]) -> list[str | None]:
        """Say for each gold answer why nothing can be graded against it; None where all is well.

        Raises:
            RuntimeError: The grader is closed, or a worker cannot start; the message says why.

        Example:
            >>> with Grader() as grader:
            ...     grader.check_golds(["12", ""])
            [None, 'it is empty']
        """
        questions = {gold: (_clean(gold), None) for gold in golds if _clean(gold) and _number(gold) is None}
        replies = self._ask_all(questions.values())
        errors: dict[str, str | None] = {gold: replies[question]["error"] for gold, question in questions.items()}
        return [errors.get(gold) if _clean(gold) else "it is empty" for gold in golds]

    def close(self) -> None:
        """Stop the workers, once the comparisons under way are done. What needs a worker raises from then on."""
        with self._closing:
            if self._stop_all.alive:
                workers = [self._idle.get() for _ in range(self.workers)]
                self._stop_all()
                for worker in workers:
                    self._idle.put(worker)

    def _ask_all(self, questions: Iterable[Question]) -> dict[Question, dict[str, Any]]:
        """Put each question to some worker, in parallel if there are several; equal questions only once."""
        distinct = list(dict.fromkeys(questions))
        if self.workers == 1 or len(distinct) < 2:
            return {question: self._ask(question) for question in distinct}
        with ThreadPoolExecutor(min(self.workers, len(distinct))) as threads:
            return dict(zip(distinct, threads.map(self._ask, distinct), strict=True))

    def _ask(self, question: Question) -> dict[str, Any]:
        worker = self._idle.get()
        try:
            if not self._stop_all.alive:
                raise RuntimeError("this Grader is closed; make a new one")
            return worker.ask(question)
        finally:
            self._idle.put(worker)


def _stop(workers: list[WorkerProcess]) -> None:
    for worker in workers:
        worker.stop()


def _clean(text: str) -> str:
    """Strip space, a full stop and a pair of dollar signs, none of which belongs to the answer."""
    text = text.strip()
    if text.endswith(".") and not text.endswith("\\right."):
        text = text[:-1].rstrip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    return text


def _decide_here(gold: str, answer: str | None) -> bool | None:
    """Grade without a worker; None where that needs math-verify."""
    if answer is None or len(answer) > MAX_ANSWER_CHARS:
        return False
    return compare_numbers(gold, answer)


def _number(text: str) -> Fraction | None:
    text = _clean(text)
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_ANSWER_CHARS else None
    if not match:
        return None
    top, bottom = match["top"] or match["over"], match["bottom"] or match["under"]
    if top:
        value = Fraction(int(top), int(bottom)) if int(bottom) else None
    elif match["decimals"]:
        value = Fraction((match["whole"] or "0").replace(",", "") + match["decimals"])
    else:
        value = Fraction(int(match["whole"].replace(",", ""))) if match["whole"] else None
    return -value if value is not None and match["sign"] == "-" else value
