"""Checks of notebook 09: the cache of one token, the size of an adapter, and the longest completions that fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stepgrpo_lab.course.checks._result import Unsolved, exercise, expect

MODELS = ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B")
"""The second one's head_dim is not hidden_size // heads, so the first shows every other mistake."""

CacheBytes = Callable[[Mapping[str, int], int], int]
AdapterSize = Callable[[Mapping[str, tuple[int, int]], int, int], int]
LongestCompletion = Callable[[str, str, Sequence[int]], int | None]


@exercise("09.1", "now you can say for any model how many tokens of cache a GPU has room for.")
def cache_bytes_per_token(solution: CacheBytes) -> None:
    """Hold ``cache_bytes_per_token(config, width)`` against the library's dimensions.

    Example:
        >>> cache_bytes_per_token(lambda config, width: 0).passed
        False
    """
    from stepgrpo_lab.planning.sizes import QWEN3

    for name in MODELS:
        dimensions = QWEN3[name]
        config = {
            "hidden_size": dimensions.hidden,
            "num_hidden_layers": dimensions.layers,
            "num_attention_heads": dimensions.heads,
            "num_key_value_heads": dimensions.kv_heads,
            "head_dim": dimensions.head_dim,
        }
        for width in (2, 4):
            what = f"cache_bytes_per_token(config of {name}, {width})"
            _cache_case(solution(dict(config), width), dimensions.kv_per_token * width, config, what)


def _cache_case(answer: Any, expected: int, config: Mapping[str, int], what: str) -> None:
    heads = config["num_attention_heads"]
    derived = config["hidden_size"] // heads
    mistakes = {
        "head_dim stands in the config; it is not hidden_size // heads": expected * derived // config["head_dim"],
        "both keys and values are kept": expected // 2,
        "only key-value heads are kept; query heads share them": expected * heads // config["num_key_value_heads"],
        "every layer keeps its own": expected // config["num_hidden_layers"],
    }
    hint = "Keys and values, of all layers, of the key-value heads, head_dim numbers each"
    expect(answer, expected, what, hint=hint, mistakes=mistakes)


@exercise("09.2", "an adapter is one or two hundredths of its model, and so are its gradients and Adam states.")
def adapter_size(solution: AdapterSize) -> None:
    """Hold ``adapter_size(shapes, layers, rank)`` against the library's adapters.

    Example:
        >>> adapter_size(lambda shapes, layers, rank: 0).passed
        False
    """
    from stepgrpo_lab.planning.sizes import QWEN3, lora_parameters

    cases = [
        ({"toy": (3, 5)}, 2, 4, 64),
        *(
            (QWEN3[name].linear_shapes, QWEN3[name].layers, rank, sum(lora_parameters(QWEN3[name], rank)))
            for name, rank in (("Qwen/Qwen3-1.7B", 16), ("Qwen/Qwen3-8B", 64))
        ),
    ]
    for shapes, layers, rank, expected in cases:
        _adapter_case(solution(dict(shapes), layers, rank), expected, shapes, layers, rank)


def _adapter_case(answer: Any, expected: int, shapes: Mapping[str, tuple[int, int]], layers: int, rank: int) -> None:
    what = f"adapter_size({dict(shapes) if len(shapes) == 1 else '...'}, {layers}, {rank})"
    whole = layers * sum(outputs * inputs for outputs, inputs in shapes.values())
    mistakes = {
        "that is the matrices themselves; the adapter is two thin ones beside each": whole,
        "A has rank x inputs and B outputs x rank numbers: add, do not multiply outputs and inputs": rank * whole,
        "every layer has its own adapter": expected // layers,
        "that is A alone; B counts too": layers * rank * sum(inputs for _, inputs in shapes.values()),
        "that is B alone; A counts too": layers * rank * sum(outputs for outputs, _ in shapes.values()),
    }
    hint = "A is (rank, inputs), B is (outputs, rank), for each matrix of each layer"
    expect(answer, expected, what, hint=hint, mistakes=mistakes)


@exercise("09.3", "a plan takes milliseconds and an out-of-memory error takes an hour: ask first.")
def longest_completion(solution: LongestCompletion) -> None:
    """Hold ``longest_completion(recipe, gpu, limits)`` against plans of each limit.

    Example:
        >>> longest_completion(lambda recipe, gpu, limits: max(limits)).passed
        False
    """
    from stepgrpo_lab.planning import plan_memory
    from stepgrpo_lab.recipes import load_recipe

    for recipe, gpu, limits in (
        ("qwen3-1.7b-qlora-t4", "T4", [1024, 2048, 4096, 8192]),
        ("qwen3-1.7b-qlora-t4", "L4", [8192, 4096, 2048, 1024]),
        ("qwen3-8b-lora-a100", "T4", [1024, 2048]),
    ):
        fitting = [
            limit for limit in limits if plan_memory(load_recipe(recipe, [f"rollout.max_tokens={limit}"]), gpu=gpu).fits
        ]
        what = f"longest_completion({recipe!r}, {gpu!r}, {limits})"
        answer = solution(recipe, gpu, list(limits))
        if not fitting and answer is not None:
            raise Unsolved(f"{what} gives {answer!r}: its weights alone do not fit, so no limit does; give None")
        if fitting and answer in fitting and answer != max(fitting):
            raise Unsolved(f"{what} gives {answer}: that fits, but {max(fitting)} does too")
        if fitting and answer in limits and answer not in fitting:
            raise Unsolved(f"{what} gives {answer}: that does not fit; pass gpu on, and look at plan.fits")
        expect(answer, max(fitting, default=None), what)
