"""Predictions: written down before an experiment, held against its outcome afterwards.

Saying first what one expects, and being surprised, teaches more than reading a result.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

_stored: dict[str, Prediction] = {}


@dataclass(frozen=True)
class Prediction:
    """What a learner expects.

    Attributes:
        question: What is asked.
        value: The expectation: a number, or one of ``choices``; None if there is none yet.
        unit: Unit of a number, such as "%".
        choices: The possible answers where they are words.
    """

    question: str
    value: float | str | None
    unit: str = ""
    choices: tuple[str, ...] = ()

    def compare(self, measured: float | str, *, tolerance: float = 0.1) -> Comparison:
        """Hold the prediction against what was measured.

        Args:
            measured: The outcome, in the same unit or one of the same words.
            tolerance: How far off a number may be, as a share of the measured one, to count as close.

        Raises:
            ValueError: The outcome is not one of the choices.
        """
        if self.choices and measured not in self.choices:
            raise ValueError(f"the outcome {measured!r} is not among the choices {', '.join(self.choices)}")
        return Comparison(self, measured, tolerance)

    def __repr__(self) -> str:
        if self.value is None:
            options = f" ({' / '.join(self.choices)})" if self.choices else f" (in {self.unit})" if self.unit else ""
            return f"{self.question}{options} - put your prediction in place of None"
        return f"{self.question} - predicted: {_amount(self.value, self.unit)}"

    def _repr_html_(self) -> str:
        return _card("#0072B2", repr(self))


@dataclass(frozen=True)
class Comparison:
    """A prediction beside its outcome.

    Attributes:
        prediction: The prediction.
        measured: The outcome.
        tolerance: As for :meth:`Prediction.compare`.
    """

    prediction: Prediction
    measured: float | str
    tolerance: float

    @property
    def close(self) -> bool | None:
        """Whether the prediction came true; None if there was none."""
        value = self.prediction.value
        if value is None:
            return None
        if isinstance(value, str) or isinstance(self.measured, str):
            return value == self.measured
        return abs(value - self.measured) <= self.tolerance * abs(self.measured)

    def __repr__(self) -> str:
        unit = self.prediction.unit
        measured = f"measured: {_amount(self.measured, unit)}"
        value = self.prediction.value
        if value is None:
            return f"{measured} (no prediction was stored)"
        verdict = "as predicted" if self.close else "a surprise"
        return f"predicted: {_amount(value, unit)}, {measured} - {verdict}"

    def _repr_html_(self) -> str:
        return _card("#009E73" if self.close else "#E69F00" if self.close is False else "#0072B2", repr(self))


def predict(question: str, value: float | str | None, *, unit: str = "", choices: Sequence[str] = ()) -> Prediction:
    """Store a prediction; running the cell again replaces it.

    Args:
        question: What is asked.
        value: The expectation, or None to leave it open: nothing ever stops for want of one.
        unit: Unit of a number.
        choices: The possible answers where they are words.

    Raises:
        ValueError: A word that is not among the choices.
        TypeError: A number where a word is asked for, or the other way round.

    Example:
        >>> saved = predict("Which share of the tokens comes after the answer?", 50, unit="%")
        >>> saved.compare(66.9)
        predicted: 50 %, measured: 66.9 % - a surprise
    """
    if isinstance(value, str) != bool(choices) and value is not None:
        asked = f"one of {', '.join(choices)}" if choices else "a number"
        raise TypeError(f"the prediction is {value!r}; {asked} is asked for")
    if choices and value is not None and value not in choices:
        raise ValueError(f"the prediction {value!r} is not among the choices {', '.join(choices)}")
    prediction = Prediction(question, value, unit, tuple(choices))
    _stored[question] = prediction
    return prediction


def predictions() -> list[Prediction]:
    """The predictions stored in this session, in the order in which they were first asked."""
    return list(_stored.values())


def _amount(value: float | str, unit: str) -> str:
    return value if isinstance(value, str) else f"{value:.4g} {unit}".rstrip()


def _card(colour: str, text: str) -> str:
    style = f"border-left: 4px solid {colour}; margin: .4em 0; padding: .2em .7em"
    return f'<p style="{style}">{html.escape(text)}</p>'
