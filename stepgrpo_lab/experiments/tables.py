"""The comparison as tables: rows of plain text, from which Markdown and HTML are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_lab.evaluation.statistics import Interval, points, ratio
from stepgrpo_lab.experiments.results import ComparisonRecord, Measurement, RowResult, verdicts
from stepgrpo_lab.method.records import StepLabel

KINDS = {
    "untrained": "Untrained",
    "method": "Methods: three seeds, each with a learning rate of its own",
    "ablation": "Step-GRPO with one thing changed, three seeds",
    "setting": "Step-GRPO with one setting changed, one seed (its own: groups of 8, threshold 0.95, group scaling)",
    "proof": "A few steps that show that it trains",
}
"""Heading of each kind of row."""

_MEASURED = ["accuracy", "points", "tokens", "compression rate", "steps", "closed", "truncated"]

LABELS: tuple[StepLabel, ...] = ("needed", "verifying", "redundant", "malformed")


@dataclass(frozen=True)
class Table:
    """A table in plain text.

    Attributes:
        caption: What it shows.
        head: Headings of the columns.
        rows: One list of cells for each row, as many as headings.
    """

    caption: str
    head: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in Markdown; a cell cannot break out of its place."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(map(_markdown_cell, line))} |" for line in lines)


def _markdown_cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def comparison_markdown(record: ComparisonRecord) -> str:
    """The whole comparison in Markdown."""
    parts = [f"### {table.caption}\n\n{table.markdown()}" for table in comparison_tables(record)]
    return "\n\n".join([*parts, conditions(record)]) + "\n"


def headline_markdown(record: ComparisonRecord) -> str:
    """The methods alone in a few columns: a table for the README."""
    rows = [row for row in record.rows if row.kind in ("untrained", "method")]
    head = ["trained with", "tokens", "accuracy", "accuracy, harder problems"]
    cells = [
        [
            row.title,
            ratio(row.test.token_ratio),
            f"{points(row.test.accuracy_points)} points",
            f"{points(row.harder.accuracy_points)} points",
        ]
        for row in rows
    ]
    return Table("", head, cells).markdown()


def conditions(record: ComparisonRecord) -> str:
    """How all of it was measured, in words."""
    plan = record.plan
    return (
        f"{plan.test} test problems and {plan.harder} of a level above every trained one, {plan.samples} "
        "samples each from every seed; changes are paired with the untrained model, brackets hold 95 % intervals over "
        f"problems (not over seeds). Each training's rollouts decoded {plan.token_budget:,} tokens, probes included. "
        'Beside a published change, "agrees" means that the interval holds it, "weaker" less of it or nothing, '
        '"stronger" more of it, "disagrees" another direction, "undecided" that the interval holds no change as well.'
    )


def comparison_tables(record: ComparisonRecord) -> list[Table]:
    """Every table of the comparison, in reading order."""
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in record.rows)]
    rows = record.rows
    return [
        *(_main_table(KINDS[kind], [row for row in rows if row.kind == kind]) for kind in kinds),
        _harder_table(rows),
        _expectation_table(rows),
        _structure_table(rows),
        _part_table(rows),
        _seed_table(rows),
    ]


def _main_table(caption: str, rows: Sequence[RowResult]) -> Table:
    return Table(caption, ["", "learning rate", *_MEASURED], [_main_cells(row) for row in rows])


def _main_cells(row: RowResult) -> list[str]:
    return [
        row.title,
        "" if row.learning_rate is None else f"{row.learning_rate:g}",
        *_measured_cells(row.test),
    ]


def _measured_cells(part: Measurement) -> list[str]:
    return [
        share(part.accuracy),
        points(part.accuracy_points),
        str(part.tokens),
        ratio(part.token_ratio),
        str(part.steps),
        _percent(part.closed),
        _percent(part.truncated),
    ]


def _harder_table(rows: Sequence[RowResult]) -> Table:
    body = [[row.title, *_measured_cells(row.harder)] for row in rows]
    return Table("Problems of a level above every trained one", ["", *_MEASURED], body)


def share(interval: Interval) -> str:
    """A share in percent with its interval: "95.0 % [93.1, 96.6]"."""
    percent = interval * 100
    return f"{percent.estimate:.1f} % [{percent.low:.1f}, {percent.high:.1f}]"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.estimate:.1f} %"


def _seed_table(rows: Sequence[RowResult]) -> Table:
    head = ["", "seed", "accuracy", "tokens", "tokens fed, probes included", "decoded in training", "minutes"]
    cells = [
        [
            row.title,
            str(seed.seed),
            f"{100 * seed.accuracy:.1f} %",
            f"{seed.tokens:.1f}",
            f"{seed.tokens_fed:.1f}",
            f"{seed.decoded_tokens / 1e6:.2f} million" if seed.decoded_tokens else "",
            f"{seed.seconds / 60:.1f}",
        ]
        for row in rows
        for seed in row.seeds
    ]
    return Table("Seed by seed", head, cells)


def _part_table(rows: Sequence[RowResult]) -> Table:
    def cells(title: str, where: str, part: Measurement) -> list[str]:
        return [title, where, share(part.accuracy), points(part.accuracy_points), ratio(part.token_ratio)]

    body = [
        cells(row.title, f"{name}{', harder' if measured is row.harder else ''}", part)
        for row in rows
        for measured in (row.test, row.harder)
        for name, part in measured.parts.items()
    ]
    head = ["", "family and level", "accuracy", "points", "compression rate"]
    return Table("By family and level", head, body)


def _structure_table(rows: Sequence[RowResult]) -> Table:
    body = [
        [row.title, name, *(f"{part[label]:.2f}" for label in LABELS), f"{100 * part['oracle_saves']:.0f} %"]
        for row in rows
        for name, part in row.structure.items()
    ]
    head = ["", "problems", *(f"{label} steps" for label in LABELS), "tokens an oracle saves"]
    return Table("Steps by true label, mean per completion", head, body)


def _expectation_table(rows: Sequence[RowResult]) -> Table:
    body = []
    for row in rows:
        found = verdicts(row)
        here = f"{points(row.test.accuracy_points)} points, {ratio(row.test.token_ratio)}"
        body.append(
            [row.title, row.expectation, _published(row), here, found.get("accuracy", ""), found.get("tokens", "")]
        )
    head = ["", "expected", "published", "measured here", "accuracy", "tokens"]
    return Table("What the paper leads one to expect (Qwen3-8B), and what this miniature measured", head, body)


def _published(row: RowResult) -> str:
    accuracy, tokens = row.published.accuracy_points, row.published.token_ratio
    parts = [
        *([] if accuracy is None else [f"{accuracy:+.1f} points"]),
        *([] if tokens is None else [f"{100 * tokens:.0f} %"]),
    ]
    return ", ".join(parts)
