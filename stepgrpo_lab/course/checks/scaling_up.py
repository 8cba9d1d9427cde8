"""Checks of notebook 09: the cache of one token, the size of an adapter, and the longest completions that fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from stepgrpo_lab.course.checks._result import Unsolved, agree, draws, exercise, expect

MODELS = ("Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B")
"""The second one's head_dim is not hidden_size // heads."""

CacheBytes = Callable[[Mapping[str, int], int], int]
AdapterSize = Callable[[Mapping[str, tuple[int, int]], int, int], int]
LongestCompletion = Callable[[str, str, Sequence[int]], int | None]
Shapes = Mapping[str, tuple[int, int]]


@exercise("09.1", "now you can say for any model how many tokens of cache a GPU has room for.")
def cache_bytes_per_token(solution: CacheBytes) -> None:
    """Hold ``cache_bytes_per_token(config, width)`` against the library's dimensions.

    Example:
        >>> cache_bytes_per_token(lambda config, width: 0).passed
        False
    """

    def right(config: Mapping[str, int], width: int) -> int:
        return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * width

    mistakes: dict[str, Callable[..., float]] = {
        "head_dim stands in the config; it is not hidden_size // heads": lambda config, width: right(
            {**config, "head_dim": config["hidden_size"] // config["num_attention_heads"]}, width
        ),
        "both keys and values are kept": lambda config, width: right(config, width) // 2,
        "only key-value heads are kept; query heads share them": lambda config, width: right(
            {**config, "num_key_value_heads": config["num_attention_heads"]}, width
        ),
        "every layer keeps its own": lambda config, width: right({**config, "num_hidden_layers": 1}, width),
        "use the width that you are given, in bytes": lambda config, width: right(config, 2),
        "the width is in bytes, not in bits": lambda config, width: right(config, width) / 8,
    }
    hint = "Keys and values, of all layers, of the key-value heads, head_dim numbers each"
    cases = [(_published(name), width) for name in MODELS for width in (2, 4)] + draws(_config)
    agree(solution, right, cases, "cache_bytes_per_token", mistakes=mistakes, hint=hint)


def _published(name: str) -> dict[str, int]:
    from stepgrpo_lab.planning.sizes import QWEN3

    dimensions = QWEN3[name]
    return {
        "hidden_size": dimensions.hidden,
        "num_hidden_layers": dimensions.layers,
        "num_attention_heads": dimensions.heads,
        "num_key_value_heads": dimensions.kv_heads,
        "head_dim": dimensions.head_dim,
    }


def _config(rng: random.Random, size: int) -> tuple[dict[str, int], int]:
    kv_heads = rng.choice([1, 2, 4])
    heads = kv_heads * rng.choice([2, 3, 4])
    config = {
        "hidden_size": heads * rng.choice([16, 32]),
        "num_hidden_layers": 1 + size,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": rng.choice([8, 48, 64]),
    }
    return config, rng.choice([1, 2, 4])


@exercise("09.2", "an adapter is one or two hundredths of its model, and so are its gradients and Adam states.")
def adapter_size(solution: AdapterSize) -> None:
    """Hold ``adapter_size(shapes, layers, rank)`` against the library's adapters.

    Example:
        >>> adapter_size(lambda shapes, layers, rank: 0).passed
        False
    """

    def right(shapes: Shapes, layers: int, rank: int) -> int:
        return layers * rank * sum(outputs + inputs for outputs, inputs in shapes.values())

    def whole(shapes: Shapes, layers: int, rank: int) -> int:
        return layers * sum(outputs * inputs for outputs, inputs in shapes.values())

    mistakes: dict[str, Callable[..., int]] = {
        "that is the matrices themselves; the adapter is two thin ones beside each": whole,
        "A has rank x inputs and B outputs x rank numbers: add, do not multiply outputs and inputs": lambda *case: (
            case[2] * whole(*case)
        ),
        "every layer has its own adapter": lambda shapes, layers, rank: right(shapes, 1, rank),
        "that is A alone; B counts too": lambda shapes, layers, rank: (
            layers * rank * sum(inputs for _, inputs in shapes.values())
        ),
        "that is B alone; A counts too": lambda shapes, layers, rank: (
            layers * rank * sum(outputs for outputs, _ in shapes.values())
        ),
    }
    hint = "A is (rank, inputs), B is (outputs, rank), for each matrix of each layer"
    agree(solution, right, [({"toy": (3, 5)}, 2, 4), *draws(_shapes)], "adapter_size", mistakes=mistakes, hint=hint)
    agree(
        solution, _library_size, [(shapes, layers, rank) for shapes, layers, rank in _qwen()], "adapter_size", hint=hint
    )


def _shapes(rng: random.Random, size: int) -> tuple[dict[str, tuple[int, int]], int, int]:
    shapes = {name: (rng.randint(2, 9), rng.randint(2, 9)) for name in "qkvo"[: 1 + size // 3]}
    return shapes, rng.randint(2, 6), rng.choice([2, 4, 8])


def _qwen() -> list[tuple[Shapes, int, int]]:
    from stepgrpo_lab.planning.sizes import QWEN3

    names = (("Qwen/Qwen3-1.7B", 16), ("Qwen/Qwen3-8B", 64))
    return [(dict(QWEN3[name].linear_shapes), QWEN3[name].layers, rank) for name, rank in names]


def _library_size(shapes: Shapes, layers: int, rank: int) -> int:
    from stepgrpo_lab.planning.sizes import QWEN3, lora_parameters

    model = next(size for size in QWEN3.values() if size.linear_shapes == shapes and size.layers == layers)
    return sum(lora_parameters(model, rank))


def _fitting(recipe: str, gpu: str, limits: Sequence[int]) -> list[int]:
    from stepgrpo_lab.planning import plan_memory
    from stepgrpo_lab.recipes import load_recipe

    return [n for n in limits if plan_memory(load_recipe(recipe, [f"rollout.max_tokens={n}"]), gpu=gpu).fits]


def _longest(recipe: str, gpu: str, limits: Sequence[int]) -> int | None:
    return max(_fitting(recipe, gpu, limits), default=None)


@exercise("09.3", "a plan takes milliseconds and an out-of-memory error takes an hour: ask first.", reference=_longest)
def longest_completion(solution: LongestCompletion) -> None:
    """Hold ``longest_completion(recipe, gpu, limits)`` against plans of each limit.

    Example:
        >>> longest_completion(lambda recipe, gpu, limits: max(limits)).passed
        False
    """
    for recipe, gpu, limits in (
        ("qwen3-1.7b-qlora-t4", "T4", [1024, 2048, 4096, 8192]),
        ("qwen3-1.7b-qlora-t4", "L4", [8192, 4096, 2048, 1024]),
        ("qwen3-8b-lora-a100", "T4", [1024, 2048]),
    ):
        fitting = _fitting(recipe, gpu, limits)
        what = f"longest_completion({recipe!r}, {gpu!r}, {limits})"
        answer = solution(recipe, gpu, list(limits))
        if not fitting and answer is not None:
            raise Unsolved(f"{what} gives {answer!r}: its weights alone do not fit, so no limit does; give None")
        if fitting and answer in fitting and answer != max(fitting):
            raise Unsolved(f"{what} gives {answer}: that fits, but {max(fitting)} does too")
        if fitting and answer in limits and answer not in fitting:
            raise Unsolved(f"{what} gives {answer}: that does not fit; pass gpu on, and look at plan.fits")
        expect(answer, max(fitting, default=None), what)
