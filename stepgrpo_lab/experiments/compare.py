"""Carry out the comparison, row by row, and write its table: ``stepgrpo compare``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from filelock import FileLock, Timeout

from stepgrpo_lab.experiments.plan import Plan
from stepgrpo_lab.experiments.results import ComparisonRecord, published_comparison
from stepgrpo_lab.experiments.rows import ROWS, Row, find_rows
from stepgrpo_lab.experiments.runs import Runs
from stepgrpo_lab.run.folder import write_atomically
from stepgrpo_lab.training.callbacks import duration

PLAN_FILE = "plan.json"

WAIT = 5.0
"""Seconds between two looks at rows that another process carries out."""


def compare_methods(
    folder: str | Path,
    names: Sequence[str] = (),
    *,
    rows: tuple[Row, ...] = ROWS,
    plan: Plan | None = None,
    overrides: Sequence[str] = (),
    progress: Callable[[str], None] = lambda line: None,
    progress_every: int = 1,
) -> ComparisonRecord:
    """Carry out rows of the comparison, or what is left of them, and write the table of all rows that are done.

    The folder receives ``runs/`` (a run folder each), ``rows/`` (a result each), ``comparison.json`` (the record),
    ``comparison.md``, ``comparison.svg`` and ``comparison.html``. A row that is done is not done again, and a run cut
    off is resumed. Several processes may be given the same folder: they share the rows among them.

    Args:
        folder: Where everything is kept.
        names: Carry out these rows alone; by default all.
        rows: The declared table.
        plan: What is spent on every row.
        overrides: Changes to the recipe of every row, as for ``stepgrpo train --set``.
        progress: Receives one line at a time.
        progress_every: Steps between two lines of a training.

    Returns:
        The record of all rows that are done, in the table's order.

    Raises:
        ValueError: No such row, a recipe that cannot be, or a folder that was begun with another plan.
        InterruptedError: Ctrl-C ended a run early, or the plan's hours are over; call again to go on.

    Example:
        >>> compare_methods("runs/comparison", ["vanilla", "grpo"])  # doctest: +SKIP
    """
    folder, plan = Path(folder), plan or Plan()
    clock = _Clock(plan, progress)
    runs = Runs(folder, plan, rows=rows, overrides=overrides, tell=clock.tell, tell_every=progress_every)
    wanted = find_rows(names, rows)
    folder.mkdir(parents=True, exist_ok=True)
    common_files = FileLock(folder / "comparison.lock")
    with common_files:
        _keep_plan(folder, plan, overrides)
    try:
        pending = wanted
        while pending:
            taken = [row for row in pending if not _carried_out(row, wanted, runs, clock)]
            if taken == pending:
                clock.tell(f"waiting for {', '.join(row.title for row in taken)}: another process is at it")
                time.sleep(WAIT)
            pending = taken
    finally:
        with common_files:
            record = ComparisonRecord([done for row in rows if (done := runs.finished(row))], plan)
            if record.rows:
                write_comparison(folder, record)
    return record


def _carried_out(row: Row, wanted: Sequence[Row], runs: Runs, clock: _Clock) -> bool:
    """Carry out a row; False where another process holds it, or one whose figures it needs."""
    own = len(runs.left(row))
    clock.check(len(set[Path]().union(*map(runs.left, wanted))), own)
    try:
        runs.carry_out(row)
    except Timeout:
        return False
    clock.trained += own
    return True


def write_comparison(folder: Path, record: ComparisonRecord) -> list[Path]:
    """Write the record and what is made of it; returns the files."""
    from stepgrpo_lab.experiments.page import comparison_page
    from stepgrpo_lab.experiments.picture import draw_comparison
    from stepgrpo_lab.experiments.tables import comparison_markdown

    texts = {
        "comparison.json": json.dumps(record.to_json(), indent=1) + "\n",
        "comparison.md": comparison_markdown(record),
    }
    if any(row.kind in ("untrained", "method") for row in record.rows):
        texts["comparison.svg"] = draw_comparison(record)
    texts["comparison.html"] = comparison_page(record)
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


def write_published(folder: str | Path) -> ComparisonRecord:
    """Write the comparison that comes with the package: its tables, its picture and its page with all figures.

    Raises:
        ValueError: The folder holds a comparison of its own.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_published(folder).rows[0].title
        'vanilla'
    """
    folder = Path(folder)
    if (folder / PLAN_FILE).exists():
        raise ValueError(f"{folder} holds a comparison of its own: give another folder with --output")
    folder.mkdir(parents=True, exist_ok=True)
    record = published_comparison()
    write_comparison(folder, record)
    return record


def _keep_plan(folder: Path, plan: Plan, overrides: Sequence[str]) -> None:
    """Rows of one table are measured alike, so a folder keeps the plan it was begun with."""
    path = folder / PLAN_FILE
    kept = {**asdict(replace(plan, hours=0)), "overrides": list(overrides)}
    text = json.dumps(kept, indent=1) + "\n"
    if not path.exists():
        write_atomically(path, text)
    elif path.read_text(encoding="utf-8") != text:
        raise ValueError(f"{folder} was begun with another plan ({path}): give another folder")


class _Clock:
    """Tells the time left, and begins no row that would probably end after the plan's hours.

    Attributes:
        trained: Trainings that this process has carried out; another one may have carried out some of the rest.
    """

    def __init__(self, plan: Plan, progress: Callable[[str], None]) -> None:
        self.started = time.monotonic()
        self.limit = 3600 * plan.hours
        self.progress = progress
        self.first = self.left = self.trained = 0

    def tell(self, line: str) -> None:
        self.progress(line + (f" | {self.left} trainings left{self._estimate()}" if self.left else ""))

    def check(self, left: int, row: int) -> None:
        """Note how many trainings are left, and how many of them the next row needs.

        Raises:
            InterruptedError: The next row would probably end after the plan's hours.
        """
        self.first, self.left = max(self.first, left), left
        spent = time.monotonic() - self.started
        if spent + row * self._seconds_each(self.trained) > self.limit:
            raise InterruptedError(
                f"stopped after {duration(spent)}: the next row would not end within {duration(self.limit)}; run the "
                "same command to go on"
            )

    def _seconds_each(self, trainings: int) -> float:
        """Seconds for each of so many trainings since the start; 0 for none."""
        return (time.monotonic() - self.started) / trainings if trainings else 0.0

    def _estimate(self) -> str:
        each = self._seconds_each(self.first - self.left)
        return f", about {duration(self.left * each)}" if each else ""
