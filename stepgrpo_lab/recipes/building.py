"""From a recipe to what a run is made of: problems, settings, model and adapter."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines.models import OVERTHINKER, load_model
from stepgrpo_lab.engines.processes import process_count
from stepgrpo_lab.engines.prompts import long_prompts, prompt_room
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.problems import check_problems, find_benchmark, load_problems
from stepgrpo_lab.method.baselines import scaled_tokens
from stepgrpo_lab.method.presets import RolloutSettings
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.sampling import Sampling
from stepgrpo_lab.recipes.engines import check_engine
from stepgrpo_lab.recipes.schema import EvaluationSection, Lora, Optimisation, Recipe

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stepgrpo_lab.training import StepGRPOConfig
    from stepgrpo_lab.training.fine_tuning import FineTuneConfig


def recipe_problems(source: str, count: int | None) -> list[Problem]:
    """The problems of a source: "overthinker:<split>", the path of a .jsonl file, or a known Hugging Face id.

    An id or its short name may carry a split, as in "gsm8k:train".

    Raises:
        ValueError: No such split or file, or a generated source without a count.

    Example:
        >>> len(recipe_problems("overthinker:test", 2))
        2
    """
    name, colon, split = source.partition(":")
    if colon and find_benchmark(name):
        return load_problems(name, split=split, limit=count)
    if name != OVERTHINKER or not colon:
        return load_problems(source, limit=count)
    if count is None:
        raise ValueError(f"{source} is generated without end: give its count, for example data.counts.train=2000")
    from stepgrpo_lab.overthinker import overthinker_problems

    return overthinker_problems(split, count)  # type: ignore[arg-type]  # it names the splits itself


def training_problems(recipe: Recipe) -> list[Problem]:
    """The problems to train on: those of ``data.train`` that ``data.pass_rates`` keeps.

    Raises:
        FileNotFoundError: The pass rates have not been measured; the message names the command.
        ValueError: No such source, problems without a rate, or none that is kept.
    """
    problems = recipe_problems(recipe.data.train, recipe.data.counts.train)
    chosen = recipe.data.pass_rates
    if chosen is None:
        return problems
    from stepgrpo_lab.evaluation.selection import read_pass_rates, select_by_pass_rate

    return select_by_pass_rate(problems, read_pass_rates(chosen.file), least=chosen.least, most=chosen.most)


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


def recipe_markers(recipe: Recipe) -> str | tuple[str, ...]:
    """The markers that count steps, in training and evaluation alike."""
    return recipe.rollout.markers


def recipe_rollout_settings(recipe: Recipe) -> RolloutSettings:
    """The truncated rollout that the recipe describes, whether its training uses one or not."""
    return recipe.rollout.settings


def recipe_round_limits(recipe: Recipe) -> list[int] | None:
    """The completion limit of each round on this recipe's scale, in tokens; None for one limit throughout."""
    limits = recipe.rollout.round_limits
    return limits and [scaled_tokens(limit, recipe.reward.length_scale) for limit in limits]


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
    processes = process_count()
    passes, rest = divmod(
        optimisation.prompts_per_step * optimisation.group_size, optimisation.rows_per_pass * processes
    )
    if rest or not passes:
        raise ValueError(
            f"{optimisation.prompts_per_step} prompts x {optimisation.group_size} completions cannot be shared by "
            f"{processes} processes in passes of optimisation.rows_per_pass={optimisation.rows_per_pass}: lower it"
        )
    return StepGRPOConfig(
        **_common_settings(recipe, output),
        per_device_train_batch_size=optimisation.rows_per_pass,
        gradient_accumulation_steps=passes,
        steps_per_generation=passes * optimisation.steps_per_rollout,
        num_generations=optimisation.group_size,
        loss_type=optimisation.loss_type,
        scale_rewards=optimisation.scale_rewards,
        beta=optimisation.kl_beta,
        epsilon=optimisation.epsilon,
        epsilon_high=optimisation.epsilon_high,
        **_precision(optimisation.mixed_precision),
        rollout=rollout.settings if rollout.dynamic or rollout.serial else None,
        serial_rollout=rollout.serial,
        round_limits=recipe_round_limits(recipe),
        max_completion_length=rollout.max_tokens,
        temperature=rollout.temperature,
        train_forced_close=rollout.train_forced_close,
        rollout_rows=rollout.rows,
        grading_timeout=recipe.reward.grading_timeout,
    )


def recipe_fine_tune_config(recipe: Recipe, output: str | Path) -> FineTuneConfig:
    """The settings of supervised fine-tuning.

    Raises:
        ValueError: Several processes were started.
    """
    from stepgrpo_lab.training.config import native_precision
    from stepgrpo_lab.training.fine_tuning import FineTuneConfig

    if process_count() > 1:
        raise ValueError("method sft samples its examples in one process: start it without torchrun")
    optimisation = recipe.optimisation
    rows = math.gcd(optimisation.prompts_per_step, optimisation.rows_per_pass)
    precision = native_precision() if optimisation.mixed_precision == "auto" else optimisation.mixed_precision
    return FineTuneConfig(
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=optimisation.prompts_per_step // rows,
        **_precision(precision),
        **_common_settings(recipe, output),
    )


def _common_settings(recipe: Recipe, output: str | Path) -> dict[str, Any]:
    """What reinforcement learning and supervised fine-tuning are told alike."""
    optimisation = recipe.optimisation
    _check_names(optimisation)
    return {
        "output_dir": str(Path(output) / "checkpoints"),
        "seed": recipe.seed,
        "max_steps": optimisation.max_steps,
        "learning_rate": optimisation.learning_rate,
        "optim": optimisation.optimizer,
        "weight_decay": optimisation.weight_decay,
        "max_grad_norm": optimisation.max_grad_norm,
        "lr_scheduler_type": optimisation.schedule,
        "warmup_steps": optimisation.warmup_steps,
        "gradient_checkpointing": optimisation.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": _save_steps(recipe),
        "save_total_limit": 2,
        "report_to": recipe.report_to,
        "use_cpu": _launched_on_cpu(),
    }


def _check_names(optimisation: Optimisation) -> None:
    """Names of other libraries, which are imported only here; their own errors do not say which key is meant."""
    from transformers import SchedulerType
    from transformers.training_args import OptimizerNames

    for key, kinds in (("optimizer", OptimizerNames), ("schedule", SchedulerType)):
        name, known = getattr(optimisation, key), [kind.value for kind in kinds]
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
            raise ValueError(f"optimisation.{key} is {name!r}: {advice}")


def check_recipe_problems(
    recipe: Recipe, problems: Sequence[Problem], source: str, tokenizer: Any, model: Any, grader: Grader
) -> None:
    """Refuse what would stop a run in its middle, or make a problem look unsolvable for ever.

    Args:
        recipe: The recipe that uses them.
        problems: Problems of one of its sources.
        source: That source, for the message.
        tokenizer, model: Its model.
        grader: Grades each gold answer against itself.

    Raises:
        ValueError: A gold answer cannot be graded, or a prompt leaves no room for a completion.
    """
    for line in check_problems(problems, grader):
        raise ValueError(f"{source}, {line}")
    settings = recipe_rollout_settings(recipe) if recipe.rollout.dynamic else None
    room = prompt_room(model, tokenizer, recipe.rollout.max_tokens, settings)
    for line in long_prompts(problems, tokenizer, room, recipe.data.suffix):
        raise ValueError(f"{source}, {line}")


def check_settings(recipe: Recipe) -> None:
    """Check what only the trainer's own settings can tell, before anything is loaded or measured.

    Raises:
        ValueError: The recipe cannot be carried out on this machine.
    """
    check_engine(recipe)
    settings = recipe_config if recipe.method == "grpo" else recipe_fine_tune_config
    settings(recipe, "unused")


def _launched_on_cpu() -> bool:
    """Whether a launcher started this process on a machine without GPU: accelerate would let each train alone."""
    import torch

    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()


def _precision(choice: str) -> dict[str, Any]:
    return {} if choice == "auto" else {"bf16": choice == "bf16", "fp16": choice == "fp16"}


def _save_steps(recipe: Recipe) -> int:
    optimisation = recipe.optimisation
    if optimisation.save_every:
        return optimisation.save_every
    window = optimisation.steps_per_rollout
    return math.ceil(optimisation.max_steps / 4 / window) * window
