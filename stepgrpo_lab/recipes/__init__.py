"""Recipes: everything that defines a run, in one YAML file with one documented schema."""

from __future__ import annotations

from stepgrpo_lab.recipes.loading import load_recipe, recipe_names, write_recipe
from stepgrpo_lab.recipes.schema import Recipe

__all__ = ["Recipe", "load_recipe", "recipe_names", "write_recipe"]
