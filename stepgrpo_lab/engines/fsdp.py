"""FSDP2 in a hand-written decoding loop: gather the weights once, before ranks go their own ways."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def gathered_weights(model: nn.Module) -> Iterator[None]:
    """Hold the whole weights of a model that was sharded with ``fully_shard``; does nothing with any other.

    Otherwise every forward pass all-gathers them, in which all ranks must take part: the rank with the shortest
    completions would leave the others waiting for ever. Each GPU needs room for all the weights, in the type that the
    sharding's mixed precision computes in.

    Every rank must enter and leave. Contexts may be nested; weights must not be updated inside.

    Example:
        >>> with gathered_weights(nn.Linear(2, 2)):
        ...     pass
    """
    groups, units = _parameter_groups(model), _units(model)
    for root in units[:1]:  # decide now what torch would otherwise decide in the first forward pass
        root._get_fsdp_state()._lazy_init()
    kept = [group.post_forward_mesh_info for group in groups]
    held = [bool(group.is_unsharded) for group in groups]
    try:
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        yield
    finally:
        for group, after_forward in zip(groups, kept, strict=True):
            group.post_forward_mesh_info = after_forward
        for group, was in zip(groups, held, strict=True):
            if not was:
                group.reshard()


def _units(model: nn.Module) -> list[Any]:
    """The modules that ``fully_shard`` was called on."""
    if "torch.distributed.fsdp" not in sys.modules:  # then nothing is sharded, and importing it takes long
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def _parameter_groups(model: nn.Module) -> list[Any]:
    """What is gathered together; several modules may share one. Torch has no public way to read its settings."""
    found: dict[int, Any] = {}
    for unit in _units(model):
        state = unit._get_fsdp_state()
        groups = state._fsdp_param_groups if hasattr(state, "_fsdp_param_groups") else [state._fsdp_param_group]
        found.update({id(group): group for group in groups if group is not None})
    return list(found.values())
