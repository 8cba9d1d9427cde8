"""How a check is written, and what it returns."""

from __future__ import annotations

import functools
import html
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STRICT_VARIABLE = "STEPGRPO_STRICT"
"""Environment variable: "1" makes an unsolved exercise raise."""


class Unsolved(AssertionError):
    """An exercise that is not solved yet, with a message for the learner."""


@dataclass(frozen=True)
class CheckResult:
    """What a notebook shows of a check.

    Attributes:
        exercise: Number of the exercise: "02.1".
        passed: Whether it is solved.
        message: What is well, or what is wrong and where to look.
    """

    exercise: str
    passed: bool
    message: str

    def __repr__(self) -> str:
        sign, word = ("✔", "solved") if self.passed else ("✘", "not solved yet")
        return f"{sign} Exercise {self.exercise} {word}: {self.message}"

    def _repr_html_(self) -> str:
        colour = "#009E73" if self.passed else "#D55E00"
        style = f"border-left: 4px solid {colour}; margin: .4em 0; padding: .2em .7em; white-space: pre-wrap"
        return f'<p style="{style}">{html.escape(repr(self))}</p>'


def exercise(number: str, praise: str) -> Callable[[Callable[[Any], None]], Callable[[Any], CheckResult]]:
    """Make a check of a function that takes what the learner wrote and raises :class:`Unsolved` where it is wrong.

    Whatever the learner's code raises becomes a red result as well.

    Args:
        number: Number of the exercise, ``"<notebook>.<place>"``.
        praise: Message once it is solved; best a sentence on what has been shown.

    Example:
        >>> @exercise("00.1", "two and two are four")
        ... def addition(solution):
        ...     expect(solution(2, 2), 4, "add(2, 2)")
        >>> addition(lambda a, b: a - b)
        ✘ Exercise 00.1 not solved yet: add(2, 2) gives 0; expected 4
    """

    def decorate(check: Callable[[Any], None]) -> Callable[[Any], CheckResult]:
        @functools.wraps(check)
        def checked(solution: Any) -> CheckResult:
            try:
                check(solution)
            except Exception as error:  # a learner's code may raise anything
                result = CheckResult(number, False, _message(error))
                if os.environ.get(STRICT_VARIABLE) == "1":
                    raise Unsolved(repr(result)) from error
                return result
            return CheckResult(number, True, praise)

        checked.exercise = number  # type: ignore[attr-defined]
        return checked

    return decorate


def expect(
    actual: Any,
    expected: Any,
    what: str,
    *,
    hint: str = "",
    mistakes: Mapping[str, Any] | None = None,
    tolerance: float = 1e-6,
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
        raise Unsolved(f"{what} gives nothing yet; write the body (expected {expected!r})" + _sentence(hint))
    for message, value in (mistakes or {}).items():
        if same(actual, value):
            raise Unsolved(f"{what} gives {_short(actual)}: {message}")
    raise Unsolved(f"{what} gives {_short(actual)}; expected {_short(expected)}" + _sentence(hint))


def _sentence(hint: str) -> str:
    if not hint:
        return ""
    plain = hint.split(maxsplit=1)[0].rstrip(".,;:").isalpha()  # a name, as trials_right[i], keeps its case
    return f". {hint[:1].upper()}{hint[1:]}" if plain else f": {hint}"


def same(actual: Any, expected: Any, tolerance: float = 1e-6) -> bool:
    """Whether a learner's value is the expected one; see :func:`expect`.

    Example:
        >>> same([0.1 + 0.2], (0.3,)), same(True, 1), same("1", 1)
        (True, False, False)
    """
    if isinstance(expected, bool) or expected is None or isinstance(expected, str):
        return type(actual) is type(expected) and bool(actual == expected)
    if isinstance(expected, Mapping):
        return (
            isinstance(actual, Mapping)
            and set(actual) == set(expected)
            and all(same(actual[key], value, tolerance) for key, value in expected.items())
        )
    if isinstance(expected, Sequence):
        items = actual.tolist() if hasattr(actual, "tolist") else actual
        return (
            isinstance(items, Sequence)
            and not isinstance(items, str)
            and len(items) == len(expected)
            and all(same(mine, right, tolerance) for mine, right in zip(items, expected, strict=True))
        )
    if isinstance(expected, int | float):
        number = actual.item() if hasattr(actual, "item") else actual
        if isinstance(number, bool) or not isinstance(number, int | float):
            return False
        both_nan = math.isnan(number) and math.isnan(expected)
        return both_nan or math.isclose(number, expected, rel_tol=tolerance, abs_tol=tolerance)
    return bool(actual == expected)


def _message(error: Exception) -> str:
    if isinstance(error, Unsolved):
        return str(error)
    if isinstance(error, NotImplementedError):
        return "write the body first"
    return f"your code raised {type(error).__name__}: {error}"


def _short(value: Any, limit: int = 200) -> str:
    text = repr(round(value, 6) if isinstance(value, float) else value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
