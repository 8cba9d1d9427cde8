"""What was trained in any way can be used in every way, through the command line, on the embedded model."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from stepgrpo_lab.cli import main
from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.models import load_model, load_tokenizer, nf4_config
from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.experiments.plan import EXPERIMENTS, Experiment, Plan
from stepgrpo_lab.experiments.rows import ROWS
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.overthinker import overthinker_problems
from stepgrpo_lab.recordings._files import load_recordings
from stepgrpo_lab.training.metrics import read_metrics

SMALL = {
    "data.counts.train": 8,
    "data.counts.validation": 1,
    "data.counts.test": 1,
    "optimisation.max_steps": 2,
    "optimisation.save_every": 1,
    "optimisation.prompts_per_step": 1,
    "optimisation.group_size": 2,
    "optimisation.rows_per_pass": 2,
    "optimisation.learning_rate": 1e-2,
    "optimisation.warmup_steps": 0,
    "rollout.max_tokens": 24,
    "evaluation.every": 2,
}
# Completions this short are never right, so a place in the group is the reward; hot, or both members would be the same.
GRPO = {"reward.function": "tiny:by_position", "rollout.temperature": 3.0}
LORA = {**GRPO, "model.lora.r": 4, "model.lora.alpha": 8, "optimisation.learning_rate": 1e-1}
KINDS: dict[str, dict[str, Any]] = {
    "all weights": GRPO,
    "LoRA": LORA,
    "QLoRA": {**LORA, "model.quantization": "nf4"},
    "SFT": {"method": "sft", "rollout.max_tokens": 112, "optimisation.learning_rate": 1e-3},
}
ADAPTERS = ("LoRA", "QLoRA")


def sets(changes: dict[str, Any]) -> list[str]:
    return [argument for key, value in {**SMALL, **changes}.items() for argument in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The finished run of a kind, trained when it is first asked for."""
    folder, trained = tmp_path_factory.mktemp("runs"), set[str]()

    def run_of(kind: str) -> Path:
        place = folder / kind
        if kind == "QLoRA":
            pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes")
        if kind not in trained:
            trained.add(kind)
            assert main(["train", *sets(KINDS[kind]), "--output", str(place)]) == 0
        return place

    return run_of


@pytest.fixture(scope="module")
def exports(runs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The export of a kind's run."""
    folder = tmp_path_factory.mktemp("exports")

    def export_of(kind: str) -> Path:
        if not (folder / kind).exists():
            assert main(["export", str(runs(kind)), str(folder / kind)]) == 0
        return folder / kind

    return export_of


@pytest.fixture
def run(runs: Callable[[str], Path], kind: str, tmp_path: Path) -> Path:
    """A copy of a kind's run, to be changed."""
    return Path(shutil.copytree(runs(kind), tmp_path / "run"))


def greedy(model: Any) -> list[list[int]]:
    """Token ids of greedy completions, under a model or what lies at a path."""
    model = load_model(model, device="cpu")[0] if isinstance(model, Path) else model
    tokenizer = load_tokenizer("overthinker")
    prompts = [encode_prompt(tokenizer, problem.prompt) for problem in overthinker_problems("test", 6)]
    keys = [SampleKey(0, "eval", 0, row) for row in range(len(prompts))]
    rows, _ = LockstepEngine(model, tokenizer).generate(prompts, Decoding(96, sampling=Sampling(0)), keys=keys)
    return [row.completion_ids for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    [path] = (run / "model").glob("*.safetensors")
    return load_file(path)


def printed(capsys: pytest.CaptureFixture[str], *command: Any) -> str:
    assert main([str(each) for each in command]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_every_place_of_a_model_samples_alike(
    runs: Callable[[str], Path], exports: Callable[[str], Path], kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, export = runs(kind), exports(kind)
    capsys.readouterr()
    short = ("--count", "2", "--limit", "64", "--temperature", "0")
    measured = [json.loads(printed(capsys, "evaluate", place, *short, "--json")) for place in (run, export)]
    assert measured[0] == measured[1] and measured[0]["tokens"]
    closed = json.loads(printed(capsys, "evaluate", run / "model", *short, "--json", "--deer", "official"))
    assert closed["settings"] != measured[0]["settings"]
    question = ("--problem", "7+8=?", *short[2:])
    places = (run, run / "model", run / "checkpoints" / "checkpoint-2", export)
    rollouts = [printed(capsys, "rollout", place, *question) for place in places]
    assert rollouts == rollouts[:1] * 4 and "tokens kept" in rollouts[0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_is_the_model_that_was_trained(
    runs: Callable[[str], Path], exports: Callable[[str], Path], kind: str
) -> None:
    plain = AutoModelForCausalLM.from_pretrained(exports(kind)).eval()
    assert not hasattr(plain, "peft_config") and not hasattr(plain.config, "quantization_config")
    assert greedy(plain) == greedy(runs(kind)) == greedy(exports(kind)) != greedy(data_path("overthinker"))


def test_a_4_bit_adapter_is_merged_into_the_de_quantised_base(
    runs: Callable[[str], Path], exports: Callable[[str], Path], record_property: Callable[[str, Any], None]
) -> None:
    from peft import PeftModel

    run = runs("QLoRA")
    base = AutoModelForCausalLM.from_pretrained(
        data_path("overthinker"), quantization_config=nf4_config("float32"), device_map={"": "cpu"}
    )
    merged = PeftModel.from_pretrained(base.dequantize(), run / "model").merge_and_unload().eval()
    exported, in_4_bits = (load_model(path, device="cpu")[0] for path in (exports("QLoRA"), run))
    assert all(torch.equal(value, exported.state_dict()[name]) for name, value in merged.state_dict().items())
    ids = torch.tensor([encode_prompt(load_tokenizer("overthinker"), "1+1?")])
    with torch.no_grad():
        difference = (exported(ids).logits - in_4_bits(ids).logits).abs().max().item()
    record_property("largest difference of a logit from the 4-bit run", difference)
    assert difference < 1e-3
    whole, _ = load_model("overthinker", device="cpu")
    unquantised = PeftModel.from_pretrained(whole, run / "model").eval()
    with torch.no_grad():
        assert (unquantised(ids).logits - in_4_bits(ids).logits).abs().max() > 0.1, "4 bits change nothing here"


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_resumed_before_its_end_and_at_its_end(runs: Callable[[str], Path], run: Path, kind: str) -> None:
    whole = runs(kind)
    for name in ("evaluation_after.json", "completions.jsonl", "report.html"):  # the model was just written
        (run / name).unlink()
    assert main(["train", "--resume", str(run)]) == 0
    for name in ("evaluation_after.json", "completions.jsonl"):
        assert (run / name).read_bytes() == (whole / name).read_bytes()
    shutil.rmtree(run / "model")  # and now as if step 2 had not been done
    shutil.rmtree(run / "checkpoints" / "checkpoint-2")
    (run / "evaluation_after.json").unlink()
    assert main(["train", "--resume", str(run)]) == 0
    ours, theirs = weights(run), weights(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (run / "evaluation_after.json").read_bytes() == (whole / "evaluation_after.json").read_bytes()
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")][-3:] == [0, 1, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_recorded_and_reported(run: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = run.parent / "survey.jsonl.gz"
    printed(capsys, "record", run, "--survey", "1", "--output", output)
    assert {group.model for group in load_recordings(output)} == {"untrained", "trained"}
    (run / "report.html").unlink()
    assert "accuracy" in printed(capsys, "report", run).lower() and (run / "report.html").exists()


GOES_ON = [*((kind, "export", "all weights") for kind in KINDS), *((kind, "run", "LoRA") for kind in ADAPTERS)]


@pytest.mark.parametrize(("kind", "place", "then"), GOES_ON)
def test_training_goes_on_from_a_run_and_from_its_export(
    runs: Callable[[str], Path],
    exports: Callable[[str], Path],
    kind: str,
    place: str,
    then: str,
    tmp_path: Path,
) -> None:
    start = runs(kind) if place == "run" else exports(kind)
    more = {**KINDS[then], "model.path": start, "optimisation.max_steps": 1, "rollout.max_tokens": 24}
    assert main(["train", *sets(more), "--output", str(tmp_path / "more")]) == 0
    if kind != "SFT":  # whose completions may be longer
        assert (tmp_path / "more" / "evaluation_before.json").read_bytes() == (
            runs(kind) / "evaluation_after.json"
        ).read_bytes()
    ours, theirs = weights(tmp_path / "more"), weights(runs(kind))
    assert (ours.keys() == theirs.keys()) == (place == "run" or kind not in ADAPTERS)
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items() if name in theirs) or not (
        ours.keys() & theirs.keys()
    )
    assert greedy(tmp_path / "more")


def test_an_adapter_goes_on_as_what_it_is(
    runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {**LORA, "model.lora.r": 2, "model.path": runs("LoRA"), "optimisation.max_steps": 1}
    assert main(["train", *sets(more), "--output", str(tmp_path / "other")]) == 2
    assert "stepgrpo export" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_a_comparison_trains_and_measures_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "QLoRA":
        pytest.importorskip("bitsandbytes")
    name = "deer-sft" if kind == "SFT" else "step-grpo"
    rows = tuple(
        dataclasses.replace(row, seeds=(0,), overrides=("method=sft",) if name == row.name == "deer-sft" else ())
        for row in ROWS
        if row.name in ("vanilla", name)
    )
    plan = Plan(token_budget=None, learning_rates=(), validation=1, test=1, harder=0, samples=1, curves=1)
    monkeypatch.setitem(EXPERIMENTS, "methods", Experiment("methods", "", rows, plan))
    changes = {key: value for key, value in {**SMALL, **KINDS[kind]}.items() if key != "method"}
    settings = [each for key, value in changes.items() for each in ("--set", f"{key}={value}")]
    printed(capsys, "compare", "methods", "--row", name, *settings, "--output", tmp_path / "table")
    [row] = [json.loads((tmp_path / "table" / "rows" / f"{name}.json").read_text())]
    assert row["seeds"][0]["seed"] == 0
    [run] = (tmp_path / "table" / "runs").glob(f"{name}-seed-0*")
    assert ("adapter_model.safetensors" in {path.name for path in (run / "model").iterdir()}) == (kind in ADAPTERS)


def test_an_unfinished_run_says_how_to_go_on(
    runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(runs("all weights") / "recipe.yaml", unfinished)
    for command in (["evaluate", unfinished], ["rollout", unfinished], ["export", unfinished, tmp_path / "out"]):
        capsys.readouterr()
        assert main([str(each) for each in command]) == 2
        assert "--resume" in capsys.readouterr().err


def test_an_adapter_without_its_base_names_both(
    runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = Path(shutil.copytree(runs("LoRA") / "model", tmp_path / "adapter"))
    stored = json.loads((adapter / "adapter_config.json").read_text())
    for base in (tmp_path / "moved", adapter, None):
        (adapter / "adapter_config.json").write_text(
            json.dumps({**stored, "base_model_name_or_path": base and str(base)})
        )
        capsys.readouterr()
        assert main(["evaluate", str(adapter), "--count", "1"]) == 2
        error = capsys.readouterr().err
        assert str(adapter) in error and error.count("\n") == 1
        assert base is None or str(base) in error
