"""One forward pass of a model for the lockstep cache: prompts into free slots, or the next tokens of every row."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from stepgrpo_lab.engines._masks import additive, masks_at
from stepgrpo_lab.engines.cache import LockstepCache, cache_argument, check_model


class Feeder:
    """Feeds a model whose cache is a :class:`LockstepCache`; knows tokens and places, and nothing of trajectories.

    Args:
        model: A causal language model of transformers; a ``PeftModel`` is fine.

    Attributes:
        passes: Forward passes so far.

    Raises:
        ValueError: The model's attention does not fit the cache, or it takes no positions.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.attention = check_model(model)
        self.base = base_of(model)
        arguments = inspect.signature(self.base.forward).parameters
        if "position_ids" not in arguments:
            raise ValueError(
                f"{type(self.base).__name__} takes no position_ids: use a model with rotary or learned positions."
            )
        self.passes = 0
        self.cache_name = cache_argument(self.base)
        self.last_logits_only = {"logits_to_keep": 1} if "logits_to_keep" in arguments else {}

    @property
    def precision(self) -> torch.dtype:
        """The coarsest type that the model computes in, here and now."""
        device = self.base.device.type
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        types = {parameter.dtype for parameter in self.base.parameters() if parameter.is_floating_point()}
        return max(types, key=lambda dtype: torch.finfo(dtype).eps)

    def cache(self, slots: int, reach: int) -> LockstepCache:
        """An empty cache for so many rows of at most ``reach`` places."""
        return LockstepCache(self.attention.layers, slots, reach, self.attention.recurrent)

    def prefill(self, cache: LockstepCache, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        """Feed each slot its prompt, equal ones once.

        One pass takes them all; where layers keep a state, which padding would change, one pass for each length.
        """
        if not cache.states:
            self._prefill(cache, slots, prompts)
            return
        for slot, prompt in zip(slots, prompts, strict=True):
            cache.fed[slot], cache.kept_at[slot] = list(prompt), -1
        lengths = sorted({len(prompt) for prompt in prompts})
        for length in lengths:
            same = [place for place, prompt in enumerate(prompts) if len(prompt) == length]
            self._prefill(cache, [slots[place] for place in same], [prompts[place] for place in same])

    def _prefill(self, cache: LockstepCache, slots: Sequence[int], prompts: Sequence[Sequence[int]]) -> None:
        entries = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
        width = max(map(len, entries))
        device = self.model.device
        if width == 0:
            for layer in cache.states:
                layer.clear(torch.tensor(slots, device=device))
            return
        cache.begin_prefill(
            torch.tensor(slots, device=device),
            torch.tensor([entries[tuple(prompt)] for prompt in prompts], device=device),
            width,
        )
        # Padding on the right needs no mask: no token looks ahead, and later steps overwrite or mask what is beyond.
        padded = [prompt + (0,) * (width - len(prompt)) for prompt in entries]
        self.model(
            input_ids=torch.tensor(padded, device=device),
            position_ids=torch.arange(width, device=device)[None],
            **{self.cache_name: cache},
            use_cache=True,
            **self.last_logits_only,
        )
        self.passes += 1

    def step(
        self, cache: LockstepCache, tokens: Sequence[Sequence[int]], places: Sequence[int], keep: Sequence[int] = ()
    ) -> torch.Tensor:
        """Feed each of the rows 0..n-1 its next tokens, the last of them at its place.

        Where layers keep a state every row feeds one token.

        Rows that are likely to come back to this place are named in ``keep``: where layers keep a state, a copy of it
        saves computing it anew.

        Returns:
            The logits [rows, vocabulary] after each row's last token, in float32.
        """
        if cache.states:
            self._bring_back(cache, [row[-1] for row in tokens], places, keep)
        width = max(map(len, tokens))
        padded = [_padded(row, place, width) for row, place in zip(tokens, places, strict=True)]
        fed, at = torch.tensor(padded, device=self.model.device).unbind(1)
        mask = cache.begin_step(at, 1 + max(places))
        windowed, implementation = self.attention.windowed, self.attention.implementation
        with masks_at(at, implementation) if windowed else nullcontext():
            output = self.model(
                input_ids=fed,
                attention_mask=None if windowed else additive(mask) if implementation == "eager" else mask,
                position_ids=at,
                **{self.cache_name: cache},
                use_cache=True,
                **self.last_logits_only,
            )
        self.passes += 1
        return output.logits[:, -1].float()

    def _bring_back(
        self, cache: LockstepCache, tokens: Sequence[int], places: Sequence[int], keep: Sequence[int]
    ) -> None:
        """Give every row the states from before its place, and copy those that may be wanted again."""
        back = [row for row, place in enumerate(places) if place < len(cache.fed[row])]
        known = [row for row in back if cache.kept_at[row] == places[row]]
        anew = [row for row in back if row not in known]
        for row in anew:
            self._prefill(cache, [row], [cache.fed[row][: places[row]]])
        kept = [*anew, *(row for row in keep if row not in back)]
        for layer in cache.states:
            if known:
                layer.take_back(known)
            if kept:
                layer.keep(kept)
        for row in kept:
            cache.kept_at[row] = places[row]
        for row, (token, place) in enumerate(zip(tokens, places, strict=True)):
            cache.fed[row][place:] = [token]


def _padded(tokens: Sequence[int], place: int, width: int) -> tuple[list[int], list[int]]:
    """So many tokens and their places, the last ones last; the first is repeated, which changes nothing."""
    first = width - len(tokens)
    return [tokens[0]] * first + list(tokens), [place - (width - 1 - max(index, first)) for index in range(width)]


def base_of(model: Any) -> Any:
    """The model below its adapters."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Switch dropout (and gradient checkpointing) off, and give every module its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
