"""Run built notebooks, keep the outputs that teach or are compared, and write them."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from stepgrpo_lab.authoring.notebooks.building import COMPARED, Lesson, find_lessons, fingerprint, notebook_path
from stepgrpo_lab.course.environment import FAST_VARIABLE

CELL_SECONDS = 1800
FIGURE_MIME = "application/vnd.plotly.v1+json"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"


def build_notebooks(
    root: Path,
    names: list[str] | None = None,
    *,
    fast: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Build, run and write notebooks, each with its solution twin.

    Args:
        root: Folder of a checkout.
        names: Numbers or names ("02", "02_semantic_steps"); all by default.
        fast: Run them in their tested size.
        progress: Receives a line when a notebook begins.

    Returns:
        The files written.

    Raises:
        ValueError: No notebook has such a name, or a script is wrong.
        nbclient.exceptions.CellExecutionError: A cell raised.
    """
    written = []
    for lesson in chosen(find_lessons(root), names):
        for solved in (False, True):
            path = notebook_path(root, lesson, solved=solved)
            if progress:
                progress(str(path.relative_to(root)))
            path.parent.mkdir(parents=True, exist_ok=True)
            write(execute(lesson.build(solved=solved), folder=path.parent, fast=fast), path)
            written.append(path)
    return written


def chosen(lessons: list[Lesson], names: list[str] | None) -> list[Lesson]:
    """The lessons of these numbers or names.

    Raises:
        ValueError: There is none of that name.
    """
    if not names:
        return lessons
    for name in names:
        if not any(name in (lesson.number, lesson.name) for lesson in lessons):
            raise ValueError(f"no notebook {name!r}; there are {', '.join(lesson.name for lesson in lessons)}")
    return [lesson for lesson in lessons if lesson.number in names or lesson.name in names]


def execute(notebook: NotebookNode, *, folder: Path, fast: bool) -> NotebookNode:
    """Run every cell in a kernel of this very Python and keep what a reader should see."""
    from nbclient import NotebookClient

    with _environment(FAST_VARIABLE, "1" if fast else "0"):
        NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            coalesce_streams=True,  # or the pieces of a cell's text would be cut by chance
        ).execute()
    solved = notebook.metadata["stepgrpo"]["solved"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tags = set(cell.metadata.get("tags", []))
            # The twin shows only what is compared: the rest stands in the exercise notebook.
            dropped = "setup" in tags or (solved and COMPARED not in tags)
            cell.outputs = [] if dropped else list(_kept(cell.outputs))
            if not cell.outputs:  # nbval refuses outputs of a cell that was not run
                cell.execution_count = None
            cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    notebook.metadata["stepgrpo"]["executed"] = fingerprint(notebook)
    return notebook


def _kept(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """Without warnings, live widgets and addresses in memory; of a figure, a picture that any reader can show."""
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        if "data" in output:
            data = output.data
            data.pop(WIDGET_MIME, None)
            if FIGURE_MIME in data:
                output.data = data = NotebookNode({"image/png": picture(data[FIGURE_MIME]), "text/plain": "Figure"})
            if "text/plain" in data:
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
        yield output


def picture(figure: dict[str, Any]) -> str:
    """A plotly figure as a PNG in base64, drawn by kaleido with a local Chromium.

    Raises:
        ValueError: kaleido or Chromium is missing.
    """
    import plotly.io

    try:
        drawn = plotly.io.to_image({key: figure[key] for key in ("data", "layout")}, format="png", width=760)
    except Exception as error:  # kaleido's and choreographer's errors have no common class
        raise ValueError(
            f"figures cannot be drawn ({type(error).__name__}: {error}): install '.[authoring]' and Chromium"
        ) from error
    return base64.b64encode(drawn).decode()


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook; the same notebook gives the same bytes."""
    import nbformat

    nbformat.validate(notebook)
    path.write_text(nbformat.writes(notebook, version=4) + "\n", encoding="utf-8")


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
