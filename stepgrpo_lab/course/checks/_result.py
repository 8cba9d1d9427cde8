"""How a check is written, and what it returns."""

from __future__ import annotations

import functools
import html
import inspect
import math
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from importlib.util import find_spec
from numbers import Real
from types import FrameType
from typing import Any

STRICT_VARIABLE = "STEPGRPO_STRICT"
"""Environment variable: "1" makes an unsolved exercise raise."""


TIME_LIMIT = 20.0
"""Seconds of processor time for one check, where the system has such timers and the check is in the main thread."""

TOLERANCE = 2e-5
"""Absolute and relative: single precision passes, and an ``eps`` of 1e-4 that is missing does not."""

NEARLY_ALL = 0.7
"""Share of the telling inputs on which a likely mistake must answer as the learner does, to be named."""

DRAWS = 60
"""Random inputs that :func:`draws` makes."""


class Unsolved(AssertionError):
    """An exercise that is not solved yet, with a message for the learner.

    Args:
        message: What is wrong and where to look.
        share: Share of the check's parts that are right, in [0, 1).
    """

    def __init__(self, message: str, share: float = 0.0) -> None:
        super().__init__(message)
        self.share = share


class _OutOfTime(BaseException):
    """Raised inside the learner's code; not an Exception, so that ``except Exception`` there cannot swallow it."""


@dataclass(frozen=True)
class CheckResult:
    """What a notebook shows of a check.

    Attributes:
        exercise: Number of the exercise: "02.1".
        passed: Whether it is solved.
        message: What is well, or what is wrong and where to look.
        solution: The function to go on with: the learner's own if it is right, the library's if not.
        share: Share of the check's parts that are right, from 0 to 1.
        skipped: Whether nothing was checked, because a package is missing.
    """

    exercise: str
    passed: bool
    message: str
    solution: Any = field(default=None, repr=False, compare=False)
    share: float = 0.0
    skipped: bool = False

    def __repr__(self) -> str:
        sign, word = ("✔", "solved") if self.passed else ("–", "skipped") if self.skipped else ("✘", "not solved yet")
        return f"{sign} Exercise {self.exercise} {word}: {self.message}"

    def _repr_html_(self) -> str:
        colour = "#009E73" if self.passed else "#0072B2" if self.skipped else "#D55E00"
        style = f"border-left: 4px solid {colour}; margin: .4em 0; padding: .2em .7em; white-space: pre-wrap"
        return f'<p style="{style}">{html.escape(repr(self))}</p>'


Check = Callable[..., CheckResult]

_references: list[Callable[..., Any]] = []
"""The right functions that the check at work has used so far; the first is the library's answer to the exercise."""


def exercise(
    number: str, praise: str, *, reference: Callable[..., Any] | None = None, needs: Sequence[str] = ()
) -> Callable[[Callable[[Any], None]], Check]:
    """Make a check of a function that takes what the learner wrote and raises :class:`Unsolved` where it is wrong.

    Whatever the learner's code raises becomes a red result as well, and so does code that never ends. The result's
    ``solution`` is what a notebook goes on with: the learner's function, or the right one in its place.

    Args:
        number: Number of the exercise, ``"<notebook>.<place>"``; a notebook with another order passes ``number=``.
        praise: Message once it is solved; best a sentence on what has been shown.
        reference: The right function, where the check does not hand it to :func:`agree`.
        needs: Packages without which the exercise is skipped; see :func:`torch_exercise`.

    Example:
        >>> @exercise("00.1", "two and two are four")
        ... def addition(solution):
        ...     agree(solution, lambda a, b: a + b, [(2, 2)], "add")
        >>> result = addition(lambda a, b: a - b)
        >>> result
        ✘ Exercise 00.1 not solved yet: add(2, 2) gives 0; expected 4
        >>> result.solution(b=1, a=2)
        3
    """

    def decorate(check: Callable[[Any], None]) -> Check:
        @functools.wraps(check)
        def checked(solution: Any, *, number: str = number) -> CheckResult:
            missing = [package for package in needs if find_spec(package) is None]
            if missing:
                message = f"it needs {missing[0]}, which is not here. Later cells use the library's version."
                return CheckResult(number, False, message, _as_written(reference, solution), skipped=True)
            _references[:] = [] if reference is None else [reference]
            try:
                with _time_limit(TIME_LIMIT):
                    check(solution)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a learner's code may raise anything, and call exit() too
                share = getattr(error, "share", 0.0) if isinstance(error, Unsolved) else 0.0
                library = _as_written(_references[0], solution) if _references else None
                result = CheckResult(number, False, _message(error), library, share)
                if os.environ.get(STRICT_VARIABLE) == "1":
                    raise Unsolved(repr(result), share) from error
                return result
            return CheckResult(number, True, praise, solution, 1.0)

        checked.exercise = number  # type: ignore[attr-defined]
        return checked

    return decorate


def torch_exercise(
    number: str, praise: str, *, reference: Callable[..., Any], needs: Sequence[str] = ("torch",)
) -> Callable[[Callable[[Any], None]], Check]:
    """:func:`exercise` on tensors: where torch is missing, as in a browser, it is skipped with one line.

    Args:
        number, praise: As for :func:`exercise`.
        reference: What later cells then use; it should work on lists too.
        needs: What is needed besides.
    """
    return exercise(number, praise, reference=reference, needs=needs)


def _as_written(reference: Callable[..., Any] | None, written: Any) -> Callable[..., Any] | None:
    """The right function under the names and with the defaults that the learner's has."""
    if reference is None:
        return None
    right = reference

    @functools.wraps(right)
    def library(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = inspect.signature(written).bind(*args, **kwargs)
        except (TypeError, ValueError):  # what was written is no function, or takes other arguments
            return right(*args, **kwargs)
        bound.apply_defaults()
        return right(*bound.args, **bound.kwargs)

    return library


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Stop the body after so many seconds of processor time: a busy machine fails nobody.

    Without such timers (Windows, a browser) and outside the main thread nothing is stopped.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def draws(make: Callable[[random.Random, int], tuple[Any, ...]], count: int = DRAWS) -> list[tuple[Any, ...]]:
    """Random arguments for :func:`agree`, the same in every session.

    Args:
        make: Called with a random generator and a size that grows from 1 to 8; returns the arguments of one call.
        count: How many to draw.

    Example:
        >>> draws(lambda rng, size: ([rng.randint(1, 9) for _ in range(size)],), count=2)
        [([7],), ([7, 1, 5, 9, 8],)]
    """
    rng = random.Random(0)
    return [make(rng, 1 + 8 * index // count) for index in range(count)]


@dataclass(frozen=True)
class _Outcome:
    """What one call gave: a value, or the exception that it raised."""

    value: Any = None
    error: Exception | None = None

    def same(self, other: _Outcome) -> bool:
        return self.error is None and other.error is None and same(self.value, other.value)


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> _Outcome:
    try:
        return _Outcome(function(*deepcopy(arguments)))
    except Exception as error:
        return _Outcome(error=error)


def agree(
    solution: Callable[..., Any],
    reference: Callable[..., Any],
    cases: Iterable[tuple[Any, ...]],
    name: str,
    *,
    mistakes: Mapping[str, Callable[..., Any]] | None = None,
    hint: str | Callable[..., str] = "",
    show: Callable[..., str] | None = None,
) -> None:
    """Hold a learner's function against the right one on many inputs, and show the smallest on which they differ.

    A handful of examples can be met by chance, or by code that was fitted to them; random inputs cannot. Numpy arrays
    and tensors are accepted wherever lists and numbers are expected (see :func:`same`).

    Args:
        solution: The learner's function, called with positional arguments.
        reference: The right one.
        cases: The arguments of each call: the corner cases that the exercise speaks of, and :func:`draws`.
        name: The function's name in messages.
        mistakes: What to say -> a wrong function. Where the learner's differs from the right one just as that one does,
            the message says this in place of the right value and the hint.
        hint: Where to look, or a function of the arguments that says it.
        show: How a call is written, from its arguments; by default ``name(arguments)``.

    Raises:
        Unsolved: They differ.

    Example:
        >>> agree(lambda a, b: a - b, lambda a, b: a + b, [(0, 0), (12, 30), (1, 2)], "add")
        Traceback (most recent call last):
        ...
        stepgrpo_lab.course.checks._result.Unsolved: add(1, 2) gives -1; expected 3
    """
    _references.append(reference)
    tried = [(case, _call(solution, case), _Outcome(reference(*deepcopy(case)))) for case in cases]
    failing = [row for row in tried if not row[1].same(row[2])]
    if not failing:
        return
    share = _share(tried, len(failing))
    nothing = all(mine.error is None and (mine.value is None or mine.value is ...) for _, mine, _ in tried)
    if nothing:
        mistakes = {}  # nothing is written yet: the first case says best what is asked for
    else:
        failing.sort(key=lambda row: len(repr(row[0])))
    message, (case, mine, right) = _mistake(tried, mistakes or {}) or ("", failing[0])
    if isinstance(mine.error, NotImplementedError | Unsolved):
        raise mine.error
    what = show(*case) if show else f"{name}({', '.join(_short(value) for value in case)})"
    gives = f"gives {_short(mine.value)}" if mine.error is None else f"raises {type(mine.error).__name__}: {mine.error}"
    if message:
        raise Unsolved(f"{what} {gives}: {message}", share)
    said = hint(*case) if callable(hint) else hint
    if nothing:
        expect(mine.value, right.value, what, hint=said)
    raise Unsolved(f"{what} {gives}; expected {_short(right.value)}" + _sentence(said), share) from mine.error


Row = tuple[tuple[Any, ...], _Outcome, _Outcome]


def _share(tried: Sequence[Row], failing: int) -> float:
    """Share of the inputs that are answered rightly, of those that no answer without a thought gets right."""
    answers = {repr(_rounded(mine.value)) for _, mine, _ in tried if mine.error is None}
    effortless = _effortless(tried)
    if len(answers) < 2 or effortless == len(tried):
        return 0.0
    return max(0.0, (len(tried) - failing - effortless) / (len(tried) - effortless))


def _effortless(tried: Sequence[Row]) -> int:
    """How many inputs the luckiest of these gets right: one answer to everything, one value repeated, an argument."""
    lucky = Counter[str]()
    for case, _, right in tried:
        leaves = {repr(leaf) for leaf in _leaves(_rounded(right.value))}
        ways = {f"always {right.value!r}"}
        ways |= {f"repeated {leaf}" for leaf in leaves if len(leaves) == 1}
        ways |= {f"argument {place}" for place, argument in enumerate(case) if same(argument, right.value)}
        lucky.update(ways)
    return max(lucky.values())


def _leaves(value: Any) -> Iterator[Any]:
    """The single values in lists of any depth."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _mistake(tried: Sequence[Row], mistakes: Mapping[str, Callable[..., Any]]) -> tuple[str, Row] | None:
    """The mistake that explains the learner's answers nearly everywhere, with the smallest case where it shows."""
    best: tuple[float, str, Row] | None = None
    for message, wrong in mistakes.items():
        rows = [(row, _call(wrong, row[0])) for row in tried]
        telling = [(row, value) for row, value in rows if not row[1].same(row[2]) or not value.same(row[2])]
        telling = [(row, value) for row, value in telling if row[1].error is None] or telling
        explained = [row for row, value in telling if row[1].same(value)]
        share = len(explained) / len(telling)
        if share >= NEARLY_ALL and (best is None or share > best[0]):
            best = share, message, min(explained, key=lambda row: len(repr(row[0])))
    return best and best[1:]


def expect(
    actual: Any,
    expected: Any,
    what: str,
    *,
    hint: str = "",
    mistakes: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Hold a learner's value against the right one; numbers, also inside lists, tuples and dictionaries, may be off.

    Args:
        actual: The learner's value.
        expected: The right one.
        what: What was computed, as the learner would write it: ``"mean_steps([2, 4])"``.
        hint: Where to look when it is wrong.
        mistakes: What to say -> the value that a common mistake gives. Where the learner has made it, the message says
            this in place of the right value and the hint.
        tolerance: Absolute and relative tolerance of numbers.

    Raises:
        Unsolved: They differ.
    """
    if same(actual, expected, tolerance):
        return
    if actual is None or actual is ...:
        raise Unsolved(f"{what} gives nothing yet; write the body (expected {_short(expected)})" + _sentence(hint))
    for message, value in (mistakes or {}).items():
        if same(actual, value):
            raise Unsolved(f"{what} gives {_short(actual)}: {message}")
    raise Unsolved(f"{what} gives {_short(actual)}; expected {_short(expected)}" + _sentence(hint))


def _sentence(hint: str) -> str:
    if not hint:
        return ""
    first, *rest = hint.split()
    plain = first.rstrip(".,;:").isalpha() and rest[:1] != ["="]  # a name keeps its case: trials_right[i], r = ...
    return f". {hint[:1].upper()}{hint[1:]}" if plain else f": {hint}"


def same(actual: Any, expected: Any, tolerance: float = TOLERANCE) -> bool:
    """Whether a learner's value is the expected one; see :func:`expect`.

    Arrays and tensors count as the lists or numbers that they hold, tuples as lists, and 0 and 1 as False and True.

    Example:
        >>> same([0.1 + 0.2], (0.3,)), same([1, 0], [True, False]), same(True, 1), same("1", 1)
        (True, True, False, False)
    """
    if hasattr(actual, "tolist"):  # numpy and torch, arrays and single numbers alike
        actual = actual.tolist()
    if hasattr(expected, "tolist"):
        expected = expected.tolist()
    if isinstance(expected, bool):
        return isinstance(actual, int) and actual in (0, 1) and bool(actual) is expected
    if expected is None or isinstance(expected, str):
        return type(actual) is type(expected) and bool(actual == expected)
    if isinstance(expected, Mapping):
        return (
            isinstance(actual, Mapping)
            and set(actual) == set(expected)
            and all(same(actual[key], value, tolerance) for key, value in expected.items())
        )
    if isinstance(expected, Sequence):
        return (
            isinstance(actual, Sequence)
            and not isinstance(actual, str)
            and len(actual) == len(expected)
            and all(same(mine, right, tolerance) for mine, right in zip(actual, expected, strict=True))
        )
    if isinstance(expected, int | float):
        if isinstance(actual, bool) or not isinstance(actual, Real):
            return False
        both_nan = math.isnan(actual) and math.isnan(expected)
        return both_nan or math.isclose(actual, expected, rel_tol=tolerance, abs_tol=tolerance)
    return bool(actual == expected)


def _message(error: BaseException) -> str:
    if isinstance(error, Unsolved):
        return str(error)
    if isinstance(error, _OutOfTime):
        return f"your code was still busy after {TIME_LIMIT:g} seconds: does every round of its loop move on?"
    if isinstance(error, NotImplementedError):
        return "write the body first"
    return f"your code raised {type(error).__name__}: {error}"


def _short(value: Any, limit: int = 200) -> str:
    text = repr(_rounded(value))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _rounded(value: Any) -> Any:
    """The value as a message shows it: the same on every machine."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and math.isfinite(value):
        return round(value, 4) if abs(value) >= 1 else float(f"{value:.4g}")
    if type(value) in (list, tuple):
        return type(value)(_rounded(item) for item in value)
    return value
