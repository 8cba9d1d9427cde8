"""Every Qwen3 recipe takes two optimisation steps with a shrunken random Qwen3, on a CPU.

Covered: the recipe as it is loaded, planned and carried out, from problems to report: de-duplication and pass rates,
4-bit weights with a LoRA adapter, fp32 masters with 8-bit Adam, a reference model, several updates from one rollout,
gradient checkpointing, and Qwen3's own tokenizer where ``STEPGRPO_REAL_DATA`` has it (else the Overthinker's).

Not covered, because a CPU cannot: fp16 and bf16 with their GradScaler and autocast, bitsandbytes' CUDA kernels, TRL's
Triton log-probability kernel, sharding by FSDP2 or ZeRO-3, lengths that fill a memory, and what is downloaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_tokenizer

from stepgrpo_lab.cli import main
from stepgrpo_lab.evaluation.problems import write_problems
from stepgrpo_lab.evaluation.selection import PassRate, append_pass_rates
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.planning import plan_memory
from stepgrpo_lab.recipes import _building as building
from stepgrpo_lab.recipes import load_recipe, recipe_names
from stepgrpo_lab.recipes._building import recipe_config, training_problems
from stepgrpo_lab.run import job as run
from tools.counting import random_qwen3, small_dimensions

REAL = [name for name in recipe_names() if name.startswith("qwen3")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    try:
        tokenizer = request.getfixturevalue("qwen3_tokenizer")
    except pytest.skip.Exception:
        tokenizer = tiny_tokenizer()
    folder = tmp_path_factory.mktemp("shrunken")
    shrunken = random_qwen3(small_dimensions(vocabulary=len(tokenizer), hidden=64, intermediate=128))
    shrunken.generation_config.eos_token_id = tokenizer.eos_token_id
    shrunken.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


@pytest.fixture(autouse=True)
def rewards_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model is never right: without this no group would have an advantage."""

    def by_position(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
        return [float(position) for position in range(len(correct))]

    monkeypatch.setattr(building, "recipe_reward", lambda reward: by_position)


def shrunken_overrides(name: str, model: Path, folder: Path) -> list[str]:
    """Changes of size alone; what the recipe chose otherwise stays."""
    plain = load_recipe(name)
    problems = [Problem(str(number), f"1+{number}?", str(1 + number)) for number in range(12)]
    write_problems(folder / "problems.jsonl", problems)
    values: dict[str, Any] = {
        "model.path": model,
        "rollout.max_tokens": 12,
        "rollout.rows": 8,
        "optimisation.prompts_per_step": 1,
        "optimisation.max_steps": 2,
        "optimisation.rows_per_pass": plain.optimisation.group_size,
        "optimisation.learning_rate": 1e-3,
        "evaluation.every": 4,
        "data.counts.train": 12,
        "data.counts.validation": 1,
        "data.counts.test": 1,
    }
    values |= {f"data.{split}": folder / "problems.jsonl" for split in ("train", "validation", "test")}
    if plain.data.pass_rates:
        values["data.pass_rates.file"] = folder / "rates.jsonl"
        append_pass_rates(
            folder / "rates.jsonl",
            [PassRate(problem.id, number % 9, 8) for number, problem in enumerate(problems)],
        )
    return [f"{key}={value}" for key, value in values.items()]


@pytest.mark.parametrize("name", REAL)
def test_two_steps_of_every_recipe(name: str, model: Path, tmp_path: Path) -> None:
    if load_recipe(name).model.quantization or "bnb" in load_recipe(name).optimisation.optimizer:
        pytest.importorskip("bitsandbytes")
    recipe = load_recipe(name, shrunken_overrides(name, model, tmp_path))
    plan = plan_memory(recipe, prompt_tokens=128)
    assert plan.fits and (plan.setup.quantised, bool(plan.setup.adapter)) == (
        recipe.model.quantization is not None,
        recipe.model.lora is not None,
    )
    result = run.train(recipe, tmp_path / "run")
    assert result.finished and result.after is not None
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["grad_norm"] for row in metrics if row.get("grad_norm") is not None]
    assert len(losses) == 2 and all(0 < loss < float("inf") for loss in losses)
    if recipe.model.lora:
        adapter = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
        assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
        assert any(tensor.any() for key, tensor in adapter.items() if "lora_B" in key)  # zero before training
        assert sum(tensor.numel() for tensor in adapter.values()) == sum(plan.setup.adapter)
    else:
        before, after = (load_file(path / "model.safetensors") for path in (model, tmp_path / "run" / "model"))
        moved = [(after[key] != before[key]).any().item() for key in before]
        assert {tensor.dtype for tensor in after.values()} == {torch.float32}
        assert sum(moved) > len(moved) / 2


def test_the_published_setting_in_trl_s_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    config = recipe_config(load_recipe("qwen3-8b-full-8xh100"), tmp_path)
    completions_a_step = config.per_device_train_batch_size * config.gradient_accumulation_steps * 8
    assert completions_a_step == 128 * 5
    assert config.steps_per_generation * config.per_device_train_batch_size * 8 == 512 * 5
    assert (config.num_generations, config.max_completion_length, config.max_steps) == (5, 16384, 400)
    assert (config.learning_rate, config.beta, config.epsilon, config.epsilon_high) == (1e-6, 0.01, 0.2, 0.3)
    assert (config.weight_decay, config.warmup_steps, config.temperature) == (0.01, 0, 1.0)
    assert config.use_bias_correction_kl is False and config.loss_type == "dapo"
    settings = config.rollout
    assert settings is not None
    assert (settings.preset, settings.exit_threshold, settings.probe_rate) == ("official", 0.95, 1.0)


def test_pass_rates_decide_what_is_trained_on(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = shrunken_overrides("qwen3-8b-full-8xh100", model, tmp_path)
    kept = training_problems(load_recipe("qwen3-8b-full-8xh100", overrides))
    assert [problem.meta["pass_rate"] for problem in kept] == [n / 8 for n in (1, 2, 3, 4, 5, 6, 7, 1, 2)]
    (tmp_path / "rates.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match="measure them with: stepgrpo rate"):
        training_problems(load_recipe("qwen3-8b-full-8xh100", overrides))
    command = ["rate", "--recipe", "qwen3-8b-full-8xh100"]
    command += [part for override in [*overrides, "data.pass_rates.samples=2"] for part in ("--set", override)]
    assert main(command) == 0
    first = (tmp_path / "rates.jsonl").read_text()
    out = capsys.readouterr().out
    assert "0 of 12 problems have a pass rate from 0.1 to 0.9 (12 never solved, 0 always)" in out
    # Cut off by a kill: what is missing is measured again, and comes out the same.
    (tmp_path / "rates.jsonl").write_text(first[: len(first) // 2])
    assert main(command) == 0
    assert (tmp_path / "rates.jsonl").read_text() == first
    assert main(["rate", "--recipe", "overthinker"]) == 2
    assert "has no data.pass_rates" in capsys.readouterr().err
