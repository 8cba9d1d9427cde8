"""How a run measures its policy: with the engine that samples in its training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from stepgrpo_lab.engines.models import mixed_precision
from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.recipes.building import recipe_markers, recipe_sampling
from stepgrpo_lab.recipes.schema import Recipe


def evaluate_policy(
    recipe: Recipe,
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    grader: Grader,
    *,
    test: bool,
    settings: RolloutSettings | None = None,
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
            markers=recipe_markers(recipe),
            grader=grader,
            suffix=recipe.data.suffix,
            keep_texts=section.texts if test else 0,
            progress=progress,
            shared=True,
            engine=engine,
        )
