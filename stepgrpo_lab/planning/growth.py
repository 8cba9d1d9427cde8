"""What limits one step of training on many GPUs: arithmetic from bytes, operations and the data sheets' rates.

Nothing here was measured. Each time is what the named rate allows at best, or at an efficiency that is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.planning._memory import FRAGMENTATION, NETWORK, Gpu
from stepgrpo_lab.planning.plan import MemoryPlan, plan_memory
from stepgrpo_lab.planning.sizes import ModelDimensions
from stepgrpo_lab.recipes.schema import Recipe

GPUS_PER_NODE = 8

EFFICIENCY = 0.4
"""Share of the data sheet's operations that long-context training of dense models reaches, as an assumption."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds of one rollout and the updates that it serves.

    Attributes:
        gpus: How many.
        rows, at_once: Completions that one GPU has to decode, and as many of mean length as its cache has room for.
        decoding: Reading weights and cache for every token.
        longest: The same for one completion of the greatest length, alone: no number of GPUs goes below it.
        computing: Forward, backward and recomputed forward passes.
        sharding: Gathering weights and scattering gradients in every pass of one row, over the slowest link involved.
        replicas: Beside the gathering within a node, when each node holds its own shards: gradients once per update.
        syncing: Handing the new weights to separate engines, once per rollout.
    """

    gpus: int
    rows: float
    at_once: float
    decoding: float
    longest: float
    computing: float
    sharding: float
    replicas: float
    syncing: float


def step_times(recipe: Recipe, gpus: int, *, mean_tokens: int, gpu: str | None = None) -> StepTimes:
    """Where the time of one rollout and its updates goes at best.

    Args:
        recipe: A recipe that trains every weight of a model in shards, with bf16 products.
        gpus: Number of GPUs, in nodes of eight.
        mean_tokens: Mean length of a completion.
        gpu: Kind of GPU; by default the recipe's.

    Raises:
        ValueError: Unknown GPU or model, or a recipe without a GPU.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> times = step_times(load_recipe("qwen3-8b-full-8xh100"), 8, mean_tokens=7000)
        >>> round(times.longest), round(times.computing)
        (86, 390)
    """
    plan = plan_memory(recipe, gpu=gpu, gpus=gpus)
    dimensions, machine = plan.setup.dimensions, plan.setup.gpu
    optimisation = recipe.optimisation
    completions = optimisation.prompts_per_step * optimisation.group_size * optimisation.steps_per_rollout
    local, weights = completions / gpus, 2 * dimensions.parameters
    at_once = min(local, cache_room(plan) / (2 * dimensions.kv_per_token * mean_tokens))
    operations = completions * mean_tokens * training_operations(dimensions, mean_tokens)
    link = machine.link if gpus <= GPUS_PER_NODE else NETWORK
    return StepTimes(
        gpus=gpus,
        rows=local,
        at_once=at_once,
        decoding=local / at_once * decoding_seconds(dimensions, machine, at_once, mean_tokens),
        longest=decoding_seconds(dimensions, machine, 1, recipe.rollout.max_tokens),
        computing=operations / (gpus * machine.compute * EFFICIENCY),
        # Weights are gathered for both passes and gradients scattered once, all in bf16.
        sharding=local * 3 * weights * (gpus - 1) / gpus / link,
        replicas=_replicas(dimensions, gpus, optimisation.steps_per_rollout),
        syncing=weights / link,
    )


def cache_room(plan: MemoryPlan) -> int:
    """Bytes that the cache may take in the rollout beside everything else."""
    cache = sum(part.bytes for part in plan.components if part.name == "KV cache" and "rollout" in part.phases)
    others = plan.phases["rollout"] - (1 + FRAGMENTATION) * cache
    return int((plan.setup.gpu.memory - others) / (1 + FRAGMENTATION))


def training_operations(dimensions: ModelDimensions, tokens: int) -> float:
    """Floating-point operations for one token: two for each weight forward, four backward, and two recomputed.

    Each token attends to half of ``tokens`` on average, in two products of the queries' width.
    """
    weights = dimensions.parameters - dimensions.embedding
    attention = dimensions.layers * 2 * dimensions.query_width * tokens / 2
    return 8 * (weights + attention)


def decoding_seconds(dimensions: ModelDimensions, gpu: Gpu, rows: float, tokens: int) -> float:
    """Reading all weights, and each row's cache, for each of ``tokens`` tokens; contexts are half full on average."""
    cache = rows * dimensions.kv_per_token * 2 * tokens / 2
    return tokens * (2 * dimensions.parameters + cache) / gpu.bandwidth


def _replicas(dimensions: ModelDimensions, gpus: int, updates: int) -> float:
    """All-reduce of each GPU's shard of bf16 gradients among the nodes, which moves it almost twice."""
    nodes = gpus / GPUS_PER_NODE
    if nodes <= 1:
        return 0.0
    shard = 2 * dimensions.parameters / GPUS_PER_NODE
    return updates * 2 * shard * (nodes - 1) / nodes / NETWORK


def growth_table(recipe: Recipe, counts: tuple[int, ...] = (8, 64), mean_tokens: int = 7000) -> str:
    """The times at several numbers of GPUs, as a Markdown table in seconds."""
    found = [step_times(recipe, count, mean_tokens=mean_tokens) for count in counts]
    titles = {
        "rows": "completions for each GPU",
        "at_once": "of mean length, as many as its memory decodes at once",
        "decoding": "decoding, s",
        "longest": "decoding the longest completion, s",
        "computing": f"computing the updates, at {EFFICIENCY:.0%} of the data sheet's rate, s",
        "sharding": "gathering and scattering shards among all GPUs in every pass of one row, s",
        "replicas": "all-reducing gradients between nodes instead, shards kept within each, s",
        "syncing": "handing the weights to separate engines, s",
    }
    rows = [[title, *(_number(getattr(times, name)) for times in found)] for name, title in titles.items()]
    return markdown_table(["one rollout and its updates", *(f"{times.gpus} GPUs" for times in found)], rows)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}" if value else ""
