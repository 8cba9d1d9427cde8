"""The files of a run folder: opened with care, written whole, found again."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stepgrpo_lab.engines.distributed import is_main_process
from stepgrpo_lab.recipes import Recipe, load_recipe, write_recipe
from stepgrpo_lab.run.report_files import read_environment

UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR),
)
"""Error numbers of a disk that is full or broken, and of a place where nothing may be written."""

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
    stored, beside = folder / "recipe.yaml", folder / "recipe.yaml.part"
    if resume:
        if not stored.exists():
            raise ValueError(f"{folder} holds no run to resume (recipe.yaml is missing): give the folder of a run")
        return load_recipe(stored)
    if recipe is None:
        raise ValueError("no recipe given: pass one, or resume a run")
    if is_main_process():
        if folder.exists() and any(path != beside for path in folder.iterdir()):
            raise ValueError(
                f"{folder} is not empty: give another --output, or continue that run with --resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_recipe(recipe, beside)
        os.replace(beside, stored)  # half a recipe could be taken for one with other values
    return recipe


@contextmanager
def says_what_cannot_be_written(folder: Path) -> Iterator[None]:
    """A full disk or a folder that cannot be written to becomes an error that names the run folder and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise OSError(
            f"the run folder {folder} cannot be written to ({error.strerror}): make room or give another --output; a "
            f"run that has begun goes on with --resume {folder}"
        ) from error


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
        from stepgrpo_lab.engines.models import merge_lora

        merge_lora(folder, output)
    elif (folder / "config.json").exists():
        shutil.copytree(folder, output, dirs_exist_ok=True)
    else:
        raise ValueError(f"{run} holds no trained model: give the folder of a finished run")
    return output


def save_policy(trainer: Any, folder: Path) -> None:
    """Write a trainer's policy under another name first: a model folder that exists is whole."""
    beside = folder.with_name(folder.name + ".part")
    trainer.save_model(str(beside))
    if is_main_process():
        beside.replace(folder)


def write_text(path: Path, text: str) -> None:
    """Write a file in one go: whoever reads it sees the old content or the new, never a half."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def write_environment(folder: Path, seconds: Mapping[str, float], device: str | None) -> None:
    """Write ``environment.json``: versions, device, and seconds by phase.

    Args:
        folder: The run folder.
        seconds: Spent since the file was last written; added to those of earlier sittings of the same run.
        device: Where it was trained; None if it was not in this sitting.
    """
    path = folder / "environment.json"
    earlier = read_environment(path)
    spent = dict(earlier.get("seconds", {}))
    for phase, more in seconds.items():
        spent[phase] = spent.get(phase, 0.0) + more
    told = {**system(), "device": device or earlier.get("device", ""), "seconds": spent}
    write_text(path, json.dumps(told, indent=2))


def system() -> dict[str, Any]:
    """The platform, and the versions of Python and of the packages that decide a result, as far as installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": found, "platform": platform.platform()}
