"""The metrics of a run, read back from its file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = "metrics.jsonl"


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics file, whole lines only; empty if there is no file.

    Example:
        >>> read_metrics("no/such/file.jsonl")
        []
    """
    path = Path(path)
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a killed run
            break
    return rows


def run_decoded_tokens(folder: str | Path) -> int:
    """Tokens decoded in the training rollouts of a run folder, probes included."""
    return round(sum(row.get("cost/decoded_tokens", 0.0) for row in read_metrics(Path(folder) / FILE)))


def run_curves(folder: str | Path, keys: Sequence[str]) -> dict[str, list[list[float]]]:
    """Some metrics of a run folder: key -> [[step, value], ...], rounded for a record; keys without values left out."""
    rows = read_metrics(Path(folder) / FILE)
    curves = {key: [[row["step"], round(row[key], 5)] for row in rows if key in row] for key in keys}
    return {key: curve for key, curve in curves.items() if curve}
