"""What a row measured: figures with intervals against the untrained model, JSON-able."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.evaluation.results import Evaluation, compare, overall_figures
from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.experiments.plan import Plan
from stepgrpo_lab.experiments.rows import Published

FIGURES = ("accuracy", "tokens", "steps", "truncated", "closed")
CHANGES = ("accuracy_points", "token_ratio")

Curves = dict[str, list[list[float]]]
"""Metric -> [[step, value], ...]."""

Structure = dict[str, dict[str, float]]
"""Steps by true label: "all" and each family -> label -> mean steps per completion, and token counts."""


@dataclass(frozen=True)
class Measurement:
    """Some problems, measured; every figure is an interval of 95 % over problems.

    Attributes:
        problems, samples: How many problems, and completions of each (those of all seeds together).
        accuracy, truncated, closed: Shares in [0, 1].
        tokens, steps: Means per completion.
        accuracy_points: Accuracy against the untrained model, paired, in points.
        token_ratio: Compression rate: mean tokens over those of the untrained model, paired.
        parts: The same for each family ("chain") and each of its levels ("chain, level 2").
    """

    problems: int
    samples: int
    accuracy: Interval
    tokens: Interval
    steps: Interval
    truncated: Interval
    closed: Interval
    accuracy_points: Interval
    token_ratio: Interval
    parts: dict[str, Measurement] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Rebuild a measurement from its dictionary."""
        intervals = {name: Interval(**data[name]) for name in (*FIGURES, *CHANGES)}
        parts = {name: cls.from_json(part) for name, part in data["parts"].items()}
        return cls(data["problems"], data["samples"], **intervals, parts=parts)


def measure(vanilla: Evaluation, after: Evaluation) -> Measurement:
    """Figures of one evaluation, against the untrained model on the same problems, with its families and levels."""
    parts = {name: _measurement(vanilla.subset(keep), after.subset(keep)) for name, keep in _parts_of(after).items()}
    return dataclasses.replace(_measurement(vanilla, after), parts=parts)


def _parts_of(evaluation: Evaluation) -> dict[str, list[bool]]:
    """Family, and level of a family -> which problems belong to it."""
    names = list(zip(evaluation.families, evaluation.levels, strict=True))
    parts = {}
    for family in sorted(set(evaluation.families)):
        parts[family] = [name[0] == family for name in names]
        for level in sorted({level for of, level in names if of == family and level is not None}):
            parts[f"{family}, level {level}"] = [name == (family, level) for name in names]
    return parts


def _measurement(vanilla: Evaluation, after: Evaluation) -> Measurement:
    comparison = compare(vanilla, after)
    changes = {name: getattr(comparison, name) for name in CHANGES}
    return Measurement(**overall_figures(after), **changes)


@dataclass(frozen=True)
class SeedResult:
    """One run of a row: means over all test completions, so that the spread over seeds can be seen.

    Attributes:
        seed: Seed of the run and of its measurement.
        accuracy: Share of right answers, in [0, 1].
        tokens: Mean tokens per completion.
        tokens_fed: Mean tokens fed through the model for a completion, probes included.
        decoded_tokens: Tokens decoded in training, probes included.
        seconds: Wall-clock time of the run and its measurement.
        curves: What happened during training.
    """

    seed: int
    accuracy: float
    tokens: float
    tokens_fed: float
    decoded_tokens: int = 0
    seconds: float = 0.0
    curves: Curves = field(default_factory=dict)


@dataclass(frozen=True)
class RowResult:
    """Everything that the table says of a row.

    Attributes:
        name, title, kind, expectation, published: Of the :class:`~stepgrpo_lab.experiments.rows.Row`.
        test: The held-out problems of the trained levels.
        harder: Problems of a level above every trained one.
        seeds: Its runs, one by one.
        structure: Steps by true label on the test problems, averaged over the seeds.
        learning_rate: The rate it was trained with; None if untrained.
        rates: Every rate that was tried -> its score on validation problems; empty if none was chosen.
    """

    name: str
    title: str
    kind: str
    expectation: str
    published: Published
    test: Measurement
    harder: Measurement
    seeds: list[SeedResult]
    structure: Structure
    learning_rate: float | None = None
    rates: dict[str, float] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RowResult:
        """Rebuild a row's result from its dictionary."""
        rebuilt = {
            "published": Published(**data["published"]),
            "test": Measurement.from_json(data["test"]),
            "harder": Measurement.from_json(data["harder"]),
            "seeds": [SeedResult(**seed) for seed in data["seeds"]],
        }
        return cls(**{**data, **rebuilt})


@dataclass(frozen=True)
class ComparisonRecord:
    """The table: its rows, and the plan that they were measured by."""

    rows: list[RowResult]
    plan: Plan

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary, read back by :meth:`from_json`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ComparisonRecord:
        """Rebuild a record from :meth:`to_json`'s dictionary."""
        return cls([RowResult.from_json(row) for row in data["rows"]], Plan.from_json(data["plan"]))


def published_comparison() -> ComparisonRecord:
    """The comparison whose record comes with the package.

    Example:
        >>> next(row.title for row in published_comparison().rows if row.kind == "method")
        'GRPO'
    """
    path = data_path("results", "comparison", "comparison.json")
    return ComparisonRecord.from_json(json.loads(path.read_text(encoding="utf-8")))


def verdicts(row: RowResult) -> dict[str, str]:
    """How the changes that the miniature measured stand to the published ones.

    Returns:
        "accuracy" and "tokens", as far as published -> one of

        - "agrees": the interval holds the published change;
        - "weaker", "stronger": less of it, perhaps nothing, or more of it;
        - "disagrees": a change in the other direction, or one where none is published;
        - "undecided": the interval holds both the published change and no change.
    """
    found = {}
    points, ratio = row.published.accuracy_points, row.published.token_ratio
    if points is not None:
        found["accuracy"] = _verdict(points, 0.5, row.test.accuracy_points)
    if ratio is not None:
        found["tokens"] = _verdict(100 * (ratio - 1), 1.0, _percent_change(row.test.token_ratio))
    return found


def _percent_change(ratio: Interval) -> Interval:
    return Interval(*(100 * (bound - 1) for bound in (ratio.estimate, ratio.low, ratio.high)))


def _verdict(published: float, margin: float, measured: Interval) -> str:
    """Compare a measured change with a published one, which within the margin counts as none."""
    if abs(published) < margin:
        return "agrees" if measured.low <= 0 <= measured.high else "disagrees"
    size = abs(published)
    # Seen in the published direction, so that "more" is always upwards.
    low, high = sorted(math.copysign(1, published) * bound for bound in (measured.low, measured.high))
    if high < 0:
        return "disagrees"
    if high < size:
        return "weaker"
    if low > size:
        return "stronger"
    return "agrees" if low > 0 else "undecided"


def mean_structure(parts: Sequence[Structure]) -> Structure:
    """The structures of several runs of the same problems, averaged.

    Example:
        >>> mean_structure([{"all": {"needed": 1.0}}, {"all": {"needed": 2.0}}])
        {'all': {'needed': 1.5}}
    """
    first = parts[0]
    return {
        name: {label: sum(part[name][label] for part in parts) / len(parts) for label in first[name]} for name in first
    }
