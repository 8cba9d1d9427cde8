"""Build and run the notebooks: from each percent script, the exercise notebook and its twin with the solutions.

A script is read by jupytext. What this module adds to its cells:

- The header holds ``stepgrpo: {title: ..., minutes: ..., hardware: ...}`` (and ``extras:`` of the package, if it needs
  any); from these the first two cells are made, title and setup, the same in every notebook.
- A code cell tagged ``exercise`` holds the solution between ``# BEGIN SOLUTION`` and ``# END SOLUTION``. The exercise
  notebook gets, instead of these lines, those that stand there as ``# STUB: ...`` (or ``...`` when there are none); the
  twin gets the others.
- The cell after it, tagged ``check``, shows the check's result. nbval compares its output with the stored one, as it
  does for every cell tagged ``nbval-check-output``.
- A cell that compares a prediction, or is tagged ``result``, shows an outcome: its output stands in the twin alone, so
  that nobody reads an answer before the question.
- A cell that needs torch is tagged ``torch``: where torch is missing, as in a browser, it is skipped.

A run keeps the outputs that teach or are compared.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab import __version__
from stepgrpo_lab.authoring.notebooks.grading import points_of
from stepgrpo_lab.course._environment import FAST_VARIABLE
from stepgrpo_lab.widgets._base import FIGURES_MIME, FIGURES_VARIABLE

if TYPE_CHECKING:
    from nbformat import NotebookNode

BEGIN, END, STUB = "# BEGIN SOLUTION", "# END SOLUTION", "# STUB:"
COMPARED = "nbval-check-output"
COMPARES, RESULT, TORCH = ".compare(", "result", "torch"
DEFAULT_STUB = "...  # your code here"
CELL_SECONDS = 1800
FIGURE_MIME = "application/vnd.plotly.v1+json"
WIDGET_MIME = "application/vnd.jupyter.widget-view+json"
GITHUB = "https://github.com/"
PROJECT = "https://github.com/stepgrpo-lab/stepgrpo-lab"
"""Where the package is installed from, except by notebooks of a fork."""
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
SETUP = """\
import sys
from importlib.util import find_spec

# On Colab, for one; a browser has it, or cannot get it.
if find_spec("stepgrpo_lab") is None and sys.platform != "emscripten":
    address = "{repository}"
    archive = f"{archive}"
    %pip install -q "stepgrpo-lab[{extras}] @ {{archive}}"
from stepgrpo_lab import course

setup = course.setup()
setup"""


@dataclass(frozen=True)
class Lesson:
    """One notebook's source.

    Attributes:
        path: Its percent script, ``notebooks/sources/NN_name.py``.
        repository: Address of the repository, from which badges are made; empty in a folder of one's own.
        package: Address of the repository that the setup cell installs the package from.
    """

    path: Path
    repository: str
    package: str = PROJECT

    @property
    def name(self) -> str:
        """Name without suffix: "02_semantic_steps"."""
        return self.path.stem

    @property
    def number(self) -> str:
        """Its place in the course: "02"."""
        return self.name.partition("_")[0]

    @cached_property
    def source(self) -> NotebookNode:
        """The script as jupytext reads it."""
        import jupytext

        return jupytext.reads(self.path.read_text(encoding="utf-8"), fmt="py:percent")

    @property
    def about(self) -> dict[str, Any]:
        """Title, minutes and hardware.

        Raises:
            ValueError: The header lacks one of them.
        """
        about = dict(self.source.metadata.get("stepgrpo", {}))
        missing = [key for key in ("title", "minutes", "hardware") if key not in about]
        if missing:
            raise ValueError(f"{self.path}: its header has no stepgrpo: {missing[0]}")
        return about

    def build(self, *, solved: bool) -> NotebookNode:
        """The exercise notebook, or with ``solved`` its twin; without outputs.

        Raises:
            ValueError: The header or a solution's marks are wrong.
        """
        from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

        cells = [new_markdown_cell(self._title(solved)), new_code_cell(self._setup(), metadata={"tags": ["setup"]})]
        heading, exercises = "", 0
        for cell in self.source.cells:
            tags = list(cell.metadata.get("tags", []))
            if cell.cell_type == "markdown":
                cells.append(new_markdown_cell(cell.source))
                heading = cell.source if cell.source.startswith("#") else heading
                continue
            exercises += "exercise" in tags
            if "check" in tags:
                tags.append(COMPARED)
            if not solved and shows_outcome(cell.source, tags) and COMPARED in tags:
                tags.remove(COMPARED)  # nothing is stored that could be compared
            metadata: dict[str, Any] = {"tags": tags} if tags else {}
            if {"exercise", "check"} & set(tags):
                metadata["nbgrader"] = nbgrader_metadata(f"{self.number}.{exercises}", heading, check="check" in tags)
            cells.append(new_code_cell(self._code(cell, solved), metadata=metadata))
        for place, cell in enumerate(cells):
            cell["id"] = f"{self.number}-{place:03d}"
        about = {key: self.about[key] for key in ("title", "minutes", "hardware")}
        metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}, "stepgrpo": {**about, "solved": solved}}
        return new_notebook(cells=cells, metadata=metadata)

    def _title(self, solved: bool) -> str:
        folder = "notebooks/solutions" if solved else "notebooks"
        owner_and_name = self.repository.removeprefix(GITHUB)
        colab = f"https://colab.research.google.com/github/{owner_and_name}/blob/main/{folder}/{self.name}.ipynb"
        badge = f"[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
        twin = f"[the exercises](../{self.name}.ipynb)" if solved else f"[solutions](solutions/{self.name}.ipynb)"
        badge = badge if self.repository.startswith(GITHUB) else ""
        heading = f"# {self.number} · {self.about['title']}" + " · solutions" * solved
        facts = f"{self.about['minutes']} minutes · {self.about['hardware']} · {twin}"
        return f"{heading}\n\n{f'{badge} {facts}'.lstrip()}"

    def _setup(self) -> str:
        extras = ",".join(["colab", *self.about.get("extras", [])])
        return SETUP.format(repository=self.package, archive=archive_of(self.package, __version__), extras=extras)

    def _code(self, cell: NotebookNode, solved: bool) -> str:
        tags = cell.metadata.get("tags", [])
        text = str(cell.source)
        if ("exercise" in tags) != (BEGIN in text):
            raise ValueError(f"{self.path}: a cell tagged exercise, and no other, holds {BEGIN}:\n{text}")
        return split_solution(text, solved=solved) if "exercise" in tags else text


def archive_of(repository: str, version: str) -> str:
    """What pip installs, so that a notebook meets its own version: the archive of a release, or of the main branch.

    Example:
        >>> archive_of("https://github.com/someone/lab", "0.2.0")
        '{address}/archive/refs/tags/v0.2.0.tar.gz'
        >>> archive_of("https://github.com/someone/lab", "0.3.0.dev0")
        '{address}/archive/refs/heads/main.tar.gz'
        >>> archive_of("https://example.org/lab", "0.2.0")
        'git+{address}@v0.2.0'
    """
    released = re.fullmatch(r"[0-9.]+", version) is not None
    if not repository.startswith(GITHUB):
        return f"git+{{address}}@{f'v{version}' if released else 'main'}"
    return f"{{address}}/archive/refs/{f'tags/v{version}' if released else 'heads/main'}.tar.gz"


def nbgrader_metadata(number: str, heading: str, *, check: bool) -> dict[str, Any]:
    """What nbgrader reads of an exercise's cell, or of its check: an id, what it is, and its points.

    Example:
        >>> nbgrader_metadata("07.2", "### Exercise 07.2 · The loss (●●●)", check=True)["points"]
        3
    """
    about = {
        "schema_version": 3,
        "cell_type": "code",
        "grade_id": f"{'check' if check else 'exercise'}-{number.replace('.', '-')}",
        "grade": check,
        "solution": not check,
        "locked": check,
        "task": False,
    }
    return {**about, "points": points_of(heading)} if check else about


def shows_outcome(source: str, tags: Collection[str]) -> bool:
    """Whether a cell's output answers a prediction.

    Example:
        >>> shows_outcome("saved.compare(100 * kept)", []), shows_outcome("figure", ["result"]), shows_outcome("1", [])
        (True, True, False)
    """
    return COMPARES in source or RESULT in tags


def split_solution(text: str, *, solved: bool) -> str:
    """An exercise's cell with its solution, or with the stub in its place.

    Raises:
        ValueError: A mark has no counterpart.

    Example:
        >>> body = ["# BEGIN SOLUTION", "# STUB: return None", "return 2 * x", "# END SOLUTION"]
        >>> cell = "\\n    ".join(["def double(x):", *body])
        >>> print(split_solution(cell, solved=False))
        def double(x):
            return None
        >>> print(split_solution(cell, solved=True))
        def double(x):
            return 2 * x
    """
    kept: list[str] = []
    solution: list[str] | None = None
    for line in text.splitlines():
        if line.strip() in (BEGIN, END):
            if (line.strip() == BEGIN) != (solution is None):
                raise ValueError(f"{line.strip()} has no counterpart in:\n{text}")
            if solution is None:
                solution = []
                continue
            kept += _solution(solution, solved, indent=line[: len(line) - len(line.lstrip())])
            solution = None
        elif solution is None:
            kept.append(line)
        else:
            solution.append(line)
    if solution is not None:
        raise ValueError(f"{BEGIN} has no counterpart in:\n{text}")
    return "\n".join(kept)


def _solution(lines: list[str], solved: bool, indent: str) -> list[str]:
    stubs = [re.sub(rf"{STUB} ?", "", line) for line in lines if line.lstrip().startswith(STUB)]
    if not solved:
        return stubs or [indent + DEFAULT_STUB]
    return [line for line in lines if not line.lstrip().startswith(STUB)]


def find_lessons(root: Path) -> list[Lesson]:
    """The notebooks of a checkout, or of a folder of one's own, in order.

    Raises:
        ValueError: The folder has no ``notebooks/sources`` with scripts.
    """
    paths = sorted((root / "notebooks" / "sources").glob("[0-9]*.py"))
    if not paths:
        raise ValueError(f"{root} has no notebooks/sources/01_NAME.py: write one, or give --root")
    about = _project(root)
    repository = str(about.get("urls", {}).get("Repository", "")).rstrip("/")
    package = repository if about.get("name") == "stepgrpo-lab" and repository else PROJECT
    return [Lesson(path, repository, package) for path in paths]


def _project(root: Path) -> dict[str, Any]:
    """What a folder's pyproject.toml says of its project; nothing where there is none that can be read."""
    import tomllib

    try:
        return dict(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"])
    except (OSError, KeyError, TypeError, ValueError):
        return {}


def notebook_path(root: Path, lesson: Lesson, *, solved: bool) -> Path:
    """Where a built notebook lies."""
    return root / "notebooks" / ("solutions" if solved else "") / f"{lesson.name}.ipynb"


def fingerprint(notebook: NotebookNode) -> str:
    """Of all code, in order: outputs that were stored with another one are stale. The setup only installs."""
    run = (cell for cell in notebook.cells if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", []))
    code = "\0".join(cell.source for cell in run)
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def build_notebooks(
    root: Path,
    names: list[str] | None = None,
    *,
    fast: bool = False,
    keep_outputs: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Path]:
    """Build, run and write notebooks, each with its solution twin.

    Args:
        root: Folder of a checkout.
        names: Numbers or names ("02", "02_semantic_steps"); all by default.
        fast: Run them in their tested size.
        keep_outputs: Run none whose code is what its stored outputs came from: text alone has changed.
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
            notebook = lesson.build(solved=solved)
            if not (keep_outputs and _take_outputs(path, notebook)):
                execute(notebook, folder=path.parent, fast=fast)
            write(notebook, path)
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


def _take_outputs(path: Path, notebook: NotebookNode) -> bool:
    """Take over the outputs of a notebook as it was written before, if the same code made them."""
    import nbformat

    if not path.exists():
        return False
    before = nbformat.read(path, as_version=4)
    if before.metadata.get("stepgrpo", {}).get("executed") != fingerprint(notebook):
        return False
    code = ([cell for cell in book.cells if cell.cell_type == "code"] for book in (notebook, before))
    for cell, old in zip(*code, strict=True):
        cell.outputs, cell.execution_count = old.outputs, old.execution_count
    notebook.metadata["stepgrpo"]["executed"] = fingerprint(notebook)
    return True


def execute(notebook: NotebookNode, *, folder: Path, fast: bool) -> None:
    """Run every cell in a kernel of this very Python and keep what a reader should see."""
    from nbclient import NotebookClient

    NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        coalesce_streams=True,  # or the pieces of a cell's text would be cut by chance
    ).execute(env={**os.environ, FAST_VARIABLE: "1" if fast else "0", FIGURES_VARIABLE: "1"})
    solved = notebook.metadata["stepgrpo"]["solved"]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            tags = set(cell.metadata.get("tags", []))
            # The twin shows what is compared and what answers a prediction; the rest stands in the exercise notebook.
            outcome = shows_outcome(cell.source, tags)
            dropped = "setup" in tags or ((COMPARED not in tags and not outcome) if solved else outcome)
            cell.outputs = [] if dropped else list(_kept(cell.outputs))
            if not cell.outputs:  # nbval refuses outputs of a cell that was not run
                cell.execution_count = None
            cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)
    notebook.metadata["stepgrpo"]["executed"] = fingerprint(notebook)


def _kept(outputs: list[NotebookNode]) -> Iterator[NotebookNode]:
    """Without warnings, live widgets and addresses in memory; of a figure, a picture that any reader can show."""
    for output in outputs:
        if output.output_type == "stream" and output.name == "stderr":
            continue
        if "data" in output:
            data = output.data
            data.pop(WIDGET_MIME, None)
            for figure in data.pop(FIGURES_MIME, []):  # a widget's: GitHub and nbviewer show pictures in its place
                yield _picture_output(figure)
            if FIGURE_MIME in data:
                drawn = picture(data[FIGURE_MIME])
                data.clear()
                data.update({"image/png": drawn, "text/plain": "Figure"})
            if "text/plain" in data:
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
        yield output


def _picture_output(figure: dict[str, Any]) -> NotebookNode:
    from nbformat.v4 import new_output

    return new_output("display_data", data={"image/png": picture(figure), "text/plain": "Figure"})


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
