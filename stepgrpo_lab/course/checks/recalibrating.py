"""The check of notebook 03's last exercise: one temperature that repairs a model's probabilities, or fails to."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from math import exp, log
from typing import Any

from stepgrpo_lab.course.checks._result import Unsolved, draws, torch_exercise

CLOSE = 0.03
"""Largest relative distance of a temperature from the best one: where an optimiser may stop."""

LEAST, MOST = 0.05, 20.0
"""Temperatures among which the best one is looked for."""


def _odds(probability: float) -> float:
    held = min(max(probability, 1e-4), 1 - 1e-4)
    return log(held / (1 - held))


def _log_loss(temperature: float, stated: Sequence[float], right: Sequence[bool]) -> float:
    """Mean of -log of the probability that was given to what happened."""
    signed = (_odds(p) * (1 if hit else -1) / temperature for p, hit in zip(stated, right, strict=True))
    return sum(log(1 + exp(-value)) for value in signed) / len(stated)


def _squares(temperature: float, stated: Sequence[float], right: Sequence[bool]) -> float:
    """Mean squared distance of the probabilities from what happened."""
    scaled = (1 / (1 + exp(-_odds(p) / temperature)) for p in stated)
    return sum((p - hit) ** 2 for p, hit in zip(scaled, right, strict=True)) / len(stated)


def _of_probabilities(temperature: float, stated: Sequence[float], right: Sequence[bool]) -> float:
    """The log loss where the probabilities themselves are divided, not their logits."""
    scaled = (min(max(p / temperature, 1e-4), 1 - 1e-4) for p in stated)
    return -sum(log(p if hit else 1 - p) for p, hit in zip(scaled, right, strict=True)) / len(stated)


def _fitted(stated: Any, right: Any, loss: Callable[..., float] = _log_loss) -> float:
    """The temperature with the smallest loss, by golden section over its logarithm: the loss has one valley."""
    stated, right = ([*(values.tolist() if hasattr(values, "tolist") else values)] for values in (stated, right))
    low, high, golden = log(LEAST), log(MOST), (5**0.5 - 1) / 2
    for _ in range(40):
        left, middle = high - golden * (high - low), low + golden * (high - low)
        if loss(exp(left), stated, right) < loss(exp(middle), stated, right):
            high = middle
        else:
            low = left
    return exp((low + high) / 2)


_MISTAKES: dict[str, Callable[..., float]] = {
    "that is one over the temperature: the logits are divided by it": lambda *case: 1 / _fitted(*case),
    "that is the temperature's logarithm": lambda *case: log(_fitted(*case)),
    "the probabilities have moved nowhere: that is where the fit starts": lambda *case: 1.0,
    "that makes the squared distances smallest; the log loss is asked for": partial(_fitted, loss=_squares),
    "divide the logits, not the probabilities: logit(p) = log(p / (1 - p))": partial(_fitted, loss=_of_probabilities),
}


@torch_exercise("03.5", "one number, fitted by descent: that is all of temperature scaling", reference=_fitted)
def fit_temperature(solution: Callable[[Sequence[float], Sequence[bool]], Any]) -> None:
    """``fit_temperature(stated, right)`` returns the temperature with which ``sigmoid(logit(p) / T)`` fits best.

    ``stated`` are probabilities, ``right`` whether the answers were right. Best is the smallest mean log loss. A
    probability is held between 1e-4 and 1 - 1e-4, so that its logit is finite.

    Example:
        >>> fit_temperature(lambda stated, right: 1.0).passed
        False
    """
    cases = draws(_answers, 8)
    rows = [(case, _number(solution(list(case[0]), list(case[1])), case), _fitted(*case)) for case in cases]
    off = [row for row in rows if abs(row[1] - row[2]) > CLOSE * row[2]]
    if not off:
        return
    case, mine, right = off[0]
    named = next(
        (
            f": {message}"
            for message, wrong in _MISTAKES.items()
            if all(abs(ours - wrong(*given)) <= CLOSE * abs(ours) for given, ours, _ in off)
        ),
        f", with a mean log loss of {_log_loss(right, *case):.4f}",
    )
    alike = len({round(ours, 3) for _, ours, _ in rows}) == 1
    share = 0.0 if alike else (len(rows) - len(off)) / len(rows)
    raise Unsolved(
        f"fit_temperature on {len(case[0])} answers gives {mine:.4g}; expected about {right:.4g}{named}", share
    )


def _number(value: Any, case: tuple[list[float], list[bool]]) -> float:
    if value is None or value is ...:
        raise Unsolved(f"fit_temperature gives nothing yet; write the body (expected {_fitted(*case):.4g})")
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError):
        raise Unsolved(f"fit_temperature gives {value!r}; expected one number") from None


def _answers(rng: random.Random, size: int) -> tuple[list[float], list[bool]]:
    """Probabilities of a model that is too sure, or too modest, and what happened; some are 0 or 1."""
    true = rng.choice([0.6, 1.0, 2.0, 3.0])
    stated = [rng.randint(2, 98) / 100 for _ in range(150)]
    right = [rng.random() < 1 / (1 + exp(-_odds(value) / true)) for value in stated]
    return [*stated, 1.0, 0.0], [*right, True, False]
