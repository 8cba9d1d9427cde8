"""How a recipe is started on the machine it was written for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from stepgrpo_lab.recipes.schema import Recipe

_FOLDER = Path(__file__).parent / "accelerate"


def accelerate_config(recipe: Recipe) -> Path | None:
    """The accelerate configuration that comes with the package for this recipe's machine; None where none is needed.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> accelerate_config(load_recipe("qwen3-8b-full-8xh100")).name
        'fsdp2.yaml'
    """
    hardware = recipe.hardware
    if hardware.gpus == 1:
        return None
    return _FOLDER / f"{'ddp' if hardware.sharding == 'none' else hardware.sharding}.yaml"


def launch_line(recipe: Recipe, source: str | None = None, overrides: Sequence[str] = ()) -> str:
    """The shell command that trains the recipe.

    Args:
        recipe: A checked recipe.
        source: What it was loaded from, if not from the package by its name.
        overrides: What it was loaded with.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> launch_line(load_recipe("qwen3-1.7b-qlora-t4"))
        'stepgrpo train --recipe qwen3-1.7b-qlora-t4'
    """
    changes = [part for override in overrides for part in ("--set", override)]
    train = ["train", "--recipe", source or recipe.name, *changes]
    config = accelerate_config(recipe)
    if config is None:
        return shlex.join(["stepgrpo", *train])
    launcher = ["accelerate", "launch", "--config_file", str(config), "--num_processes", str(recipe.hardware.gpus)]
    return shlex.join([*launcher, "-m", "stepgrpo_lab", *train])
