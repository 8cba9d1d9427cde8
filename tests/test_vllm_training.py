"""Training that samples with vLLM, against a fake of it: whose weights, which importance ratios, who holds the GPU."""

from __future__ import annotations

import copy
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fake_vllm import FakeEngine, fake_server, installed
from peft import LoraConfig, get_peft_model
from test_lockstep import logprob_gap
from test_training import by_position, make_config
from tiny import save_tiny, tiny_model, tiny_overrides, tiny_tokenizer
from transformers import AutoModelForCausalLM, TrainerCallback

from stepgrpo_lab.cli import main
from stepgrpo_lab.engines.vllm_engine import VLLMEngine
from stepgrpo_lab.engines.vllm_server import VLLMServerEngine
from stepgrpo_lab.evaluation.problems import write_problems
from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.recipes import _building as building
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.recipes._building import engine_dtype, recipe_engine, trainer_config, vllm_options
from stepgrpo_lab.run import job as run
from stepgrpo_lab.training import StepGRPOTrainer, problems_dataset
from stepgrpo_lab.training._engine_weights import SyncedEngine, gathered_policy, policy_weights, write_policy

LORA = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


@pytest.fixture(autouse=True)
def fake_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with installed(monkeypatch):
        yield


class Watched(StepGRPOTrainer):
    """Keeps of each rollout: its trajectories, their distance from the policy of then, and the importance ratios."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.rollouts: list[list[Trajectory]] = []
        self.gaps: list[float] = []
        self.ratios: list[torch.Tensor] = []
        super().__init__(*args, **kwargs)
        sample = self.rollout_func

        def watch(prompts: Any, trainer: Any) -> Any:
            answer = sample(prompts, trainer)
            with gathered_policy(trainer) as policy:
                self.gaps.append(logprob_gap(policy, answer["step_trajectory"]))
            self.rollouts.append(answer["step_trajectory"])
            return answer

        self.rollout_func = watch

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        output = super()._generate_and_score_completions(inputs)
        self.ratios.append(output["importance_sampling_ratio"])
        return output


def train(folder: Path, engine: Any, *, lora: bool = False, steps: int = 2, **changes: Any) -> Watched:
    trainer = Watched(
        tiny_model(),
        make_config(folder / "run", max_steps=steps, **changes),
        problems_dataset(overthinker_problems("train", 4)),
        tiny_tokenizer(),
        group_reward=by_position,
        peft_config=LORA if lora else None,
        engine=SyncedEngine(engine, folder=folder / "weights"),
    )
    trainer.train()
    trainer.close()
    return trainer


def colocated(**vllm: Any) -> tuple[VLLMEngine, FakeEngine]:
    """An engine that holds other weights than the policy, and the fake below it."""
    fake = FakeEngine({None: tiny_model(seed=5)}, **vllm)
    fake.vllm_config.lora_config = object()
    return VLLMEngine(fake, tiny_tokenizer()), fake


# ---- whose weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_rollout_is_the_present_policy_s(tmp_path: Path, lora: bool, device: str) -> None:
    engine, fake = colocated(device=device)
    if lora:
        fake.models[None] = tiny_model()  # an adapter brings no base
    trainer = train(tmp_path, engine, lora=lora, learning_rate=1e-2)
    assert len(trainer.gaps) == 2 and max(trainer.gaps) < 1e-4
    assert logprob_gap(tiny_model(), trainer.rollouts[1]) > 1e-2, "the step changed too little to tell"
    assert trainer.seconds["weights"] > 0
    assert len(fake.adapters) == int(lora)  # of two versions, the older was dropped
    kept = list((tmp_path / "weights").glob("*/*"))
    assert len(kept) == 1, "only the newest version stays on the disk"


@pytest.mark.parametrize("from_folders", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_engine_in_this_process_takes_tensors(tmp_path: Path, device: str, from_folders: bool) -> None:
    engine, _ = colocated(device=device, in_process=True, from_folders=from_folders)
    trainer = train(tmp_path, engine, learning_rate=1e-2)
    assert len(trainer.gaps) == 2 and max(trainer.gaps) < 1e-4
    assert logprob_gap(tiny_model(), trainer.rollouts[1]) > 1e-2, "the step changed too little to tell"
    assert bool(list((tmp_path / "weights").glob("*/*"))) == from_folders, "an older vLLM is handed a folder"


def test_adapters_go_through_a_folder_in_every_engine(tmp_path: Path) -> None:
    engine, fake = colocated(in_process=True)
    fake.models[None] = tiny_model()
    trainer = train(tmp_path, engine, lora=True, learning_rate=1e-2)
    assert max(trainer.gaps) < 1e-4 and len(list((tmp_path / "weights").glob("*/*"))) == 1


def test_tensors_travel_rounded(tmp_path: Path) -> None:
    model = tiny_model()
    weights = dict(policy_weights(model, torch.bfloat16))
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert set(weights) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("lora", [False, True])
def test_a_server_is_given_every_new_policy(tmp_path: Path, lora: bool) -> None:
    models = {"base": tiny_model(seed=0 if lora else 5)}
    with fake_server(models, renewable=True) as (url, asked):
        engine = VLLMServerEngine(tiny_tokenizer(), url=url)
        trainer = train(tmp_path, engine, lora=lora, learning_rate=1e-2)
        assert len(trainer.gaps) == 2 and max(trainer.gaps) < 1e-4
        assert len({body["model"] for body in asked}) == 1 + lora
        assert len(models) == 1 + lora  # the older adapter is gone
        engine.use_adapter(None)
        assert list(models) == ["base"] and engine.model == "base"
    assert logprob_gap(tiny_model(), trainer.rollouts[1]) > 1e-2


def test_a_server_that_takes_no_weights_is_named(tmp_path: Path) -> None:
    write_policy(tiny_model(), tmp_path / "whole")
    write_policy(get_peft_model(tiny_model(), LORA), tmp_path / "adapter")
    with fake_server({"base": tiny_model()}) as (url, _):
        engine = VLLMServerEngine(tiny_tokenizer(), url=url)
        with pytest.raises(RuntimeError, match="start it with VLLM_SERVER_DEV_MODE=1"):
            engine.load_weights(tmp_path / "whole")
        with pytest.raises(RuntimeError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 and --enable-lora"):
            engine.use_adapter(tmp_path / "adapter")
        with pytest.raises(ValueError, match=r"holds no \*\.safetensors"):
            engine.load_weights(tmp_path)
    on_a_cpu = fake_server({"base": tiny_model()}, renewable=True, device="cpu")
    with on_a_cpu as (url, _), pytest.raises(ValueError, match="keeps the old LM head of a model with tied embeddings"):
        VLLMServerEngine(tiny_tokenizer(), url=url).load_weights(tmp_path / "whole")


def test_weights_travel_rounded_and_adapters_whole(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = tiny_model()
    write_policy(model, tmp_path / "whole", torch.bfloat16)
    [path] = (tmp_path / "whole").glob("*.safetensors")
    weights = load_file(path)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert set(weights) == {name for name, _ in model.named_parameters()}
    write_policy(get_peft_model(copy.deepcopy(model), LORA), tmp_path / "adapter", torch.bfloat16)
    adapter = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all(tensor.dtype == torch.float32 and "lora" in name for name, tensor in adapter.items())


# ---- importance ratios -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "ratio"), [(-0.5, math.exp(0.5)), (0.5, math.exp(-0.5)), (-2.0, 3.0)])
def test_sampled_tokens_are_corrected_and_forced_ones_are_not(tmp_path: Path, shift: float, ratio: float) -> None:
    trainer = train(tmp_path, colocated(shift=shift)[0], steps=1)
    found = set()
    for row, ratios in zip(trainer.rollouts[0], trainer.ratios[0], strict=True):
        for forced, value in zip(row.forced, ratios.tolist(), strict=False):
            assert value == (1.0 if forced else pytest.approx(ratio, rel=1e-4))
            found.add(forced)
    assert found == {False, True}


def test_filters_of_the_distribution_are_refused(tmp_path: Path) -> None:
    for changes in ({"top_p": 0.95}, {"top_k": 20}):
        with pytest.raises(ValueError, match="train with top_p=1 and top_k=0"):
            train(tmp_path, colocated()[0], **changes)


# ---- who holds the GPU -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sleeps", [True, False])
def test_the_engine_sleeps_during_updates(tmp_path: Path, sleeps: bool) -> None:
    engine, fake = colocated(sleeps=sleeps)
    seen: list[bool] = []

    class Look(TrainerCallback):
        def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
            seen.append(fake.asleep)

    trainer = Watched(
        tiny_model(),
        make_config(tmp_path / "run", max_steps=2),
        problems_dataset(overthinker_problems("train", 4)),
        tiny_tokenizer(),
        group_reward=by_position,
        engine=SyncedEngine(engine),
        callbacks=[Look()],
    )
    trainer.train()
    trainer.close()
    assert seen == [sleeps, sleeps] and max(trainer.gaps) < 1e-4


# ---- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [False, True])
def test_a_recipe_trains_and_measures_with_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: bool
) -> None:
    model, fakes = save_tiny(tmp_path / "model"), []

    def start(path: Any, *, dtype: str, **options: Any) -> VLLMEngine:
        assert (str(path), dtype, options["max_num_seqs"]) == (str(model), "float32", 16)
        fakes.append(FakeEngine({None: tiny_model()}))
        fakes[0].vllm_config.scheduler_config.max_num_seqs = options["max_num_seqs"]
        fakes[0].vllm_config.lora_config = object() if options.get("enable_lora") else None
        return VLLMEngine(fakes[0], tiny_tokenizer())

    monkeypatch.setattr(VLLMEngine, "load", start)
    monkeypatch.setattr(building, "recipe_reward", lambda reward: by_position)
    changes = {"rollout.engine": "vllm", "rollout.rows": 16, "optimisation.max_steps": 2}
    overrides = tiny_overrides(model, **changes, **({"model.lora.r": 4} if lora else {}))
    result = run.train(load_recipe("overthinker", overrides), tmp_path / "run")
    assert result.finished and result.after is not None
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    ratios = [line["sampling/importance_sampling_ratio/max"] for line in metrics if "loss" in line]
    assert ratios == pytest.approx([1, 1], abs=1e-4)
    [fake] = fakes
    completions = 2 * 6 + 2 * 8 + 2 * 3 * 4  # tests before and after, rollouts, validations (three ways)
    assert len({tuple(request.prompt_ids) for request in fake.asked}) > 1 and len(fake.asked) >= completions
    assert fake.closed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rollout.engine=vlm"], "rollout.engine is 'vlm': it must be 'lockstep' or 'vllm' or 'vllm-server'"),
        (["rollout.engine=vllm", "method=sft"], "method sft samples with the lockstep engine"),
        (
            ["rollout.engine=vllm", "model.lora.r=8", "model.quantization=nf4"],
            "model.quantization is nf4: vLLM would sample from the weights before rounding.*rollout.engine=lockstep",
        ),
        (["rollout.engine=vllm-server", "rollout.vllm.url=localhost:8000"], "must start with http://"),
        (["rollout.vllm.memory=1.5"], "rollout.vllm.memory is 1.5: it must be at least 0.01 and at most 1"),
        (["rollout.vllm.tensor_parallel=2"], "unknown key 'rollout.vllm.tensor_parallel'"),
    ],
)
def test_engines_that_cannot_be_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("overthinker", overrides)


def test_what_this_machine_cannot_start_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = load_recipe("overthinker", ["rollout.engine=vllm"])
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"pip install vllm.*rollout\.engine=lockstep"):
        trainer_config(recipe, tmp_path)
    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    high = load_recipe("overthinker", ["rollout.engine=vllm", "model.lora.r=1024"])
    with pytest.raises(ValueError, match="an adapter of rank 1024: vLLM takes ranks up to 512"):
        trainer_config(high, tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"in 2 processes.*rollout\.engine=vllm-server"):
        trainer_config(recipe, tmp_path)
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ValueError, match="vllm_tensor_parallel_size is 2: this version samples with one GPU"):
        make_config(tmp_path, vllm_tensor_parallel_size=2)
    absent = load_recipe("overthinker", ["rollout.engine=vllm-server", "rollout.vllm.url=http://127.0.0.1:9"])
    with pytest.raises(ConnectionError, match=r"no vLLM server answers at http://127\.0\.0\.1:9"):
        recipe_engine(absent, tiny_model(), tiny_tokenizer())


def test_what_vllm_is_started_with() -> None:
    recipe = load_recipe("qwen3-8b-lora-a100", ["model.lora.r=48", "rollout.vllm.memory=0.5"])
    options = vllm_options(recipe)
    assert (options["enable_lora"], options["max_lora_rank"], options["gpu_memory_utilization"]) == (True, 64, 0.5)
    assert "enable_lora" not in vllm_options(load_recipe("qwen3-8b-full-1xh200"))
    assert recipe_engine(recipe, None, None) is None
    types = {"bf16": "bfloat16", "fp16": "float16", "no": "float32", "auto": "float32"}  # auto: this is a CPU
    for precision, dtype in types.items():
        assert engine_dtype(load_recipe("overthinker", [f"optimisation.mixed_precision='{precision}'"])) == dtype


# ---- commands --------------------------------------------------------------------------------------------------------


def test_commands_sample_with_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, adapter = save_tiny(tmp_path / "model"), tmp_path / "adapter"
    command = ["evaluate", str(model), "--count", "3", "--limit", "16", "--temperature", "0", "--json"]
    assert main(command) == 0
    expected = capsys.readouterr().out
    with fake_server({"base": tiny_model()}) as (url, _):
        assert main([*command, "--engine", "vllm-server", "--url", url]) == 0
        assert capsys.readouterr().out == expected
        assert main([*command, "--engine", "vllm-server", "--url", url, "--served-name", "other"]) == 2
        assert "has no model 'other': it serves base" in capsys.readouterr().err

    started: list[dict[str, Any]] = []

    def start(path_or_id: Any, **options: Any) -> VLLMEngine:
        started.append({"path": str(path_or_id), **options})
        engine = colocated()[0]
        monkeypatch.setattr(engine, "close", lambda: started.append({"closed": True}))
        return engine

    monkeypatch.setattr(VLLMEngine, "load", start)
    assert main(["rollout", str(model), "--engine", "vllm", "--limit", "16"]) == 0
    assert started[0]["path"] == str(model) and started[1] == {"closed": True}
    write_policy(get_peft_model(AutoModelForCausalLM.from_pretrained(model), LORA), adapter)
    tiny_tokenizer().save_pretrained(str(adapter))
    assert main(["rollout", str(adapter), "--engine", "vllm", "--limit", "16"]) == 0
    assert started[2] | {"path": str(model), "adapter": str(adapter), "max_lora_rank": 8} == started[2]


def test_benchmark_rate_and_record_sample_with_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = str(save_tiny(tmp_path / "model"))
    write_problems(tmp_path / "aime24.jsonl", [Problem(f"p{number}", "1+1?", "2") for number in range(30)])
    with fake_server({"base": tiny_model()}) as (url, asked):
        command = ["benchmark", model, "--set", "aime24", "--folder", str(tmp_path), "--count", "1", "--samples", "1"]
        assert main([*command, "--limit", "8", "--dtype", "float32", "--engine", "vllm-server", "--url", url]) == 0
        assert asked

    fakes: list[FakeEngine] = []

    def start(path_or_id: Any, **options: Any) -> VLLMEngine:
        engine, fake = colocated()
        fakes.append(fake)
        return engine

    monkeypatch.setattr(VLLMEngine, "load", start)
    recording = tmp_path / "survey.jsonl.gz"
    command = ["record", model, "--untrained", model, "--survey", "1", "--output", str(recording)]
    assert main([*command, "--engine", "vllm"]) == 0 and recording.exists()
    assert len(fakes) == 2 and all(fake.asked and fake.closed for fake in fakes)

    rates = tmp_path / "rates.jsonl"
    keys = [*tiny_overrides(Path(model)), "rollout.engine=vllm", "rollout.max_tokens=8"]
    keys += ["data.pass_rates.samples=2", f"data.pass_rates.file={rates}"]
    assert main(["rate", "--recipe", "overthinker", *(part for key in keys for part in ("--set", key))]) == 0
    assert len(rates.read_text().splitlines()) == 8
    assert fakes[2].asked and fakes[2].closed
    renewed = fakes[2].models[None].model.embed_tokens.weight
    torch.testing.assert_close(renewed, tiny_model().model.embed_tokens.weight)  # it sampled from the recipe's weights
