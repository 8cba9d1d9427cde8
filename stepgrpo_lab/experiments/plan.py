"""The declared experiments: which rows each one compares, and how much is spent on every row.

All of it is fixed before anything is measured. ``stepgrpo compare NAME`` runs an experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.experiments.rows import (
    RECIPE_ROWS,
    ROWS,
    ROWS_2,
    STEP_GRPO,
    SWEEP_2_ROWS,
    SWEEP_ROWS,
    VANILLA,
    Row,
    find_rows,
)
from stepgrpo_lab.method.names import did_you_mean, shown
from stepgrpo_lab.method.records import from_json

MOST_STEPS = 1000
"""A run with a token budget ends with it; this many steps are never reached."""

ACCURACY_WEIGHT = 10
"""How many percent of the tokens one point of accuracy is worth when a learning rate is chosen."""


@dataclass(frozen=True)
class Plan:
    """The same for every row.

    Attributes:
        recipe: What every row changes a few keys of; its name is also that of the laboratory whose problems are asked.
        token_budget: Tokens that the training rollouts of a run may decode, probes included; None for as many steps as
            the recipe says. A row may have another row's decoded tokens as its budget instead.
        learning_rates: The grid from which each method's rate is chosen, on validation problems with the first seed;
            empty for the recipe's rate.
        validation: Validation problems that a run is measured on before and after, and a rate is chosen by.
        curves: Validation problems that are measured again and again while a run trains.
        split: Problems that the models are measured on in the end.
        test: How many of them.
        harder: How many problems of the level above every trained one; 0 for none.
        samples: Completions of each problem.
        first_cut: Also measure every model with its thoughts cut at the first marker.
        twice_the_limit: On so many of the test problems, also measure with twice the token limit; 0 for none.
        proof_steps: Optimiser steps of a row that only proves that it trains.
    """

    recipe: str = "overthinker"
    token_budget: int | None = 400_000
    learning_rates: tuple[float, ...] = (5e-5, 1e-4, 2e-4)
    validation: int = 300
    curves: int = 100
    split: Literal["test", "validation"] = "test"
    test: int = 400
    harder: int = 200
    samples: int = 4
    first_cut: bool = False
    twice_the_limit: int = 0
    proof_steps: int = 6

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """Rebuild a plan from its dictionary; a field that version 0.1 did not know has its default.

        Raises:
            ValueError: A field is of another type; the message names it.
        """
        known = {field.name for field in fields(cls)}
        return from_json(cls, {name: value for name, value in from_json(dict[str, Any], data).items() if name in known})


@dataclass(frozen=True)
class Experiment:
    """Rows that answer a question together.

    Attributes:
        name: For the command line and for the files that are written.
        question: What it asks.
        rows: In the order of the table.
        plan: What is spent on every row.
        folder: Where its runs belong, under ``runs/``. Experiments of one plan share a folder, and so their runs.
        contrasts: Names of rows held against each other, as (after, before).
    """

    name: str
    question: str
    rows: tuple[Row, ...]
    plan: Plan = Plan()
    folder: str = "comparison"
    contrasts: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.plan.learning_rates and any(row.budget_of for row in self.rows):
            raise ValueError(
                f"experiment {self.name!r}: with a grid of learning rates the plan sets every row's budget"
            )


ALL = "all"

_RECIPE = Plan(token_budget=None, learning_rates=(), validation=100, test=2000, harder=0, samples=1, first_cut=True)
_SWEEP = Plan(token_budget=None, learning_rates=(), validation=100, split="validation", test=500, harder=0, samples=1)

_SWEEP_2 = replace(_SWEEP, recipe="overthinker-2", test=1000)


_PLAN_2 = Plan(
    recipe="overthinker-2",
    token_budget=300_000,
    learning_rates=(5e-5, 1e-4, 2e-4),
    validation=1000,
    test=2000,
    samples=1,
    first_cut=True,
    twice_the_limit=500,
)


def _of_kinds(*kinds: str, also: tuple[str, ...] = ()) -> tuple[Row, ...]:
    return tuple(row for row in ROWS if row.kind in kinds or row.name in (VANILLA, *also))


def _of_recipe(*names: str) -> tuple[Row, ...]:
    return tuple(find_rows([VANILLA, *names], RECIPE_ROWS))


EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        Experiment(ALL, "What does Step-GRPO buy over each alternative, and what does each of its parts do?", ROWS),
        Experiment("methods", "What does Step-GRPO buy over each alternative?", _of_kinds("untrained", "method")),
        Experiment("ablations", "What does each part of Step-GRPO do?", _of_kinds("ablation", also=(STEP_GRPO,))),
        Experiment("settings", "What does each setting of Step-GRPO do?", _of_kinds("setting", also=(STEP_GRPO,))),
        Experiment("proofs", "Does every other published reward train?", _of_kinds("proof")),
        Experiment(
            "headline",
            "Does Step-GRPO halve the completions at no loss of accuracy, and does plain GRPO?",
            _of_recipe(STEP_GRPO, "grpo"),
            _RECIPE,
            "recipe",
        ),
        Experiment(
            "internalisation",
            "Is the exit learned, so that plain decoding stops too, when each member of a group is probed, or half?",
            _of_recipe(STEP_GRPO, "every-member-probed"),
            _RECIPE,
            "recipe",
        ),
        Experiment(
            "fairness",
            "Are the needed steps still needed after training: what does a cut at the first marker cost?",
            _of_recipe(STEP_GRPO, "grpo", "length-penalty"),
            _RECIPE,
            "recipe",
        ),
        Experiment("sweep", "Which settings does validation prefer?", SWEEP_ROWS, _SWEEP, "sweep"),
        Experiment(
            "overthinker-2",
            "Where stopping can help, hurt or be needed: what does Step-GRPO buy over each alternative?",
            ROWS_2,
            _PLAN_2,
            "overthinker-2",
            (
                (STEP_GRPO, "grpo"),
                *(
                    (STEP_GRPO, row)
                    for row in (
                        "length-penalty",
                        "no-dynamic-rollout",
                        "every-member-probed",
                        "deer-sft",
                        "on-policy-sft",
                    )
                ),
            ),
        ),
        Experiment(
            "sweep-2", "Which settings does validation prefer in Overthinker 2?", SWEEP_2_ROWS, _SWEEP_2, "sweep-2"
        ),
    )
}
"""Every experiment by its name. The sweeps see validation problems alone; what the recipes say was chosen by them."""


def find_experiment(name: str) -> Experiment:
    """The declared experiment of this name.

    Raises:
        ValueError: There is no such experiment.

    Example:
        >>> [row.name for row in find_experiment("headline").rows]
        ['vanilla', 'step-grpo', 'grpo']
    """
    if name not in EXPERIMENTS:
        raise ValueError(
            f"no experiment {shown(name)}: choose one of {', '.join(EXPERIMENTS)}{did_you_mean(name, EXPERIMENTS)}"
        )
    return EXPERIMENTS[name]


def file_stem(name: str) -> str:
    """Name of an experiment's files, without their endings.

    Example:
        >>> file_stem("all"), file_stem("sweep")
        ('comparison', 'sweep')
    """
    return "comparison" if name == ALL else name


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
    points = 100 * (after.mean("correct") - before.mean("correct"))
    saved = 100 * (1 - after.mean("tokens") / before.mean("tokens"))
    return round(points + saved / ACCURACY_WEIGHT, 6)


def chosen_rate(scores: Mapping[float, float]) -> float:
    """The learning rate with the best score; of equally good ones the smallest.

    Example:
        >>> chosen_rate({4e-4: 1.0, 1e-4: 2.5, 2e-4: 2.5})
        0.0001
    """
    return min(scores, key=lambda rate: (-scores[rate], rate))
