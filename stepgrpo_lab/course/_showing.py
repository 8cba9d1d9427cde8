"""What a notebook shows of the library itself: the source that runs, and a recipe key by key."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.recipes import Recipe


@dataclass(frozen=True)
class Source:
    """Source of a function or class.

    Attributes:
        name: Its dotted name.
        code: Its lines.
    """

    name: str
    code: str

    def __repr__(self) -> str:
        return f"# {self.name}\n{self.code}"

    def _repr_markdown_(self) -> str:
        # Front ends colour it to their own theme. No fence in the code can end this one: it is longer.
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", self.code)), default=0))
        return f"{fence}python\n{self!r}\n{fence}"


def source_of(thing: Callable[..., Any] | type, *, docstring: bool = False) -> Source:
    """The source of a function, method or class, by default without its docstring.

    Raises:
        TypeError: It was not written in Python.

    Example:
        >>> from stepgrpo_lab import group_advantages
        >>> "def group_advantages" in source_of(group_advantages).code
        True
    """
    try:
        code = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError) as error:
        raise TypeError(f"{thing!r} has no source to show: give a function or class of the library") from error
    if not docstring:
        code = _without_docstrings(code)
    return Source(f"{thing.__module__}.{thing.__qualname__}", code.rstrip())


def _without_docstrings(code: str) -> str:
    """Cut docstrings out of the lines and leave everything else, comments too, as it was written."""
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not ast.get_docstring(node):
            continue
        first = node.body[0]
        if len(node.body) > 1:
            lines[first.lineno - 1 : first.end_lineno] = [""] * ((first.end_lineno or 0) - first.lineno + 1)
    kept: list[str] = []
    for line in lines:
        if line.strip() or (kept and kept[-1].strip() and not kept[-1].rstrip().endswith(":")):
            kept.append(line)
    return "\n".join(kept)


@dataclass(frozen=True)
class RecipeTable:
    """One section of a recipe.

    Attributes:
        title: The section's name.
        rows: Key, value as the recipe's file writes it, and meaning.
    """

    title: str
    rows: tuple[tuple[str, str, str], ...]

    def __repr__(self) -> str:
        return "\n".join([f"{self.title}:", *(f"  {key}: {value}  # {meaning}" for key, value, meaning in self.rows)])

    def _repr_markdown_(self) -> str:
        rows = [[f"`{key}`", f"`{value}`", meaning.replace("<", "&lt;")] for key, value, meaning in self.rows]
        return markdown_table([f"`{self.title}`", "value", "meaning"], rows)


def explain_recipe(recipe: Recipe, section: str, keys: Sequence[str] = ()) -> RecipeTable:
    """One section of a recipe with the meaning of each key, as the schema documents it.

    Args:
        recipe: The recipe.
        section: "model", "data", "rollout", "reward", "optimisation" or "evaluation".
        keys: Only these keys; all by default.

    Raises:
        ValueError: The recipe has no such section, or the section no such key.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> explain_recipe(load_recipe("overthinker"), "rollout", ["dynamic"]).rows[0]
        ('dynamic', 'true', 'Use the dynamic truncated rollout; false samples plainly (ablation).')
    """
    part = getattr(recipe, section, None)
    if not dataclasses.is_dataclass(part):
        known = [field.name for field in dataclasses.fields(recipe) if dataclasses.is_dataclass(_value(recipe, field))]
        raise ValueError(f"a recipe has no section {section!r}: use one of {', '.join(known)}")
    for key in keys:
        if not hasattr(part, key):
            raise ValueError(f"{section} has no key {key!r}: see stepgrpo_lab/recipes/schema.py")
    meanings = documented_attributes(type(part))
    rows = [
        (field.name, _written(_value(part, field)), meanings.get(field.name, ""))
        for field in dataclasses.fields(part)
        if not keys or field.name in keys
    ]
    return RecipeTable(section, tuple(rows))


def documented_attributes(kind: type) -> dict[str, str]:
    """What the "Attributes:" part of a class's docstring says of each; names that share a line share the sentence.

    Example:
        >>> from stepgrpo_lab.recipes.schema import Lora
        >>> documented_attributes(Lora)["alpha"]
        'Rank, scale (the update is multiplied by alpha / r) and dropout.'
    """
    inherited = documented_attributes(kind.__base__) if kind.__base__ not in (None, object) else {}
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w[\w, ]*): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    return inherited | {name: " ".join(meaning.split()) for names, meaning in entries for name in names.split(", ")}


def _value(owner: Any, field: dataclasses.Field[Any]) -> Any:
    return getattr(owner, field.name)


def _written(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = ", ".join(f"{name}: {_written(part)}" for name, part in dataclasses.asdict(value).items())
        return f"{{{inner}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)
