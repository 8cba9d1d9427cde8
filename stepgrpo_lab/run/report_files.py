"""What a run left in its folder, read for the report. Every file may be missing; a broken one is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

from stepgrpo_lab.evaluation.results import Comparison, Evaluation, compare
from stepgrpo_lab.recipes.loading import read_yaml

Value = TypeVar("Value")


@dataclass(frozen=True)
class RunRecord:
    """A run as its files tell it; None or empty where a file is missing.

    Attributes:
        name: The folder's name.
        recipe: Text of ``recipe.yaml``.
        model: The recipe's model, or "the model".
        metrics: Rows of ``metrics.jsonl``.
        before, after: ``evaluation_before.json`` and ``evaluation_after.json``.
        completions: Rows of ``completions.jsonl`` (see :func:`stepgrpo_lab.evaluation.evaluating.completion_pairs`).
        environment: ``environment.json``: "versions", "seconds" by phase, and whatever else was noted.
    """

    name: str
    recipe: str = ""
    model: str = "the model"
    metrics: list[dict[str, Any]] = field(default_factory=list)
    before: Evaluation | None = None
    after: Evaluation | None = None
    completions: list[dict[str, Any]] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def summaries(self) -> dict[str, dict[str, Any]]:
        """:meth:`Evaluation.summary` of "before" and "after"; empty unless both were measured."""
        if self.before is None or self.after is None:
            return {}
        return {"before": self.before.summary(), "after": self.after.summary()}

    @cached_property
    def comparison(self) -> Comparison | None:
        """Before against after; None unless both were measured."""
        return compare(self.before, self.after) if self.before and self.after else None


def read_run(folder: Path | str) -> RunRecord:
    """Read a run folder.

    Raises:
        ValueError: The folder is missing, or a file in it is broken; the message names file and row.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"run folder {str(folder)!r} does not exist; pass the output folder of a finished run")
    recipe = _read(folder / "recipe.yaml", str, "")
    return RunRecord(
        name=folder.resolve().name,
        recipe=recipe,
        model=_model_name(recipe, folder / "recipe.yaml"),
        metrics=read_run_metrics(folder),
        before=_read(folder / "evaluation_before.json", _evaluation, None),
        after=_read(folder / "evaluation_after.json", _evaluation, None),
        completions=_read(folder / "completions.jsonl", _completions, []),
        environment=read_environment(folder / "environment.json"),
    )


def read_run_metrics(folder: Path | str) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``, also while it is being written; empty if there is none yet.

    Raises:
        ValueError: A row in it is broken.

    Example:
        >>> read_run_metrics("no/such/run")
        []
    """
    return _read(Path(folder) / "metrics.jsonl", _rows, [])


def read_evaluation(path: Path) -> Evaluation:
    """A stored evaluation.

    Raises:
        ValueError: The file is broken; the message names it.
    """
    return cast(Evaluation, _read(path, _evaluation, None))


def read_environment(path: Path) -> dict[str, Any]:
    """What was noted of the machine; empty without a file.

    Raises:
        ValueError: The file is broken; the message names it.
    """
    return _read(path, _environment, {})


def _read(path: Path, parse: Callable[[str], Value], missing: Value) -> Value:
    if not path.exists():
        return missing
    try:
        return parse(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}; repair the file, or remove it to leave its section out") from error


def _rows(text: str) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file. A last line without its line break was cut off by a kill and is dropped."""
    whole, _, cut_off = text.rpartition("\n")
    lines = whole.split("\n") if whole else []
    if _is_json(cut_off):
        lines.append(cut_off)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"row {number} is not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise ValueError(f"row {number} is not a JSON object")
        rows.append(row)
    return rows


def _completions(text: str) -> list[dict[str, Any]]:
    rows = _rows(text)
    for number, row in enumerate(rows, start=1):
        told = {side: row.get(side) or {} for side in ("problem", "before", "after")}
        wanted = {
            "gold": row,
            **{f"problem.{key}": told["problem"] for key in ("id", "prompt")},
            **{f"{s}.{key}": told[s] for s in ("before", "after") for key in ("text", "tokens", "steps", "correct")},
        }
        for name, holder in wanted.items():
            if name.rpartition(".")[2] not in holder:
                raise ValueError(f"row {number} lacks {name!r}")
    return rows


def _environment(text: str) -> dict[str, Any]:
    noted = json.loads(text)
    if not isinstance(noted, dict):
        raise ValueError("it must hold a JSON object")
    return noted


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    return True


def _evaluation(text: str) -> Evaluation | None:
    return Evaluation.from_dict(json.loads(text))


def _model_name(recipe: str, path: Path) -> str:
    settings = read_yaml(recipe, path)
    model = settings.get("model") if isinstance(settings, dict) else None
    if isinstance(model, dict):
        model = model.get("name") or model.get("path")
    return str(model) if model else "the model"
