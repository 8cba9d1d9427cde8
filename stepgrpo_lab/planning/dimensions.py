"""The dimensions that decide a model's size: of Qwen3's dense models from a table, of others from their config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgrpo_lab.engines.models import OVERTHINKER
from stepgrpo_lab.engines.paths import data_path

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


def config_dimensions(config: dict[str, Any]) -> ModelDimensions:
    """The dimensions in a ``config.json``.

    Raises:
        ValueError: An architecture that is not counted here, or a key that is missing.
    """
    kind = config.get("model_type")
    if kind not in KNOWN_TYPES:
        raise ValueError(f"cannot plan for model_type {kind!r}: known are {', '.join(KNOWN_TYPES)}")
    if config.get("mlp_bias") or (config.get("attention_bias") and kind != "qwen2"):
        raise ValueError(f"cannot plan for this {kind} model: biases in its attention output or MLP are not counted")
    try:
        heads = config["num_attention_heads"]
        return ModelDimensions(
            vocabulary=config["vocab_size"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            tied=bool(config.get("tie_word_embeddings", False)),
            positions=config["max_position_embeddings"],
            qk_norm=kind == "qwen3",
            qkv_bias=kind == "qwen2",
        )
    except KeyError as error:
        raise ValueError(f"the model's config.json has no {error}: it is not a whole configuration") from error


def model_dimensions(path_or_id: str) -> ModelDimensions:
    """The dimensions of a model: "overthinker", a Qwen3 of the table, a local folder, or any Hugging Face id.

    Only an id that is not in the table asks the hub, for the configuration alone.

    Raises:
        ValueError: No such model, or an architecture that is not counted here.

    Example:
        >>> model_dimensions("Qwen/Qwen3-8B").parameters
        8190735360
    """
    if path_or_id in QWEN3:
        return QWEN3[path_or_id]
    folder = data_path(OVERTHINKER) if path_or_id == OVERTHINKER else Path(path_or_id)
    if (folder / "config.json").is_file():
        return config_dimensions(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    from transformers import AutoConfig

    try:
        return config_dimensions(AutoConfig.from_pretrained(path_or_id, trust_remote_code=False).to_dict())
    except OSError as error:
        raise ValueError(
            f"model {path_or_id!r} has no configuration that can be read: give a folder with config.json, a Hugging "
            f"Face id that can be reached, or one of {', '.join(QWEN3)}"
        ) from error
