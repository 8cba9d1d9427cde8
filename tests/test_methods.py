"""Every method a recipe can name trains the embedded model: one real step of each, on a few problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from stepgrpo_lab import data_path, run
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.training.callbacks import read_metrics

REWARDS = {
    "correctness": {},
    "length_penalty": {"strength": 0.4},
    "kimi": {},
    "soft_overlong": {"overlong_limit": 100, "overlong_cache": 90},
    "l1_exact": {"length_scale": 0.03},
    "l1_max": {"length_scale": 0.03},
    "grpo_lambda": {"penalized_share": 1},
    "shorter_better": {"length_scale": 0.03},
}


def few_problems(**changes: Any) -> Recipe:
    """The Overthinker's recipe cut down to one step on four problems."""
    values = {
        "data.counts.train": 4,
        "data.counts.validation": 1,
        "data.counts.test": 4,
        "optimisation.max_steps": 1,
        "optimisation.prompts_per_step": 4,
        "optimisation.group_size": 4,
        "optimisation.rows_per_pass": 16,
        "rollout.dynamic": "false",
        **changes,
    }
    return load_recipe("overthinker", [f"{key}={value}" for key, value in values.items()])


def trained_weights_moved(folder: Path) -> bool:
    start = load_file(data_path("overthinker", "model.safetensors"))
    end = load_file(folder / "model" / "model.safetensors")
    return any(not start[name].equal(end[name]) for name in start)


@pytest.mark.parametrize("function", REWARDS)
def test_every_reward_function_trains(function: str, tmp_path: Path) -> None:
    constants = {f"reward.{key}": value for key, value in REWARDS[function].items()}
    recipe = few_problems(**{"reward.function": function, **constants})
    result = run.train(recipe, tmp_path / "run")
    assert result.finished
    [step] = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "reward" in row]
    # Only plain correctness is silent where every member of every group is right.
    informative = step["groups/informative"] > 0
    assert informative or (function == "correctness" and step["accuracy"] in (0, 1))
    assert trained_weights_moved(tmp_path / "run") == informative
