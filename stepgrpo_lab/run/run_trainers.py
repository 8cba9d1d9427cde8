"""The trainer of each method that a recipe can name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.sampling import Sampling
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.recipes.building import (
    recipe_config,
    recipe_fine_tune_config,
    recipe_lora,
    recipe_rollout_settings,
)
from stepgrpo_lab.recipes.reward import recipe_reward
from stepgrpo_lab.recipes.schema import Recipe
from stepgrpo_lab.run.run_files import write_text

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from stepgrpo_lab.training import StepGRPOTrainer
    from stepgrpo_lab.training.engine_weights import SyncedEngine
    from stepgrpo_lab.training.fine_tuning import FineTuneTrainer, Selection

SELECTION = "selection.json"
"""The file of a run folder that keeps the completions to imitate."""


def reinforcer(
    recipe: Recipe,
    folder: Path,
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    grader: Grader,
    engine: SyncedEngine | None = None,
) -> StepGRPOTrainer:
    """The trainer of method grpo, which samples with the engine of the recipe if that has one."""
    from stepgrpo_lab.training import StepGRPOTrainer, problems_dataset

    return StepGRPOTrainer(
        model,
        recipe_config(recipe, folder),
        problems_dataset(problems, recipe.data.suffix),
        tokenizer,
        group_reward=recipe_reward(recipe.reward),
        segmenter=MarkerSegmenter(recipe.rollout.markers),
        grader=grader,
        peft_config=recipe_lora(recipe.model.lora),
        engine=engine,
    )


def fine_tuner(recipe: Recipe, folder: Path, model: Any, tokenizer: Any, selection: Selection) -> FineTuneTrainer:
    """The trainer of method sft."""
    from stepgrpo_lab.training.fine_tuning import FineTuneTrainer

    config = recipe_fine_tune_config(recipe, folder)
    return FineTuneTrainer(model, config, selection, tokenizer, peft_config=recipe_lora(recipe.model.lora))


def selection_figures(trainer: FineTuneTrainer) -> TrainerCallback:
    """Logs what the selection took."""
    from stepgrpo_lab.training.fine_tuning import SelectionFigures

    return SelectionFigures(trainer)


def select_once(
    recipe: Recipe,
    folder: Path,
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    grader: Grader,
    tell: Callable[[str], None],
) -> Selection:
    """The completions to imitate: from the run folder, or sampled now and written there."""
    from stepgrpo_lab.training.fine_tuning import Selection, select_completions

    path = folder / SELECTION
    if path.exists():
        return Selection.from_json(json.loads(path.read_text(encoding="utf-8")))
    rollout, optimisation = recipe.rollout, recipe.optimisation
    selection = select_completions(
        model,
        tokenizer,
        problems,
        grader,
        samples=optimisation.group_size,
        limit=rollout.max_tokens,
        settings=recipe_rollout_settings(recipe) if rollout.dynamic else None,
        sampling=Sampling(rollout.temperature),
        seed=recipe.seed,
        rows=rollout.rows,
        suffix=recipe.data.suffix,
        token_budget=optimisation.token_budget,
        progress=lambda done, total: tell(f"completions to imitate: {done}/{total} problems"),
    )
    write_text(path, json.dumps(selection.to_json()))
    return selection
