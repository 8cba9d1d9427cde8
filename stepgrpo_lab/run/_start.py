"""What can refuse a run: checked before its folder is made and before anything is measured."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stepgrpo_lab._imports import require
from stepgrpo_lab.engines.hub import first_line, loading_options
from stepgrpo_lab.engines.tokenizers import check_markers, thinks
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.names import did_you_mean, listed, shown
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.recipes._building import check_recipe_problems, recipe_problems, training_problems
from stepgrpo_lab.recipes.schema import Lora, Recipe, RecipeError

Problems = dict[str, list[Problem]]
"""The problems of a recipe by what they are for: "train", "validation", "test"."""


def check_machine(recipe: Recipe) -> Problems:
    """Check that this machine has what a recipe names: packages, a GPU, the model, the problems.

    Returns:
        The problems of all three parts of the data.

    Raises:
        RecipeError: All that is missing, one line each with its key; a single mistake keeps the kind of its error.
    """
    problems: Problems = {}
    errors: list[tuple[str, Exception]] = []
    for key, check in _checks(recipe, problems):
        try:
            check()
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            errors.append((key, error))
    if not errors:
        return problems
    lines = [line if key in (line := str(error)) else f"{line} ({key})" for key, error in errors]
    [kind] = {type(error) for _, error in errors[:1]}
    if len(errors) > 1 or kind not in (ValueError, FileNotFoundError, ImportError):
        raise RecipeError(lines)
    raise kind(lines[0]) from errors[0][1]


def _checks(recipe: Recipe, problems: Problems) -> Iterator[tuple[str, Callable[[], Any]]]:
    """A key, and what raises an error where this machine cannot serve it; what is cheap comes first."""
    data, counts = recipe.data, recipe.data.counts
    yield "model.quantization", lambda: _check_quantization(recipe)
    yield "optimisation.mixed_precision", lambda: _check_precision(recipe.optimisation.mixed_precision)
    yield "report_to", lambda: _check_trackers(recipe)
    yield "model.path", lambda: loading_options(recipe.model.path)
    yield "data.test", lambda: problems.update(test=recipe_problems(data.test, counts.test))
    yield "data.train", lambda: problems.update(train=training_problems(recipe))
    yield (
        "data.validation",
        lambda: problems.update(validation=recipe_problems(data.validation, counts.validation)),
    )


def _check_quantization(recipe: Recipe) -> None:
    if recipe.model.quantization:
        install = "'stepgrpo-lab[quant]', or set model.quantization=null"
        require(f"model.quantization={recipe.model.quantization}", "bitsandbytes", install=install)


def _check_precision(choice: str) -> None:
    import torch

    if choice in ("bf16", "fp16") and not torch.accelerator.is_available():
        raise ValueError(
            f"optimisation.mixed_precision is {choice}, but this machine has no GPU: set "
            "optimisation.mixed_precision=auto"
        )


def _check_trackers(recipe: Recipe) -> None:
    """A tracker's callback looks for its package when it is made, which the trainer does after the first evaluation."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in [recipe.report_to] if isinstance(recipe.report_to, str) else recipe.report_to:
        if name not in ("none", "all"):
            try:
                INTEGRATION_TO_CALLBACK[name]()
            except Exception as error:  # each tracker fails in its own way
                raise ImportError(
                    f"report_to is {name!r}, which cannot be used here: {first_line(error).rstrip('.')}; or set "
                    "report_to=none"
                ) from error


def check_optimiser(recipe: Recipe, config: Any) -> None:
    """Check that the optimiser and the schedule can be made: the trainer makes them after the first evaluation.

    Args:
        recipe: A checked recipe.
        config: The trainer's settings for it.

    Raises:
        ValueError: A package is missing, or one of them needs settings that a recipe does not have.
    """
    import torch
    from transformers import Trainer, get_scheduler

    optimisation, parameter = recipe.optimisation, torch.nn.Parameter(torch.zeros(1))
    try:
        key = "optimizer"
        Trainer.get_optimizer_cls_and_kwargs(config, torch.nn.Linear(1, 1))
        key = "schedule"
        get_scheduler(
            config.lr_scheduler_type,
            optimizer=torch.optim.SGD([parameter], lr=1.0),
            num_warmup_steps=optimisation.warmup_steps,
            num_training_steps=optimisation.max_steps,
            scheduler_specific_kwargs=config.lr_scheduler_kwargs,
        )
    except Exception as error:  # of whatever library the optimiser comes from
        raise ValueError(
            f"optimisation.{key} is {getattr(optimisation, key)!r}, which cannot be used here: {first_line(error)}"
        ) from error


def check_fit(recipe: Recipe, problems: Problems, model: Any, tokenizer: Any, grader: Grader) -> None:
    """Check that model, tokenizer, adapter, markers and problems fit each other.

    Raises:
        ValueError: A truncated rollout of a model that does not think, layers to adapt that the model has not, markers
            that the tokenizer cannot write, a gold answer that cannot be graded, or a prompt that leaves no room for a
            completion.
    """
    _check_targets(recipe.model.lora, model)
    rollout = recipe.rollout
    if (rollout.dynamic or rollout.serial) and not rollout.force_close and not thinks(tokenizer):
        raise ValueError(
            f"model.path {recipe.model.path!r} is no reasoning model: its tokenizer and chat template know no "
            "</think>, which the rollout would force into plain answers; set rollout.dynamic: false, or "
            "rollout.force_close: true"
        )
    check_markers(TokenText.from_tokenizer(tokenizer), recipe.rollout.markers)
    for part, found in problems.items():
        check_recipe_problems(recipe, found, getattr(recipe.data, part), tokenizer, model, grader)


def _check_targets(lora: Lora | None, model: Any) -> None:
    if lora is None or lora.targets == "all-linear":
        return
    names = [name for name, _ in model.named_modules()]
    if isinstance(lora.targets, str):
        wrong = [] if any(_matches(lora.targets, name) for name in names) else [lora.targets]
    else:
        wrong = [target for target in lora.targets if not any(f".{name}".endswith(f".{target}") for name in names)]
    if wrong:
        known = sorted({name.rpartition(".")[2] for name in names if name.endswith("_proj")})
        raise ValueError(
            f"model.lora.targets names {shown(wrong[0])}, a layer that the model does not have: name among "
            f"{listed(known)}, or all-linear{did_you_mean(wrong[0], [*known, 'all-linear'])}"
        )


def _matches(pattern: str, name: str) -> bool:
    """Whether a module's name fits, as peft reads a single text: as a regular expression."""
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False


@contextmanager
def gone_if_refused(folder: Path, made: Sequence[Path] | None) -> Iterator[None]:
    """Remove what a run that cannot begin has written; one that is only stopped keeps its folder and recipe.

    Args:
        folder: The run folder.
        made: The folders that were made for it, as :func:`new_parts` says; None for a run that goes on.
    """
    try:
        yield
    except Exception:
        if made is not None:
            (folder / "recipe.yaml").unlink(missing_ok=True)
        if made:
            shutil.rmtree(folder, ignore_errors=True)
        for part in reversed(made or []):
            with suppress(OSError):  # gone, or somebody else's run lies there by now
                part.rmdir()
        raise
