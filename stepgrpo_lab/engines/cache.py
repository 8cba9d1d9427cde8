"""A key/value cache in which every row has its own length and can be rewound for free.

Each layer holds two preallocated tensors ``[slots, heads, capacity, head_dim]``. A decoding step writes each row's new
keys and values at that row's own places and returns views, so nothing is copied but the new entries. Rewinding a row is
writing at a smaller place: what lies beyond a row's current place is masked out until it is overwritten.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import cache_utils
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionLayer,
)

from stepgrpo_lab.engines import WIDTH_STEP
from stepgrpo_lab.engines._states import RowStates
from stepgrpo_lab.engines.models import refuse_mps

DUMMY = (cache_utils.DummyLayer,) if hasattr(cache_utils, "DummyLayer") else ()  # not in transformers 5.19 and before

REWINDABLE = (DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer, *DUMMY)
"""Layers that can go back to an earlier token: by their keys and values (a window lives in the mask alone), or by a
copy of their state."""


class LockstepCache(Cache):
    """The cache of all layers; before each forward pass it is set to where that pass's tokens go.

    Args:
        layers: Number of layers.
        slots: Most rows held at once.
        reach: Most places that any row will ever use; the capacity grows towards it geometrically.
        recurrent: Which of the layers keep a state in place of keys and values, and how many: layer -> number.
    """

    def __init__(self, layers: int, slots: int, reach: int, recurrent: Mapping[int, int] | None = None) -> None:
        kinds = recurrent or {}
        super().__init__(
            layers=[
                RowStates(self, kinds[place]) if place in kinds else _LockstepLayer(self) for place in range(layers)
            ]
        )
        self.states = [layer for layer in self.layers if isinstance(layer, RowStates)]
        self.fed: list[list[int]] = [[] for _ in range(slots if self.states else 0)]  # each row's tokens by place
        self.kept_at = [-1] * len(self.fed)  # at which place each row's states were copied
        self.slots = slots
        self.reach = -(-reach // WIDTH_STEP) * WIDTH_STEP
        self.rows = torch.empty(0, dtype=torch.long)
        self.places: torch.Tensor | None = None
        self.prompts: torch.Tensor | None = None
        self.width = 0

    def begin_prefill(self, rows: torch.Tensor, prompts: torch.Tensor, width: int) -> None:
        """The next pass feeds prompts, at places 0..width-1: row ``rows[i]`` gets entry ``prompts[i]`` of its batch."""
        self.rows, self.prompts, self.places, self.width = rows, prompts, None, width
        for layer in self.states:
            layer.begin(None)

    def begin_step(self, places: torch.Tensor, width: int) -> torch.Tensor:
        """The next pass feeds tokens to each of the rows 0..n-1, at ``places`` [n] or [n, tokens], all below ``width``.

        Returns:
            Boolean attention mask [n, 1, tokens, width rounded up], true up to and including each token's place.
        """
        self.places, self.prompts = places.reshape(len(places), -1), None
        self.rows = torch.arange(len(places), device=places.device)[:, None]
        self.width = -(-width // WIDTH_STEP) * WIDTH_STEP
        for layer in self.states:
            layer.begin(len(places))
        return (torch.arange(self.width, device=places.device) <= self.places[:, :, None])[:, None]

    def move(self, moves: Sequence[tuple[int, int]]) -> None:
        """Copy rows, given as (from, to) pairs in which no row is both."""
        if not moves:
            return
        source, target = torch.tensor(moves, device=self.rows.device).unbind(1)
        for layer in self.states:
            layer.move(source, target)
        for old, new in moves if self.states else ():
            self.fed[new], self.kept_at[new] = self.fed[old], self.kept_at[old]
        for layer in self.layers:
            if isinstance(layer, _LockstepLayer) and layer.is_initialized:
                layer.keys[target, :, : self.width] = layer.keys[source, :, : self.width]
                layer.values[target, :, : self.width] = layer.values[source, :, : self.width]


def cache_argument(model: Any) -> str:
    """What a model's forward pass calls its cache: "cache", or "past_key_values" before transformers 5.24."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


class _LockstepLayer(CacheLayerMixin):
    """One layer's keys and values; the cache knows where to write."""

    def __init__(self, cache: LockstepCache) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate room for every slot, zeroed: a masked place must still hold finite numbers."""
        self.keys = self._room(key_states)
        self.values = self._room(value_states)
        self.is_initialized = True

    def _room(self, states: torch.Tensor) -> torch.Tensor:
        _, heads, _, head_dim = states.shape
        capacity = min(max(4 * WIDTH_STEP, self.cache.width), self.cache.reach)
        return states.new_zeros(self.cache.slots, heads, capacity, head_dim)

    def _grow(self) -> None:
        capacity = self.keys.shape[2]
        if self.cache.width <= capacity:
            return
        capacity = min(max(2 * capacity, self.cache.width), self.cache.reach)
        self.keys, self.values = _widened(self.keys, capacity), _widened(self.values, capacity)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store this pass's keys and values [rows, heads, tokens, head_dim]; return what its queries may attend to."""
        dtype = _storage_dtype(key_states)
        key_states, value_states = key_states.to(dtype), value_states.to(dtype)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._grow()
        cache = self.cache
        if cache.places is None:
            self.keys[cache.rows, :, : cache.width] = key_states[cache.prompts]
            self.values[cache.rows, :, : cache.width] = value_states[cache.prompts]
            return key_states, value_states
        self.keys[cache.rows, :, cache.places] = key_states.transpose(1, 2)
        self.values[cache.rows, :, cache.places] = value_states.transpose(1, 2)
        count = len(cache.rows)
        return self.keys[:count, :, : cache.width], self.values[:count, :, : cache.width]

    def get_seq_length(self) -> int:
        """0: a prefill starts from nothing, and a decoding step brings its own mask and positions."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a pass's queries may attend to."""
        return (query_length if self.cache.places is None else self.cache.width), 0

    def get_max_length(self) -> int:
        """Most places that this layer will ever hold."""
        return self.cache.reach


def _widened(states: torch.Tensor, capacity: int) -> torch.Tensor:
    slots, heads, width, head_dim = states.shape
    wider = states.new_zeros(slots, heads, capacity, head_dim)
    wider[:, :, :width] = states
    return wider


def _storage_dtype(key_states: torch.Tensor) -> torch.dtype:
    """Under autocast the attention runs in autocast's type: fp32 keys (of an fp32 norm) would take twice the room."""
    device = key_states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else key_states.dtype


@dataclass(frozen=True)
class Attention:
    """What the cache and the masks of a model are made for.

    Attributes:
        layers: Layers that the cache must hold.
        recurrent: Layers that keep a state in place of keys and values, and how many states each has.
        windowed: Some layers see a window or a chunk only, so each type of layer has a mask of its own.
        implementation: "sdpa" (boolean masks) or "eager" (additive ones).
    """

    layers: int
    recurrent: dict[int, int]
    windowed: bool
    implementation: str


def check_model(model: Any) -> Attention:
    """Check that a model's attention fits this cache.

    Raises:
        ValueError: Apple's GPU, linear or other special attention, an encoder, no positions, prompt learning, or an
            attention implementation that takes no mask per row; the message names the remedy.
    """
    refuse_mps(str(model.device))
    config = model.config.get_text_config(decoder=True)
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise ValueError(f"{name} is an encoder-decoder: use a decoder-only (causal) language model.")
    implementation = config._attn_implementation
    if implementation not in ("sdpa", "eager"):
        raise ValueError(
            f"Attention implementation {implementation!r} takes no mask per row: "
            "load the model with attn_implementation='sdpa' (or 'eager')."
        )
    layers = _cached_layers(name, config)
    if any(adapter.is_prompt_learning for adapter in getattr(model, "peft_config", {}).values()):
        raise ValueError("The model carries a prompt-learning adapter, which shifts all positions: use LoRA.")
    recurrent = {
        place: layer.number_of_states for place, layer in enumerate(layers) if type(layer) is LinearAttentionLayer
    }
    windowed = any(type(layer) is DynamicSlidingWindowLayer for layer in layers)
    return Attention(len(layers), recurrent, windowed, implementation)


def _cached_layers(name: str, config: Any) -> list[Any]:
    """How transformers caches each layer of a model.

    Raises:
        ValueError: A layer keeps more than the keys and values of its tokens.
    """
    try:
        layers = DynamicCache(config=config).layers
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{name} has layers that transformers' cache does not know ({error}).") from error
    others = sorted({type(layer).__name__ for layer in layers if type(layer) not in REWINDABLE})
    if not any(isinstance(layer, CacheLayerMixin) for layer in layers):
        others = others or ["layers without attention"]
    if others:
        raise ValueError(
            f"{name} keeps its context in {', '.join(others)}, which cannot be rewound to an earlier token: use a "
            "model whose layers have softmax attention (full, sliding or chunked), alone or beside linear attention."
        )
    return list(layers)
