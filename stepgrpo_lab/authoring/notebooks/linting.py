"""What a notebook of the course must keep to; every finding is one line that names the notebook and the place."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.authoring.notebooks._submission import plain_python
from stepgrpo_lab.authoring.notebooks.building import (
    COMPARED,
    TORCH,
    Lesson,
    find_lessons,
    fingerprint,
    notebook_path,
    shows_outcome,
)

if TYPE_CHECKING:
    from nbformat import NotebookNode

CELL_LINES = 20
EXERCISE_LINES = 45
"""Most lines of an exercise's cell, solution included."""
LINE_LENGTH = 79
TEXT_WORDS = 130
"""Most words in a cell of text."""
HELD_PACKAGES = ("stepgrpo_lab", "trl")
"""Packages of which every keyword that a notebook passes must exist."""
SECTIONS = ("Objectives", "What can go wrong", "Summary")
EXERCISES = range(2, 9)


def lint_course(root: Path) -> list[str]:
    """Findings on every notebook of a checkout: its form, its code, and whether it is the one its script builds.

    Raises:
        ValueError: The folder is no checkout, or a script cannot be built.
    """
    import nbformat

    findings = []
    for lesson in find_lessons(root):
        for solved in (False, True):
            path = notebook_path(root, lesson, solved=solved)
            name = str(path.relative_to(root))
            if not path.exists():
                findings.append(f"{name} is missing: run `stepgrpo notebooks build {lesson.number}`")
                continue
            notebook = nbformat.read(path, as_version=4)
            findings += [f"{name}: {finding}" for finding in (*drift(notebook, lesson, solved), *lint(notebook))]
    return findings


def drift(notebook: NotebookNode, lesson: Lesson, solved: bool) -> Iterator[str]:
    """Whether a notebook differs from what its script builds, or its outputs from its code."""
    built = lesson.build(solved=solved)
    if [_without_outputs(cell) for cell in built.cells] != [_without_outputs(cell) for cell in notebook.cells]:
        yield f"differs from its script: run `stepgrpo notebooks build {lesson.number}`"
    about = {key: value for key, value in notebook.metadata.get("stepgrpo", {}).items() if key != "executed"}
    if about != built.metadata["stepgrpo"]:
        yield f"its metadata differ from its script's: run `stepgrpo notebooks build {lesson.number}`"
    if notebook.metadata.get("stepgrpo", {}).get("executed") != fingerprint(notebook):
        yield f"its outputs are stale: run `stepgrpo notebooks build {lesson.number}`"


def _without_outputs(cell: NotebookNode) -> dict[str, Any]:
    return {"id": cell.id, "type": cell.cell_type, "source": cell.source, "tags": cell.metadata.get("tags", [])}


def lint(notebook: NotebookNode) -> Iterator[str]:
    """Findings on one notebook alone."""
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "its kernel must be python3"
    for cell in notebook.cells:
        yield from _lint_cell(cell)
        spoils = cell.get("outputs") and shows_outcome(cell.source, cell.metadata.get("tags", []))
        if spoils and not notebook.metadata.get("stepgrpo", {}).get("solved", True):
            yield f"cell {cell.id} shows its outcome: an exercise notebook stores none"
    yield from _lint_shape(notebook)
    yield from unknown_keywords([cell.source for cell in notebook.cells if cell.cell_type == "code"])


def _lint_cell(cell: NotebookNode) -> Iterator[str]:
    lines = cell.source.splitlines()
    if cell.cell_type == "markdown":
        words = len(re.sub(r"<details>.*?</details>", "", cell.source, flags=re.DOTALL).split())
        if words > TEXT_WORDS and "|" not in cell.source:
            yield f"cell {cell.id} has {words} words; at most {TEXT_WORDS}"
        return
    tags = cell.metadata.get("tags", [])
    most = EXERCISE_LINES if "exercise" in tags else CELL_LINES
    if len(lines) > most:
        yield f"cell {cell.id} has {len(lines)} lines; at most {most}"
    for line in lines:
        if len(line) > LINE_LENGTH:
            yield f"cell {cell.id} has a line of {len(line)} characters; at most {LINE_LENGTH}: {line[:40]}..."
    if cell.outputs and cell.execution_count is None:  # nbval takes its outputs for those of a cell that was never run
        yield f"cell {cell.id} has outputs but no execution count"
    if COMPARED in tags and not cell.outputs:
        yield f"cell {cell.id} is compared but has no output stored"
    if {"exercise", TORCH} <= set(tags) and re.search(r"^(import|from) torch\b", cell.source, re.MULTILINE):
        yield f"cell {cell.id} imports torch outside its function; where torch is missing it would not run"


def _lint_shape(notebook: NotebookNode) -> Iterator[str]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if "setup" not in code[0].metadata.get("tags", []):
        yield "its first code cell must be the setup: nothing may be imported before it"
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for section in SECTIONS:
        if not re.search(rf"^## .*{section}", text, re.MULTILINE):
            yield f"has no section {section!r}"
    exercises, checks = (sum(tag in cell.metadata.get("tags", []) for cell in code) for tag in ("exercise", "check"))
    if exercises not in EXERCISES or checks != exercises:
        yield f"has {exercises} exercises and {checks} checks; 2 to 8, each with one"
    if text.count("<summary>Hint</summary>") < exercises:
        yield "has exercises without a hint"
    yield from lint_predictions([cell.source for cell in code])


def lint_predictions(sources: list[str]) -> Iterator[str]:
    """Whether each prediction is compared once, with something that its cell does not give away.

    Args:
        sources: The code of a notebook's cells.

    Example:
        >>> list(lint_predictions(["saved = course.predict('?', unit='%')", "saved.compare(34)", "course.score()"]))
        ['saved.compare(34) gives its outcome away: compute it, or use course.sealed(...)']
    """
    trees = [ast.parse(plain_python(source)) for source in sources]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    asked = [node for node in nodes if _calls(node, "predict")]
    if not asked:
        yield "needs a prediction"
        return
    stored = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    named, given = Counter[str](), Counter[str]()
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            named[node.targets[0].id] += _calls(node.value, "predict")
            given[node.targets[0].id] += _is_given(node.value, {})
    if sum(named.values()) < len(asked):
        yield "has a prediction without a name: assign each to one"
    known = {name: given[name] == times for name, times in stored.items()}
    comparisons = [node for node in calls if _calls(node, "compare")]
    compared = Counter(ast.unparse(node.func).removesuffix(".compare") for node in comparisons)
    for name, times in named.items():
        if times != compared[name]:
            yield f"{name} is predicted {times} times and compared {compared[name]} times; once each"
    for node in comparisons:
        if node.args and _is_given(node.args[0], known):
            yield f"{ast.unparse(node)} gives its outcome away: compute it, or use course.sealed(...)"
    if not any(_calls(node, "score") for node in ast.walk(trees[-1])):
        yield "must end with course.score(), in its last cell of code"


def _calls(node: ast.AST, name: str) -> bool:
    """Whether a node is a call of that name, of a module or not."""
    if not isinstance(node, ast.Call):
        return False
    return name == (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None))


def _is_given(node: ast.expr, constants: Mapping[str, bool]) -> bool:
    """Whether an expression can be read off without running anything: only literals, and names of literals."""
    if any(_calls(inner, "sealed") for inner in ast.walk(node)):
        return False
    names = [inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and not hasattr(builtins, inner.id)]
    return all(constants.get(name, False) for name in names)


def unknown_keywords(sources: list[str]) -> Iterator[str]:
    """Keywords passed to our library or to TRL that the installed version does not know.

    Args:
        sources: The code of a notebook's cells.
    """
    trees = [ast.parse(plain_python(source)) for source in sources]
    names = _imported_names(trees)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call):
            called = _resolve(node.func, names)
            known = _keywords(called) if called is not None else None
            for keyword in node.keywords:
                if known is not None and keyword.arg is not None and keyword.arg not in known:
                    yield f"{ast.unparse(node.func)} has no keyword {keyword.arg!r}"


def _imported_names(trees: list[ast.Module]) -> dict[str, Any]:
    """What the notebook's imports from the held packages bind."""
    names: dict[str, Any] = {}
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in HELD_PACKAGES:
                    module = import_module(alias.name)
                    names[alias.asname or alias.name.partition(".")[0]] = (
                        module if alias.asname else import_module(alias.name.partition(".")[0])
                    )
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in HELD_PACKAGES:
            for alias in node.names:
                names[alias.asname or alias.name] = _member(node.module or "", alias.name)
    return names


def _member(module: str, name: str) -> Any:
    try:
        return getattr(import_module(module), name)
    except AttributeError:
        return import_module(f"{module}.{name}")


def _resolve(node: ast.expr, names: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolve(node.value, names)
        return None if owner is None else getattr(owner, node.attr, None)
    return None


def _keywords(called: Callable[..., Any]) -> set[str] | None:
    """The keywords it takes; None where any will do. A widget takes its traits beside the parameters that it names."""
    traits = getattr(called, "class_trait_names", None)
    known: set[str] = set() if traits is None else set(traits(state=True))
    try:
        parameters = inspect.signature(called, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return known or None
    if traits is None and any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return known | {parameter.name for parameter in parameters}
