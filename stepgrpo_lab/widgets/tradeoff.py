"""The trade-off explorer: accuracy against tokens for any set of runs, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Unicode

from stepgrpo_lab.engines.files import inside
from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.evaluation.results import Comparison, Evaluation, compare
from stepgrpo_lab.evaluation.statistics import bootstrap_mean
from stepgrpo_lab.run.folder import read_evaluation
from stepgrpo_lab.viz._html import table, visible_text
from stepgrpo_lab.viz.tradeoff import ChangePoint, TradeoffPoint, tradeoff, tradeoff_changes
from stepgrpo_lab.widgets import _controls as controls
from stepgrpo_lab.widgets._base import LabWidget

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ALL = "all families"


class TradeoffExplorer(LabWidget):
    """Compare any runs: mean tokens against the share of correct answers.

    Args:
        evaluations: Name -> evaluation, all on the same problems; by default the recorded run of the Overthinker before
            and after training.
        state: Traits to start with.

    Attributes:
        family: Which family of problems counts; "all families" for all.
        relative: Show changes against the baseline, paired problem by problem.
        baseline: Name of the run to compare with.
        table_rows: Name, tokens and accuracy of every run, and its change, in words.

    Raises:
        ValueError: There are no evaluations, or they are of different problems.

    Example:
        >>> explorer = TradeoffExplorer(relative=True)
        >>> explorer.names
        ['overthinker, before', 'overthinker, after']
    """

    family = Unicode(ALL).tag(state=True)
    relative = Bool(False).tag(state=True)
    baseline = Unicode().tag(state=True)

    def __init__(self, evaluations: Mapping[str, Evaluation] | None = None, **state: Any) -> None:
        if evaluations is None:
            evaluations = run_evaluations(data_path("results", "overthinker"))
        if not evaluations:
            raise ValueError("there are no evaluations to compare; pass at least one")
        self.evaluations = dict(evaluations)
        self.names = list(self.evaluations)
        first = self.evaluations[self.names[0]]
        self.families = [ALL, *sorted({family for family in first.families if family})]
        self._point = cache(self._measure)
        self._change = cache(self._compare)
        self.table_rows: list[list[str]] = []
        super().__init__(**{"baseline": self.names[0], **state})

    @classmethod
    def of_runs(cls, *folders: str | Path, **state: Any) -> TradeoffExplorer:
        """The runs in these folders, each before and after training."""
        evaluations: dict[str, Evaluation] = {}
        for folder in folders:
            evaluations |= run_evaluations(folder)
        return cls(evaluations, **state)

    def _measure(self, name: str, family: str) -> TradeoffPoint:
        evaluation = self.evaluations[name]
        if family != ALL:
            evaluation = evaluation.subset([kind == family for kind in evaluation.families])
        accuracy, tokens = (bootstrap_mean(evaluation.column(column)) for column in ("correct", "tokens"))
        return {"name": visible_text(name), "accuracy": accuracy, "tokens": tokens}

    def _compare(self, baseline: str, name: str) -> Comparison:
        return compare(self.evaluations[baseline], self.evaluations[name])

    def points(self) -> list[TradeoffPoint]:
        """Every run's accuracy and tokens."""
        return [self._point(name, self.family) for name in self.names]

    def changes(self) -> list[ChangePoint]:
        """Every run's change against the baseline; empty if there is no other run."""
        changes: list[ChangePoint] = []
        for name in self.names:
            if name != self.baseline:
                whole = self._change(self.baseline, name)
                part = whole if self.family == ALL else whole.families[self.family]
                changes.append({"name": name, "accuracy_points": part.accuracy_points, "token_ratio": part.token_ratio})
        return changes

    def compute(self) -> None:
        for name, allowed in (("family", self.families), ("baseline", self.names)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; use one of {', '.join(allowed)}")
        changes = {change["name"]: change for change in self.changes()}
        self.table_rows = []
        for name, point in zip(self.names, self.points(), strict=True):
            row = [name, str(point["tokens"]), f"{point['accuracy'] * 100} %"]
            if change := changes.get(name):
                row += [f"{change['token_ratio'] * 100} %", f"{change['accuracy_points']} points"]
            else:
                row += ["baseline", ""]
            self.table_rows.append(row)
        words = [
            f"{row[0]}: {row[1]} tokens, {row[2]} right" + (f" ({row[3]} of the tokens, {row[4]})" if row[4] else "")
            for row in self.table_rows
        ]
        self.sentence = f"Problems: {self.family}. {'; '.join(words)}."

    def figures(self) -> list[Figure]:
        if self.relative and len(self.names) > 1:
            return [tradeoff_changes(self.changes(), self.baseline)]
        return [tradeoff(self.points())]

    def body(self) -> str:
        head = ["run", "tokens", "right", "tokens, of the baseline", "accuracy, change"]
        return table("95 % intervals over problems; changes are paired", head, self.table_rows)

    def controls(self) -> list[Any]:
        return [
            controls.menu(self, "family", "problems", self.families),
            controls.menu(self, "baseline", "baseline", self.names),
            controls.check(self, "relative", "change against the baseline"),
        ]


def run_evaluations(folder: str | Path) -> dict[str, Evaluation]:
    """The evaluations of a run folder, before and after training, as far as they were made.

    Raises:
        ValueError: There is no such folder, or a file in it is broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"run folder {str(folder)!r} does not exist; pass the output folder of a finished run")
    paths = {when: inside(folder, f"evaluation_{when}.json") for when in ("before", "after")}
    name = folder.resolve().name
    return {f"{name}, {when}": read_evaluation(path) for when, path in paths.items() if path.exists()}
