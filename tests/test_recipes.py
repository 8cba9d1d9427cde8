"""Recipes: the schema, its errors, overrides, and what a recipe becomes."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from stepgrpo_lab.evaluation.problems import write_problems
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.rewards import BatchReward
from stepgrpo_lab.method.sampling import Sampling
from stepgrpo_lab.method.settings import RolloutSettings, rollout_settings
from stepgrpo_lab.recipes import Recipe, load_recipe, recipe_names, write_recipe
from stepgrpo_lab.recipes._building import (
    recipe_config,
    recipe_lora,
    recipe_problems,
    recipe_reward,
    recipe_sampling,
)


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_become_settings(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    config = recipe_config(recipe, tmp_path)
    optimisation = recipe.optimisation
    assert config.generation_batch_size == (
        optimisation.prompts_per_step * optimisation.group_size * optimisation.steps_per_rollout
    )
    assert config.window_steps == optimisation.steps_per_rollout
    assert recipe.name == name


def test_the_overthinker_recipe_covers_its_steps_without_repeating_a_problem() -> None:
    recipe = load_recipe("overthinker")
    needed = recipe.optimisation.prompts_per_step * recipe.optimisation.max_steps
    assert recipe.data.counts.train is not None and recipe.data.counts.train >= needed


def test_overrides_change_one_value_each() -> None:
    recipe = load_recipe(
        "overthinker",
        [
            "optimisation.learning_rate=1e-4",
            "model.lora.r=4",
            "rollout.markers=[Hmm, So]",
            "rollout.think_budget=200",
            "data.suffix=' Think.'",
            "seed=7",
        ],
    )
    plain = load_recipe("overthinker")
    assert recipe.optimisation == dataclasses.replace(plain.optimisation, learning_rate=1e-4)
    assert recipe.model.lora is not None and (recipe.model.lora.r, recipe.model.lora.alpha) == (4, 32)
    assert recipe.rollout.markers == ("Hmm", "So")
    assert recipe.rollout.think_budget == 200 and isinstance(recipe.rollout.think_budget, int)
    assert (recipe.data.suffix, recipe.seed) == (" Think.", 7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimisation.lerning_rate=1", "unknown key 'optimisation.lerning_rate': did you mean 'learning_rate'"),
        ("rollot.preset=paper", "unknown key 'rollot': did you mean 'rollout'"),
        ("model.lora.rank=4", "unknown key 'model.lora.rank': known keys: r, alpha"),
        ("rollout.preset=offical", "rollout.preset is 'offical': it must be 'official' or 'paper'"),
        ("optimisation.max_steps=many", "optimisation.max_steps is 'many': it must be a whole number"),
        ("optimisation.max_steps=true", "optimisation.max_steps is True"),
        ("rollout.probe_rate=2", "rollout.probe_rate is 2"),
        ("optimisation.group_size=1", "optimisation.group_size is 1: it must be at least 2"),
        ("optimisation.rows_per_pass=5", "rows_per_pass is 5: it must divide the 128 completions"),
        ("model.quantization=nf4", "nf4 without model.lora"),
        ("data=3", "data is 3: it must be a section"),
        ("data.train.split=x", "'train' is a value, not a section"),
        ("optimisation.max_steps", "is not KEY=VALUE"),
        ("rollout.markers=[", "the value is not YAML"),
        ("rollout.markers=[1, 2]", "rollout.markers is .1, 2.: it must be text or a list of words"),
        ("rollout.confidence_rule=median", "rollout.confidence_rule is 'median'"),
        ("rollout.exit_threshold=1.5", "rollout.exit_threshold is 1.5"),
        ("rollout.think_budget=1.5", "rollout.think_budget is 1.5"),
        ("reward.step_beta=1", "reward.step_beta is 1"),
        ("reward.step_alpha=-0.1", "reward.step_alpha is -0.1"),
    ],
)
def test_wrong_overrides_name_key_and_remedy(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("overthinker", [override])


def test_checkpoints_and_rollouts_must_fit() -> None:
    with pytest.raises(ValueError, match="save_every is 3: it must be a multiple of steps_per_rollout"):
        load_recipe("overthinker", ["optimisation.steps_per_rollout=2", "optimisation.save_every=3"])


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no recipe 'nowhere'.*overthinker"):
        load_recipe("nowhere")
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [")
    with pytest.raises(ValueError, match=r"broken\.yaml is not YAML"):
        load_recipe(broken)
    broken.write_text("- a list")
    with pytest.raises(ValueError, match="holds no sections"):
        load_recipe(broken)


def test_a_written_recipe_reads_back_the_same(tmp_path: Path) -> None:
    recipe = load_recipe("overthinker", ["model.lora.r=8", "rollout.markers=[A, B]", "optimisation.epsilon_high=0.28"])
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    empty = tmp_path / "empty.yaml"
    empty.write_text("seed: 3\n")
    assert load_recipe(empty) == Recipe(name="empty", seed=3)


def test_a_rollout_of_0_1_reads_as_its_preset_s(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "rollout: {preset: paper, probe_rate: 0.5, exit_threshold: 0.9, markers: null, confidence_rule: null, "
        "think_budget: null, near_budget_margin: null, max_probes: null, probe_max_tokens: null, dynamic: true}"
    )
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.rollout.settings == rollout_settings("paper", probe_rate=0.5, exit_threshold=0.9)


def test_a_written_recipe_can_still_change_its_preset(tmp_path: Path) -> None:
    write_recipe(load_recipe("overthinker", ["rollout.max_probes=3"]), tmp_path / "recipe.yaml")
    assert "skip_first: 1" in (tmp_path / "recipe.yaml").read_text()
    changed = load_recipe(tmp_path / "recipe.yaml", ["rollout.preset=paper"])
    assert changed == load_recipe("overthinker", ["rollout.max_probes=3", "rollout.preset=paper"])
    both = ["rollout.probe_prompt=</think> \\boxed{", "rollout.preset=paper"]
    assert load_recipe("overthinker", both).rollout.probe_prompt == "</think> \\boxed{"
    (tmp_path / "by_hand.yaml").write_text("rollout: {preset: official, markers: official}")
    assert load_recipe(tmp_path / "by_hand.yaml", ["rollout.preset=paper"]).rollout.markers == "official"


def test_settings_say_what_the_recipe_says(tmp_path: Path) -> None:
    recipe = load_recipe(
        "overthinker",
        [
            "optimisation.steps_per_rollout=2",
            "optimisation.kl_beta=0.01",
            "optimisation.max_steps=10",
            "rollout.train_forced_close=false",
            "seed=5",
        ],
    )
    config = recipe_config(recipe, tmp_path)
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps, config.steps_per_generation) == (
        32,
        4,
        8,
    )
    assert (config.beta, config.seed, config.train_forced_close) == (0.01, 5, False)
    assert config.save_steps == 4  # a quarter of ten steps, rounded up to whole rollouts
    settings = config.rollout
    assert settings is not None and type(settings) is RolloutSettings
    assert (settings.probe_rate, settings.markers, settings.near_budget_margin) == (0.5, "paper", 0.02)
    assert recipe_sampling(recipe.evaluation) == Sampling(0.6, 0.95, 20)


def test_steps_that_processes_cannot_share_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=r"cannot be shared by 3 processes.*rows_per_pass=32"):
        recipe_config(load_recipe("overthinker"), tmp_path)


def test_problem_sources(tmp_path: Path) -> None:
    splits = [recipe_problems(f"overthinker:{split}", 20) for split in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [20, 20, 20]
    assert len({problem.id for split in splits for problem in split}) == 60
    own = [Problem("a", "1+1?", "2"), Problem("b", "2+2?", "4")]
    write_problems(tmp_path / "own.jsonl", own)
    assert [problem.id for problem in recipe_problems(str(tmp_path / "own.jsonl"), 1)] == ["a"]
    assert len(recipe_problems(str(tmp_path / "own.jsonl"), None)) == 2
    with pytest.raises(ValueError, match=r"give its count, for example data\.counts\.train"):
        recipe_problems("overthinker:train", None)
    with pytest.raises(ValueError, match="dev"):
        recipe_problems("overthinker:dev", 3)


def rewarded(*overrides: str) -> list[float]:
    """What a recipe pays a group: right in 40 and in 80 tokens, wrong but formatted in 60."""
    reward = recipe_reward(load_recipe("overthinker", overrides).reward)
    if isinstance(reward, BatchReward):
        reward = reward.rewards_of_groups([[True, True, False]])[0]
    return reward([True, True, False], [2, 4, 3], [True] * 3, [40, 80, 60])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["correctness"], [1.0, 1.0, 0.1]),
        (["length_penalty"], [0.9 * (1 - 0.2 / (1 + math.e)) + 0.1, 0.9 * (1 - 0.2 / (1 + 1 / math.e)) + 0.1, 0.1]),
        (["kimi", "strength=0.2"], [1.09, 0.91, 0.1]),
        (["soft_overlong", "overlong_limit=10000", "overlong_cache=4000", "length_scale=0.01"], [1.0, 0.55, 0.1]),
        (["l1_exact", "length_scale=0.02"], [1.0, 0.46, -0.17]),
        (["l1_max", "length_scale=0.02"], [0.55, 0.1, 0.1]),
        (["grpo_lambda", "penalized_share=0"], [1.0, 1.0, 0.1]),
        (["grpo_lambda", "penalized_share=1", "strength=0"], [1.0, 1.0, 0.1]),
        (["shorter_better", "length_scale=0.1"], [1.9, 1.54, -0.08]),
        (["step_aware", "step_beta=0"], [1.0, 1.0, 0.1]),
    ],
)
def test_every_reward_function_of_a_recipe(overrides: list[str], expected: list[float]) -> None:
    function, *constants = overrides
    named = [f"reward.function={function}", *(f"reward.{constant}" for constant in constants)]
    assert rewarded(*named) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["function=length"], "reward.function is 'length': it must be 'step_aware' or 'correctness'"),
        (["function=length_penalty", "strength=1"], r"strength is 1.0; it must lie in \[0, 1\)"),
        (["function=l1_max"], "target_tokens is 2000 tokens after scaling.*max_tokens is 256.*length_scale"),
        (["function=soft_overlong"], "punishes from 16384 tokens on after scaling.*lower reward.length_scale"),
        (["function=soft_overlong", "length_scale=0.01", "overlong_cache=30000"], "cache is 300 and limit is 205"),
        (["function=serial_group"], "it pays the exits of a chain, so set rollout.serial=true"),
        (["step_reward=false"], "unknown key 'reward.step_reward'"),
    ],
)
def test_rewards_that_cannot_train_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("overthinker", [f"reward.{override}" for override in overrides])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.serial=true"], "two ways to sample: set rollout.dynamic=false"),
        (["rollout.round_limits=[4000, 3000]"], "rollout.round_limits holds 4000, too much.*max_tokens is 256"),
        (["rollout.round_limits=[a]"], "rollout.round_limits is .'a'.: it must be a list of whole numbers or null"),
        (["method=ppo"], "method is 'ppo': it must be 'grpo' or 'sft'"),
    ],
)
def test_rollouts_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("overthinker", overrides)


def test_lora_settings() -> None:
    recipe = load_recipe("overthinker", ["model.lora.r=4", "model.lora.targets=[q_proj, v_proj]"])
    lora = recipe_lora(recipe.model.lora)
    assert lora is not None and (lora.r, lora.target_modules) == (4, {"q_proj", "v_proj"})
    assert recipe_lora(None) is None
