"""Checks of notebook 09: a memory plan on paper, and the longest completions that fit."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from stepgrpo_lab.course.checks._result import Unsolved, agree, draws, exercise, expect

LongestCompletion = Callable[[str, str, Sequence[int]], int | None]
Plan = Callable[[Mapping[str, int], int, int, int], Mapping[str, float]]


MODELS = ("Qwen/Qwen3-1.7B", "Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B")
"""The last one's head_dim is not hidden_size // heads; the second one has an LM head of its own."""


def _planned(
    config: Mapping[str, int],
    rank: int,
    rows: int,
    context: int,
    *,
    divides: bool = False,
    keys: int = 2,
    shared: bool = True,
    all_layers: bool = True,
    product: bool = False,
    per_number: int = 16,
    constants: bool = True,
    tied: bool | None = None,
    embeds: bool = True,
    one_row: bool = False,
) -> dict[str, float]:
    """The plan, right by default, or with a mistake in it."""
    hidden, mlp, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    layers = config["num_hidden_layers"] if all_layers else 1
    head = hidden // heads if divides else config["head_dim"]
    query, kv = heads * head, (config["num_key_value_heads"] if shared else heads) * head
    shapes = [(query, hidden), (kv, hidden), (kv, hidden), (hidden, query), (mlp, hidden), (mlp, hidden), (hidden, mlp)]
    frozen = layers * sum(outputs * inputs for outputs, inputs in shapes)
    sides = layers * sum(outputs * inputs if product else outputs + inputs for outputs, inputs in shapes)
    tables = 1 if (config["tie_word_embeddings"] if tied is None else tied) else 2
    return {
        "weights": frozen / 2
        + (frozen / 64 * (1 + 4 / 256) if constants else 0)
        + embeds * tables * 2 * config["vocab_size"] * hidden,
        "training": per_number * rank * sides,
        "cache": (1 if one_row else rows) * context * keys * layers * kv * 2,
    }


_MISTAKES: dict[str, dict[str, Any]] = {
    "head_dim stands in the config; it is not hidden_size // heads": {"divides": True},
    "the cache keeps both keys and values": {"keys": 1},
    "keys and values have num_key_value_heads heads, which several query heads share": {"shared": False},
    "every layer has matrices, an adapter and a cache of its own": {"all_layers": False},
    "A has rank x inputs and B outputs x rank numbers: add, do not multiply outputs and inputs": {"product": True},
    "a number that trains takes 16 bytes: itself, its gradient, and Adam's two means": {"per_number": 4},
    "each block of 64 weights has a constant of one byte, and 256 of these share four": {"constants": False},
    "where tie_word_embeddings is False, the LM head is a second table": {"tied": True},
    "where tie_word_embeddings is True, the LM head is the embedding": {"tied": False},
    "the embedding is not quantised, but it takes 2 bytes a number": {"embeds": False},
    "every row that is sampled has a cache of its own": {"one_row": True},
}


@exercise(
    "09.1",
    "on paper you now know what a T4 has room for, and which of the three parts grows with length.",
    reference=_planned,
)
def memory_plan(solution: Plan) -> None:
    """``memory_plan(config, rank, rows, context)``: bytes of a QLoRA run's weights, training state and cache.

    ``config`` is a model's ``config.json`` as a dictionary. Returns a dictionary with ``weights`` (4 bits for the
    matrices of all layers, a byte for each block of 64 and four for each 256 of these; 2 bytes for each number of the
    embedding, and of the LM head unless ``tie_word_embeddings``), ``training`` (16 bytes for each number of an adapter
    of this rank on all matrices) and ``cache`` (16-bit keys and values of ``rows`` contexts).

    Example:
        >>> memory_plan(lambda config, rank, rows, context: {"weights": 0, "training": 0, "cache": 0}).passed
        False
    """
    from stepgrpo_lab.planning.sizes import QWEN3

    cases = [(QWEN3[name].config, 16, 32, 2624) for name in MODELS] + draws(_config)
    mistakes: dict[str, Callable[..., Any]] = {message: partial(_planned, **how) for message, how in _MISTAKES.items()}
    complaints = []
    for part in _planned(*cases[0]):
        try:
            agree(
                _part(part, solution),
                _part(part, _planned),
                cases,
                "memory_plan",
                mistakes={message: _part(part, wrong) for message, wrong in mistakes.items()},
                show=partial(_as_call, part),
            )
        except Unsolved as error:
            complaints.append(str(error))
    if complaints:
        raise Unsolved(complaints[0], 1 - len(complaints) / 3)


def _part(name: str, plan: Callable[..., Any]) -> Callable[..., Any]:
    """One number of a plan; None where it is missing."""

    def number(*case: Any) -> Any:
        found = plan(*case)
        return found.get(name) if isinstance(found, Mapping) else found

    return number


def _as_call(part: str, config: Mapping[str, Any], rank: int, rows: int, context: int) -> str:
    return f"memory_plan({dict(config)}, rank={rank}, rows={rows}, context={context})[{part!r}]"


def _config(rng: random.Random, size: int) -> tuple[dict[str, int], int, int, int]:
    kv_heads = rng.choice([1, 2, 4])
    heads = kv_heads * rng.choice([2, 3, 4])
    config = {
        "vocab_size": rng.choice([100, 1000]),
        "hidden_size": heads * rng.choice([16, 32]),
        "intermediate_size": 128 * rng.randint(1, 4),
        "num_hidden_layers": 1 + size,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": rng.choice([8, 48, 64]),
        "tie_word_embeddings": rng.random() < 0.5,
    }
    return config, rng.choice([4, 16, 64]), rng.choice([1, 8, 32]), rng.choice([64, 512, 4096])


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
