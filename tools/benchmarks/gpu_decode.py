"""Decoding of a random-weight Qwen3-8B in bf16 on one GPU, against what its memory bandwidth allows.

``python -m tools.benchmarks.gpu_decode [--rows 64] [--context 1024] [--passes 128]``, on a machine with a GPU of at
least 40 GB. Prints JSON: milliseconds a pass, the limit, their ratio, and the kernels and calls that took longest. Not
part of the record: it has not been run for it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen3Config, Qwen3ForCausalLM

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.method.token_text import TokenText

from .scripted import sample_keys


def main() -> None:
    """Measure, profile, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("rows", 64), ("context", 1024), ("passes", 128)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("no GPU here: torch.cuda.is_available() is False")
    model = qwen3_8b()
    engine = LockstepEngine(model, TokenText.from_pieces([]), max_rows=options.rows)

    def decode(passes: int) -> None:
        engine.generate([[1] * options.context] * options.rows, Decoding(passes), keys=sample_keys(options.rows))

    decode(4)
    first, whole = seconds(lambda: decode(1)), seconds(lambda: decode(1 + options.passes))
    each = (whole - first) / options.passes
    limit = bytes_a_pass(model, options.rows, options.context + options.passes // 2) / bandwidth()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        decode(16)
    print(
        json.dumps(
            {
                "device": torch.cuda.get_device_name(),
                **vars(options),
                "ms_a_pass": 1e3 * each,
                "ms_limit": 1e3 * limit,
                "over_limit": each / limit,
                "longest": longest(profiler),
            },
            indent=1,
        )
    )


def qwen3_8b() -> Any:
    """Qwen3-8B's shape with random weights, made on the GPU."""
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=4096,
        intermediate_size=12_288,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        tie_word_embeddings=False,
        dtype=torch.bfloat16,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen3ForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def seconds(task: Callable[[], object]) -> float:
    """Wall time until the GPU has finished."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    task()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def bytes_a_pass(model: Any, rows: int, context: int) -> int:
    """What one pass must read: every weight but the input embedding, and the keys and values of all rows."""
    config = model.config
    weights = sum(weight.nbytes for weight in model.parameters()) - model.get_input_embeddings().weight.nbytes
    return weights + 2 * 2 * rows * context * config.num_hidden_layers * config.num_key_value_heads * config.head_dim


def bandwidth(gigabytes: int = 4) -> float:
    """Bytes a second of reads and writes, measured by copying."""
    source = torch.zeros(gigabytes << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    target.copy_(source)
    return 20 * source.nbytes / seconds(lambda: [target.copy_(source) for _ in range(10)])


def longest(profiler: Any, count: int = 12) -> list[list[str | float]]:
    """Names and milliseconds: device time of kernels and host time of calls, longest first."""
    rows = sorted(profiler.key_averages(), key=lambda row: -max(row.self_device_time_total, row.self_cpu_time_total))
    return [[row.key, row.self_device_time_total / 1e3, row.self_cpu_time_total / 1e3] for row in rows[:count]]


if __name__ == "__main__":
    main()
