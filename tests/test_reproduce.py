"""Studies, on a model so small that they take seconds."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny, tiny_overrides

from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.experiments import reproduce
from stepgrpo_lab.experiments.studies import STUDIES, Row, Study
from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.run import job as run
from stepgrpo_lab.training.metrics import read_metrics


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


SMALL = Study(
    "Does it run?",
    (
        Row("ours", 0),
        Row("ours", 1),
        Row("plain", 0, ("rollout.dynamic=false", "reward.function=correctness"), budget_of="ours, seed 0"),
    ),
    problems=6,
    first_cut=True,
)


def overrides(tmp_path: Path) -> list[str]:
    model = save_tiny(tmp_path / "model")
    return [o for o in tiny_overrides(model, **{"optimisation.max_steps": 2}) if "counts.test" not in o]


def test_a_study_is_resumable_and_the_control_keeps_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = overrides(tmp_path)
    alone = reproduce.reproduce("small", tmp_path / "out", study=SMALL, only="ours, seed 1", overrides=changes)
    assert list(alone.rows) == ["ours, seed 1"] and not (tmp_path / "out" / "small.json").exists()
    first = reproduce.reproduce("small", tmp_path / "out", study=SMALL, overrides=changes)
    assert list(first.rows) == ["ours, seed 0", "ours, seed 1", "plain, seed 0"]
    assert first.rows["ours, seed 1"] == alone.rows["ours, seed 1"]
    assert list(first.pooled) == ["ours"]
    assert first.pooled["ours"].problems == 6
    budget, spent = (first.rows[name].decoded_tokens for name in ("ours, seed 0", "plain, seed 0"))
    rows = read_metrics(tmp_path / "out" / "test" / "plain-seed-0" / "metrics.jsonl")
    decoded = [row["cost/decoded_tokens"] for row in rows if "cost/decoded_tokens" in row]
    assert sum(decoded[:-1]) < budget <= sum(decoded) == spent
    ours = first.rows["ours, seed 0"]
    assert {"validation/tokens", "validation/rollout_tokens", "validation/first_cut_accuracy"} <= set(ours.curves)
    assert set(ours.first_cut) == set(ours.comparison.families)
    stored = json.loads((tmp_path / "out" / "small.json").read_text())
    assert stored["rows"]["plain, seed 0"]["decoded_tokens"] == spent
    assert (tmp_path / "out" / "small.md").read_text().count("\n") == 6

    def untouched(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(run._Run, "_train", untouched)
    assert reproduce.reproduce("small", tmp_path / "out", study=SMALL, overrides=changes) == first


def test_what_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no study 'small': choose one of headline"):
        reproduce.reproduce("small", tmp_path)
    with pytest.raises(ValueError, match="no row 'GRPO': choose one of Step-GRPO, seed 0"):
        reproduce.reproduce("headline", tmp_path, only="GRPO")


@pytest.mark.parametrize("name", STUDIES)
def test_every_row_of_every_study_is_a_recipe_of_its_own(name: str) -> None:
    study = STUDIES[name]
    recipes = [dataclasses.replace(load_recipe("overthinker", row.overrides), seed=row.seed) for row in study.rows]
    assert all(first != second for first, second in itertools.combinations(recipes, 2))
    names = [row.name for row in study.rows]
    assert len(set(names)) == len(names)
    assert all(row.budget_of in (None, *names[:place]) for place, row in enumerate(study.rows))


def test_only_validation_problems_choose() -> None:
    assert STUDIES["sweep"].split == "validation"


def test_a_method_s_runs_are_the_same_in_every_study() -> None:
    """Studies share their run folders."""
    seen: dict[tuple[str, str], Row] = {}
    for study in STUDIES.values():
        for row in study.rows:
            assert seen.setdefault((study.split, row.name), row) == row
