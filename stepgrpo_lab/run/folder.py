"""The files of a run folder: opened with care, written whole, read back.

Where a run is read, every file may be missing; a broken one is an error.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

from stepgrpo_lab.engines.distributed import is_main_process
from stepgrpo_lab.engines.files import (
    SMALL,
    inside,
    iterate_rows,
    move_into_place,
    part_of,
    read_json,
    read_text,
    write_atomically,
)
from stepgrpo_lab.engines.hub import model_location
from stepgrpo_lab.engines.models import adapter_folder, merge_lora
from stepgrpo_lab.engines.writers import PROBE, Writer, is_unused
from stepgrpo_lab.evaluation.results import Comparison, Evaluation, compare
from stepgrpo_lab.method.records import from_json
from stepgrpo_lab.recipes.loading import MOST_RECIPE, load_recipe, read_yaml, write_recipe
from stepgrpo_lab.recipes.schema import Recipe, RecipeError
from stepgrpo_lab.training._proof import MANIFEST
from stepgrpo_lab.training.metrics import METRICS_FILE, read_metrics

UNWRITABLE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG),
)
"""Error numbers of a disk that is full or broken, and of a place where nothing may be written."""

RUN_FILES = (
    *("recipe.yaml", METRICS_FILE, "evaluation_before.json", "evaluation_after.json"),
    *("completions.jsonl", "environment.json"),
)
"""What a run leaves and a report is made of."""

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


def stored_recipe(folder: Path) -> Recipe:
    """The recipe of the run in a folder.

    Raises:
        ValueError: The folder holds no run.
    """
    stored = folder / "recipe.yaml"
    if not stored.exists():
        raise ValueError(f"{folder} holds no run to resume (recipe.yaml is missing): give the folder of a run")
    try:
        return load_recipe(stored)
    except RecipeError as error:
        raise RecipeError([f"{stored}: {line}" for line in error.mistakes]) from error


def check_unused(folder: Path) -> None:
    """Check that a run folder is new, or empty but for a recipe that a kill cut off.

    Raises:
        ValueError: The folder is in use.
    """
    if not is_unused(folder):
        raise ValueError(
            f"{folder} is not empty: give another --output, or continue that run with --resume "
            f"{shlex.quote(str(folder))}"
        )


def new_parts(folder: Path) -> list[Path]:
    """Check that a folder can be made and written into, by making it; what was made for that is gone again.

    Returns:
        The folders that are not there yet, the outermost first.

    Raises:
        OSError: It cannot be made; the error says why.
    """
    made: list[Path] = []
    try:
        for part in reversed([folder, *folder.parents]):
            if not part.exists():
                part.mkdir()
                made.append(part)
        probe = folder / PROBE
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        for part in reversed(made):
            part.rmdir()
    return made


def check_file(path: Path) -> None:
    """Check that a file can be written, before what is to be written into it is made.

    Raises:
        ValueError: It is a folder.
        OSError: Its folder cannot be made; the error says why.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file")
    new_parts(path.parent)


def start_folder(recipe: Recipe, folder: Path) -> None:
    """Start a run folder with its recipe.

    Raises:
        ValueError: The folder is in use.
    """
    check_unused(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(recipe, folder / "recipe.yaml")


def check_is_run(folder: Path) -> None:
    """Check that a folder holds a run, or at least one of the files that a run leaves.

    Raises:
        ValueError: It does not.
    """
    if not any((folder / name).is_file() for name in RUN_FILES):
        what = "is no run folder" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"run folder {str(folder)!r}: it {what} (no recipe.yaml); pass the output folder of a run")


@contextmanager
def disk_errors_named(folder: Path) -> Iterator[None]:
    """A full disk or a folder that cannot be written to becomes an error that names the run folder and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        raise OSError(
            f"the run folder {folder} cannot be written to ({error.strerror}): make room or give another --output; a "
            f"run that has begun goes on with --resume {shlex.quote(str(folder))}"
        ) from error


MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "additional_chat_templates")
"""What a folder of weights, configuration and tokenizer is made of."""

RESUMING = ("trainer_state.json", MANIFEST)
"""Of a checkpoint's files, those that look like them and are for resuming."""

ERROR_LOG = "error.log"
FORESEEN = (ValueError, OSError, ImportError, FloatingPointError)
"""Errors whose message says what is wrong and what to do; any other one needs its traceback."""


@contextmanager
def errors_logged(folder: Path) -> Iterator[None]:
    """The traceback of an error that nobody foresaw goes to ``error.log`` of the run folder, and a note says so."""
    try:
        yield
    except (*FORESEEN, KeyboardInterrupt, GeneratorExit, SystemExit):
        raise
    except BaseException as error:  # Rust's panics are no Exception
        path = folder / (ERROR_LOG if is_main_process() else f"error-process-{os.environ['RANK']}.log")
        with suppress(OSError, MemoryError):
            write_atomically(path, traceback.format_exc())
            error.add_note(f"the traceback is in {path}")
        raise


def export_model(run: str | Path, output: str | Path) -> Path:
    """Write a run's trained model as a folder for plain ``AutoModelForCausalLM``; an adapter is merged into its base.

    Args:
        run: Folder of a finished run, or of a model.
        output: Folder to write, new or empty.

    Raises:
        ValueError: There is no trained model, or the folder is not empty.
        InUseError: Another process is writing there.
    """
    folder, output = Path(model_location(run)), Path(output)
    new_parts(output)
    with Writer.beside(output):
        return _export(folder, output, run)


def _export(folder: Path, output: Path, run: str | Path) -> Path:
    if output.exists() and any(path.name != PROBE for path in output.iterdir()):
        raise ValueError(f"{output} is not empty: give another folder")
    adapter = adapter_folder(str(folder))
    if adapter is None and not (folder / "config.json").is_file():
        raise ValueError(f"{run} holds no trained model: give the folder of a finished run")
    beside = part_of(output)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        if adapter:
            merge_lora(folder, beside)
        else:
            shutil.copytree(folder, beside, ignore=_no_part_of_a_model)
        move_into_place(beside, output)
    finally:
        shutil.rmtree(beside, ignore_errors=True)  # of an export that failed or was stopped
    return output


def _no_part_of_a_model(folder: str, names: list[str]) -> list[str]:
    """What an export leaves out: all but weights, configuration and tokenizer, such as a checkpoint's optimiser."""
    return [
        name
        for name in names
        if name in RESUMING or name.startswith(".") or not any(fnmatch(name, pattern) for pattern in MODEL_FILES)
    ]


def save_policy(trainer: Any, folder: Path) -> None:
    """Write a trainer's policy under another name first: a model folder that exists is whole."""
    beside = part_of(folder)
    trainer.save_model(str(beside))
    if is_main_process():
        move_into_place(beside, folder)


def write_environment(
    folder: Path, seconds: Mapping[str, float], device: str | None, reused: Mapping[str, float] | None = None
) -> None:
    """Write ``environment.json``: versions, device, and seconds by phase.

    Args:
        folder: The run folder.
        seconds: Spent since the file was last written; added to those of earlier sittings of the same run.
        device: Where it was trained; None if it was not in this sitting.
        reused: Phases whose result an earlier run had measured, with the seconds that it had taken there.
    """
    path = folder / "environment.json"
    earlier = read_environment(path)
    spent = dict(earlier.get("seconds", {}))
    for phase, more in seconds.items():
        spent[phase] = spent.get(phase, 0.0) + more
    noted = {**system(), "device": device or earlier.get("device", ""), "seconds": spent}
    if kept := {**earlier.get("reused", {}), **(reused or {})}:
        noted["reused"] = kept
    write_atomically(path, json.dumps(noted, indent=2))


def system() -> dict[str, Any]:
    """The platform, and the versions of Python and of the packages that decide a result, as far as installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": found, "platform": platform.platform()}


_REMEDY = "repair the file, or remove it to leave its section out"


class Environment(TypedDict, total=False):
    """What ``environment.json`` notes of the machine; there may be more, which a report shows as it is."""

    versions: dict[str, str]
    seconds: dict[str, float]
    reused: dict[str, float]
    device: str
    command: str


class _Asked(TypedDict):
    id: str
    prompt: str


class _Side(TypedDict):
    text: str
    tokens: int
    steps: int
    correct: bool


class _Pair(TypedDict):
    """A row of ``completions.jsonl``."""

    problem: _Asked
    gold: str
    before: _Side
    after: _Side


@dataclass(frozen=True)
class RunRecord:
    """A run, from its files; None or empty where a file is missing.

    Attributes:
        name: The folder's name.
        recipe: Text of ``recipe.yaml``.
        model: The recipe's model, or "the model".
        metrics: Rows of ``metrics.jsonl``.
        before, after: ``evaluation_before.json`` and ``evaluation_after.json``.
        completions: Rows of ``completions.jsonl`` (see :func:`stepgrpo_lab.evaluation.evaluating.completion_pairs`).
        environment: ``environment.json``: "versions", "seconds" by phase, and whatever else was noted.
    """

    name: str
    recipe: str = ""
    model: str = "the model"
    metrics: list[dict[str, Any]] = field(default_factory=list)
    before: Evaluation | None = None
    after: Evaluation | None = None
    completions: list[_Pair] = field(default_factory=list)
    environment: Environment = field(default_factory=Environment)

    @cached_property
    def summaries(self) -> dict[str, dict[str, Any]]:
        """:meth:`Evaluation.summary` of "before" and "after"; empty unless both were measured."""
        if self.before is None or self.after is None:
            return {}
        return {"before": self.before.summary(), "after": self.after.summary()}

    @cached_property
    def comparison(self) -> Comparison | None:
        """Before against after; None unless both were measured."""
        if self.before is None or self.after is None:
            return None
        try:
            return compare(self.before, self.after)
        except ValueError as error:
            raise ValueError(f"{self.name}: evaluation_before.json against evaluation_after.json: {error}") from error


def read_run(folder: Path | str) -> RunRecord:
    """Read a run folder.

    Raises:
        ValueError: The folder is missing, or a file in it is broken; the message names file and row.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"run folder {str(folder)!r} does not exist; pass the output folder of a finished run")
    path = inside(folder, "recipe.yaml")
    recipe = read_text(path, MOST_RECIPE) if path.exists() else ""
    before, after = (inside(folder, f"evaluation_{when}.json") for when in ("before", "after"))
    pairs = inside(folder, "completions.jsonl")
    return RunRecord(
        name=folder.resolve().name,
        recipe=recipe,
        model=_model_name(recipe, path),
        metrics=read_metrics(inside(folder, METRICS_FILE)),
        before=read_evaluation(before) if before.exists() else None,
        after=read_evaluation(after) if after.exists() else None,
        completions=list(iterate_rows(pairs, partial(from_json, _Pair), _REMEDY)) if pairs.exists() else [],
        environment=read_environment(inside(folder, "environment.json")),
    )


def read_evaluation(path: Path) -> Evaluation:
    """A stored evaluation.

    Raises:
        ValueError: The file is broken; the message names it.
    """
    return read_json(path, Evaluation.from_dict, _REMEDY)


def read_environment(path: Path) -> Environment:
    """What was noted of the machine; empty without a file.

    Raises:
        ValueError: The file is broken; the message names it.
    """
    return read_json(path, partial(from_json, Environment), _REMEDY, SMALL) if path.exists() else {}


def _model_name(recipe: str, path: Path) -> str:
    settings = read_yaml(recipe, path)
    model = settings.get("model") if isinstance(settings, dict) else None
    if isinstance(model, dict):
        model = model.get("name") or model.get("path")
    return str(model) if model else "the model"
