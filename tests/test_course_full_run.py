"""What notebook 10 trains on which machine, and the recipe shown key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepgrpo_lab import load_recipe
from stepgrpo_lab.course import Lab, explain_recipe, full_run_recipe, new_run_folder
from stepgrpo_lab.course import _environment as environment
from stepgrpo_lab.course._showing import documented_attributes
from stepgrpo_lab.recipes import schema


def machine(device: str, precision: str, *, fast: bool = False) -> Lab:
    class Machine(Lab):
        device = property(lambda self: device)  # type: ignore[assignment]
        precision = property(lambda self: precision)  # type: ignore[assignment]

    return Machine(fast=fast, colab=False, python="3.11", versions={})


def test_a_cpu_trains_the_overthinker_as_published() -> None:
    assert full_run_recipe(machine("cpu", "float32")) == load_recipe("overthinker")


@pytest.mark.parametrize(("precision", "mixed"), [("bfloat16", "bf16"), ("float16", "fp16")])
def test_a_gpu_trains_qwen_in_what_it_computes_natively(
    monkeypatch: pytest.MonkeyPatch, precision: str, mixed: str
) -> None:
    asked: list[str] = []

    def load(name: str, overrides: Any = ()) -> Any:
        asked.append(name)
        return load_recipe("overthinker", overrides)

    monkeypatch.setattr(environment, "load_recipe", load)
    recipe = full_run_recipe(machine("cuda", precision))
    assert asked == ["qwen3-1.7b-qlora-t4"]
    assert (recipe.model.dtype, recipe.optimisation.mixed_precision) == (precision, mixed)
    assert full_run_recipe(machine("cuda", precision), "overthinker") == load_recipe("overthinker")


def test_the_tested_size_is_small_on_every_machine() -> None:
    recipe = full_run_recipe(machine("cuda", "bfloat16", fast=True))
    assert recipe.model.path == "overthinker" and recipe.optimisation.max_steps == 2
    assert recipe.data.counts.test == 12


def test_a_run_never_gets_a_folder_that_was_used(tmp_path: Path) -> None:
    lab = machine("cpu", "float32")
    first = new_run_folder(lab, parent=tmp_path)
    first.mkdir()
    assert (first.name, new_run_folder(lab, parent=tmp_path).name) == ("full-run-1", "full-run-2")


def test_the_tested_size_leaves_nothing_beside_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    lab = machine("cpu", "float32", fast=True)
    folders = [new_run_folder(lab, parent=tmp_path) for _ in range(2)]
    assert folders[0] != folders[1] and not any(folder.exists() for folder in folders)
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


@pytest.mark.parametrize("section", ["model", "data", "rollout", "reward", "optimisation", "evaluation"])
def test_every_key_of_a_recipe_has_a_meaning(section: str) -> None:
    table = explain_recipe(load_recipe("overthinker"), section)
    assert table.rows and all(meaning.endswith(".") for _, _, meaning in table.rows)


def test_a_table_shows_values_as_the_file_writes_them() -> None:
    recipe = load_recipe("overthinker")
    table = explain_recipe(recipe, "optimisation", ["learning_rate", "kl_beta", "epsilon_high"])
    assert [row[:2] for row in table.rows] == [
        ("learning_rate", "0.0001"),
        ("kl_beta", "0"),
        ("epsilon_high", "null"),
    ]
    assert table._repr_markdown_().splitlines()[2] == "| `learning_rate` | `0.0001` | Peak learning rate. |"
    assert "  kl_beta: 0  # Weight of the KL term." in repr(table)
    [counts] = explain_recipe(recipe, "data", ["counts"]).rows
    assert counts[1] == "{train: 4000, validation: 100, test: 2000}"


def test_a_meaning_cannot_break_the_table() -> None:
    table = explain_recipe(load_recipe("overthinker"), "data", ["test"])
    assert documented_attributes(schema.Data)["test"].startswith('"overthinker:train" (or :validation, :test)')
    assert all(line.count("|") == 4 for line in table._repr_markdown_().splitlines())


def test_unknown_sections_and_keys_are_named() -> None:
    recipe = load_recipe("overthinker")
    with pytest.raises(ValueError, match=r"no section 'seed': use one of model, data, rollout"):
        explain_recipe(recipe, "seed")
    with pytest.raises(ValueError, match="rollout has no key 'probes'"):
        explain_recipe(recipe, "rollout", ["probes"])
