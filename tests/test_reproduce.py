"""The headline's runs, on a model so small that they take seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny, tiny_overrides

from stepgrpo_lab import reproduce, run
from stepgrpo_lab.evaluation_records import Evaluation
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.records import Outcome
from stepgrpo_lab.training.callbacks import read_metrics


def evaluation(tokens: list[int], correct: list[bool], name: str = "p") -> Evaluation:
    outcomes = [[Outcome(c, c, 2, t)] for t, c in zip(tokens, correct, strict=True)]
    ids = [f"{name}{index}" for index in range(len(tokens))]
    return Evaluation(ids, ["chain"] * len(tokens), [1] * len(tokens), outcomes)


def test_pooling_puts_the_seeds_side_by_side() -> None:
    both = reproduce.pooled([evaluation([10, 20], [True, True]), evaluation([30, 40], [False, True])])
    assert both.column("tokens") == [[10.0, 30.0], [20.0, 40.0]]
    assert both.column("correct") == [[1.0, 0.0], [1.0, 1.0]]
    with pytest.raises(ValueError, match="different problems"):
        reproduce.pooled([evaluation([1], [True]), evaluation([1], [True], "q")])


def test_the_control_is_plain_grpo_with_a_budget() -> None:
    recipe = load_recipe("overthinker")
    control = reproduce.control_recipe(recipe, 123)
    assert (control.rollout.dynamic, control.reward.function) == (False, "correctness")
    assert control.optimisation.token_budget == 123
    assert control.optimisation.learning_rate == recipe.optimisation.learning_rate
    assert control.data == recipe.data


def test_the_headline_is_resumable_and_the_control_keeps_its_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "TEST_PROBLEMS", 6)
    model = save_tiny(tmp_path / "model")
    overrides = [o for o in tiny_overrides(model, **{"optimisation.max_steps": 2}) if "counts.test" not in o]
    first = reproduce.reproduce_headline(tmp_path / "out", seeds=(0, 1), overrides=overrides)
    assert list(first.rows) == ["Step-GRPO, all seeds", "Step-GRPO, seed 0", "Step-GRPO, seed 1", "GRPO, seed 0"]
    assert first.rows["Step-GRPO, all seeds"].problems == 6
    budget, spent = (first.decoded_tokens[name] for name in ("Step-GRPO, seed 0", "GRPO, seed 0"))
    rows = read_metrics(tmp_path / "out" / "grpo-seed-0" / "metrics.jsonl")
    decoded = [row["cost/decoded_tokens"] for row in rows if "cost/decoded_tokens" in row]
    assert sum(decoded[:-1]) < budget <= sum(decoded) == spent
    assert json.loads((tmp_path / "out" / "headline.json").read_text())["decoded_tokens"] == first.decoded_tokens

    def untouched(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(run._Run, "_train", untouched)
    assert reproduce.reproduce_headline(tmp_path / "out", seeds=(0, 1), overrides=overrides) == first
