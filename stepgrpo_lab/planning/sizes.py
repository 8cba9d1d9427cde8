"""The sizes that decide memory: a model's dimensions, and formulas from them to bytes and parameters.

Dimensions of Qwen3's dense models stand in a table; those of other models are read from their ``config.json``. Each
formula is held in the tests against bytes counted on shrunken models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from stepgrpo_lab.engines import WIDTH_STEP
from stepgrpo_lab.engines.files import SMALL, read_json
from stepgrpo_lab.engines.hub import ADAPTER_CONFIG, first_line, loading_options, model_location
from stepgrpo_lab.engines.models import adapter_base
from stepgrpo_lab.method.records import from_json

KNOWN_TYPES = ("qwen3", "qwen2", "llama")
"""Architectures whose parameters the formulas below count exactly; R1's distilled models are the latter two."""


@dataclass(frozen=True)
class ModelDimensions:
    """A decoder-only transformer of the Llama family.

    Attributes:
        vocabulary: Rows of the embedding, padding ids included.
        hidden, intermediate: Width of the residual stream and of the gated MLP.
        layers, heads, kv_heads, head_dim: As in the model's configuration.
        tied: The LM head is the embedding.
        positions: Longest sequence.
        qk_norm: Queries and keys are normalised for each head (Qwen3).
        qkv_bias: Queries, keys and values have a bias (Qwen2).
    """

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    positions: int
    qk_norm: bool = True
    qkv_bias: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """The dimensions as a ``config.json`` names them; :func:`config_dimensions` reads them back."""
        return {
            "model_type": "qwen2" if self.qkv_bias else "qwen3" if self.qk_norm else "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": self.positions,
        }

    @property
    def query_width(self) -> int:
        """Queries of one token in one layer, all heads."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Keys (or values) of one token in one layer, all heads."""
        return self.kv_heads * self.head_dim

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Name -> (outputs, inputs) of one layer's matrices: what is quantised, and what "all-linear" adapts."""
        return {
            "q_proj": (self.query_width, self.hidden),
            "k_proj": (self.kv_width, self.hidden),
            "v_proj": (self.kv_width, self.hidden),
            "o_proj": (self.hidden, self.query_width),
            "gate_proj": (self.intermediate, self.hidden),
            "up_proj": (self.intermediate, self.hidden),
            "down_proj": (self.hidden, self.intermediate),
        }

    @property
    def layer_linear(self) -> int:
        """Weights of one layer's matrices."""
        return sum(outputs * inputs for outputs, inputs in self.linear_shapes.values())

    @property
    def layer_vectors(self) -> list[int]:
        """Lengths of one layer's norms and biases."""
        norms = [self.hidden, self.hidden] + [self.head_dim] * (2 if self.qk_norm else 0)
        return norms + ([self.query_width, self.kv_width, self.kv_width] if self.qkv_bias else [])

    @property
    def layer(self) -> int:
        """Parameters of one layer."""
        return self.layer_linear + sum(self.layer_vectors)

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, which is also the size of the LM head."""
        return self.vocabulary * self.hidden

    @property
    def untied_head(self) -> int:
        """Parameters of the LM head beside the embedding; 0 if they are one."""
        return 0 if self.tied else self.embedding

    @property
    def parameters(self) -> int:
        """All parameters, a tied head counted once."""
        return self.layers * self.layer + self.embedding + self.untied_head + self.hidden

    @property
    def kv_per_token(self) -> int:
        """Numbers that the cache keeps for one token: keys and values of all layers."""
        return 2 * self.layers * self.kv_width


def _qwen3(hidden: int, intermediate: int, layers: int, heads: int, tied: bool) -> ModelDimensions:
    return ModelDimensions(151936, hidden, intermediate, layers, heads, 8, 128, tied, 40960)


QWEN3: dict[str, ModelDimensions] = {
    "Qwen/Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, True),
    "Qwen/Qwen3-1.7B": _qwen3(2048, 6144, 28, 16, True),
    "Qwen/Qwen3-4B": _qwen3(2560, 9728, 36, 32, True),
    "Qwen/Qwen3-8B": _qwen3(4096, 12288, 36, 32, False),
}
"""The dense models of the recipes, from the ``config.json`` of each at https://huggingface.co/Qwen."""


class _Sizes(TypedDict):
    """What a ``config.json`` says of sizes."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: NotRequired[int | None]
    head_dim: NotRequired[int | None]
    max_position_embeddings: int


MOST_SIZE = 10**8


def config_dimensions(config: dict[str, Any]) -> ModelDimensions:
    """The dimensions in a ``config.json``.

    Raises:
        ValueError: An architecture that is not counted here, or a key that is missing or no size.
    """
    kind = from_json(dict[str, Any], config).get("model_type")
    if kind not in KNOWN_TYPES:
        raise ValueError(f"cannot plan for model_type {kind!r}: known are {', '.join(KNOWN_TYPES)}")
    if config.get("mlp_bias") or (config.get("attention_bias") and kind != "qwen2"):
        raise ValueError(f"cannot plan for this {kind} model: biases in its attention output or MLP are not counted")
    sizes = from_json(_Sizes, config)
    for name in _Sizes.__annotations__:
        if not 0 < (config.get(name) or 1) <= MOST_SIZE:
            raise ValueError(f"field {name!r} is {config[name]}: a size lies between 1 and {MOST_SIZE}")
    heads = sizes["num_attention_heads"]
    return ModelDimensions(
        vocabulary=sizes["vocab_size"],
        hidden=sizes["hidden_size"],
        intermediate=sizes["intermediate_size"],
        layers=sizes["num_hidden_layers"],
        heads=heads,
        kv_heads=sizes.get("num_key_value_heads") or heads,
        head_dim=sizes.get("head_dim") or sizes["hidden_size"] // heads,
        tied=bool(config.get("tie_word_embeddings", False)),
        positions=sizes["max_position_embeddings"],
        qk_norm=kind == "qwen3",
        qkv_bias=kind == "qwen2",
    )


def model_dimensions(path_or_id: str) -> ModelDimensions:
    """The dimensions of a model: a Qwen3 of the table, or any path of :mod:`stepgrpo_lab.engines.models`.

    Only an id that is not in the table asks the hub, for the configuration alone.

    Raises:
        ValueError: No such model, or an architecture that is not counted here.

    Example:
        >>> model_dimensions("Qwen/Qwen3-8B").parameters
        8190735360
    """
    if path_or_id in QWEN3:
        return QWEN3[path_or_id]
    folder = Path(model_location(path_or_id))
    if not (folder / "config.json").is_file() and (folder / ADAPTER_CONFIG).is_file():
        return model_dimensions(adapter_base(folder))
    if (folder / "config.json").is_file():
        return read_json(folder / "config.json", config_dimensions, "it is not a whole configuration", SMALL)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(path_or_id, trust_remote_code=False, **loading_options(path_or_id))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model {path_or_id!r} has no configuration that can be read ({first_line(error)}): give a folder with "
            f"config.json, a Hugging Face id that can be reached, or one of {', '.join(QWEN3)}"
        ) from error
    return config_dimensions(config.to_dict())


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
        >>> from stepgrpo_lab.planning.sizes import QWEN3
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
        >>> from stepgrpo_lab.planning.sizes import QWEN3
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
