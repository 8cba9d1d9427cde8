"""What an evaluation measured, its figures with intervals, and the comparison of two of them problem by problem.

No model is needed here: the report reads these records from a run folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from stepgrpo_lab.evaluation.statistics import Calibration, Interval, Statistic, calibration, seeds_bootstrap
from stepgrpo_lab.method.records import Cost, Outcome, Problem, from_json, to_json
from stepgrpo_lab.method.steps import resolve_markers

MOST_PARTS = 200
"""Most families, and most levels, that an evaluation is divided into."""


@dataclass
class Evaluation:
    """What a model did on some problems.

    Attributes:
        problem_ids, families, levels: ``[problems]``.
        outcomes: ``[problems][samples]``.
        trial_answers: Joint probability of each probe's boxed answer and whether it was correct; empty without probes.
        cost: Tokens fed through the model.
        settings: How it was measured (samples, limit, sampling, seed, markers, rollout), JSON-able.
        texts: Problem id -> text of its first sample, for the problems whose texts were kept.

    Raises:
        ValueError: The lists do not belong together, or an outcome cannot be.
    """

    problem_ids: list[str]
    families: list[str]
    levels: list[int | None]
    outcomes: list[list[Outcome]]
    trial_answers: list[tuple[float, bool]] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    settings: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lengths = {len(self.problem_ids), len(self.families), len(self.levels), len(self.outcomes)}
        if len(lengths) > 1 or 0 in lengths:
            raise ValueError("problem_ids, families, levels and outcomes must be equally long and not empty")
        if len({len(samples) for samples in self.outcomes}) > 1 or not self.outcomes[0]:
            raise ValueError("outcomes must hold equally many samples of each problem, at least one")
        if len(set(self.problem_ids)) < len(self.problem_ids):
            raise ValueError("problem_ids must differ")
        if max(len(set(self.families)), len(set(self.levels))) > MOST_PARTS:
            raise ValueError(f"families and levels must be at most {MOST_PARTS} each: all get their intervals")
        if any(sample.tokens < 1 or sample.steps < 0 for samples in self.outcomes for sample in samples):
            raise ValueError("outcomes must hold at least 1 token each, and no negative number of steps")
        if not all(0 <= joint <= 1 for joint, _ in self.trial_answers):
            raise ValueError("trial_answers must hold probabilities from 0 to 1")

    def column(self, name: str) -> list[list[float]]:
        """``[problems][samples]`` values of one field of the outcomes: "correct", "tokens", "steps", "truncated".

        Also "closed": whether the thoughts were closed at all.
        """
        if name == "closed":
            return [[float(sample.close is not None) for sample in samples] for samples in self.outcomes]
        return [[float(getattr(sample, name)) for sample in samples] for samples in self.outcomes]

    def mean(self, name: str) -> float:
        """The mean of one field of the outcomes over all completions; see :meth:`column`."""
        values = [value for samples in self.column(name) for value in samples]
        return sum(values) / len(values)

    def subset(self, keep: Sequence[bool]) -> Evaluation:
        """The evaluation of the problems where ``keep`` is true; cost and trial answers stay with the whole."""

        def kept(values: list[Any]) -> list[Any]:
            return [value for value, wanted in zip(values, keep, strict=True) if wanted]

        return Evaluation(
            problem_ids=kept(self.problem_ids),
            families=kept(self.families),
            levels=kept(self.levels),
            outcomes=kept(self.outcomes),
            settings=self.settings,
        )

    def calibration(self, bins: int = 10) -> Calibration | None:
        """Reliability of the trial answers' joint probability; None when no probe was made."""
        if not self.trial_answers:
            return None
        probabilities, correct = zip(*self.trial_answers, strict=True)
        return calibration(probabilities, correct, bins)

    def summary(self) -> dict[str, Any]:
        """Every figure with its 95 % interval, overall, per family and per level, and the calibration of the probes.

        Shares lie in [0, 1]. ``json.dumps(summary, default=dataclasses.asdict)`` writes it.
        """
        families = {
            name: self.subset([family == name for family in self.families]) for name in sorted(set(self.families))
        }
        known = sorted({level for level in self.levels if level is not None})
        levels = {str(number): self.subset([level == number for level in self.levels]) for number in known}
        return {
            **overall_figures(self),
            "families": {name: overall_figures(part) for name, part in families.items()},
            "levels": {name: overall_figures(part) for name, part in levels.items()},
            "calibration": self.calibration(),
        }

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary, read back by :meth:`from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evaluation:
        """Rebuild an evaluation from :meth:`to_dict`'s dictionary.

        Raises:
            ValueError: A field is missing, unknown or cannot be; the message says which.
        """
        evaluation = from_json(cls, data)
        _check_settings(evaluation.settings)
        return evaluation


class _Settings(TypedDict, total=False):
    """The settings that a report reads."""

    rollout: dict[str, Any] | None
    temperature: float
    markers: str | list[str]


def _check_settings(settings: dict[str, Any]) -> None:
    try:
        resolve_markers(from_json(_Settings, settings).get("markers", "paper"))
    except ValueError as error:
        raise ValueError(f"settings: {error}") from error


_FIGURES = {"accuracy": "correct", "tokens": "tokens", "steps": "steps", "truncated": "truncated", "closed": "closed"}


def overall_figures(*seeds: Evaluation) -> dict[str, Any]:
    """Numbers of problems and samples, and every figure with its 95 % interval, over all problems together.

    Args:
        seeds: The evaluations of one model, or of several training runs on the same problems; of several, the samples
            are counted together, and the intervals cover the seeds too.
    """
    return {
        "problems": len(seeds[0].problem_ids),
        "samples": sum(len(each.outcomes[0]) for each in seeds),
        **{figure: seeds_bootstrap([each.column(name) for each in seeds]) for figure, name in _FIGURES.items()},
    }


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same problems, paired.

    Attributes:
        problems: Number of problems.
        accuracy_points: Accuracy after minus before, in percentage points.
        token_ratio: Mean tokens after / mean tokens before.
        steps: Mean steps after minus before.
        families: The same per family; empty inside a family.
    """

    problems: int
    accuracy_points: Interval
    token_ratio: Interval
    steps: Interval
    families: dict[str, Comparison] = field(default_factory=dict)


def compare(before: Evaluation | Sequence[Evaluation], *after: Evaluation) -> Comparison:
    """Compare two models on the same problems with paired 95 % intervals.

    Args:
        before: The model to compare with; or several training runs of it.
        after: The other model; or several training runs of it, whose intervals then cover the seeds too
            (:func:`~stepgrpo_lab.evaluation.statistics.seeds_bootstrap`).

    Raises:
        ValueError: The evaluations are of different problems, or divide them differently; the message names one.
    """
    befores = [before] if isinstance(before, Evaluation) else list(before)
    first = befores[0]
    old, new = (_Side(runs, [_order(first, run) for run in runs]) for runs in (befores, after))
    rows = {name: [row for row, of in enumerate(first.families) if of == name] for name in sorted(set(first.families))}
    return dataclasses.replace(
        _comparison(old, new, list(range(len(first.problem_ids)))),
        families={name: _comparison(old, new, some) for name, some in rows.items()},
    )


def _order(before: Evaluation, after: Evaluation) -> list[int]:
    """Where each problem of ``before`` stands in ``after``."""
    different = set(before.problem_ids) ^ set(after.problem_ids)
    if different:
        raise ValueError(f"problem {min(different)!r} is in one evaluation only; evaluate both on the same problems")
    place = {name: index for index, name in enumerate(after.problem_ids)}
    order = [place[name] for name in before.problem_ids]
    for name, family, index in zip(before.problem_ids, before.families, order, strict=True):
        if after.families[index] != family:
            other = after.families[index]
            raise ValueError(f"problem {name!r} is of family {family!r} in one evaluation and {other!r} in the other")
    return order


@dataclass(frozen=True)
class _Side:
    """The training runs of one side of a comparison, and where each problem stands in each of them."""

    runs: Sequence[Evaluation]
    orders: list[list[int]]

    def columns(self, name: str, rows: list[int]) -> list[Any]:
        columns = [run.column(name) for run in self.runs]
        return [[column[order[row]] for row in rows] for column, order in zip(columns, self.orders, strict=True)]


def _comparison(before: _Side, after: _Side, rows: list[int]) -> Comparison:
    def change(name: str, statistic: Statistic = "difference") -> Interval:
        seeds, others = after.columns(name, rows), before.columns(name, rows)
        return seeds_bootstrap(seeds, before_seeds=others, statistic=statistic)

    return Comparison(
        problems=len(rows),
        accuracy_points=change("correct") * 100,
        token_ratio=change("tokens", "ratio"),
        steps=change("steps"),
    )


def completion_pairs(problems: Sequence[Problem], before: Evaluation, after: Evaluation) -> list[dict[str, Any]]:
    """The rows of a run's ``completions.jsonl``: both models' texts on the problems whose texts both evaluations kept.

    Returns:
        Dictionaries with "problem", "gold", "before" and "after"; the last two hold text, tokens, steps and correct.
    """
    return [
        {
            "problem": to_json(problem),
            "gold": problem.answer,
            "before": _first_sample(before, problem.id),
            "after": _first_sample(after, problem.id),
        }
        for problem in problems
        if problem.id in before.texts and problem.id in after.texts
    ]


def _first_sample(evaluation: Evaluation, problem_id: str) -> dict[str, Any]:
    sample = evaluation.outcomes[evaluation.problem_ids.index(problem_id)][0]
    text = evaluation.texts[problem_id]
    return {"text": text, "tokens": sample.tokens, "steps": sample.steps, "correct": sample.correct}
