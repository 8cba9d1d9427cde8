"""From a recipe and a machine to the numbers that decide memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stepgrpo_lab.engines import ENGINES, Engine
from stepgrpo_lab.engines.models import native_dtype_of
from stepgrpo_lab.planning.dimensions import ModelDimensions, model_dimensions
from stepgrpo_lab.planning.formulas import OPTIMIZERS, Optimizer, full_parameters, lora_parameters
from stepgrpo_lab.planning.hardware import Gpu, find_gpu
from stepgrpo_lab.recipes.schema import Recipe

PROMPT_TOKENS = 512
"""Longest prompt that a plan reckons with; nine in ten of DAPO-Math-17k's are shorter than half of it."""

PROBE_TOKENS = 64
"""Places that probes use beyond the completion limit."""

_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Setup:
    """What decides how much memory a run takes on each GPU.

    Attributes:
        dimensions, gpu, gpus: Model and machine.
        sharded: Weights, gradients and optimiser states are spread over the GPUs (FSDP2, ZeRO-3).
        engine: Who samples.
        weights: Bytes of a number in the weights (of what is not quantised).
        compute: Bytes of a number in matrix products.
        quantised: The layers' matrices are in 4 bits.
        adapter: Sizes of the trained adapter's matrices; empty when every weight trains.
        optimizer: What the optimiser keeps.
        reference: A second model is needed for the KL term.
        checkpointing: Activations are recomputed.
        prompt, completion: Longest of each, in tokens.
        rollout_rows, prompts_at_once: Completions decoded at once in training, and the different prompts among them.
        evaluation_rows: Completions decoded at once in evaluation, each of another prompt.
        rows: Completions of one forward and backward pass.
    """

    dimensions: ModelDimensions
    gpu: Gpu
    gpus: int
    sharded: bool
    engine: Engine
    weights: int
    compute: int
    quantised: bool
    adapter: tuple[int, ...]
    optimizer: Optimizer
    reference: bool
    checkpointing: bool
    prompt: int
    completion: int
    rollout_rows: int
    prompts_at_once: int
    evaluation_rows: int
    rows: int

    @property
    def context(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return self.prompt + self.completion

    @property
    def shards(self) -> int:
        """Among how many GPUs what is sharded is spread."""
        return self.gpus if self.sharded else 1

    @property
    def residual(self) -> int:
        """Bytes of a number in the residual stream: sharding engines cast the weights, autocast does not."""
        return self.compute if self.sharded else self.weights

    @property
    def casts(self) -> bool:
        """Autocast keeps a 16-bit copy of every matrix it used."""
        return self.weights > self.compute and not self.sharded

    @property
    def trained(self) -> tuple[list[int], list[int]]:
        """Sizes of the trained tensors: those of embeddings, and the others."""
        return ([], list(self.adapter)) if self.adapter else full_parameters(self.dimensions)


def recipe_setup(
    recipe: Recipe,
    *,
    gpu: str | None = None,
    gpus: int | None = None,
    engine: Engine | None = None,
    prompt_tokens: int = PROMPT_TOKENS,
    dimensions: ModelDimensions | None = None,
) -> Setup:
    """Read a recipe for a machine and an engine; by default for those that it names.

    Raises:
        ValueError: A value that cannot be planned for; the message names it.
    """
    hardware, optimisation, rollout, model = recipe.hardware, recipe.optimisation, recipe.rollout, recipe.model
    name = gpu or hardware.gpu
    if name is None:
        raise ValueError(f"recipe {recipe.name!r} names no GPU: give one, for example --gpu T4")
    engine = engine or rollout.engine
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}: use one of {', '.join(ENGINES)}")
    if optimisation.optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimisation.optimizer is {optimisation.optimizer!r}: its memory is unknown, use {', '.join(OPTIMIZERS)}"
        )
    machine, count = find_gpu(name), hardware.gpus if gpus is None else gpus
    if count < 1 or prompt_tokens < 1:
        raise ValueError(f"{count} GPUs and prompts of {prompt_tokens} tokens: both must be at least 1")
    dimensions = dimensions or model_dimensions(model.path)
    if (context := prompt_tokens + rollout.max_tokens + PROBE_TOKENS) > dimensions.positions:
        raise ValueError(
            f"rollout.max_tokens is {rollout.max_tokens}: with prompts and probes {context} positions, but the model "
            f"has {dimensions.positions}"
        )
    weights = _WIDTHS[native_dtype_of(machine.capability) if model.dtype == "auto" else model.dtype]
    adapter = model.lora and lora_parameters(dimensions, model.lora.r, model.lora.targets)
    local = optimisation.prompts_per_step * optimisation.group_size * optimisation.steps_per_rollout // count
    rows = min(rollout.rows, max(1, local))
    return Setup(
        dimensions=dimensions,
        gpu=machine,
        gpus=count,
        sharded=hardware.sharding != "none" and count > 1,
        engine=engine,
        weights=weights,
        compute=weights if optimisation.mixed_precision == "no" else 2,
        quantised=model.quantization is not None,
        adapter=tuple(adapter or ()),
        optimizer=OPTIMIZERS[optimisation.optimizer],
        reference=optimisation.kl_beta > 0 and model.lora is None,
        checkpointing=optimisation.gradient_checkpointing,
        prompt=prompt_tokens,
        completion=rollout.max_tokens,
        rollout_rows=rows,
        prompts_at_once=math.ceil(rows / optimisation.group_size),
        evaluation_rows=recipe.evaluation.rows or rollout.rows,
        rows=optimisation.rows_per_pass,
    )
