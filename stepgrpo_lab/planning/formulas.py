"""Memory formulas: each returns bytes, and each is held in the tests against bytes counted on shrunken models."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stepgrpo_lab.engines import WIDTH_STEP
from stepgrpo_lab.planning.dimensions import ModelDimensions

HEAD_TOKENS, HEAD_VOCABULARY = 4096, 32768
"""Tile of TRL's fused LM head: logits never exist for more tokens and ids than these at once."""

NF4_BLOCK, NF4_OUTER_BLOCK = 64, 256
"""bitsandbytes: weights that share a constant, and constants that share one of their own (double quantisation)."""

NF4_TABLES = 4 * (16 + 256 + 1)
"""The two code books and the mean of the constants, which every matrix keeps for itself."""

ADAM8_BLOCK, ADAM8_LEAST = 256, 4096
"""bitsandbytes' 8-bit Adam: numbers that share a constant, and the smallest tensor that is kept in 8 bits."""

ADAM8_TABLES = 2 * 256 * 4
"""The code books of 8-bit Adam, shared by all tensors."""


def nf4_bytes(shapes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """4-bit weights of matrices, and their quantisation constants (NF4 with double quantisation).

    Example:
        >>> nf4_bytes([(64, 64)])
        (2048, 1160)
    """
    weights = constants = 0
    for outputs, inputs in shapes:
        blocks = math.ceil(outputs * inputs / NF4_BLOCK)
        weights += math.ceil(outputs * inputs / 2)
        constants += blocks + 4 * math.ceil(blocks / NF4_OUTER_BLOCK) + NF4_TABLES
    return weights, constants


def lora_parameters(dimensions: ModelDimensions, rank: int, targets: str | Sequence[str] = "all-linear") -> list[int]:
    """Sizes of a LoRA adapter's matrices, for each adapted layer its A and its B.

    Raises:
        ValueError: A target that is no matrix of these models.

    Example:
        >>> from stepgrpo_lab.planning.dimensions import QWEN3
        >>> sum(lora_parameters(QWEN3["Qwen/Qwen3-1.7B"], 16))
        17432576
    """
    shapes = dimensions.linear_shapes
    names = list(shapes) if targets == "all-linear" else [targets] if isinstance(targets, str) else list(targets)
    if unknown := [name for name in names if name not in shapes]:
        raise ValueError(f"model.lora.targets names {unknown[0]!r}: known are all-linear, {', '.join(shapes)}")
    one_layer = [rank * side for name in names for side in reversed(shapes[name])]
    return one_layer * dimensions.layers


def full_parameters(dimensions: ModelDimensions) -> tuple[list[int], list[int]]:
    """Sizes of all tensors of a model: those of embeddings, and the others (the LM head too, unless it is tied)."""
    linear = [outputs * inputs for outputs, inputs in dimensions.linear_shapes.values()]
    others = (linear + dimensions.layer_vectors) * dimensions.layers + [dimensions.hidden]
    return [dimensions.embedding], others + ([] if dimensions.tied else [dimensions.untied_head])


@dataclass(frozen=True)
class Optimizer:
    """What an optimiser of transformers keeps.

    Attributes:
        eight_bit: Its two states are kept in 8 bits, except for embeddings and small tensors.
        paged: Its states may move to the host's memory, so none is counted on the GPU.
        foreach: A step makes a temporary copy as large as all trained weights.
    """

    eight_bit: bool = False
    paged: bool = False
    foreach: bool = False


OPTIMIZERS: dict[str, Optimizer] = {
    "adamw_torch": Optimizer(foreach=True),
    "adamw_torch_fused": Optimizer(),
    "adamw_bnb_8bit": Optimizer(eight_bit=True),
    "adamw_8bit": Optimizer(eight_bit=True),
    "paged_adamw_32bit": Optimizer(paged=True),
    "paged_adamw_8bit": Optimizer(eight_bit=True, paged=True),
}


def optimizer_bytes(optimizer: Optimizer, embeddings: Sequence[int], others: Sequence[int]) -> int:
    """The two moments of AdamW, wherever they lie.

    Example:
        >>> optimizer_bytes(OPTIMIZERS["adamw_torch_fused"], [], [1000])
        8000
        >>> optimizer_bytes(OPTIMIZERS["adamw_bnb_8bit"], [4096], [4096, 100])
        43936
    """
    if not optimizer.eight_bit:
        return 8 * (sum(embeddings) + sum(others))
    small = sum(size for size in others if size < ADAM8_LEAST)
    large = [size for size in others if size >= ADAM8_LEAST]
    constants = sum(2 * 4 * math.ceil(size / ADAM8_BLOCK) for size in large)
    return 8 * (sum(embeddings) + small) + 2 * sum(large) + constants + ADAM8_TABLES * bool(large)


def kv_bytes(dimensions: ModelDimensions, rows: int, tokens: int, width: int) -> int:
    """Keys and values of ``rows`` contexts of ``tokens`` each, in numbers of ``width`` bytes.

    Example:
        >>> from stepgrpo_lab.planning.dimensions import QWEN3
        >>> kv_bytes(QWEN3["Qwen/Qwen3-8B"], 1, 32, 2) // 32 // 1024   # KiB for each token
        144
    """
    return rows * math.ceil(tokens / WIDTH_STEP) * WIDTH_STEP * dimensions.kv_per_token * width


def layer_activations(dimensions: ModelDimensions, compute: int, residual: int) -> int:
    """What one layer keeps of one token for its backward pass, attention by a kernel that keeps no scores.

    Args:
        dimensions: The model.
        compute: Bytes of a number in matrix products.
        residual: Bytes of a number in the residual stream: 4 where autocast computes for fp32 weights.
    """
    norms = 2 * (4 + max(compute, residual))  # the input of each in fp32, and normalised
    inputs = 2 if residual == compute else 5  # autocast casts a norm's output once for each product that takes it
    heads = 4 + 3 * compute  # before the norm of each head in fp32, after it, turned, and what attention returns
    per_head = dimensions.heads + dimensions.kv_heads if dimensions.qk_norm else 0
    return (
        (norms + inputs * compute) * dimensions.hidden
        + heads * (dimensions.query_width + dimensions.kv_width)
        + 4 * compute * dimensions.intermediate  # gate, its activation, up, and their product
        + 4 * (2 + per_head + dimensions.heads)  # a root mean square for each norm, a logarithm for each query head
    )


def head_bytes(dimensions: ModelDimensions, tokens: int, compute: int, *, trains: bool) -> int:
    """Work space of TRL's fused LM head: a tile of logits, a slice of weights, and gradients in fp32.

    Args:
        dimensions: The model.
        tokens: Scored in one pass.
        compute: Bytes of a number in matrix products.
        trains: The head's weights get a gradient (never with LoRA).
    """
    columns = min(HEAD_VOCABULARY, dimensions.vocabulary)
    return (
        min(tokens, HEAD_TOKENS) * HEAD_VOCABULARY * compute
        + columns * dimensions.hidden * compute
        + tokens * dimensions.hidden * (4 + 2 * compute)
        + (4 * dimensions.embedding if trains else 0)
    )


def sampling_bytes(dimensions: ModelDimensions, rows: int, compute: int) -> int:
    """Logits of one decoding step and what drawing a token makes of them: fp32 three times, fp64 twice."""
    return rows * dimensions.vocabulary * (compute + 3 * 4 + 2 * 8)
