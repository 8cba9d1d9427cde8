"""A recipe key by key: every value beside the sentence that the schema says of it."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepgrpo_lab.recipes import Recipe


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
        return "\n".join([f"{self.title}:", *(f"  {key}: {value}  # {told}" for key, value, told in self.rows)])

    def _repr_markdown_(self) -> str:
        lines = [f"| `{self.title}` | value | meaning |", "| --- | --- | --- |"]
        for key, value, told in self.rows:
            meaning = told.replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| `{key}` | `{value}` | {meaning} |")
        return "\n".join(lines)


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
    return inherited | {name: " ".join(told.split()) for names, told in entries for name in names.split(", ")}


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
