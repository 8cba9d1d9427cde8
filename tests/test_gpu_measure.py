"""The command that measures recipes on a GPU, rehearsed on a CPU at shrunken sizes; CUDA's answers are made up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.planning import plan_memory
from stepgrpo_lab.planning._memory import GIB, find_gpu
from tools.counting import small_dimensions
from tools.gpu import measure


class FakeCuda:
    """Answers as a GPU of 139.8 GiB whose peaks grow by a GiB from phase to phase."""

    build_device = "cpu"

    def __init__(self) -> None:
        self.fraction = 1.0
        self.resets = 0

    def get_device_properties(self, number: int) -> Any:
        return SimpleNamespace(name="Fake", total_memory=int(139.8 * GIB))

    def set_per_process_memory_fraction(self, fraction: float) -> None:
        self.fraction = fraction

    def mem_get_info(self) -> tuple[int, int]:
        return 100 * GIB, int(139.8 * GIB)

    def max_memory_allocated(self) -> int:
        return self.resets * GIB

    def max_memory_reserved(self) -> int:
        return self.resets * GIB + 1

    def reset_peak_memory_stats(self) -> None:
        self.resets += 1

    def synchronize(self) -> None:
        pass

    def empty_cache(self) -> None:
        pass


@pytest.mark.parametrize("name", ["qlora-1.7b", "qlora-4b", "lora-8b", "full-8b"])
def test_a_case_is_measured_and_recorded(name: str, tmp_path: Path) -> None:
    if name != "lora-8b":
        pytest.importorskip("bitsandbytes")
    cuda, case = FakeCuda(), measure.CASES[name]
    # Sizes, and the types that only a GPU trains in; what the recipe chose otherwise stays.
    smaller = ("rollout.max_tokens=24", "rollout.rows=16", "optimisation.mixed_precision='no'", "model.dtype=float32")
    path = measure.measure_case(
        name, case, tmp_path / "gpu", small_dimensions(hidden=64, intermediate=128), *smaller, cuda=cuda
    )
    record = json.loads(path.read_text())
    assert record["gpu"]["allowed"] == pytest.approx(cuda.fraction * record["gpu"]["memory"])
    assert record["gpu"]["allowed"] == min(find_gpu(case.gpu).memory, record["gpu"]["memory"])
    assert (record["completions"], record["longest"], len(record["losses"])) == (16, 24, 2)
    assert set(record["peaks"]) == {"rollout", "update", "step"}
    assert record["peaks"]["rollout"]["allocated"] < record["peaks"]["update"]["allocated"]
    assert record["peaks"]["rollout"]["device"] == record["gpu"]["memory"] - 100 * GIB
    assert set(record["plan"]["phases"]) >= set(record["peaks"])
    assert set(record["seconds"]) == {"rollout", "grading", "update"} and min(record["seconds"].values()) > 0
    assert record["tokens_per_second"]["rollout"] == record["decoded_tokens"] / record["seconds"]["rollout"]
    assert str(tmp_path) not in path.read_text()
    allowed, reserved = (size / GIB for size in (record["gpu"]["allowed"], record["peaks"]["rollout"]["reserved"]))
    assert f"| {name} | Fake | {allowed:.1f} | {reserved:.1f} / " in measure.table(tmp_path / "gpu")


@pytest.mark.parametrize("name", ["qlora-1.7b", "qlora-4b", "lora-8b", "full-8b"])
def test_a_case_fits_by_its_plan(name: str) -> None:
    case = measure.CASES[name]
    recipe = measure.case_recipe(case, measure.load_recipe(case.recipe).model.path)
    plan = plan_memory(recipe, gpu=case.gpu, prompt_tokens=measure.PROMPT_TOKENS)
    assert plan.fits and plan.setup.gpus == 1
    optimisation = recipe.optimisation
    assert optimisation.steps_per_rollout == optimisation.max_steps == 2
    completions = 2 * optimisation.prompts_per_step * optimisation.group_size
    assert completions >= recipe.rollout.rows, "the cache would not be full"


def test_running_out_of_memory_is_a_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run_out(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(measure, "measure", run_out)
    path = measure.measure_case(
        "lora-8b", measure.CASES["lora-8b"], tmp_path, small_dimensions(positions=9000), cuda=FakeCuda()
    )
    assert json.loads(path.read_text())["out_of_memory"] == "CUDA out of memory. Tried to allocate 2 GiB"
    assert "| out of memory |" in measure.table(tmp_path)


def test_a_wide_vocabulary_has_text_for_every_id(tmp_path: Path) -> None:
    folder = measure.write_random_model(tmp_path / "model", small_dimensions(vocabulary=5000))
    model, tokenizer = load_model(folder, device="cpu")
    assert model.config.vocab_size == len(tokenizer) == 5000 and tokenizer.decode([4999]) == "filler4999"
    narrow = load_model("overthinker", device="cpu")[1]
    for text in ("Start at 7: +5 filler4999", "Wait, 3 + 4"):
        assert tokenizer.encode(text) == narrow.encode(text)


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert measure.main(["--output", str(tmp_path / "gpu")]) == 2
    assert "no CUDA device here" in capsys.readouterr().err and not (tmp_path / "gpu").exists()
    with pytest.raises(SystemExit):
        measure.main(["qlora-14b"])
    assert "no case 'qlora-14b'" in capsys.readouterr().err
