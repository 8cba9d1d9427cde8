"""From a recipe to what a run is made of: problems, settings, model and adapter."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.models import OVERTHINKER, load_model
from stepgrpo_lab.problems import load_problems
from stepgrpo_lab.recipes.schema import EvaluationSection, Lora, Recipe
from stepgrpo_lab.records import Problem
from stepgrpo_lab.rollout import PRESETS
from stepgrpo_lab.sampling import Sampling

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stepgrpo_lab.training import StepGRPOConfig


def recipe_problems(source: str, count: int | None) -> list[Problem]:
    """The problems of a source: "overthinker:<split>", the path of a .jsonl file, or a known Hugging Face id.

    Raises:
        ValueError: No such split or file, or a generated source without a count.

    Example:
        >>> [problem.family for problem in recipe_problems("overthinker:test", 2)]
        ['chain', 'chain']
    """
    name, colon, split = source.partition(":")
    if name != OVERTHINKER or not colon:
        return load_problems(source, limit=count)
    if count is None:
        raise ValueError(f"{source} is generated without end: give its count, for example data.counts.train=2000")
    from stepgrpo_lab.overthinker import overthinker_problems

    return overthinker_problems(split, count)  # type: ignore[arg-type]  # it names the splits itself


def recipe_model(recipe: Recipe) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The untrained policy and its tokenizer."""
    model = recipe.model
    return load_model(model.path, dtype=model.dtype, quantization=model.quantization)


def recipe_lora(lora: Lora | None) -> LoraConfig | None:
    """The adapter's configuration; None trains every weight."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora.targets, task_type="CAUSAL_LM"
    )


def recipe_sampling(section: EvaluationSection) -> Sampling:
    """Decoding for evaluation."""
    return Sampling(section.temperature, section.top_p, section.top_k)


def recipe_markers(recipe: Recipe) -> Any:
    """The markers that count steps, in training and evaluation alike."""
    return recipe.rollout.markers or PRESETS[recipe.rollout.preset].markers


def recipe_config(recipe: Recipe, output: str | Path) -> StepGRPOConfig:
    """The trainer's settings, all but the reward's (:func:`stepgrpo_lab.recipes.reward.recipe_reward`).

    Args:
        recipe: A checked recipe.
        output: The run folder; checkpoints go into its ``checkpoints``.

    Raises:
        ValueError: The settings cannot work together on this machine.
    """
    from stepgrpo_lab.training import StepGRPOConfig

    optimisation, rollout = recipe.optimisation, recipe.rollout
    processes = _processes()
    passes, rest = divmod(
        optimisation.prompts_per_step * optimisation.group_size, optimisation.rows_per_pass * processes
    )
    if rest or not passes:
        raise ValueError(
            f"{optimisation.prompts_per_step} prompts x {optimisation.group_size} completions cannot be shared by "
            f"{processes} processes in passes of optimisation.rows_per_pass={optimisation.rows_per_pass}: lower it"
        )
    return StepGRPOConfig(
        output_dir=str(Path(output) / "checkpoints"),
        seed=recipe.seed,
        max_steps=optimisation.max_steps,
        learning_rate=optimisation.learning_rate,
        per_device_train_batch_size=optimisation.rows_per_pass,
        gradient_accumulation_steps=passes,
        steps_per_generation=passes * optimisation.steps_per_rollout,
        num_generations=optimisation.group_size,
        loss_type=optimisation.loss_type,
        scale_rewards=optimisation.scale_rewards,
        beta=optimisation.kl_beta,
        epsilon=optimisation.epsilon,
        epsilon_high=optimisation.epsilon_high,
        optim=optimisation.optimizer,
        weight_decay=optimisation.weight_decay,
        max_grad_norm=optimisation.max_grad_norm,
        lr_scheduler_type=optimisation.schedule,
        warmup_steps=optimisation.warmup_steps,
        gradient_checkpointing=optimisation.gradient_checkpointing,
        **_precision(optimisation.mixed_precision),
        save_strategy="steps",
        save_steps=_save_steps(recipe),
        save_total_limit=2,
        report_to=recipe.report_to,
        dynamic_rollout=rollout.dynamic,
        preset=rollout.preset,
        max_completion_length=rollout.max_tokens,
        temperature=rollout.temperature,
        probe_rate=rollout.probe_rate,
        exit_threshold=rollout.exit_threshold,
        markers=rollout.markers,
        confidence_rule=rollout.confidence_rule,
        think_budget=rollout.think_budget,
        near_budget_margin=rollout.near_budget_margin,
        max_probes=rollout.max_probes,
        probe_max_tokens=rollout.probe_max_tokens,
        train_forced_close=rollout.train_forced_close,
        rollout_rows=rollout.rows,
        grading_timeout=recipe.reward.grading_timeout,
    )


def _processes() -> int:
    import os

    return int(os.environ.get("WORLD_SIZE", "1"))


def _precision(choice: str) -> dict[str, Any]:
    return {} if choice == "auto" else {"bf16": choice == "bf16", "fp16": choice == "fp16"}


def _save_steps(recipe: Recipe) -> int:
    optimisation = recipe.optimisation
    if optimisation.save_every:
        return optimisation.save_every
    window = optimisation.steps_per_rollout
    return math.ceil(optimisation.max_steps / 4 / window) * window
