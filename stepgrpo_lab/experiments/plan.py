"""How much is spent on every row, and how a learning rate is chosen: fixed before anything is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepgrpo_lab.evaluation.results import Evaluation

MOST_STEPS = 1000
"""A run ends with its token budget; this many steps are never reached."""

ACCURACY_WEIGHT = 10
"""How many percent of the tokens one point of accuracy is worth when a learning rate is chosen."""


@dataclass(frozen=True)
class Plan:
    """The same for every row.

    Attributes:
        token_budget: Tokens that the training rollouts of a run may decode, probes included.
        learning_rates: The grid from which each method's rate is chosen, on validation problems with the first seed.
        validation: Problems that a rate is chosen on.
        curves: Of these, problems that are measured again and again while a run trains.
        test, harder: Problems that are measured in the end: of the trained levels, and of the level above them.
        samples: Completions of each.
        proof_steps: Optimiser steps of a row that only proves that it trains.
        hours: No run is begun that would probably end after this time.
    """

    token_budget: int = 400_000
    learning_rates: tuple[float, ...] = (5e-5, 1e-4, 2e-4)
    validation: int = 300
    curves: int = 100
    test: int = 400
    harder: int = 200
    samples: int = 4
    proof_steps: int = 6
    hours: float = 6.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Rebuild a plan from its dictionary."""
        return cls(**{**data, "learning_rates": tuple(data["learning_rates"])})


def validation_score(before: Evaluation, after: Evaluation | None) -> float:
    """What a learning rate is chosen by: points of accuracy gained, plus a point for every tenth of the tokens saved.

    Args:
        before, after: The untrained and the trained model on the same validation problems.

    Raises:
        ValueError: There is no evaluation after training.

    Example:
        >>> from stepgrpo_lab.method.records import Outcome
        >>> def measured(correct, tokens):
        ...     return Evaluation(["p"], [""], [None], [[Outcome(correct, True, 1, tokens)]])
        >>> validation_score(measured(True, 100), measured(True, 60))
        4.0
    """
    if after is None:
        raise ValueError("the run is not finished, so its learning rate has no score: resume it first")
    points = 100 * (_mean(after, "correct") - _mean(before, "correct"))
    saved = 100 * (1 - _mean(after, "tokens") / _mean(before, "tokens"))
    return round(points + saved / ACCURACY_WEIGHT, 6)


def _mean(evaluation: Evaluation, name: str) -> float:
    values = [value for samples in evaluation.column(name) for value in samples]
    return sum(values) / len(values)


def chosen_rate(scores: dict[float, float]) -> float:
    """The learning rate with the best score; of equally good ones the smallest.

    Example:
        >>> chosen_rate({4e-4: 1.0, 1e-4: 2.5, 2e-4: 2.5})
        0.0001
    """
    return min(scores, key=lambda rate: (-scores[rate], rate))
