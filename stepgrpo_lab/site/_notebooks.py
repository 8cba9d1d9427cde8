"""Notebooks as pages of the book: outputs as they were stored, solutions folded, pictures described."""

from __future__ import annotations

import ast
import html
import inspect
import json
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.authoring.notebooks.building import Lesson, notebook_path
from stepgrpo_lab.site._markdown import Links

if TYPE_CHECKING:
    from nbformat import NotebookNode

Way = tuple[str, str]
"""How to work on a notebook: words and address."""

_BADGES = re.compile(r"\[!\[Open In Colab\]\([^)]*\)\]\([^)]*\) *")
_TWIN = re.compile(r" · \[solutions\]\([^)]*\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def without_badge(text: str) -> str:
    """A notebook's title without the picture that stands on another server."""
    return _BADGES.sub("", text)


def book_notebook(root: Path, lesson: Lesson, path: Path, links: Links, ways: Sequence[Way]) -> None:
    """Write a notebook as the book shows it: the exercises with stored outputs, each solution folded below its stub.

    Args:
        root: Folder of a checkout.
        lesson: The notebook.
        path: The page's file, in the book's source folder.
        links: Rewrites links.
        ways: How a reader can work on it.
    """
    import nbformat

    exercises, solved = (
        nbformat.read(notebook_path(root, lesson, solved=solved), as_version=4) for solved in (False, True)
    )
    solutions = {cell["id"]: cell for cell in solved.cells}
    origin, page = f"notebooks/{lesson.name}.ipynb", f"{path.parent.name}/{path.name}"
    cells: list[NotebookNode] = []
    heading = lesson.about["title"]
    described = _Described()
    for place, cell in enumerate(exercises.cells):
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "markdown":
            text = _first_cell(cell.source, ways) if place == 0 else cell.source
            heading = (_HEADING.findall(text) or [heading])[-1]
            cell.source = links.rewrite(text, origin, page)
        elif "setup" in tags:
            cell.metadata["tags"] = [*tags, "hide-cell"]
            cell.metadata["mystnb"] = {"code_prompt_show": "The setup cell", "code_prompt_hide": "The setup cell"}
        else:
            cell.metadata["mystnb"] = {"image": {"alt": described.alt(cell.source, heading)}}
        for output in cell.get("outputs", []):
            if "text/markdown" in output.get("data", {}):
                output.data["text/markdown"] = links.rewrite(output.data["text/markdown"], origin, page)
        twin = solutions.get(cell.get("id"))
        if "check" in tags and twin is not None:
            cell.outputs = twin.outputs
        cells.append(cell)
        if "exercise" in tags and twin is not None:
            cells.append(_folded(twin))
    exercises.cells = cells
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
        if cell.cell_type == "code" and cell.execution_count is None:
            cell.execution_count = number
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(exercises), encoding="utf-8")


def _first_cell(text: str, ways: Sequence[Way]) -> str:
    shown = " · ".join(f'<a href="{address}">{html.escape(words)}</a>' for words, address in ways)
    return f"{_TWIN.sub('', without_badge(text))}\n\nWork on it: {shown}"


def _folded(twin: NotebookNode) -> NotebookNode:
    """A solution, behind a line to click on."""
    twin.metadata["tags"] = ["hide-input"]
    twin.metadata["mystnb"] = {"code_prompt_show": "Solution", "code_prompt_hide": "Solution"}
    twin.outputs = []
    return twin


class _Described:
    """What pictures show: the first sentence of the function that drew them, and the section that they stand in."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    def alt(self, source: str, heading: str) -> str:
        tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))
        self.names.update(_imported(tree))
        drawn = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        for call in reversed(drawn):
            assert isinstance(call.func, ast.Name)
            function = self.names.get(call.func.id)
            if function is not None and ".viz." in getattr(function, "__module__", ""):
                sentence = (inspect.getdoc(function) or "").split("\n\n")[0].replace("\n", " ").replace("`", "")
                return f"{sentence} Section: {heading}."
        return f"Figure of the section {heading}."


def _imported(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stepgrpo_lab.viz"):
            module = import_module(node.module or "")
            yield from ((alias.asname or alias.name, getattr(module, alias.name, None)) for alias in node.names)
