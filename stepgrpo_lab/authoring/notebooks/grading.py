"""Grade submitted notebooks: points for each exercise, with the checks of the notebooks that were handed out.

Each submission runs in a process of its own, with a limit of time for each exercise and of memory. That protects the
grading from slips, loops and crashes. It is no sandbox: the code runs with your rights, so grade strangers' work in a
container or on a machine that may break.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import io
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from stepgrpo_lab.authoring.notebooks._submission import bound, definitions, plain_python, used

EXERCISE_SECONDS = 120.0
MEMORY_BYTES = 8 * 1024**3
STARTUP_SECONDS = 300.0
"""How long the process may take to load on a busy machine."""
MOST_NOTEBOOK_BYTES = 50_000_000
LONGEST_NOTE = 300


@dataclass(frozen=True)
class GradedExercise:
    """An exercise of an original notebook.

    Attributes:
        number: "07.2".
        names: What the exercise defines and its check asks for.
        check: The code of its check cell.
        points: What it is worth.
    """

    number: str
    names: tuple[str, ...]
    check: str
    points: float


@dataclass(frozen=True)
class Original:
    """A notebook as it was handed out.

    Attributes:
        name: Its file name without suffix, "07_grpo": a submission's name holds it.
        sources: The code of its cells.
        exercises: In order.
    """

    name: str
    sources: list[str]
    exercises: list[GradedExercise]


@dataclass
class Row:
    """A submission's result.

    Attributes:
        path: The notebook, relative to the folder.
        original: Name of the notebook that it answers; empty if it is none of them.
        earned: Exercise -> points.
        out_of: Points that could be earned.
        notes: What went wrong, one sentence each.
    """

    path: str
    original: str = ""
    earned: dict[str, float] = field(default_factory=dict)
    out_of: float = 0.0
    notes: list[str] = field(default_factory=list)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook, as dictionaries with a source and tags; text cells as well, for headings.

    Raises:
        ValueError: The file is no notebook.
    """
    if path.stat().st_size > MOST_NOTEBOOK_BYTES:
        raise ValueError(f"the file is larger than {MOST_NOTEBOOK_BYTES // 1_000_000} MB")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [
            {
                "kind": str(cell["cell_type"]),
                "source": "".join(cell["source"]),
                "tags": list(cell.get("metadata", {}).get("tags", [])),
                "points": cell.get("metadata", {}).get("nbgrader", {}).get("points"),
            }
            for cell in cells
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"the file is no notebook ({type(error).__name__})") from error


def read_originals(folder: Path) -> list[Original]:
    """The notebooks of a folder that have exercises: cells tagged ``exercise``, each with a cell tagged ``check``.

    Raises:
        ValueError: There is none.
    """
    found = [_original(path) for path in sorted(folder.glob("*.ipynb"))]
    if not any(original.exercises for original in found):
        raise ValueError(f"{folder} holds no notebook with exercises: give --course, the folder that you handed out")
    return [original for original in found if original.exercises]


def _original(path: Path) -> Original:
    exercises: list[GradedExercise] = []
    cells = read_cells(path)
    names: set[str] = set()
    heading = ""
    for cell in cells:
        if cell["kind"] == "markdown":
            heading = cell["source"] if cell["source"].startswith("#") else heading
        elif "exercise" in cell["tags"]:
            names = set().union(*(bound(node) for node in definitions([cell["source"]])))
        elif "check" in cell["tags"]:
            asked = tuple(sorted(names & used(ast.parse(plain_python(cell["source"])))))
            number = f"{path.stem.partition('_')[0]}.{len(exercises) + 1}"
            points = points_of(heading) if cell["points"] is None else float(cell["points"])
            exercises.append(GradedExercise(number, asked, cell["source"], points))
    return Original(path.stem, [cell["source"] for cell in cells if cell["kind"] == "code"], exercises)


def points_of(heading: str) -> int:
    """What an exercise is worth: a point for each dot of its difficulty, at least one.

    Example:
        >>> points_of("### Exercise 07.2 · The clipped surrogate (●●○)"), points_of("### Exercise 00.1")
        (2, 1)
    """
    return max(1, heading.partition("\n")[0].count("●"))


def grade_folder(
    folder: Path,
    course: Path,
    *,
    seconds: float = EXERCISE_SECONDS,
    memory: int = MEMORY_BYTES,
    progress: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Grade every notebook below a folder.

    Args:
        folder: Holds the submissions, ``STUDENT/07_grpo.ipynb`` or ``07_grpo_STUDENT.ipynb``.
        course: Folder of the notebooks that were handed out.
        seconds: Wall time that one exercise may take.
        memory: Bytes that a submission may take, where the system can limit it.
        progress: Receives each row when it is done.

    Raises:
        ValueError: There is no submission, or no original with exercises.
    """
    originals = read_originals(course)
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    if not paths:
        raise ValueError(f"{folder} holds no notebook")
    rows = []
    for path in paths:
        rows.append(_grade(path, Row(path.relative_to(folder).as_posix()), originals, seconds, memory))
        if progress:
            progress(rows[-1])
    return rows


def _grade(path: Path, row: Row, originals: Sequence[Original], seconds: float, memory: int) -> Row:
    original = next((original for original in originals if original.name in path.name), None)
    if original is None:
        row.notes.append("its name is that of no notebook of the course")
        return row
    row.original, row.out_of = original.name, sum(exercise.points for exercise in original.exercises)
    row.earned = {exercise.number: 0.0 for exercise in original.exercises}
    try:
        cells = [cell["source"] for cell in read_cells(path) if cell["kind"] == "code"]
    except (ValueError, OSError) as error:
        row.notes.append(str(error))
        return row
    left = list(original.exercises)
    while left:  # after a crash, the exercises that follow get a process of their own
        left = left[_run(original, cells, left, row, seconds, memory) :]
    return row


def _run(
    original: Original, cells: list[str], exercises: Sequence[GradedExercise], row: Row, seconds: float, memory: int
) -> int:
    """Grade exercises in one process, until the last is done or one brings it down; how many are behind us."""
    points = {exercise.number: exercise.points for exercise in exercises}
    job = {
        "original": original.sources,
        "submission": cells,
        "exercises": [vars(exercise) for exercise in exercises],
        "memory": memory,
    }
    done = 0
    with _Process(job) as process:
        if process.ask(STARTUP_SECONDS) is None:
            row.notes.append("its process does not start: is there enough memory?")
            return len(exercises)
        while done < len(exercises):
            number = exercises[done].number
            reply = process.ask(seconds)
            if reply is not None and reply.get("begin") == number:
                continue
            done += 1
            if reply is None:
                how = "took too long" if process.runs() else "ended its process"
                row.notes.append(f"{number} {how}")
                return done
            share = min(1.0, max(0.0, float(reply.get("share", 0.0))))
            row.earned[number] = round(share * points[number], 2)
            if reply.get("message"):
                row.notes.append(f"{number} {reply['message']}")
    return done


class _Process:
    """A submission's process, and the lines that it answers with."""

    def __init__(self, job: dict[str, Any]) -> None:
        root = str(Path(__file__).resolve().parents[3])
        quiet = {"HF_HUB_OFFLINE": "1", "STEPGRPO_STRICT": "", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._folder = tempfile.TemporaryDirectory(prefix="stepgrpo-grade-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stepgrpo_lab.authoring.notebooks._submission"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._folder.name,
            env={**os.environ, **quiet, "PYTHONPATH": paths},
            start_new_session=True,
        )
        self._lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is dead already
            self._process.stdin.write(json.dumps(job).encode())
            self._process.stdin.close()

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._kill()
        self._process.wait()
        self._folder.cleanup()

    def _read(self) -> None:
        stream: IO[bytes] | None = self._process.stdout
        assert stream is not None
        for line in stream:
            self._lines.put(line)
        self._lines.put(b"")

    def ask(self, seconds: float) -> dict[str, Any] | None:
        """The next line; None if none comes in time, or ever."""
        try:
            line = self._lines.get(timeout=seconds)
            reply = json.loads(line) if line else None
        except (queue.Empty, ValueError):
            return None
        return reply if isinstance(reply, dict) else None

    def runs(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None and self._lines.empty()

    def _kill(self) -> None:
        """End the process and what it has started."""
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()


def table(rows: Sequence[Row]) -> str:
    """The rows as CSV: notebook, lesson, points, out_of, a column for each exercise, notes."""
    numbers = sorted({number for row in rows for number in row.earned})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["notebook", "lesson", "points", "out_of", *numbers, "notes"])
    for row in rows:
        each = [f"{row.earned[number]:g}" if number in row.earned else "" for number in numbers]
        notes = " | ".join(" ".join(note.split())[:LONGEST_NOTE] for note in row.notes)
        total = f"{sum(row.earned.values()):g}" if row.original else ""
        out_of = f"{row.out_of:g}" if row.original else ""
        writer.writerow([_cell(row.path), row.original, total, out_of, *each, _cell(notes)])
    return text.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula, without control characters."""
    shown = "".join(char if unicodedata.category(char)[0] != "C" else "\N{REPLACEMENT CHARACTER}" for char in text)
    return f"'{shown}" if shown[:1] in tuple("=+-@") else shown
