"""Timing, and the records that it ends in."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured number and what it was hoped to be.

    Attributes:
        benchmark: Name of the benchmark that measured it.
        name: What was measured, in words.
        value: The median over the repetitions.
        unit: Of the value; "x" for a ratio.
        low, high: Least and greatest repetition.
        most, least: The target, if there is one.
        note: Where the number comes from, or why it misses its target.
    """

    benchmark: str
    name: str
    value: float
    unit: str
    low: float
    high: float
    most: float | None = None
    least: float | None = None
    note: str = ""

    @property
    def target(self) -> str:
        """The target in words; empty without one."""
        if self.most is not None:
            return f"at most {self.most:,g}"
        return "" if self.least is None else f"at least {self.least:,g}"

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.most is not None:
            return self.value <= self.most
        return None if self.least is None else self.value >= self.least


def figure(benchmark: str, name: str, values: Sequence[float], unit: str = "x", **options: Any) -> Figure:
    """The median of repetitions, with their range."""
    return Figure(benchmark, name, statistics.median(values), unit, min(values), max(values), **options)


@dataclass(frozen=True)
class Table:
    """Figures without a target that belong side by side."""

    title: str
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Result:
    """What one benchmark measured."""

    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def seconds_of(task: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call, wall time by default."""
    started = clock()
    task()
    return clock() - started


def alternate(
    tasks: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each task, each run in turn ``repeats`` times, so that a slow minute of the machine meets them all.

    Run each once before: the first call of a tensor shape is slow.

    Args:
        tasks: By name.
        repeats: How often each is run.
        clock: Wall time by default; ``time.process_time`` counts what this process's threads compute.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            seconds[name].append(seconds_of(task, clock))
    return seconds


def ratios(above: Sequence[float], below: Sequence[float], factor: float = 1.0) -> list[float]:
    """Ratio of each repetition, so that only times taken right after each other are compared."""
    return [factor * a / b for a, b in zip(above, below, strict=True)]


def machine() -> dict[str, str | int]:
    """What the figures were measured with."""
    import torch
    import transformers
    import trl

    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def figures_markdown(figures: Sequence[Figure]) -> str:
    """One line for each figure."""
    lines = ["| measured | value | repetitions | target |", "| --- | --- | --- | --- |"]
    for row in figures:
        target = row.target + (", missed" if row.met is False else "")
        lines.append(f"| {row.name} | {_number(row.value)} {row.unit} | {_range(row)} | {target} |")
    return "\n".join(lines)


def _range(row: Figure) -> str:
    return "" if row.low == row.high else f"{_number(row.low)} to {_number(row.high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def table_markdown(table: Table) -> str:
    """A table under its title."""
    lines = [f"### {table.title}", "", _line(table.columns), _line(["---"] * len(table.columns))]
    return "\n".join([*lines, *map(_line, table.rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def record_markdown(record: dict[str, Any]) -> str:
    """The whole record: targets, notes, tables, machine."""
    parts = ["# Speed", "`python -m tools.benchmarks`, on one thread; ratios of times taken alternately in one run."]
    results = [read_result(entry) for entry in record["benchmarks"].values()]
    figures = [row for result in results for row in result.figures]
    parts.append(figures_markdown(figures))
    notes = [f"- *{row.name}*: {row.note}" for row in figures if row.note]
    parts += ["\n".join(notes)] if notes else []
    parts += [table_markdown(table) for result in results for table in result.tables]
    parts.append("; ".join(f"{key} {value}" for key, value in record["machine"].items()) + ".")
    return "\n\n".join(parts) + "\n"


def read_result(entry: dict[str, Any]) -> Result:
    """One benchmark's result, back from JSON."""
    return Result([Figure(**row) for row in entry["figures"]], [Table(**table) for table in entry["tables"]])


def write_record(folder: Path, results: dict[str, Result], order: Sequence[str]) -> None:
    """Put the results into the record, in place of older ones of the same benchmarks."""
    path = folder / "speed.json"
    old = json.loads(path.read_text(encoding="utf-8"))["benchmarks"] if path.exists() else {}
    new = {**old, **{name: asdict(result) for name, result in results.items()}}
    record = {"machine": machine(), "benchmarks": {name: new[name] for name in order if name in new}}
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (folder / "speed.md").write_text(record_markdown(record), encoding="utf-8")
