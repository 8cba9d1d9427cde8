"""How a rollout's completions are dealt to the passes of its updates: as little padding as the loss allows.

TRL shuffles the completions and pads every pass to the longest of the rollout. Sorted by length, and each pass cut to
its own longest row, the same update takes little more than half the time where lengths vary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stepgrpo_lab.engines.distributed import all_gather

Pass = dict[str, Any]
"""Tensors with a row for each completion, and scalars; prompts are padded on the left, completions on the right."""


def dealt(passes: Sequence[Pass], per_update: int, *, sort: bool, leave_out: bool, mean_over_rows: bool) -> list[Pass]:
    """The same completions in as many passes, with less padding.

    Rows move only between the passes of one optimiser step, so that each step sees what it saw before.

    Args:
        passes: What TRL made, in order; one after the other they fill the optimiser steps.
        per_update: Passes of one optimiser step.
        sort: Deal the rows by length. Right where it makes no difference which rows share a pass.
        leave_out: Leave out rows of advantage 0. Right where the loss is nothing but advantage times policy term.
        mean_over_rows: The loss is a mean over a pass's rows: rows that are left out count in it all the same.

    Example:
        >>> rows = {"prompt_mask": torch.ones(4, 1), "completion_mask": torch.tensor([[1, 1], [1, 0], [1, 1], [1, 0]])}
        >>> two = [{name: value[half] for name, value in rows.items()} for half in (slice(0, 2), slice(2, 4))]
        >>> [one["completion_mask"].tolist() for one in dealt(two, 2, sort=True, leave_out=False, mean_over_rows=False)]
        [[[1], [1]], [[1, 1], [1, 1]]]
    """
    if not sort:
        return [_cut(one) for one in passes]
    window = math.gcd(len(passes), per_update)
    result: list[Pass] = []
    for start in range(0, len(passes), window):
        together = passes[start : start + window]
        size = len(together[0]["completion_mask"])
        rows = {name: _joined([one[name] for one in together]) for name in together[0]}
        order = rows["completion_mask"].sum(1).argsort(stable=True)
        if leave_out:
            order = _with_advantage(order, rows["advantages"], window)
        for places in order.tensor_split(window):
            one = _cut({name: _rows(value, places) for name, value in rows.items()})
            if mean_over_rows:
                one["advantages"] = one["advantages"] * (len(places) / size)
            result.append(one)
    return result


def _with_advantage(order: Tensor, advantages: Tensor, passes: int) -> Tensor:
    """The rows that move weights, and the shortest others until all processes have as many, one a pass at least.

    Processes make the same passes, and TRL gathers a figure of each row of a pass.
    """
    moves = advantages[order] != 0
    wanted = max(passes, *all_gather(int(moves.sum())))
    moves[(~moves).nonzero()[: wanted - int(moves.sum()), 0]] = True
    return order[moves]


def _joined(values: Sequence[Any]) -> Any:
    return torch.cat(list(values)) if isinstance(values[0], Tensor) and values[0].ndim else values[0]


def _rows(value: Any, places: Tensor) -> Any:
    return value[places] if isinstance(value, Tensor) and value.ndim else value


def _cut(one: Pass) -> Pass:
    """Without the columns that are padding in every row."""
    prompt = int(one["prompt_mask"].sum(1).max())
    completion = max(1, int(one["completion_mask"].sum(1).max()))  # of a pass whose rows are all masked, one
    width = one["completion_mask"].shape[1]

    def cut(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.ndim != 2:
            return value
        if name.startswith("prompt"):
            return value[:, value.shape[1] - prompt :]
        return value[:, :completion] if value.shape[1] == width else value  # one number for a whole row stays

    return {name: cut(name, value) for name, value in one.items()}
