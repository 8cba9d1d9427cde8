"""What accelerate's own launcher makes of the shipped configurations; run with them only where there are GPUs."""

from __future__ import annotations

import os
import shlex
from typing import Any

import pytest
from tiny import tiny_model

from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.recipes._launching import launch_line


def launched(sharding: str) -> Any:
    """The arguments of the recipe's launch line as accelerate completes them from the configuration."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    line = shlex.split(launch_line(load_recipe("qwen3-8b-full-8xh100", [f"hardware.sharding={sharding}"])))
    assert line[:2] == ["accelerate", "launch"]
    arguments, configuration, _ = _validate_launch_command(launch_command_parser().parse_args(line[2:]))
    # With DeepSpeed installed, the launcher goes on like this.
    arguments.deepspeed_fields_from_accelerate_config = ",".join(configuration.deepspeed_config)
    assert (arguments.module, arguments.training_script, arguments.num_processes) == (True, "stepgrpo_lab", 8)
    return arguments


def test_fsdp2_shards_layer_by_layer_and_gives_the_weights_away(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = launched("fsdp2")
    assert (arguments.use_fsdp, arguments.use_deepspeed) == (True, False)
    answer = prepare_multi_gpu_env(arguments)
    assert answer["ACCELERATE_MIXED_PRECISION"] == "bf16"
    for name, value in answer.items():
        if name.startswith("FSDP_"):
            monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()  # as each process builds it
    assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.activation_checkpointing) == (2, True, False)
    assert plugin.cpu_ram_efficient_loading is False and "FULL" in str(plugin.state_dict_type)
    model = tiny_model()
    plugin.set_auto_wrap_policy(model)
    wraps = {
        type(module).__name__
        for module in model.modules()
        if plugin.auto_wrap_policy(module=module, recurse=False, nonwrapped_numel=0)
    }
    assert wraps == {"Qwen3DecoderLayer"}


def test_zero3_keeps_everything_on_the_gpus_and_saves_whole_models() -> None:
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    arguments = launched("zero3")
    assert (arguments.use_fsdp, arguments.use_deepspeed) == (False, True)
    _, answer = prepare_deepspeed_cmd_env(arguments)
    assert answer["ACCELERATE_USE_DEEPSPEED"] == "true" and answer["ACCELERATE_MIXED_PRECISION"] == "bf16"
    expected = {
        "ZERO_STAGE": "3",
        "ZERO3_INIT": "false",
        "ZERO3_SAVE_16BIT_MODEL": "true",
        "OFFLOAD_OPTIMIZER_DEVICE": "none",
        "OFFLOAD_PARAM_DEVICE": "none",
    }
    assert {name: answer[f"ACCELERATE_DEEPSPEED_{name}"] for name in expected} == expected


def test_ddp_starts_a_process_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments = launched("none")
    assert (arguments.use_fsdp, arguments.use_deepspeed, arguments.multi_gpu) == (False, False, True)
    assert prepare_multi_gpu_env(arguments)["ACCELERATE_MIXED_PRECISION"] == "no"  # the trainer decides
    assert not any(name.startswith("FSDP_") for name in os.environ)
