"""Grading: the boxed answer of a completion against the gold answer.

Plain numbers are compared here, exactly; most of the rest is decided by the rules of
:mod:`stepgrpo_lab.evaluation.answer_rules`, whose table states the policy; what they leave open goes to math-verify in
processes of its own.

A model's answer is untrusted text. Computer algebra on it can run for ever or eat all memory, and math-verify's own
timeouts work neither outside the main thread nor inside C code. So the workers are killed when a question has used its
CPU time. They are started by command, not forked and not re-importing the caller's script: they work alike in scripts
without a ``__main__`` guard, in a widget's thread and beside CUDA. (``pebble`` would replace the starting and stopping,
but it has no limit of CPU time or memory, and its processes re-import the script.)
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any, Literal

from stepgrpo_lab.evaluation._grading_worker import Question, WorkerProcess
from stepgrpo_lab.evaluation.answer_rules import decide, for_math_verify, understood

Verdict = Literal["right", "wrong", "timeout"]
"""How an answer was judged; a timeout earns nothing, but says nothing about the answer."""

MAX_ANSWER_CHARS = 2000
"""Longer answers count as wrong unread: no gold comes near it, and parsers are not linear."""

REMEMBERED = 65_536
"""Verdicts that a grader remembers, timeouts among them: groups, epochs and evaluations ask the same again."""

_LOG = logging.getLogger(__name__)

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
        Whether they are equal; None if either is anything else.

    Example:
        >>> compare_numbers("1,234", "1234.0"), compare_numbers("\\frac{1}{2}", "2"), compare_numbers("x", "2")
        (True, False, None)
    """
    gold_number, answer_number = _number(gold), _number(answer)
    if gold_number is None or answer_number is None:
        return None
    return gold_number == answer_number


class Grader:
    r"""Grades answers against golds; holds a pool of worker processes, started when first needed.

    Thread-safe; usable from any thread. Close it, or use it as a context manager; the interpreter's end closes it too.
    Pickling carries the settings only.

    Args:
        workers: Number of worker processes at most.
        timeout: Seconds of CPU time that one comparison may take. A worker that has used them is killed, and the
            answer earns nothing. A worker that is only slow, on a busy machine, is waited for.

    Attributes:
        timeouts: How many different comparisons ran out of time or memory so far; each is logged once.

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
        self.timeouts = 0
        self._closing = threading.Lock()
        self._remembering = threading.Lock()
        self._remembered: OrderedDict[Question, dict[str, Any]] = OrderedDict()
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
        return [verdict == "right" for verdict in self.verdicts(answers, golds)]

    def verdicts(self, answers: Sequence[str | None], golds: Sequence[str]) -> list[Verdict]:
        """As :meth:`grade`, but with timeouts told from wrong answers.

        Example:
            >>> with Grader() as grader:
            ...     grader.verdicts(["4", "5"], ["2^2", "2^2"])
            ['right', 'wrong']
        """
        _check_lengths(answers, golds)
        decided = [_decide_here(gold, answer) for gold, answer in zip(golds, answers, strict=True)]
        questions = {
            place: Question(for_math_verify(_clean(golds[place])), for_math_verify(_clean(answers[place] or "")))
            for place, verdict in enumerate(decided)
            if verdict is None
        }
        replies = self._ask_all(questions.values())
        return [
            _verdict(replies[questions[place]]) if verdict is None else ("right" if verdict else "wrong")
            for place, verdict in enumerate(decided)
        ]

    def grade_raw(self, answers: Sequence[str | None], golds: Sequence[str]) -> list[bool]:
        """What math-verify alone says, with its own settings, to hold figures against published ones.

        Raises:
            ValueError, RuntimeError: As :meth:`grade`.

        Example:
            >>> with Grader() as grader:
            ...     grader.grade_raw(["5t", "5t"], ["5", "6"])  # it takes the t for a unit
            [True, False]
        """
        _check_lengths(answers, golds)
        questions = [
            Question(_clean(gold), _clean(answer), raw=True)
            if answer is not None and len(answer) <= MAX_ANSWER_CHARS
            else None
            for gold, answer in zip(golds, answers, strict=True)
        ]
        replies = self._ask_all([question for question in questions if question])
        return [question is not None and bool(replies[question]["correct"]) for question in questions]

    def check_golds(self, golds: Sequence[str]) -> list[str | None]:
        """Say for each gold answer why nothing can be graded against it; None where all is well.

        Raises:
            RuntimeError: The grader is closed, or a worker cannot start; the message says why.

        Example:
            >>> with Grader() as grader:
            ...     grader.check_golds(["12", ""])
            [None, 'it is empty']
        """
        asked = [gold for gold in golds if _clean(gold) and _number(gold) is None and not understood(gold)]
        questions = {gold: Question(for_math_verify(_clean(gold))) for gold in asked}
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
        """Put each question to some worker, in parallel if there are several; none twice."""
        distinct = list(dict.fromkeys(questions))
        if self.workers == 1 or len(distinct) < 2:
            return {question: self._ask(question) for question in distinct}
        threads = ThreadPoolExecutor(min(self.workers, len(distinct)))
        try:
            return dict(zip(distinct, threads.map(self._ask, distinct), strict=True))
        finally:
            threads.shutdown(cancel_futures=True)

    def _ask(self, question: Question) -> dict[str, Any]:
        with self._remembering:
            if question in self._remembered:
                self._remembered.move_to_end(question)
                return self._remembered[question]
        worker = self._idle.get()
        try:
            if not self._stop_all.alive:
                raise RuntimeError("this Grader is closed; make a new one")
            reply = worker.ask(question)
        finally:
            self._idle.put(worker)
        self._remember(question, reply)
        return reply

    def _remember(self, question: Question, reply: dict[str, Any]) -> None:
        with self._remembering:
            self._remembered[question] = reply
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
            self.timeouts += bool(reply.get("timeout"))
        if reply.get("timeout"):
            _LOG.warning("no verdict on %.200r for the gold %.200r: %s", question.answer, question.gold, reply["error"])


def _verdict(reply: dict[str, Any]) -> Verdict:
    return "timeout" if reply.get("timeout") else "right" if reply["correct"] else "wrong"


def _check_lengths(answers: Sequence[str | None], golds: Sequence[str]) -> None:
    if len(answers) != len(golds):
        raise ValueError(f"{len(answers)} answers but {len(golds)} golds; give one gold per answer")


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
    verdict = compare_numbers(gold, answer)
    return decide(gold, answer) if verdict is None else verdict


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
