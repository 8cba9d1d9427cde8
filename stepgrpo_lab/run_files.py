"""The files of a run folder: opened with care, written whole, found again."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stepgrpo_lab.recipes import Recipe, load_recipe, write_recipe

PACKAGES = (
    "stepgrpo-lab",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "peft",
    "datasets",
    "math-verify",
    "bitsandbytes",
)


def open_folder(recipe: Recipe | None, folder: Path, resume: bool) -> Recipe:
    """Start a run folder with its recipe, or read the recipe of the run in it.

    Raises:
        ValueError: The folder is in use, or holds no run to resume.
    """
    stored = folder / "recipe.yaml"
    if resume:
        if not stored.exists():
            raise ValueError(f"{folder} holds no run to resume (recipe.yaml is missing): give the folder of a run")
        return load_recipe(stored)
    if recipe is None:
        raise ValueError("no recipe given: pass one, or resume a run")
    if is_main_process():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(
                f"{folder} is not empty: give another --output, or continue that run with --resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_recipe(recipe, stored)
    return recipe


def model_folder(model: str | Path) -> str:
    """Where to load a model from: a run folder stands for the model in it.

    Example:
        >>> model_folder("some/model")
        'some/model'
    """
    return str(Path(model) / "model") if (Path(model) / "recipe.yaml").exists() else str(model)


def export_model(run: str | Path, output: str | Path) -> Path:
    """Write a run's trained model as a folder for plain ``AutoModelForCausalLM``; an adapter is merged into its base.

    Args:
        run: Folder of a finished run, or of a model.
        output: Folder to write, new or empty.

    Raises:
        ValueError: There is no trained model, or the folder is in use.
    """
    folder, output = Path(model_folder(run)), Path(output)
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty: give another folder")
    if (folder / "adapter_config.json").exists():
        from stepgrpo_lab.models import merge_lora

        merge_lora(folder, output)
    elif (folder / "config.json").exists():
        shutil.copytree(folder, output, dirs_exist_ok=True)
    else:
        raise ValueError(f"{run} holds no trained model: give the folder of a finished run")
    return output


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; one that a kill cut off has no trainer state yet and is removed."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        if (path / "trainer_state.json").exists():
            return path
        shutil.rmtree(path)
    return None


def write_text(path: Path, text: str) -> None:
    """Write a file in one go: whoever reads it sees the old content or the new, never a half."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def system() -> dict[str, Any]:
    """The platform, and the versions of Python and of the packages that decide a result, as far as installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": found, "platform": platform.platform()}


def is_main_process() -> bool:
    """Whether this process writes the files; under ``torchrun`` that is rank 0."""
    return os.environ.get("RANK", "0") == "0"
