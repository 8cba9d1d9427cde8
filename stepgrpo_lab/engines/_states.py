"""The states of linear-attention and state-space layers, one for each row of the lockstep cache.

Such a state sums up all tokens so far: it cannot be rewound, but it can be kept. Each row has room for one copy, made
where its held-back tokens begin; backtracking takes it back. Without a copy the engine computes the state anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import LinearAttentionCacheLayerMixin

if TYPE_CHECKING:
    from stepgrpo_lab.engines.cache import LockstepCache


class RowStates(LinearAttentionCacheLayerMixin):
    """One layer's convolution and recurrent states, ``[slots, ...]`` each; the cache knows which rows a pass feeds.

    Args:
        cache: The cache that the layer belongs to.
        number: How many states of either kind the layer has.
    """

    def __init__(self, cache: LockstepCache, number: int) -> None:
        super().__init__(number_of_states=number)
        self.cache = cache
        self.held: dict[tuple[str, int], torch.Tensor] = {}
        self.kept: dict[tuple[str, int], torch.Tensor] = {}

    def begin(self, count: int | None) -> None:
        """The next pass feeds one token to each of the first ``count`` rows, or (None) prompts from their beginning."""
        for index in range(self.number_of_states):
            self.has_previous_state[index] = count is not None and any(key[1] == index for key in self.held)
            for kind, shown in (("conv", self.conv_states), ("recurrent", self.recurrent_states)):
                held = self.held.get((kind, index))
                shown[index] = None if held is None or count is None else held[:count]

    def lazy_initialization(self, *args: Any, **options: Any) -> None:
        """Room is made by the first update."""

    def update_conv_state(
        self, conv_states: torch.Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **_: Any
    ) -> torch.Tensor:
        """Take the newest columns [rows, channels, tokens]; return them behind those of before."""
        size = conv_kernel_size or conv_states.shape[-1]
        before = self.conv_states[state_idx]
        if before is None:
            full = conv_states
            newest = torch.nn.functional.pad(full, (max(0, size - full.shape[-1]), 0))[..., -size:]
        else:
            full = torch.cat([before, conv_states], dim=-1)
            newest = full[..., -before.shape[-1] :]
        self._write("conv", state_idx, newest)
        return full

    def update_recurrent_state(self, recurrent_states: torch.Tensor, state_idx: int = 0, **_: Any) -> torch.Tensor:
        """Take the states after this pass, [rows, ...]."""
        self._write("recurrent", state_idx, recurrent_states)
        return recurrent_states

    def _write(self, kind: str, index: int, states: torch.Tensor) -> None:
        held = self.held.get((kind, index))
        if held is None:
            held = self.held[kind, index] = states.new_zeros(self.cache.slots, *states.shape[1:])
        if self.cache.prompts is not None:
            held[self.cache.rows] = states[self.cache.prompts]
        else:
            held[: len(states)] = states

    def clear(self, rows: torch.Tensor) -> None:
        """Rows without any token so far."""
        for held in self.held.values():
            held[rows] = 0

    def keep(self, rows: Sequence[int]) -> None:
        """Copy the rows' states."""
        for key, held in self.held.items():
            self.kept.setdefault(key, torch.zeros_like(held))[list(rows)] = held[list(rows)]

    def take_back(self, rows: Sequence[int]) -> None:
        """Put the copies of the rows' states back."""
        for key, kept in self.kept.items():
            self.held[key][list(rows)] = kept[list(rows)]

    def move(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """Copy rows onto others."""
        for states in (*self.held.values(), *self.kept.values()):
            states[target] = states[source]
