"""The attention masks of a decoding step in which every row feeds tokens at places of its own.

A model with windows or chunks builds a mask for each type of its layers. While a step runs, transformers' mask builder
is replaced by one that evaluates the model's own rule at every row's place: so the whole cache stays, whatever falls
out of a window is masked, and a rewound row finds it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

Rule = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Whether (row, head, query place, key place) may attend; tensors that broadcast to ``[rows, 1, tokens, width]``."""


def additive(mask: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A boolean mask as eager attention wants it: 0 where a key counts, the smallest number where it does not."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


@contextmanager
def masks_at(places: torch.Tensor, implementation: str) -> Iterator[None]:
    """While inside, the model's masks are those of queries at ``places``.

    Args:
        places: Where each row's tokens go, ``[rows, tokens]``.
        implementation: The model's attention implementation, "sdpa" or "eager".
    """

    def build(batch_size: int, kv_length: int, mask_function: Rule, **options: Any) -> torch.Tensor:
        rows = torch.arange(batch_size, device=places.device)[:, None, None, None]
        keys = torch.arange(kv_length, device=places.device)[None, None, None]
        mask = mask_function(rows, torch.zeros_like(keys[..., :1]), places[:, None, :, None], keys)
        mask = mask.expand(batch_size, 1, places.shape[1], kv_length)
        return additive(mask, options.get("dtype", torch.float32)) if implementation == "eager" else mask

    before = ALL_MASK_ATTENTION_FUNCTIONS[implementation]
    ALL_MASK_ATTENTION_FUNCTIONS[implementation] = build
    try:
        yield
    finally:
        ALL_MASK_ATTENTION_FUNCTIONS[implementation] = before
