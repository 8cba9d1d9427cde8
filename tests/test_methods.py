"""Every method a recipe can name trains the embedded model: one real step of each, on a few problems."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from stepgrpo_lab import data_path, load_overthinker, overthinker_problems
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.sampling import Sampling
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.recipes._building import recipe_fine_tune_config, recipe_problems
from stepgrpo_lab.run import job as run
from stepgrpo_lab.training.fine_tuning import Selection, select_completions
from stepgrpo_lab.training.metrics import read_metrics

REWARDS = {
    "correctness": {},
    "length_penalty": {"strength": 0.4},
    "kimi": {},
    "soft_overlong": {"overlong_limit": 100, "overlong_cache": 90},
    "l1_exact": {"length_scale": 0.03},
    "l1_max": {"length_scale": 0.03},
    "grpo_lambda": {"penalized_share": 1},
    "shorter_better": {"length_scale": 0.03},
    "imitation": {},
    "gfpo": {},
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
    # Only those that look at correctness alone are silent where every member of every group is right.
    informative = step["groups/informative"] > 0
    assert informative or (function in ("correctness", "gfpo") and step["accuracy"] in (0, 1))
    assert trained_weights_moved(tmp_path / "run") == informative


SWITCHES = {
    "no step reward": ({"reward.function": "correctness", "rollout.dynamic": "true"}, {}),
    "no dynamic rollout": ({"rollout.dynamic": "false"}, {"probe/per_completion": 0, "exits/early": 0}),
    "mean over all members": ({"reward.mean_over": "all", "rollout.dynamic": "true"}, {}),
    "forced close masked": ({"rollout.train_forced_close": "false", "rollout.dynamic": "true"}, {}),
    "wrong answers penalised": ({"reward.penalize_wrong": "true", "rollout.dynamic": "true"}, {}),
    "every member probed": ({"rollout.probe_rate": 1, "rollout.dynamic": "true"}, {}),
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_ablation_is_a_recipe_key(name: str, tmp_path: Path) -> None:
    changes, expected = SWITCHES[name]
    run.train(few_problems(**changes), tmp_path / "run")
    [step] = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "reward" in row]
    assert {key: step[key] for key in expected} == expected
    if changes.get("rollout.dynamic") == "true":
        assert step["probe/per_completion"] > 0
    assert trained_weights_moved(tmp_path / "run") == (step["groups/informative"] > 0)


def test_serial_groups_train_on_one_chain_each(tmp_path: Path) -> None:
    recipe = few_problems(**{"rollout.serial": "true", "reward.function": "serial_group"})
    run.train(recipe, tmp_path / "run")
    [step] = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "reward" in row]
    assert step["exits/early"] == 0.75  # three exits and the whole chain
    assert step["groups/informative"] > 0 and trained_weights_moved(tmp_path / "run")


def test_thinkprunes_rounds_lower_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stepgrpo_lab.engines.lockstep import LockstepEngine

    limits = []
    generate = LockstepEngine.generate

    def watched(self: Any, prompts: Any, decoding: Any, **options: Any) -> Any:
        if options["keys"][0].split == "train":
            limits.append(decoding.limit)
        return generate(self, prompts, decoding, **options)

    monkeypatch.setattr(LockstepEngine, "generate", watched)
    recipe = few_problems(
        **{
            "rollout.round_limits": [4000, 3000],
            "reward.length_scale": 0.02,
            "reward.function": "correctness",
            "optimisation.max_steps": 4,
            "optimisation.prompts_per_step": 1,
            "optimisation.rows_per_pass": 4,
        }
    )
    run.train(recipe, tmp_path / "run")
    assert limits == [80, 80, 60, 60]
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "reward" in row]
    assert all(row["completions/max_length"] <= limit for row, limit in zip(rows, limits, strict=True))


# ---- DEER + SFT ------------------------------------------------------------------------------------------------------


def imitation(**changes: Any) -> Recipe:
    return few_problems(
        **{
            "method": "sft",
            "rollout.dynamic": "true",
            "rollout.probe_rate": 1,
            "optimisation.max_steps": 3,
            "optimisation.learning_rate": 1e-3,
            "optimisation.rows_per_pass": 2,
            "evaluation.every": 3,
            **changes,
        }
    )


def test_fine_tuning_imitates_the_shortest_right_completions(tmp_path: Path) -> None:
    lines: list[str] = []
    folder = tmp_path / "run"
    result = run.train(imitation(), folder, progress=lines.append)
    assert result.finished and trained_weights_moved(folder)
    selection = Selection.from_json(json.loads((folder / "selection.json").read_text()))
    problems = {problem.id: problem for problem in recipe_problems("overthinker:train", 4)}
    assert 1 <= len(selection.completions) == selection.figures["selected"] <= 4
    golds = [problem.answer for problem in problems.values()]
    for row in selection.completions:
        assert extract_boxed(row.text) in golds
    rows = read_metrics(folder / "metrics.jsonl")
    assert rows[0]["step"] == 0 and any(row.get("cost/decoded_tokens", 0) > 0 for row in rows if row["step"] == 0)
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert [row["step"] for row in rows if "validation/accuracy" in row] == [0, 3]
    assert any(line.startswith("step 3/3 | loss ") for line in lines)
    assert (folder / "report.html").exists()
    # What was sampled is not sampled again.
    stored = (folder / "selection.json").stat().st_mtime_ns
    shutil.rmtree(folder / "model")
    run.train(None, folder, resume=True)
    assert (folder / "selection.json").stat().st_mtime_ns == stored


def test_the_token_budget_ends_the_sampling() -> None:
    from stepgrpo_lab.method.rollout import rollout_settings

    model, tokenizer = load_overthinker()
    problems = overthinker_problems("train", 6)
    options: Any = {
        "samples": 2,
        "limit": 256,
        "settings": rollout_settings("official", markers="paper"),
        "sampling": Sampling(0.6),
        "rows": 1,
    }
    with Grader() as grader:
        everything = select_completions(model, tokenizer, problems, grader, **options)
        part = select_completions(model, tokenizer, problems, grader, token_budget=1, **options)
        assert 1 <= part.figures["cost/decoded_tokens"] < everything.figures["cost/decoded_tokens"]
        same = [row.completion_ids for row in part.completions]
        assert same == [row.completion_ids for row in everything.completions][: len(same)]
        wrong = [replace(problem, answer="-1") for problem in problems[:1]]
        with pytest.raises(ValueError, match="none of 2 completions is right: there is nothing to imitate"):
            select_completions(model, tokenizer, wrong, grader, **options)


def test_fine_tuning_is_for_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="samples its examples in one process"):
        recipe_fine_tune_config(imitation(), tmp_path)
