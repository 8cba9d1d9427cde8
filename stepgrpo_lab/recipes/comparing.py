"""What tells two recipes apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from stepgrpo_lab.recipes.schema import Recipe


def recipe_differences(first: Recipe, second: Recipe) -> list[tuple[str, Any, Any]]:
    """Keys at which two recipes differ, as ``--set`` takes them, with the value of each; names and descriptions aside.

    A section that only one of them has counts as one value.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> recipe_differences(load_recipe(), load_recipe("overthinker", ["rollout.rows=64"]))
        [('rollout.rows', 128, 64)]
    """
    return [difference for difference in _differences(first, second) if difference[0] not in ("name", "description")]


def _differences(first: Any, second: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    if type(first) is type(second) and dataclasses.is_dataclass(first):
        for field in dataclasses.fields(first):
            path = f"{where}.{field.name}" if where else field.name
            yield from _differences(getattr(first, field.name), getattr(second, field.name), path)
    elif first != second:
        yield where, first, second
