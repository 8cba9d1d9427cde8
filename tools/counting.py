"""Bytes that really lie in memory, against the formulas of :mod:`stepgrpo_lab.planning`."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stepgrpo_lab.planning.sizes import ModelDimensions


def small_dimensions(**changes: Any) -> ModelDimensions:
    """A Qwen3 of some 100,000 weights."""
    values = {
        "vocabulary": 640,
        "hidden": 64,
        "intermediate": 192,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 32,
        "tied": True,
        "positions": 512,
    }
    return ModelDimensions(**{**values, **changes})


def qwen3_config(dimensions: ModelDimensions, **others: Any) -> Any:
    """The configuration with these dimensions and other settings."""
    from transformers import Qwen3Config

    return Qwen3Config(**{**dimensions.config, **others})


def random_qwen3(dimensions: ModelDimensions, dtype: torch.dtype = torch.float32) -> Any:
    """A model with these dimensions and random weights."""
    from transformers import Qwen3ForCausalLM

    torch.manual_seed(0)
    return Qwen3ForCausalLM(qwen3_config(dimensions)).to(dtype)


def storage_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages behind tensors, each counted once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


class SavedBytes:
    """Counts what autograd keeps for the backward pass, weights and their casts aside."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self._held: list[torch.Tensor] = []
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        self._held.append(tensor)
        return tensor

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    @property
    def total(self) -> int:
        return storage_bytes(t for t in self._held if t.untyped_storage().data_ptr() not in self._weights)


class PeakBytes(TorchDispatchMode):
    """The most that was allocated at once by what runs inside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        for leaf in tree_leaves(result):
            if _is_tensor(leaf) and leaf.untyped_storage()._cdata not in given | self._known:
                self._watch(leaf.untyped_storage())
        return result

    def _watch(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)

        def freed() -> None:
            self.now -= size
            self._known.discard(key)

        weakref.finalize(storage, freed)


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor)
