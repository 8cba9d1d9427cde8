"""How a run trains its policy, by each method that a recipe can name, and how it measures it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines.files import read_json, write_atomically
from stepgrpo_lab.engines.models import mixed_precision
from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.sampling import Sampling
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.steps import MarkerSegmenter, Segmenter
from stepgrpo_lab.recipes._building import Parts, recipe_lora, recipe_sampling
from stepgrpo_lab.recipes.schema import Recipe

if TYPE_CHECKING:
    from peft import LoraConfig

    from stepgrpo_lab.training import StepGRPOConfig, StepGRPOTrainer
    from stepgrpo_lab.training._engine_weights import SyncedEngine
    from stepgrpo_lab.training.fine_tuning import FineTuneConfig, FineTuneTrainer, Selection

SELECTION = "selection.json"
"""The file of a run folder that keeps the completions to imitate."""


def reinforcer(
    recipe: Recipe,
    config: StepGRPOConfig,
    parts: Parts,
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
        config,
        problems_dataset(problems, recipe.data.suffix),
        tokenizer,
        group_reward=parts.reward,
        segmenter=parts.segmenter or MarkerSegmenter(recipe.rollout.markers),
        grader=grader,
        peft_config=new_adapter(recipe, model),
        engine=engine,
    )


def fine_tuner(
    recipe: Recipe, config: FineTuneConfig, model: Any, tokenizer: Any, selection: Selection
) -> FineTuneTrainer:
    """The trainer of method sft."""
    from stepgrpo_lab.training.fine_tuning import FineTuneTrainer

    return FineTuneTrainer(model, config, selection, tokenizer, peft_config=new_adapter(recipe, model))


def new_adapter(recipe: Recipe, model: Any) -> LoraConfig | None:
    """The adapter to make before training; None trains what is there: every weight, or the adapter that was loaded."""
    return None if hasattr(model, "peft_config") else recipe_lora(recipe.model.lora)


def select_once(
    recipe: Recipe,
    folder: Path,
    segmenter: Segmenter | None,
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    grader: Grader,
    progress: Callable[[str], None],
) -> Selection:
    """The completions to imitate: from the run folder, or sampled now and written there."""
    from stepgrpo_lab.training.fine_tuning import Selection, select_completions

    path = folder / SELECTION
    if path.exists():
        return read_json(path, Selection.from_json, "remove the file to sample again")
    rollout, optimisation = recipe.rollout, recipe.optimisation
    selection = select_completions(
        model,
        tokenizer,
        problems,
        grader,
        samples=optimisation.group_size,
        limit=rollout.max_tokens,
        settings=rollout.settings if rollout.dynamic else None,
        sampling=Sampling(rollout.temperature),
        segmenter=segmenter,
        seed=recipe.seed,
        rows=rollout.rows,
        suffix=recipe.data.suffix,
        token_budget=optimisation.token_budget,
        progress=lambda done, total: progress(f"completions to imitate: {done}/{total} problems"),
    )
    write_atomically(path, json.dumps(selection.to_json()))
    return selection


def evaluate_policy(
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    grader: Grader,
    *,
    test: bool,
    settings: RolloutSettings | None = None,
    segmenter: Segmenter | None = None,
    engine: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure the policy as the recipe's evaluation section says; every process must call, and gets the whole.

    Args:
        recipe: A checked recipe.
        model, tokenizer: The policy, whole; without use where an engine samples.
        problems: What to measure it on.
        grader: Judges answers.
        test: The test before and after training, with all samples and texts; else a validation, with one sample.
        settings: A truncated rollout in place of plain decoding.
        segmenter: Counts steps in place of the recipe's markers.
        engine: Samples with the same weights in place of the model.
        progress: Called with (finished, all) completions.
    """
    section = recipe.evaluation
    precision = nullcontext() if engine else mixed_precision(model, recipe.optimisation.mixed_precision)
    with precision:
        return evaluate(
            model,
            tokenizer,
            problems,
            samples=section.samples if test else 1,
            limit=recipe.rollout.max_tokens,
            sampling=recipe_sampling(section),
            settings=settings,
            seed=recipe.seed,
            max_rows=section.rows or recipe.rollout.rows,
            markers=recipe.rollout.markers,
            segmenter=segmenter,
            grader=grader,
            suffix=recipe.data.suffix,
            keep_texts=section.texts if test else 0,
            progress=progress,
            shared=True,
            engine=engine,
        )
