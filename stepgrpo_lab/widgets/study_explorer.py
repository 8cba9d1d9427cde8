"""The study explorer: what whole experiments found, method by method, seed by seed, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Unicode

from stepgrpo_lab.experiments.plan import EXPERIMENTS
from stepgrpo_lab.experiments.record import (
    Record,
    changes,
    shipped_records,
)
from stepgrpo_lab.experiments.tables import scope
from stepgrpo_lab.viz._html import table
from stepgrpo_lab.viz.tradeoff import NAMED, tradeoff_changes
from stepgrpo_lab.widgets import _controls as controls
from stepgrpo_lab.widgets._base import LabWidget
from stepgrpo_lab.widgets.tradeoff import ALL

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

UNTRAINED = "untrained"


class StudyExplorer(LabWidget):
    """What experiments found: change of accuracy against change of length, every run against the untrained model.

    Args:
        studies: Name -> record; by default those that come with the package.
        state: Traits to start with.

    Attributes:
        study: Name of the record that is shown.
        family: Which family of problems counts; "all families" for all.
        pooled: One marker for all seeds of a method, instead of one for each.
        table_rows: Name, tokens and accuracy of every run against the untrained model, and the tokens that its training
            decoded, in words.

    Raises:
        ValueError: There are no records, or a trait has a value that does not exist.

    Example:
        >>> explorer = StudyExplorer(study="internalisation", pooled=True)
        >>> [row[0] for row in explorer.table_rows]
        ['Step-GRPO, all seeds', 'every member probed, all seeds']
    """

    study = Unicode().tag(state=True)
    family = Unicode(ALL).tag(state=True)
    pooled = Bool(False).tag(state=True)

    def __init__(self, studies: Mapping[str, Record] | None = None, **state: Any) -> None:
        self.studies = dict(shipped_records() if studies is None else studies)
        if not self.studies:
            raise ValueError("there are no records to show: make one with stepgrpo compare")
        parts = {name for record in self.studies.values() for row in record.trained for name in row.test.parts}
        self.families = [ALL, *sorted(name for name in parts if ", level " not in name)]
        self.table_rows: list[list[str]] = []
        first = "headline" if "headline" in self.studies else next(iter(self.studies))
        super().__init__(**{"study": first, **state})

    def compute(self) -> None:
        for name, allowed in (("study", list(self.studies)), ("family", self.families)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}")
        record = self.studies[self.study]
        family = None if self.family == ALL else self.family
        self.points = changes(record, family=family, pooled=self.pooled)
        self.table_rows = []
        for point in self.points:
            run = record.runs.get(point["name"])
            decoded = f"{run.decoded_tokens / 1e6:.2f} million" if run else ""
            change = [f"{point['token_ratio'] * 100} %", f"{point['accuracy_points']} points"]
            self.table_rows.append([point["name"], *change, decoded])
        question = f" {EXPERIMENTS[self.study].question}" if self.study in EXPERIMENTS else ""
        self.sentence = f"Study {self.study}, {self.family}.{question} {self._in_words()}."

    def _in_words(self) -> str:
        """Every run in words, or of many the two at the ends."""
        words = [f"{row[0]}: {row[1]} of the tokens, {row[2]}" for row in self.table_rows]
        if len(words) <= NAMED:
            return "; ".join(words)
        places = range(len(words))
        shortest = min(places, key=lambda place: self.points[place]["token_ratio"].estimate)
        best = max(places, key=lambda place: self.points[place]["accuracy_points"].estimate)
        return f"{len(words)} runs. Fewest tokens: {words[shortest]}. Most right: {words[best]}"

    def figures(self) -> list[Figure]:
        return [tradeoff_changes(self.points, UNTRAINED)]

    def body(self) -> str:
        head = ["trained with", "tokens, of the untrained", "accuracy, change", "tokens decoded in training"]
        rows = [[f"{place}. {row[0]}", *row[1:]] for place, row in enumerate(self.table_rows, 1)]
        seeds = scope(self.studies[self.study]) if self.pooled else "Brackets hold 95 % intervals over problems."
        return table(seeds, head, rows)

    def controls(self) -> list[Any]:
        return [
            controls.menu(self, "study", "study", list(self.studies)),
            controls.menu(self, "family", "problems", self.families),
            controls.check(self, "pooled", "all seeds together"),
        ]
