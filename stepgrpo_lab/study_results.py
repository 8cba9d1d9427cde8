"""What a study measured: records, their file, and the table in Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgrpo_lab.evaluation_records import Comparison
from stepgrpo_lab.statistics import Interval


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
