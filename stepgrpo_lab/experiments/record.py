"""What an experiment found: figures with intervals against the untrained model, JSON-able, row by row."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from stepgrpo_lab.engines.files import read_json
from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.experiments.plan import ALL, EXPERIMENTS, Experiment, Plan, find_experiment
from stepgrpo_lab.experiments.rows import Published
from stepgrpo_lab.method.records import from_json
from stepgrpo_lab.viz.tradeoff import ChangePoint

FIGURES = ("accuracy", "tokens", "steps", "truncated", "closed")
CHANGES = ("accuracy_points", "token_ratio")

CURVES = (
    "accuracy",
    "tokens",
    "exits/natural",
    "exits/early",
    "exits/near_budget",
    "exits/budget",
    "exits/none",
    "groups/mixed",
    "advantage/natural",
    "advantage/forced",
    "validation/accuracy",
    "validation/tokens",
    "validation/rollout_accuracy",
    "validation/rollout_tokens",
    "validation/first_cut_accuracy",
    "validation/first_probe_ece",
)
"""The metrics of training that a record keeps, step by step."""

Curves = dict[str, list[list[float]]]
"""Metric -> [[step, value], ...]."""

Structure = dict[str, dict[str, float]]
"""Steps by true label: "all" and each family -> label -> mean steps per completion, and token counts."""


@dataclass(frozen=True)
class Measurement:
    """Some problems, measured; every figure has a 95 % interval, whose scope the row says.

    Attributes:
        problems, samples: How many problems, and completions of each (those of all seeds together).
        accuracy_points: Accuracy against the untrained model, paired, in points.
        token_ratio: Compression rate: mean tokens over those of the untrained model, paired.
        accuracy, truncated, closed: Shares in [0, 1]; None where a record holds changes only.
        tokens, steps: Means per completion; None where a record holds changes only.
        parts: The same for each family ("chain"), and perhaps each of its levels ("chain, level 2").
    """

    problems: int
    samples: int
    accuracy_points: Interval
    token_ratio: Interval
    accuracy: Interval | None = None
    tokens: Interval | None = None
    steps: Interval | None = None
    truncated: Interval | None = None
    closed: Interval | None = None
    parts: dict[str, Measurement] = field(default_factory=dict)


@dataclass(frozen=True)
class SeedResult:
    """One run of a row, so that the spread over seeds can be seen.

    Attributes:
        seed: Seed of the run and of its measurement.
        accuracy: Share of right answers over all test completions, in [0, 1]; None if it was not kept.
        tokens: Mean tokens per test completion; None if it was not kept.
        tokens_fed: Mean tokens fed through the model for a completion, probes included; None if it was not kept.
        decoded_tokens: Tokens decoded in training, probes included.
        seconds: Wall-clock time of the run and its measurement.
        curves: What happened during training, by metric (:data:`CURVES`).
        test: Changes against the untrained model, overall and by family; intervals over problems.
        first_cut: Family -> what closing all thoughts at the first marker changes in the accuracy, in points.
    """

    seed: int
    accuracy: float | None = None
    tokens: float | None = None
    tokens_fed: float | None = None
    decoded_tokens: int = 0
    seconds: float = 0.0
    curves: Curves = field(default_factory=dict)
    test: Measurement | None = None
    first_cut: dict[str, Interval] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(len(point) != 2 for curve in self.curves.values() for point in curve):
            raise ValueError("curves must hold pairs of step and value")


@dataclass(frozen=True)
class RowResult:
    """Everything that the table says of a row.

    Attributes:
        name, title, kind, expectation, published: Of the :class:`~stepgrpo_lab.experiments.rows.Row`.
        test: The held-out problems of the trained levels.
        seeds: Its runs, one by one.
        harder: Problems of a level above every trained one; None if the plan has none.
        longer: Test problems with twice the token limit; None if the plan has none.
        given: Mean tokens of completions that are "right", and of those that are "wrong"; empty in older records.
        structure: Steps by true label on the test problems, averaged over the seeds; may be empty.
        habits: How it derives and checks (:func:`stepgrpo_lab.overthinker.verifier.checking_habits`), averaged over the
            seeds; empty but in Overthinker 2.
        calibration: Of the trial answers at the first marker, before anything is cut: mean joint probability "stated",
            share "right", and "ece" (15 bins of equal mass), averaged over the seeds; None without such a cut.
        learning_rate: The rate it was trained with; None if untrained, or not chosen.
        rates: Every rate that was tried -> its score on validation problems; empty if none was chosen.
        covers: What the intervals of ``test`` and ``harder`` cover: problems, or problems and seeds.
    """

    name: str
    title: str
    kind: str
    expectation: str
    published: Published
    test: Measurement
    seeds: list[SeedResult]
    harder: Measurement | None = None
    longer: Measurement | None = None
    given: dict[str, float] = field(default_factory=dict)
    structure: Structure = field(default_factory=dict)
    habits: dict[str, float] = field(default_factory=dict)
    calibration: dict[str, float] | None = None
    learning_rate: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    covers: Literal["problems", "problems and seeds"] = "problems"

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary, read back by :func:`~stepgrpo_lab.method.records.from_json`; None is left out."""
        return dataclasses.asdict(self, dict_factory=_without_none)


def _without_none(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if value is not None}


@dataclass(frozen=True)
class Contrast:
    """One row against another one, on the same problems.

    Attributes:
        after, before: Titles of the rows.
        test: Changes on the test problems, overall and by family; intervals over problems and the seeds of both rows.
        seeds: Change of the accuracy in points, with a t interval over the seeds' means; None with a single seed.
        longer: As ``test``, with twice the token limit; None if the plan has none.
    """

    after: str
    before: str
    test: Measurement
    seeds: Interval | None = None
    longer: Measurement | None = None


_PAIR = re.compile(r"\[\s+([-+.e\d]+),\s+([-+.e\d]+)\s+\]")


@dataclass(frozen=True)
class Record:
    """What an experiment found.

    Attributes:
        rows: Its rows, as far as they are done.
        plan: What was spent on every row.
        experiment: Name of the :class:`~stepgrpo_lab.experiments.plan.Experiment`.
        contrasts: Rows held against each other, as far as they are done.

    Example:
        >>> record = load_record("headline")
        >>> [f"{name}: {run.decoded_tokens}" for name, run in record.runs.items()][0]
        'Step-GRPO, seed 0: 375272'
    """

    rows: list[RowResult]
    plan: Plan
    experiment: str = ALL
    contrasts: list[Contrast] = field(default_factory=list)

    @property
    def pooled(self) -> dict[str, Measurement]:
        """What the rows with several seeds measured over all of them, by title."""
        return {row.title: row.test for row in self.rows if len(row.seeds) > 1}

    @property
    def runs(self) -> dict[str, SeedResult]:
        """Every training run, by title and seed."""
        return {f"{row.title}, seed {run.seed}": run for row in self.trained for run in row.seeds}

    @property
    def trained(self) -> list[RowResult]:
        """All rows but those of the untrained model."""
        return [row for row in self.rows if row.kind != "untrained"]

    def row(self, title: str) -> RowResult:
        """The row of this title.

        Raises:
            ValueError: There is none.
        """
        for row in self.rows:
            if row.title == title:
                return row
        raise ValueError(f"no row {title!r}: the record has {', '.join(row.title for row in self.rows)}")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary, read back by :meth:`from_json`."""
        plan = dataclasses.asdict(self.plan)
        contrasts = [dataclasses.asdict(each, dict_factory=_without_none) for each in self.contrasts]
        rows = [row.to_json() for row in self.rows]
        return {"experiment": self.experiment, "plan": plan, "rows": rows} | (
            {"contrasts": contrasts} if contrasts else {}
        )

    def text(self) -> str:
        """The record as the text of its file, read back by :func:`read_record`; each pair of numbers on one line."""
        return _PAIR.sub(r"[\1, \2]", json.dumps(self.to_json(), indent=1)) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Rebuild a record from :meth:`to_json`'s dictionary, or from a comparison of version 0.1.

        Raises:
            ValueError: A field cannot be; the message names it.
        """
        stored = from_json(_Stored, data)
        plan = Plan.from_json(stored["plan"])
        return cls(stored["rows"], plan, stored.get("experiment", ALL), stored.get("contrasts", []))


class _Stored(TypedDict):
    """A record as it lies in its file."""

    rows: list[RowResult]
    plan: dict[str, Any]
    experiment: NotRequired[str]
    contrasts: NotRequired[list[Contrast]]


def read_record(path: str | Path) -> Record:
    """Read a record from its file.

    Raises:
        ValueError: The file is no such record.
    """
    return read_json(path, Record.from_json, "make a record with stepgrpo compare")


def load_record(name: str = ALL) -> Record:
    """The record of an experiment that comes with the package.

    Raises:
        ValueError: There is no such experiment.

    Example:
        >>> next(row.title for row in load_record("methods").rows if row.kind == "method")
        'GRPO'
    """
    experiment = find_experiment(name)
    names = {row.name for row in experiment.rows}
    record = read_record(_shipped(experiment))
    return Record([row for row in record.rows if row.name in names], record.plan, name, record.contrasts)


def _shipped(experiment: Experiment) -> Path:
    """Experiments on the comparison's terms are parts of its record, the others have one each."""
    if experiment.folder == "comparison":
        return data_path("results", "comparison", "comparison.json")
    return data_path("results", f"{experiment.name}.json")


def shipped_records() -> dict[str, Record]:
    """The experiments whose records come with the package, by name, but for the comparison and its parts.

    Example:
        >>> list(shipped_records())[:2]
        ['fairness', 'headline']
    """
    alone = [each for each in EXPERIMENTS.values() if each.folder != "comparison" and _shipped(each).exists()]
    return {name: load_record(name) for name in sorted(each.name for each in alone)}


def changes(record: Record, *, family: str | None = None, pooled: bool = False) -> list[ChangePoint]:
    """What was trained against the untrained model, for :func:`stepgrpo_lab.viz.tradeoff.tradeoff_changes`.

    Args:
        record: The record.
        family: One family of problems; None for all.
        pooled: One point for all seeds of a row, where it has several.

    Raises:
        ValueError: The record knows no such family.

    Example:
        >>> [point["name"] for point in changes(load_record("headline"), pooled=True)]
        ['Step-GRPO, all seeds', 'GRPO, seed 0']
    """
    measured: dict[str, Measurement] = {}
    for row in record.trained:
        runs = {f"{row.title}, seed {run.seed}": run.test or row.test for run in row.seeds}
        together = len(row.seeds) > 1 and (pooled or any(run.test is None for run in row.seeds))
        measured |= {f"{row.title}, all seeds": row.test} if together else runs
    points: list[ChangePoint] = []
    for name, whole in measured.items():
        if family is not None and family not in whole.parts:
            raise ValueError(f"no family {family!r}: the record has {', '.join(whole.parts)}")
        part = whole if family is None else whole.parts[family]
        points.append({"name": name, "accuracy_points": part.accuracy_points, "token_ratio": part.token_ratio})
    return points


def mean_curves(record: Record) -> dict[str, Curves]:
    """The training curves of each row, averaged over its seeds step by step.

    Returns:
        Title -> metric -> [[step, mean], ...], over the metrics and steps that every seed has.

    Example:
        >>> curves = mean_curves(load_record("internalisation"))
        >>> sorted(curves), len(curves["Step-GRPO"]["exits/early"])
        (['Step-GRPO', 'every member probed'], 40)
    """
    averaged: dict[str, Curves] = {}
    for row in record.trained:
        seeds = [
            {key: {step: value for step, value in curve} for key, curve in run.curves.items()} for run in row.seeds
        ]
        averaged[row.title] = {
            key: [
                [step, sum(seed[key][step] for seed in seeds) / len(seeds)]
                for step in seeds[0][key]
                if all(step in seed[key] for seed in seeds)
            ]
            for key in seeds[0]
            if all(key in seed for seed in seeds)
        }
    return averaged


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
