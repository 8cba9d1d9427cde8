"""Predictions: made before an experiment, held against its outcome afterwards.

Saying first what one expects, and being surprised, teaches more than reading a result. So a question never stands in
the way: it takes what a learner means, and says kindly what it does not understand.
"""

from __future__ import annotations

import base64
import html
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any, Literal

from stepgrpo_lab.course._guessing import GuessView, view_bundle

Verdict = Literal["right", "close", "near", "surprise"]

CLOSE, NEAR = 0.05, 0.15
"""How far off a number may be, as a share of its scale; for a percentage, 5 and 15 points."""

_asked: dict[str, Prediction] = {}
_compared: dict[str, Comparison] = {}


class Prediction:
    """A question, and what a learner expects; made by :func:`predict`.

    Attributes:
        question: What is asked.
        unit: Unit of a number, such as "%".
        choices: The possible answers where they are words.
        low, high: Range of the slider, where there is one.
        note: What was understood of the last guess, where that needs saying.
    """

    def __init__(
        self,
        question: str,
        choices: tuple[str, ...] = (),
        unit: str = "",
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        self.question, self.choices, self.unit = question, choices, unit
        self.low, self.high = low, high
        self.note = ""
        self._guess: float | str | None = None
        self._view: GuessView | None = None

    @property
    def guess(self) -> float | str | None:
        """The guess: a number, one of the choices, or None as long as there is none.

        Set it in code as you would say it: ``34``, ``"34%"``, ``"narrower"``. What cannot be understood changes
        nothing, and :attr:`note` says why.
        """
        return self._guess

    @guess.setter
    def guess(self, said: Any) -> None:
        if said is None or said is ...:
            self._guess, self.note = None, ""
        elif self.choices:
            self._choose(str(said))
        else:
            self._read(said)
        if self._view is not None:
            self._view.show()

    def _choose(self, said: str) -> None:
        wanted = _plain(said)
        found = [choice for choice in self.choices if _plain(choice) == wanted]
        found = found or [choice for choice in self.choices if wanted and _plain(choice).startswith(wanted)]
        if len(found) == 1:
            self._guess, self.note = found[0], ""
        else:
            self.note = f'I do not know "{said}" here. Choose one of: {", ".join(self.choices)}.'

    def _read(self, said: Any) -> None:
        number, percent = _number(said)
        if number is None and isinstance(said, str) and self._is_open:
            self._guess, self.note = said.strip() or None, ""
        elif number is None:
            self.note = f'I cannot read a number in "{said}". Type one, such as {_amount(self._example, self.unit)}.'
        elif self.unit == "%" and 0 < abs(number) < 1 and not percent:
            self._guess = round(100 * number, 6)
            self.note = f"You typed {said}; I take that as {_amount(self._guess, '%')}."
        else:
            self._guess, self.note = number, ""

    @property
    def _is_open(self) -> bool:
        """Whether neither words nor numbers are asked for in particular."""
        return not self.choices and not self.unit and self.low is None

    @property
    def _example(self) -> float:
        return 34 if self.low is None or self.high is None else round(self.low + 0.34 * (self.high - self.low), 3)

    def compare(self, outcome: float | str, *, tolerance: float | None = None) -> Comparison:
        """Hold the guess against the outcome; without a guess the outcome is just shown.

        Args:
            outcome: What came out, in the question's unit or one of its choices.
            tolerance: How far off a guess still counts as close, in the outcome's unit; three times as far is near. By
                default 5 points of a percentage, else a twentieth of the slider's range.

        Raises:
            ValueError: The outcome is not one of the choices.
        """
        if self.choices:
            same = [choice for choice in self.choices if _plain(choice) == _plain(str(outcome))]
            if not same:
                raise ValueError(f"the outcome {outcome!r} is not among the choices {', '.join(self.choices)}")
            outcome = same[0]
        _compared[self.question] = comparison = Comparison(self, self.guess, outcome, tolerance)
        return comparison

    def __repr__(self) -> str:
        if self.guess is None:
            example = f'"{self.choices[0]}"' if self.choices else f"{self._example:g}"
            options = f"\nOne of: {', '.join(self.choices)}." if self.choices else ""
            asked = f" (in {self.unit})" if self.unit and not self.choices else ""
            said = f"{self.question}{asked}{options}\nTo guess in code, set .guess, for example .guess = {example}"
        else:
            said = f"{self.question}\nYour guess: {_amount(self.guess, self.unit)}"
        return f"{said}\n{self.note}" if self.note else said

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        self._view, bundle = view_bundle(self, self._view)
        return {**bundle, "text/plain": repr(self), "text/html": _card("#0072B2", repr(self))}


@dataclass(frozen=True)
class Comparison:
    """A guess beside the outcome.

    Attributes:
        prediction: The question.
        guess: What was guessed when it was compared; None for no guess.
        outcome: What came out.
        tolerance: As for :meth:`Prediction.compare`.
    """

    prediction: Prediction
    guess: float | str | None
    outcome: float | str
    tolerance: float | None = None

    @property
    def verdict(self) -> Verdict | None:
        """ "right", "close", "near" or "surprise"; None without a guess, or for words where a number came out."""
        if self.guess is None or (isinstance(self.guess, str) and not isinstance(self.outcome, str)):
            return None
        guess, outcome = (value if isinstance(value, str) else float(value) for value in (self.guess, self.outcome))
        if isinstance(guess, str) or isinstance(outcome, str):
            return "right" if _plain(str(self.guess)) == _plain(str(self.outcome)) else "surprise"
        close = self._scale * CLOSE if self.tolerance is None else self.tolerance
        gap = abs(guess - outcome)
        if math.isclose(guess, outcome, rel_tol=1e-9):
            return "right"
        return "close" if gap <= close + 1e-9 else "near" if gap <= close * NEAR / CLOSE + 1e-9 else "surprise"

    @property
    def _scale(self) -> float:
        asked = self.prediction
        if asked.unit == "%":
            return 100
        if asked.low is not None and asked.high is not None:
            return asked.high - asked.low
        return 2 * abs(float(self.outcome))

    @property
    def close(self) -> bool | None:
        """Whether the guess was right or close; None where nothing was guessed."""
        return None if self.verdict is None else self.verdict in ("right", "close")

    def __repr__(self) -> str:
        unit = self.prediction.unit
        outcome = _amount(self.outcome, unit)
        if self.verdict is None and self.guess is not None:
            return f'It is {outcome}. (You wrote "{self.guess}".)'
        if self.verdict is None:
            return f"It is {outcome}. (You had no guess yet; next time, dare one first.)"
        guess = _amount(self.guess, unit)
        return {
            "right": f"Right! It is {outcome}, as you guessed.",
            "close": f"Close! You guessed {guess}; it is {outcome}.",
            "near": f"Not far off: you guessed {guess}; it is {outcome}.",
            "surprise": f"A surprise: you guessed {guess}; it is {outcome}.",
        }[self.verdict]

    def _repr_html_(self) -> str:
        return _card(
            "#009E73" if self.close else "#0072B2" if self.verdict in (None, "near") else "#E69F00", repr(self)
        )


@dataclass(frozen=True)
class Score:
    """How the predictions of this session went.

    Attributes:
        right: How many were right or close.
        near: How many were not far off.
        surprises: How many were neither.
        unanswered: How many outcomes were shown without a guess.
    """

    right: int
    near: int
    surprises: int
    unanswered: int

    def __repr__(self) -> str:
        asked = self.right + self.near + self.surprises + self.unanswered
        if not asked:
            return "No prediction has been compared yet."
        guessed = asked - self.unanswered
        parts = [f"{self.right} right or close" if self.right else "", f"{self.near} not far off" if self.near else ""]
        parts += ["1 surprise" if self.surprises == 1 else f"{self.surprises} surprises" if self.surprises else ""]
        how = ", ".join(filter(None, parts))
        said = f"You guessed {guessed} of {asked}" + (f", {self.unanswered} unanswered" if self.unanswered else "")
        return f"{said}: {how}." if how else f"{said}."

    def _repr_html_(self) -> str:
        return _card("#009E73", repr(self))


def predict(
    question: str,
    guess: Any = None,
    *,
    choices: Sequence[str] = (),
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
) -> Prediction:
    """Ask for a prediction; the last line of a cell shows it as buttons or a slider.

    Running the cell again keeps a guess that was made with them. Nothing that a learner enters raises.

    Args:
        question: What is asked.
        guess: A guess in code; None to leave it to the buttons, or open.
        choices: The possible answers where they are words.
        unit: Unit of a number.
        low, high: Range of the slider; 0 to 100 for a percentage.

    Example:
        >>> saved = predict("How many of the tokens come after the answer?", 50, unit="%")
        >>> saved.compare(53.1)
        Close! You guessed 50 %; it is 53.1 %.
        >>> saved.guess = "0.8"
        >>> saved.note
        'You typed 0.8; I take that as 80 %.'
    """
    if unit == "%" and low is None and high is None:
        low, high = 0, 100
    prediction = Prediction(question, tuple(map(str, choices)), unit, low, high)
    before = _asked.get(question)
    if guess is None and before is not None and (before.choices, before.unit) == (prediction.choices, prediction.unit):
        prediction._guess = before.guess
    else:
        prediction.guess = guess
    _asked[question] = prediction
    return prediction


def predictions() -> list[Prediction]:
    """The predictions asked for in this session, in the order in which they were first asked."""
    return list(_asked.values())


def score() -> Score:
    """How the predictions compared in this session went.

    Example:
        >>> repr(Score(right=2, near=1, surprises=1, unanswered=2))
        'You guessed 4 of 6, 2 unanswered: 2 right or close, 1 not far off, 1 surprise.'
    """
    verdicts = [comparison.verdict for comparison in _compared.values()]
    right = verdicts.count("right") + verdicts.count("close")
    return Score(right, verdicts.count("near"), verdicts.count("surprise"), verdicts.count(None))


_SEAL = "sealed:"


def seal(text: str) -> str:
    """An outcome made unreadable, for the source of a notebook; :func:`sealed` opens it.

    Example:
        >>> sealed(seal("narrower"))
        'narrower'
    """
    packed = zlib.compress(_SEAL.encode() + text.encode())[::-1]
    return base64.urlsafe_b64encode(packed).decode()


def sealed(text: str) -> str:
    """The outcome behind a text that :func:`seal` made.

    Raises:
        ValueError: The text was not made by :func:`seal`.
    """
    try:
        opened = zlib.decompress(base64.urlsafe_b64decode(text.encode())[::-1]).decode()
    except (ValueError, zlib.error) as error:
        raise ValueError(f"{text!r} is no sealed outcome: make one with course.seal(outcome)") from error
    return opened.removeprefix(_SEAL)


def _plain(text: str) -> str:
    """A word as it is compared: without case, quotes, outer punctuation, and with single spaces."""
    return " ".join(re.sub(r"[-_\s]+", " ", text).casefold().strip(" .,;:!?\"'`").split())


_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d{1,3})?(?:\s*/\s*\d+)?")


def _number(said: Any) -> tuple[float | None, bool]:
    """The one number that was said, and whether a percent sign came with it; None where there is not exactly one."""
    if hasattr(said, "item") and getattr(said, "size", 1) != 0:
        try:
            said = said.item()
        except (ValueError, RuntimeError, TypeError):
            return None, False
    if isinstance(said, Real) and not isinstance(said, bool):
        return (float(said), False) if math.isfinite(said) else (None, False)
    if not isinstance(said, str):
        return None, False
    text = said.casefold().replace("−", "-")
    text = re.sub(r"\b[1-9]\d{0,2}(?:,\d{3})+\b", lambda digits: digits[0].replace(",", ""), text)
    found = _NUMBER.findall(re.sub(r"(?<=\d),(?=\d)", ".", text))
    if len(found) != 1:
        return None, False
    try:
        number = float(Fraction(re.sub(r"\s", "", found[0])))
    except (ValueError, ZeroDivisionError, OverflowError):
        return None, False
    return number, "%" in text or "percent" in text


def _amount(value: float | str | None, unit: str) -> str:
    if value is None or isinstance(value, str):
        return str(value)
    return f"{float(value):.4g} {unit}".rstrip()


def _card(colour: str, text: str) -> str:
    style = f"border-left: 4px solid {colour}; margin: .4em 0; padding: .2em .7em; white-space: pre-wrap"
    return f'<p style="{style}">{html.escape(text)}</p>'
