"""The live dashboard: training while it runs, fed by a callback or by a run folder."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Int, List

from stepgrpo_lab.training.metrics import METRICS_FILE, nothing_to_learn, read_metrics
from stepgrpo_lab.viz._html import table
from stepgrpo_lab.viz.curves import EXITS, MOST_POINTS, Panel, learning_curves, thinned
from stepgrpo_lab.widgets import _controls as controls
from stepgrpo_lab.widgets._base import LabWidget
from stepgrpo_lab.widgets._page import block

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stepgrpo_lab.widgets._dashboard_callback import DashboardCallback

PANELS: tuple[Panel, ...] = (
    ("Correct answers", "%", 100, {"accuracy": "training rollouts", "validation/accuracy": "validation"}),
    ("Length", "tokens", 1, {"tokens": "training rollouts", "validation/tokens": "validation"}),
    ("Semantic steps", "steps", 1, {"steps/all": "all", "steps/correct": "correct", "validation/steps": "validation"}),
    ("Trial answers", "%", 100, {"probe/confidence": "confidence", "probe/joint": "joint", "probe/right": "correct"}),
    ("Why thoughts ended", "% of rollouts", 100, EXITS),
)
_COLUMNS = {
    "step": ("step", 1, "d"),
    "accuracy": ("right %", 100, ".1f"),
    "tokens": ("tokens", 1, ".1f"),
    "steps/all": ("steps", 1, ".2f"),
    "exits/early": ("early exits %", 100, ".1f"),
    "probe/confidence": ("confidence", 1, ".3f"),
    "validation/accuracy": ("validation right %", 100, ".1f"),
    "validation/tokens": ("validation tokens", 1, ".1f"),
}
"""Metric key -> heading, factor and format of its column."""
ROWS = 8
HINT = (
    "To stop in order, interrupt the kernel (the ■ of the tool bar, or I twice): training finishes its step and saves."
)


class LiveDashboard(LabWidget):
    """Accuracy, tokens, steps, exits and confidence while training runs.

    Give :meth:`callback` to the trainer in this process, or :meth:`follow` the folder of a run in another one.

    Args:
        state: Traits to start with.

    Attributes:
        rows: One dictionary per logged step, as in ``metrics.jsonl``; of a long run, earlier ones are means of several.
        max_steps: Steps of the whole training; 0 if unknown.
        finished: Training has ended.
        stop_requested: Someone asked training to stop; the callback obeys at the end of a step.
        stoppable: Training runs in this process, so that it can be stopped from here.

    Example:
        >>> dashboard = LiveDashboard()
        >>> dashboard.add({"step": 1, "accuracy": 0.9, "tokens": 80.0})
        >>> dashboard.sentence
        'Step 1: 90.0 % right, 80.0 tokens.'
    """

    rows: List[dict[str, Any]] = List().tag(state=True)
    max_steps = Int(0, min=0).tag(state=True)
    finished = Bool(False).tag(state=True)
    stop_requested = Bool(False).tag(state=True)
    stoppable = Bool(False).tag(state=True)

    def __init__(self, **state: Any) -> None:
        self._following: threading.Event | None = None
        super().__init__(**state)

    @classmethod
    def of_run(cls, folder: str | Path) -> LiveDashboard:
        """The dashboard of a run folder as it is now.

        Raises:
            ValueError: A row of its metrics is broken.
        """
        return cls(rows=_bounded(read_metrics(Path(folder) / METRICS_FILE)))

    def callback(self, stop_after: int | None = None) -> DashboardCallback:
        """A trainer callback that feeds this dashboard and obeys its stop button.

        Pass it to :func:`stepgrpo_lab.run.job.train` or add it to a :class:`stepgrpo_lab.StepGRPOTrainer`.

        Args:
            stop_after: Step at whose end training stops and saves, as if the button had been pressed; None: never.
        """
        from stepgrpo_lab.widgets._dashboard_callback import DashboardCallback

        return DashboardCallback(self, stop_after)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one logged step."""
        with self.lock:
            self.rows = _bounded([*self.rows, dict(row)])

    def stop(self) -> None:
        """Ask training to stop."""
        self.stop_requested = True

    def follow(self, folder: str | Path, every: float = 2.0) -> None:
        """Show a run folder's metrics as they are written, from a thread of its own, until :meth:`unfollow`.

        Args:
            folder: The run folder; it may not exist yet.
            every: Seconds between two looks.
        """
        self.unfollow()
        ended = self._following = threading.Event()

        def look() -> None:
            seen = None
            while True:
                there = _version(Path(folder) / "metrics.jsonl")
                if there != seen:  # a long file is not read again for nothing
                    rows, seen = _bounded(read_metrics(Path(folder) / METRICS_FILE)), there
                    if rows != self.rows:
                        self.rows = rows
                if ended.wait(every):
                    return

        threading.Thread(target=look, name="dashboard", daemon=True).start()

    def unfollow(self) -> None:
        """Stop following a run folder."""
        if self._following is not None:
            self._following.set()
            self._following = None

    def latest(self, key: str) -> float | None:
        """The newest value of a metric."""
        return next((row[key] for row in reversed(self.rows) if isinstance(row.get(key), (int, float))), None)

    def compute(self) -> None:
        step = self.latest("step")
        if step is None:
            self.sentence = "Waiting for the first step."
            return
        total = f" of {self.max_steps}" if self.max_steps else ""
        known = [
            f"{self.latest(key) * factor:{form}} {unit}"  # type: ignore[operator]  # not None, as asked below
            for key, factor, form, unit in (
                ("accuracy", 100, ".1f", "% right"),
                ("tokens", 1, ".1f", "tokens"),
                ("steps/all", 1, ".1f", "steps"),
                ("exits/early", 100, ".0f", "% early exits"),
                ("probe/confidence", 1, ".2f", "mean confidence"),
                ("validation/accuracy", 100, ".1f", "% right in validation"),
            )
            if self.latest(key) is not None
        ]
        state = " Finished." if self.finished else " Stopping after this step." if self.stop_requested else ""
        why = nothing_to_learn(self.rows[-1])
        barren = "" if why is None else f" No group of this step can be learned from: {why}."
        self.sentence = f"Step {step:.0f}{total}: {', '.join(known) or 'no metrics yet'}.{barren}{state}"

    def figures(self) -> list[Figure]:
        try:
            return [learning_curves(self.rows, PANELS)]
        except ValueError:  # nothing was logged yet
            from plotly.graph_objects import Figure

            return [Figure(layout={"height": 60})]

    def body(self) -> str:
        def cell(row: Mapping[str, Any], key: str) -> str:
            _, factor, form = _COLUMNS[key]
            value = row.get(key)
            return format(value * factor, form) if isinstance(value, (int, float)) else "-"

        rows = [[cell(row, key) for key in _COLUMNS] for row in self.rows[-ROWS:]]
        return table(f"The last {len(rows)} logged steps", [heading for heading, *_ in _COLUMNS.values()], rows)

    def controls(self) -> list[Any]:
        import ipywidgets

        row = ipywidgets.HBox([ipywidgets.HTML(block(f'<p class="quiet">{HINT}</p>'))])
        if stop_is_delivered():
            stop = controls.button(self, "Stop training", self.stop, "finishes the step and saves")
            stop.layout.flex = "0 0 auto"
            _hear_while_busy(stop)
            row.children = (stop, *row.children)

        def show(_: Any) -> None:
            row.layout.display = "flex" if self.stoppable and not self.finished else "none"

        show(None)
        self.observe(show, names=["stoppable", "finished"])
        return [row]


def _bounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, thinned out once there are twice as many as a figure draws; the last ones stay as they are."""
    if len(rows) <= 2 * MOST_POINTS:
        return rows
    return [*thinned(rows[:-ROWS]), *rows[-ROWS:]]


def _version(path: Path) -> tuple[int, int] | None:
    """Changes when a file does; None while there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size


def stop_is_delivered() -> bool:
    """Whether a click reaches the kernel while a cell trains: JupyterLab >= 4.4 with ipykernel >= 7.

    They handle a widget's messages in a thread. Elsewhere the click would only be heard when training is over.
    """
    elsewhere = "google.colab" in sys.modules or any(name.startswith("VSCODE_") for name in os.environ)
    return not elsewhere and _installed("ipykernel") >= (7, 0) and _installed("jupyterlab") >= (4, 4)


def _hear_while_busy(button: Any) -> None:
    """Let a click be handled in the thread that the front end asked for.

    From ipykernel 7.4 on, a message goes to where the kernel last wrote to its widget: the cell that made the button,
    and so behind the cell that trains. A comm on which the kernel never wrote has no such place.
    """
    vars(button.comm).pop("_reply_subshell_id", None)


def _installed(package: str) -> tuple[int, ...]:
    """Major and minor version of a package; (0,) without it."""
    try:
        return tuple(int(part) for part in version(package).split(".")[:2] if part.isdigit())
    except PackageNotFoundError:
        return (0,)
