"""What a study measured: records, their file, and the table in Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.evaluation.results import Comparison
from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.experiments.studies import STUDIES
from stepgrpo_lab.viz.tradeoff import ChangePoint


@dataclass(frozen=True)
class RowResult:
    """What a row of a study measured.

    Attributes:
        comparison: The trained model against the untrained one, on the same problems.
        decoded_tokens: Tokens decoded in the training rollouts, probes included.
        first_cut: Family -> what a cut at the first marker changes in the trained model's accuracy, in points.
        curves: Metric -> [[step, value], ...] over training.
    """

    comparison: Comparison
    decoded_tokens: int
    first_cut: dict[str, Interval] = field(default_factory=dict)
    curves: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyResult:
    """A study's rows by name, and for methods with several seeds their comparison over all of them."""

    rows: dict[str, RowResult]
    pooled: dict[str, Comparison]


def load_study(path: str | Path) -> StudyResult:
    """Read the file that ``stepgrpo reproduce`` wrote.

    Raises:
        ValueError: The file is not such a record.

    Example:
        >>> from stepgrpo_lab import data_path
        >>> list(load_study(data_path("results", "headline.json")).pooled)
        ['Step-GRPO']
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = {
            name: RowResult(
                _comparison(row["comparison"]),
                row["decoded_tokens"],
                {family: Interval(**interval) for family, interval in row["first_cut"].items()},
                row["curves"],
            )
            for name, row in data["rows"].items()
        }
        return StudyResult(rows, {name: _comparison(row) for name, row in data["pooled"].items()})
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not the record of a study ({error}): make it with stepgrpo reproduce") from error


def recorded_studies() -> dict[str, StudyResult]:
    """The studies whose records come with the package, by name.

    Example:
        >>> list(recorded_studies())[:2]
        ['fairness', 'headline']
    """
    found = {}
    for path in sorted(data_path("results").glob("*.json")):
        if path.stem in STUDIES:
            found[path.stem] = load_study(path)
    return found


def _comparison(data: dict[str, Any]) -> Comparison:
    intervals = {name: Interval(**data[name]) for name in ("accuracy_points", "token_ratio", "steps")}
    families = {name: _comparison(part) for name, part in data["families"].items()}
    return Comparison(problems=data["problems"], families=families, **intervals)


def study_markdown(result: StudyResult) -> str:
    """The study as a Markdown table; brackets hold 95 % intervals over problems."""
    families = sorted({family for row in result.rows.values() for family in row.first_cut})
    head = ["trained with", "tokens", "accuracy", "tokens decoded in training"]
    head += [f"cut at the first marker, {family}" for family in families]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for method, comparison in result.pooled.items():
        lines.append(_line([f"{method}, all seeds", *_cells(comparison)], len(head)))
    for name, row in result.rows.items():
        cells = [name, *_cells(row.comparison), f"{row.decoded_tokens / 1e6:.2f} million"]
        cells += [f"{row.first_cut[family]} points" for family in families]
        lines.append(_line(cells, len(head)))
    return "\n".join(lines)


def _cells(comparison: Comparison) -> list[str]:
    return [f"{comparison.token_ratio * 100} %", f"{comparison.accuracy_points} points"]


def _line(cells: Sequence[str], width: int) -> str:
    return f"| {' | '.join([*cells, *[''] * (width - len(cells))])} |"


def mean_curves(result: StudyResult) -> dict[str, dict[str, list[list[float]]]]:
    """The training curves of each method, averaged over its seeds step by step.

    Returns:
        Method -> metric -> [[step, mean], ...], over the steps that every seed has.

    Example:
        >>> from stepgrpo_lab import data_path
        >>> curves = mean_curves(load_study(data_path("results", "internalisation.json")))
        >>> sorted(curves), len(curves["Step-GRPO"]["exits/early"])
        (['Step-GRPO', 'every member probed'], 40)
    """
    averaged: dict[str, dict[str, list[list[float]]]] = {}
    for method in methods(result):
        seeds = [
            {key: {step: value for step, value in curve} for key, curve in row.curves.items()}
            for row in rows_of(result, method)
        ]
        shared = [key for key in seeds[0] if all(key in seed for seed in seeds)]
        averaged[method] = {
            key: [
                [step, sum(seed[key][step] for seed in seeds) / len(seeds)]
                for step in seeds[0][key]
                if all(step in seed[key] for seed in seeds)
            ]
            for key in shared
        }
    return averaged


def methods(result: StudyResult) -> list[str]:
    """What a study trained with, in its order, each once."""
    return list(dict.fromkeys(name.partition(", seed ")[0] for name in result.rows))


def rows_of(result: StudyResult, method: str) -> list[RowResult]:
    """The runs of one method, seed by seed."""
    return [row for name, row in result.rows.items() if name.partition(", seed ")[0] == method]


_SIGNALS = {
    "exits/early": "thoughts closed by a probe",
    "groups/mixed": "groups with both kinds of close",
    "advantage/forced": "advantage of a forced close",
    "advantage/natural": "advantage of a natural close",
}


def signals_markdown(result: StudyResult, steps: int = 10) -> str:
    """What the groups could learn an exit from: means over seeds and over the first and the last steps of training.

    Args:
        result: A study whose rows hold training curves.
        steps: How many training steps make the start, and the end.

    Raises:
        ValueError: A method has no such curves.
    """
    lines = ["| trained with | steps | " + " | ".join(_SIGNALS.values()) + " |", "|" + " --- |" * (2 + len(_SIGNALS))]
    for method in result.pooled:
        rows = rows_of(result, method)
        for when, part in ((f"first {steps}", slice(steps)), (f"last {steps}", slice(-steps, None))):
            cells = [_mean_of([row.curves.get(key, [])[part] for row in rows]) for key in _SIGNALS]
            shares = [f"{100 * value:.0f} %" if place < 2 else f"{value:+.2f}" for place, value in enumerate(cells)]
            lines.append(f"| {method} | {when} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _mean_of(curves: Sequence[Sequence[Sequence[float]]]) -> float:
    values = [value for curve in curves for _, value in curve]
    if not values:
        raise ValueError("the study holds no training curves: run it again with stepgrpo reproduce")
    return sum(values) / len(values)


def study_changes(result: StudyResult, *, family: str | None = None, pooled: bool = False) -> list[ChangePoint]:
    """The runs of a study against the untrained model, for :func:`stepgrpo_lab.viz.tradeoff.tradeoff_changes`.

    Args:
        result: The study.
        family: One family of problems; None for all.
        pooled: One point for all seeds of a method, where it has several.

    Raises:
        ValueError: The study knows no such family.

    Example:
        >>> from stepgrpo_lab import data_path
        >>> from stepgrpo_lab.experiments.study_results import load_study
        >>> [point["name"] for point in study_changes(load_study(data_path("results", "headline.json")), pooled=True)]
        ['Step-GRPO, all seeds', 'GRPO, seed 0']
    """
    comparisons = {f"{method}, all seeds": comparison for method, comparison in result.pooled.items()} if pooled else {}
    for name, row in result.rows.items():
        if not pooled or name.partition(", seed ")[0] not in result.pooled:
            comparisons[name] = row.comparison
    points: list[ChangePoint] = []
    for name, comparison in comparisons.items():
        if family is not None and family not in comparison.families:
            raise ValueError(f"no family {family!r}: the study has {', '.join(comparison.families)}")
        part = comparison if family is None else comparison.families[family]
        points.append({"name": name, "accuracy_points": part.accuracy_points, "token_ratio": part.token_ratio})
    return points
