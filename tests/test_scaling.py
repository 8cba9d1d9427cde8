"""``stepgrpo plan``: does a recipe fit, what should change, and does it then."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgrpo_lab import recipes
from stepgrpo_lab.cli import main
from stepgrpo_lab.cli._scaling import GPU_NAMES
from stepgrpo_lab.planning import GPUS, MemoryPlan, plan_memory
from stepgrpo_lab.planning._memory import CONTEXT, GIB
from stepgrpo_lab.planning.growth import growth_table, step_times
from stepgrpo_lab.planning.sizes import QWEN3, kv_bytes, lora_parameters, nf4_bytes
from stepgrpo_lab.planning.views import components_table, gib, plan_lines, recipes_table
from stepgrpo_lab.recipes import load_recipe, recipe_names
from stepgrpo_lab.recipes._launching import accelerate_config, launch_line
from tools.counting import small_dimensions

REAL = [name for name in recipe_names() if name.startswith("qwen3")]


def held(plan: MemoryPlan, name: str, phase: str = "update") -> int:
    return sum(part.bytes for part in plan.components if part.name == name and phase in part.phases)


@pytest.mark.parametrize("name", REAL)
def test_each_recipe_fits_its_machine_with_some_room(name: str) -> None:
    plan = plan_memory(load_recipe(name))
    assert plan.fits and not plan.changes and not plan.notes
    assert plan.peak <= 0.95 * plan.setup.gpu.memory
    assert sum(part.bytes for part in plan.components if "update" in part.phases) == plan.phases["update"]


def test_the_recipes_are_the_agreed_ones() -> None:
    assert sorted(REAL) == sorted(
        [
            "qwen3-0.6b-lora-t4",
            "qwen3-1.7b-qlora-t4",
            "qwen3-4b-qlora-l4",
            "qwen3-8b-lora-a100",
            "qwen3-8b-full-1xh200",
            "qwen3-8b-full-8xh100",
        ]
    )


def test_the_components_of_full_training_on_one_gpu() -> None:
    plan = plan_memory(load_recipe("qwen3-8b-full-1xh200"))
    parameters = QWEN3["Qwen/Qwen3-8B"].parameters
    assert held(plan, "fp32 master weights") == held(plan, "gradients") == 4 * parameters
    assert held(plan, "gradients", "rollout") == 0  # freed after each step
    assert held(plan, "optimiser states") == pytest.approx(20.4e9, rel=0.02)  # 8 bits, the embedding in 32
    assert held(plan, "KV cache", "rollout") == kv_bytes(QWEN3["Qwen/Qwen3-8B"], 32, 512 + 8192 + 64, 2)
    assert held(plan, "CUDA context and libraries", "step") == CONTEXT


def test_the_components_of_4_bit_training() -> None:
    plan, dimensions = plan_memory(load_recipe("qwen3-1.7b-qlora-t4")), QWEN3["Qwen/Qwen3-1.7B"]
    weights, constants = nf4_bytes(list(dimensions.linear_shapes.values()) * dimensions.layers)
    adapter = sum(lora_parameters(dimensions, 16))
    assert (held(plan, "weights in 4 bits"), held(plan, "quantisation constants")) == (weights, constants)
    assert held(plan, "adapter (fp32)") == held(plan, "gradients") == 4 * adapter
    assert held(plan, "optimiser states") == 8 * adapter
    assert not held(plan, "reference model")


def test_shards_are_spread_and_gathered() -> None:
    plan = plan_memory(load_recipe("qwen3-8b-full-8xh100"))
    parameters = QWEN3["Qwen/Qwen3-8B"].parameters
    assert held(plan, "fp32 master weights, in shards") == held(plan, "gradients") == 4 * parameters // 8
    assert held(plan, "optimiser states") == 8 * parameters // 8
    assert held(plan, "weights gathered for the rollout", "rollout") == 2 * parameters
    assert held(plan, "fp32 master weights", "evaluation") == 4 * parameters  # not sharded before training
    assert not held(plan, "16-bit copies by autocast")  # the sharding engine casts as it gathers


def test_who_samples_decides_where_the_cache_lies() -> None:
    recipe = load_recipe("qwen3-8b-full-8xh100")
    lockstep, colocated, server = (plan_memory(recipe, engine=engine) for engine in ("lockstep", "vllm", "vllm-server"))
    assert held(colocated, "the engine's own weights", "rollout") == 2 * QWEN3["Qwen/Qwen3-8B"].parameters
    assert held(colocated, "the engine's own weights", "evaluation") == held(
        colocated, "the engine's own weights", "rollout"
    )
    assert held(colocated, "weights gathered for the rollout", "rollout") == 0
    assert held(server, "KV cache", "evaluation") == 0 < held(colocated, "KV cache", "evaluation")
    assert held(server, "KV cache", "rollout") == 0
    assert held(server, "KV cache", "server") == held(lockstep, "KV cache", "rollout")
    assert server.phases["rollout"] < lockstep.phases["rollout"]
    assert colocated.phases["update"] == lockstep.phases["update"]  # it sleeps


@pytest.mark.parametrize(
    ("name", "gpu", "keys"),
    [
        ("qwen3-4b-qlora-l4", "T4", ["rollout.rows"]),
        ("qwen3-8b-lora-a100", "L4", ["model.quantization", "rollout.rows"]),
        ("qwen3-8b-lora-a100", "T4", ["model.quantization", "rollout.max_tokens", "rollout.rows"]),
        ("qwen3-8b-full-1xh200", "A100", ["model.lora", "model.dtype"]),
        ("qwen3-8b-full-8xh100", "A100", []),
    ],
)
def test_what_is_advised_makes_it_fit(name: str, gpu: str, keys: list[str]) -> None:
    plan = plan_memory(load_recipe(name), gpu=gpu)
    advised = [change.key for change in plan.changes]
    assert advised[: len(keys)] == keys and plan.fits == (not keys)
    overrides = [f"{change.key}={json.dumps(change.value)}" for change in plan.changes]
    changed = plan_memory(load_recipe(name, overrides), gpu=gpu)
    assert changed.fits
    assert not plan.changes or changed.peak == plan.changes[-1].peak


def test_a_value_is_lowered_no_further_than_needed() -> None:
    plan = plan_memory(load_recipe("qwen3-4b-qlora-l4", ["rollout.rows=64"]))
    [change] = plan.changes
    assert change.key == "rollout.rows"
    assert not plan_memory(load_recipe("qwen3-4b-qlora-l4", [f"rollout.rows={2 * change.value}"])).fits


def test_the_command_offers_every_gpu_that_is_known() -> None:
    assert tuple(GPUS) == GPU_NAMES  # written out there, so that --help loads nothing


def test_more_gpus_are_offered_for_whole_models() -> None:
    plan = plan_memory(load_recipe("qwen3-8b-full-8xh100"), gpus=1)
    assert any("or unchanged on" in note and "sharding=fsdp2" in note for note in plan.notes)


def test_what_cannot_be_is_said() -> None:
    huge = replace(small_dimensions(), vocabulary=10**8, hidden=10**4, positions=10**5)
    plan = plan_memory(load_recipe("qwen3-8b-full-1xh200"), dimensions=huge)
    assert any("all of this is not enough" in line for line in plan_lines(plan))


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        ([], {"gpu": "B7"}, "unknown GPU 'B7': choose from T4, L4"),
        ([], {"engine": "sglang"}, "unknown engine 'sglang'"),
        ([], {"gpus": 0}, "0 GPUs"),
        (["optimisation.optimizer=lion_32bit"], {}, "optimizer is 'lion_32bit': its memory is unknown"),
        (["rollout.max_tokens=50000"], {}, "max_tokens is 50000.*the model has 40960"),
        (["model.path=no/such"], {}, "'no/such' has no configuration"),
        (["hardware.gpu=null"], {}, "names no GPU"),
    ],
)
def test_what_cannot_be_planned_is_named(overrides: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_memory(load_recipe("qwen3-8b-lora-a100", overrides), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "overrides", "options", "note"),
    [
        ("qwen3-0.6b-lora-t4", ["model.dtype=bfloat16"], {}, r"T4 \(compute capability 7.5\) claims bfloat16"),
        ("qwen3-0.6b-lora-t4", ["optimisation.mixed_precision=bf16"], {}, "emulates it"),
        ("qwen3-8b-full-1xh200", ["model.dtype=bfloat16"], {}, "16-bit weights without masters"),
        ("qwen3-1.7b-qlora-t4", [], {"engine": "vllm"}, "cannot be handed to a second engine"),
        ("qwen3-8b-full-8xh100", [], {"engine": "vllm"}, "sample with vllm-server"),
        ("qwen3-8b-lora-a100", [], {"gpus": 7}, "cannot be shared by 7 GPUs"),
    ],
)
def test_what_the_machine_has_to_say(name: str, overrides: list[str], options: dict[str, object], note: str) -> None:
    plan = plan_memory(load_recipe(name, overrides), **options)  # type: ignore[arg-type]
    assert any(re.search(note, line) for line in plan.notes)


@given(
    rows=st.integers(1, 64),
    passes=st.sampled_from([1, 2, 4, 8]),
    tokens=st.integers(64, 8000),
    gpus=st.sampled_from([1, 2, 4, 8]),
)
@settings(max_examples=40, deadline=None)
def test_less_to_do_never_takes_more(rows: int, passes: int, tokens: int, gpus: int) -> None:
    recipe = load_recipe("qwen3-8b-full-8xh100")

    def planned(rows: int, passes: int, tokens: int, gpus: int) -> int:
        changed = replace(
            recipe,
            rollout=replace(recipe.rollout, rows=rows, max_tokens=tokens),
            optimisation=replace(recipe.optimisation, rows_per_pass=passes),
        )
        return plan_memory(changed, gpu="H200", gpus=gpus).peak

    whole = planned(rows, passes, tokens, gpus)
    assert planned(rows, passes, max(64, tokens // 2), gpus) <= whole
    assert planned(max(1, rows // 2), passes, tokens, gpus) <= whole
    assert planned(rows, max(1, passes // 2), tokens, gpus) <= whole
    if gpus > 1:
        assert planned(rows, passes, tokens, 2 * gpus) <= whole


def test_precision_follows_the_compute_capability() -> None:
    recipe = load_recipe("qwen3-8b-lora-a100")
    assert {plan_memory(recipe, gpu=name).setup.weights for name in GPUS} == {2}
    whole = load_recipe("qwen3-8b-full-1xh200")
    setup = plan_memory(whole, gpu="A100").setup
    assert (setup.weights, setup.compute, setup.casts) == (4, 2, True)
    assert plan_memory(load_recipe(whole.name, ["optimisation.mixed_precision=no"])).setup.compute == 4


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--recipe", "qwen3-8b-lora-a100", "--gpu", "L4"]) == 0
    out = capsys.readouterr().out
    assert "does not fit: 60.7 GiB, more than the 22.0 GiB of one L4; change" in out
    assert "--set model.quantization=nf4" in out and "launch: stepgrpo train --recipe qwen3-8b-lora-a100" in out
    assert main(["plan", "--recipe", "qwen3-8b-full-8xh100", "--set", "rollout.rows=8", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["fits"] and plan["assumptions"]["rollout_rows"] == 8
    assert plan["launch"].startswith("accelerate launch") and "--set rollout.rows=8" in plan["launch"]
    assert sum(part["bytes"] for part in plan["components"] if "update" in part["phases"]) == plan["phases"]["update"]
    assert main(["plan", "--recipe", "overthinker"]) == 2
    assert "names no GPU: give one, for example --gpu T4" in capsys.readouterr().err


def test_the_embedded_model_can_be_planned_too() -> None:
    plan = plan_memory(load_recipe("overthinker"), gpu="T4", prompt_tokens=64)
    assert plan.fits and plan.peak < 2 * GIB


def test_tables_hold_every_component() -> None:
    plan = plan_memory(load_recipe("qwen3-8b-full-8xh100"))
    table = components_table(plan)
    assert all(part.name in table for part in plan.components)
    assert f"| {gib(plan.phases['rollout'])} |" in table.splitlines()[-1]


PAGE = (Path(recipes.__file__).parent / "README.md").read_text(encoding="utf-8")
ORDER = [
    "qwen3-0.6b-lora-t4",
    "qwen3-1.7b-qlora-t4",
    "qwen3-4b-qlora-l4",
    "qwen3-8b-lora-a100",
    "qwen3-8b-full-1xh200",
    "qwen3-8b-full-8xh100",
]


def test_the_pages_say_what_the_command_computes() -> None:
    plans = [plan_memory(load_recipe(name)) for name in ORDER]
    table = recipes_table(plans)
    assert table in PAGE
    assert table in (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
    for plan in plans:
        section = PAGE.split(f"\n## {plan.recipe}\n")[1].split("\n## ")[0]
        assert components_table(plan) in section
        config = accelerate_config(load_recipe(plan.recipe))
        line = launch_line(load_recipe(plan.recipe))
        assert line.replace(str(config), f"stepgrpo_lab/recipes/accelerate/{config and config.name}") in section


def test_the_page_s_arithmetic_of_growth() -> None:
    recipe = load_recipe("qwen3-8b-full-8xh100")
    assert growth_table(recipe) in PAGE
    node, eight_nodes = (step_times(recipe, gpus, mean_tokens=7000) for gpus in (8, 64))
    assert (node.rows, eight_nodes.rows) == (320, 40)
    assert node.at_once < node.rows and eight_nodes.at_once == eight_nodes.rows  # memory limits one node alone
    assert node.computing == pytest.approx(8 * eight_nodes.computing)
    assert node.longest == eight_nodes.longest > eight_nodes.decoding  # what limits eight nodes
    assert eight_nodes.sharding == pytest.approx(eight_nodes.computing, rel=0.3)
    assert node.sharding < 0.1 * node.computing and eight_nodes.replicas < 1
    # By hand: one row of 16,384 tokens reads 16.4 GB and half of its 2.4 GB cache for each token at 3.35 TB/s.
    assert node.longest == pytest.approx(16384 * (16.38e9 + 1.208e9) / 3.35e12, rel=0.01)


@pytest.mark.parametrize(("sharding", "kind"), [("fsdp2", "FSDP"), ("zero3", "DEEPSPEED"), ("none", "MULTI_GPU")])
def test_accelerate_reads_the_shipped_configurations(sharding: str, kind: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = accelerate_config(load_recipe("qwen3-8b-full-8xh100", [f"hardware.sharding={sharding}"]))
    config = load_config_from_file(str(path))
    assert (config.distributed_type.value, config.num_processes, config.num_machines) == (kind, 8, 1)
    if sharding == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2 and config.mixed_precision == "bf16"
    if sharding == "zero3":
        assert config.deepspeed_config["zero_stage"] == 3 and config.mixed_precision == "bf16"
