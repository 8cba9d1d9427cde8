"""What the course's last notebook trains: the recipe that fits the machine, and a folder for the run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from stepgrpo_lab.course.environment import Lab
from stepgrpo_lab.recipes import Recipe, load_recipe

CPU_RECIPE = "overthinker"
GPU_RECIPE = "qwen3-1.7b-qlora-t4"

TESTED_SIZE = (
    "data.counts.train=16",
    "data.counts.validation=6",
    "data.counts.test=12",
    "optimisation.max_steps=2",
    "optimisation.prompts_per_step=2",
    "optimisation.group_size=4",
    "optimisation.rows_per_pass=8",
    "optimisation.save_every=1",
    "evaluation.every=2",
)
"""Changes to the CPU's recipe with which a test of the notebook takes seconds; nothing can be learnt in two steps."""

_MIXED_PRECISION = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}


def full_run_recipe(lab: Lab, name: str | None = None) -> Recipe:
    """The recipe of the full training run: the Overthinker on a CPU, Qwen3-1.7B with QLoRA on a GPU.

    On a GPU it computes in what the GPU computes natively (:attr:`Lab.precision`). In the tested size it is always the
    Overthinker, in seconds, so that a test needs neither a GPU nor a download.

    Args:
        lab: Where the notebook runs.
        name: Another recipe, taken as it is; by default the machine decides.

    Raises:
        ValueError: There is no such recipe.

    Example:
        >>> on_a_cpu = Lab(fast=True, colab=False, python="3.11", versions={})
        >>> full_run_recipe(on_a_cpu).optimisation.max_steps
        2
    """
    if lab.fast:
        return load_recipe(CPU_RECIPE, TESTED_SIZE)
    if name is not None or lab.device == "cpu":
        return load_recipe(name or CPU_RECIPE)
    mixed = _MIXED_PRECISION[lab.precision]
    precision = (f"model.dtype={lab.precision}", f'optimisation.mixed_precision="{mixed}"')
    return load_recipe(GPU_RECIPE, precision)


def new_run_folder(lab: Lab, name: str = "full-run", parent: str | Path = "runs") -> Path:
    """A folder that no run has used: ``runs/full-run-1``, ``-2``, ...; in the tested size, a temporary one.

    Args:
        lab: Where the notebook runs.
        name: What the folder's name begins with.
        parent: Where it is to lie.

    Example:
        >>> new_run_folder(Lab(fast=False, colab=False, python="3.11", versions={}), parent="no/such/folder").name
        'full-run-1'
    """
    if lab.fast:
        return Path(tempfile.mkdtemp(prefix="stepgrpo-")) / name
    number = 1
    while (Path(parent) / f"{name}-{number}").exists():
        number += 1
    return Path(parent) / f"{name}-{number}"
