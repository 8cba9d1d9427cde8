"""A record as tables: rows of plain text, from which Markdown and HTML are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.evaluation.statistics import Interval, points, ratio
from stepgrpo_lab.experiments.plan import ALL
from stepgrpo_lab.experiments.record import Measurement, Record, RowResult, SeedResult, verdicts
from stepgrpo_lab.overthinker.verifier import shown_labels

KINDS = {
    "untrained": "Untrained",
    "method": "Methods",
    "ablation": "Step-GRPO with one thing changed",
    "setting": "Step-GRPO with one setting changed (its own: groups of 8, threshold 0.95, group scaling)",
    "proof": "A few steps that show that it trains",
}
"""Heading of each kind of row."""

_MEASURED = ["accuracy", "points", "tokens", "compression rate", "steps", "closed", "truncated"]


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
        return markdown_table(self.head, self.rows)

    def filled(self) -> Table:
        """The table without the columns that are empty in every row."""
        kept = [place for place in range(len(self.head)) if any(row[place] for row in self.rows)]
        rows = [[row[place] for place in kept] for row in self.rows]
        return Table(self.caption, [self.head[place] for place in kept], rows)


def record_markdown(record: Record) -> str:
    """The whole record in Markdown."""
    parts = [f"### {table.caption}\n\n{table.markdown()}" for table in record_tables(record)]
    return "\n\n".join([*parts, conditions(record)]) + "\n"


def headline_markdown(record: Record) -> str:
    """A record in a few columns, of the whole comparison the methods alone: for a terminal, and for the README."""
    whole = record.experiment == ALL
    rows = [row for row in record.rows if row.kind in ("untrained", "method")] if whole else []
    rows = rows or record.rows
    head = ["trained with", "seeds", "tokens", "accuracy", "right, seed by seed", "accuracy, harder problems"]
    body = [
        [
            row.title,
            _seeds(row),
            ratio(row.test.token_ratio),
            f"{points(row.test.accuracy_points)} points",
            ", ".join(f"{100 * run.accuracy:.1f}" for run in row.seeds if run.accuracy is not None),
            f"{points(row.harder.accuracy_points)} points" if row.harder else "",
        ]
        for row in rows
    ]
    return Table("", head, body).filled().markdown()


def _seeds(row: RowResult) -> str:
    """How many seeds a row has; the untrained model has no training seed."""
    return "" if row.kind == "untrained" else str(len(row.seeds))


def conditions(record: Record) -> str:
    """How all of it was measured, in words."""
    plan = record.plan
    harder = f" and {plan.harder} of a level above every trained one" if plan.harder else ""
    parts = [
        f"{plan.test} {plan.split} problems{harder}, {plan.samples} sample{'s' * (plan.samples > 1)} each from every "
        "seed; changes are paired with the untrained model.",
        scope(record),
        "Each training took the recipe's steps, or decoded the tokens of the row that it is a control of."
        if plan.token_budget is None
        else f"Each training's rollouts decoded {plan.token_budget:,} tokens, probes included.",
    ]
    if plan.learning_rates:
        rates = ", ".join(f"{rate:g}" for rate in plan.learning_rates)
        parts.append(f"Each method has the best learning rate of {rates}, by validation problems with its first seed.")
    if any(map(verdicts, record.rows)):
        parts.append(
            'Beside a published change, "agrees" means that the interval holds it, "weaker" less of it or nothing, '
            '"stronger" more of it, "disagrees" another direction, "undecided" that the interval holds no change as '
            "well."
        )
    return " ".join(parts)


def scope(record: Record) -> str:
    """What the intervals cover."""
    several = [row for row in record.rows if len(row.seeds) > 1]
    covering = [row for row in several if row.covers == "problems and seeds"]
    if not covering:
        seeds = "; they do not cover the training seed" if record.trained else ""
        return f"Brackets hold 95 % intervals over problems{seeds}."
    alone = "" if len(covering) == len(record.trained) else "; those of a row with one seed cover problems only"
    return f"Brackets hold 95 % intervals over problems and seeds{alone}."


def record_tables(record: Record) -> list[Table]:
    """Every table of a record, in reading order; what it does not hold is left out."""
    rows = record.rows
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    tables = [
        *(_main_table(KINDS[kind], [row for row in rows if row.kind == kind]) for kind in kinds),
        _contrast_table(record),
        _measured_table("Problems of a level above every trained one", rows, lambda row: row.harder),
        _measured_table("With twice the token limit", rows, lambda row: row.longer),
        _expectation_table(rows if any(map(_published, rows)) else []),
        _signals_table([row for row in rows if _has_signals(row)]),
        _structure_table(rows),
        _habits_table([row for row in rows if row.habits]),
        _calibration_table(rows),
        _part_table(rows),
        _seed_table(rows),
    ]
    return [table.filled() for table in tables if table.rows]


def _main_table(caption: str, rows: Sequence[RowResult]) -> Table:
    head = ["", "seeds", "learning rate", *_MEASURED]
    cells = [
        [row.title, _seeds(row), "" if row.learning_rate is None else f"{row.learning_rate:g}", *_measured(row.test)]
        for row in rows
    ]
    return Table(caption, head, cells)


def _measured(part: Measurement) -> list[str]:
    return [
        share(part.accuracy),
        points(part.accuracy_points),
        "" if part.tokens is None else str(part.tokens),
        ratio(part.token_ratio),
        "" if part.steps is None else str(part.steps),
        _percent(part.closed),
        _percent(part.truncated),
    ]


def _measured_table(caption: str, rows: Sequence[RowResult], of: Callable[[RowResult], Measurement | None]) -> Table:
    body = [[row.title, _seeds(row), *_measured(part)] for row in rows if (part := of(row))]
    return Table(caption, ["", "seeds", *_MEASURED], body)


def _contrast_table(record: Record) -> Table:
    """Rows against each other: tokens are those of the first over those of the second."""
    body = [
        [
            f"{each.after} against {each.before}",
            where,
            points(part.accuracy_points),
            points(each.seeds) if each.seeds and part is each.test else "",
            ratio(part.token_ratio),
        ]
        for each in record.contrasts
        for where, part in (
            ("test problems", each.test),
            *each.test.parts.items(),
            *([("twice the token limit", each.longer)] if each.longer else []),
        )
    ]
    head = ["", "on", "points", "points, t interval over seeds", "tokens"]
    return Table("Rows against each other", head, body)


_HABITS = {
    "flips": "flips",
    "leap": "leaps right",
    "mu": "derivations right (mu)",
    "false_accepts": "wrong ones accepted (e+)",
    "false_rejects": "right ones rejected (e-)",
}


def _habits_table(rows: Sequence[RowResult]) -> Table:
    """How the models derive and check, beside the length that follows if they stopped at the first accepted result."""
    body = [
        [
            row.title,
            _seeds(row),
            *(f"{100 * row.habits[name]:.1f} %" if name in row.habits else "" for name in _HABITS),
            *(
                f"{row.habits[name]:.2f}" if name in row.habits else ""
                for name in ("derivations", "expected_derivations")
            ),
            *(f"{row.given[name]:.1f}" if name in row.given else "" for name in ("right", "wrong")),
        ]
        for row in rows
    ]
    head = ["", "seeds", *_HABITS.values(), "derivations of a chain", "expected by Yu et al."]
    return Table("How the models derive and check", [*head, "tokens if right", "tokens if wrong"], body)


def _calibration_table(rows: Sequence[RowResult]) -> Table:
    body = [
        [
            row.title,
            _seeds(row),
            *(f"{100 * found[name]:.1f} %" for name in ("stated", "right")),
            f"{found['ece']:.3f}",
        ]
        for row in rows
        if (found := row.calibration)
    ]
    head = ["", "seeds", "joint probability", "right", "expected calibration error"]
    return Table("Trial answers at the first marker", head, body)


def share(interval: Interval | None) -> str:
    """A share in percent with its interval: "95.0 % [93.1, 96.6]"; nothing for None."""
    if interval is None:
        return ""
    percent = interval * 100
    return f"{percent.estimate:.1f} % [{percent.low:.1f}, {percent.high:.1f}]"


def _percent(interval: Interval | None) -> str:
    return "" if interval is None else f"{100 * interval.estimate:.1f} %"


def _seed_table(rows: Sequence[RowResult]) -> Table:
    families = sorted({family for row in rows for run in row.seeds for family in run.first_cut})
    head = ["", "seed", "accuracy", "points", "tokens", "compression rate", "tokens fed, probes included"]
    head += ["decoded in training", "minutes", *(f"cut at the first marker, {family}" for family in families)]
    cells = [[row.title, *_seed_cells(run, families)] for row in rows for run in row.seeds]
    return Table("Seed by seed, with intervals over problems", head, cells)


def _seed_cells(run: SeedResult, families: Sequence[str]) -> list[str]:
    return [
        str(run.seed),
        "" if run.accuracy is None else f"{100 * run.accuracy:.1f} %",
        points(run.test.accuracy_points) if run.test else "",
        "" if run.tokens is None else f"{run.tokens:.1f}",
        ratio(run.test.token_ratio) if run.test else "",
        "" if run.tokens_fed is None else f"{run.tokens_fed:.1f}",
        f"{run.decoded_tokens / 1e6:.2f} million" if run.decoded_tokens else "",
        f"{run.seconds / 60:.1f}" if run.seconds else "",
        *(f"{points(run.first_cut[family])} points" if family in run.first_cut else "" for family in families),
    ]


def _part_table(rows: Sequence[RowResult]) -> Table:
    def cells(row: RowResult, where: str, part: Measurement) -> list[str]:
        figures = [share(part.accuracy), points(part.accuracy_points), ratio(part.token_ratio)]
        return [row.title, _seeds(row), where, *figures]

    body = [
        cells(row, f"{name}{harder}", part)
        for row in rows
        for measured, harder in ((row.test, ""), (row.harder, ", harder"))
        if measured
        for name, part in measured.parts.items()
    ]
    head = ["", "seeds", "family and level", "accuracy", "points", "compression rate"]
    return Table("By family and level", head, body)


def _structure_table(rows: Sequence[RowResult]) -> Table:
    labels = shown_labels(*(part for row in rows for part in row.structure.values()))
    body = [
        [
            row.title,
            _seeds(row),
            name,
            *(f"{part.get(label, 0.0):.2f}" for label in labels),
            f"{100 * part['oracle_saves']:.0f} %",
        ]
        for row in rows
        for name, part in row.structure.items()
    ]
    head = ["", "seeds", "problems", *(f"{label} steps" for label in labels), "tokens an oracle saves"]
    return Table("Steps by true label, mean per completion", head, body)


def _expectation_table(rows: Sequence[RowResult]) -> Table:
    body = []
    for row in rows:
        found = verdicts(row)
        here = f"{points(row.test.accuracy_points)} points, {ratio(row.test.token_ratio)}"
        named = [row.title, _seeds(row), row.expectation, _published(row), here]
        body.append([*named, found.get("accuracy", ""), found.get("tokens", "")])
    head = ["", "seeds", "expected", "published", "measured here", "accuracy", "tokens"]
    return Table("What the paper leads one to expect (Qwen3-8B), and what this miniature measured", head, body)


def _published(row: RowResult) -> str:
    accuracy, tokens = row.published.accuracy_points, row.published.token_ratio
    parts = [
        *([] if accuracy is None else [f"{accuracy:+.1f} points"]),
        *([] if tokens is None else [f"{100 * tokens:.0f} %"]),
    ]
    return ", ".join(parts)


# ---- what the groups could learn an exit from ------------------------------------------------------------------------

_SIGNALS = {
    "exits/early": "thoughts closed by a probe",
    "groups/mixed": "groups with both kinds of close",
    "advantage/forced": "advantage of a forced close",
    "advantage/natural": "advantage of a natural close",
}


def signals_markdown(record: Record, steps: int = 10) -> str:
    """What the groups could learn an exit from: means over seeds and over the first and the last steps of training.

    Args:
        record: A record whose rows with several seeds hold training curves.
        steps: How many training steps make the start, and the end.

    Raises:
        ValueError: A row has no such curves.
    """
    rows = [row for row in record.trained if len(row.seeds) > 1]
    if not all(map(_has_signals, rows)):
        raise ValueError("the record holds no training curves: run it again with stepgrpo compare")
    return _signals_table(rows, steps).markdown()


def _has_signals(row: RowResult) -> bool:
    return all(run.curves.get(key) for run in row.seeds for key in _SIGNALS)


def _signals_table(rows: Sequence[RowResult], steps: int = 10) -> Table:
    body = []
    for row in rows:
        for when, part in ((f"first {steps}", slice(steps)), (f"last {steps}", slice(-steps, None))):
            means = [_mean([value for run in row.seeds for _, value in run.curves[key][part]]) for key in _SIGNALS]
            shares, advantages = means[:2], means[2:]
            cells = [*(f"{100 * share:.0f} %" for share in shares), *(f"{mean:+.2f}" for mean in advantages)]
            body.append([row.title, when, *cells])
    return Table("What the groups could learn an exit from", ["trained with", "steps", *_SIGNALS.values()], body)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
