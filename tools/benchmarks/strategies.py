"""Other ways to sample, as fixtures: what the engine is compared with.

The two early-exit strategies are driven by the package's own trajectory machine and random numbers, so they make the
same completions as the engine, and what differs is only when and how tokens are fed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, DynamicCache, GenerationConfig

from stepgrpo_lab.engines.lockstep import _choose, _Row
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import Phase, TrajectoryMachine
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.token_text import TokenText


@torch.no_grad()
def generate_in_batches(
    model: Any, prompts: Sequence[Sequence[int]], *, limit: int, eos: int, pad: int, batch: int = 64
) -> list[list[int]]:
    """TRL's default: ``model.generate`` on left-padded batches, with the settings that its GRPO trainer gives it."""
    config = GenerationConfig(
        max_new_tokens=limit,
        do_sample=True,
        pad_token_id=pad,
        eos_token_id=eos,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        repetition_penalty=1.0,
        disable_compile=True,
    )
    completions = []
    for start in range(0, len(prompts), batch):
        ids, mask = left_padded(prompts[start : start + batch], pad)
        made = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)[:, ids.shape[1] :]
        completions += [row[: row.index(eos) + 1] if eos in row else row for row in made.tolist()]
    return completions


def left_padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask [rows, longest row]."""
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


@torch.no_grad()
def continuous_batching(
    model: Any, prompts: Sequence[Sequence[int]], *, limit: int, eos: int, pad: int
) -> list[list[int]]:
    """``model.generate_batch``: transformers' own continuous batching. It changes the model's attention for good.

    Its cache has room for 32,768 tokens; by default it would take most of the machine's memory.
    """
    config = GenerationConfig(
        max_new_tokens=limit, do_sample=True, pad_token_id=pad, eos_token_id=eos, temperature=1.0, top_p=1.0, top_k=0
    )
    outputs = model.generate_batch(
        [list(prompt) for prompt in prompts],
        generation_config=config,
        continuous_batching_config=ContinuousBatchingConfig(page_size=32, num_blocks=1024, max_batch_tokens=512),
    )
    return [list(output.generated_tokens) for output in outputs.values()]


def start_rows(
    text: TokenText,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    keys: Sequence[SampleKey],
    settings: RolloutSettings | None,
) -> list[_Row]:
    """A machine for each prompt."""
    return [
        _Row(index, list(prompt), TrajectoryMachine(text, limit, settings), key, prompt[-1:], len(prompt) - 1)
        for index, (prompt, limit, key) in enumerate(zip(prompts, limits, keys, strict=True))
    ]


def pending(row: _Row) -> tuple[int, list[int]]:
    """All that the machine wants fed before its next choice: the first place (prompt included) and the tokens."""
    token, first = row.machine.feed()
    tokens = [token]
    while row.machine.choice is None:
        tokens.append(row.machine.feed()[0])
    return len(row.prompt) + first, tokens


@torch.no_grad()
def early_exit_one_by_one(
    model: Any,
    text: TokenText,
    prompts: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    keys: Sequence[SampleKey],
    settings: RolloutSettings | None,
    sampling: Sampling,
) -> list[Trajectory]:
    """One sample after the other; each probe runs on a copy of the whole cache (the public DEER code works so)."""
    rows = start_rows(text, prompts, limits, keys, settings)
    for row in rows:
        main = DynamicCache(config=model.config)
        probe: DynamicCache | None = None
        logits = _feed(model, main, row.prompt)
        while True:
            _choose([row], logits, sampling)
            if row.machine.done:
                break
            first, tokens = pending(row)
            if row.machine.phase is Phase.PROBE:
                if probe is None:
                    probe = copy.deepcopy(main)
                    _cut(probe, first)
                logits = _feed(model, probe, tokens)
                continue
            if probe is not None:
                if row.machine.phase is Phase.THINK:  # declined: the copy is dropped, the marker is still in the cache
                    tokens = tokens[main.get_seq_length() - first :]
                else:
                    _cut(main, first)
                probe = None
            logits = _feed(model, main, tokens)
    return [row.machine.trajectory(row.prompt) for row in rows]


def _feed(model: Any, cache: DynamicCache, tokens: Sequence[int]) -> torch.Tensor:
    output = model(input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=True, logits_to_keep=1)
    return output.logits[:, -1].float()


def _cut(cache: DynamicCache, length: int) -> None:
    if cache.get_seq_length() > length:
        cache.crop(length - cache.get_seq_length())


@torch.no_grad()
def resubmit_in_rounds(
    model: Any,
    text: TokenText,
    prompts: Sequence[Sequence[int]],
    *,
    limits: Sequence[int],
    keys: Sequence[SampleKey],
    settings: RolloutSettings,
    sampling: Sampling,
    batch: int = 64,
) -> tuple[list[Trajectory], int]:
    """Rounds: all think until each has met a marker, then all are probed, and so on; each round submits whole texts.

    The public Step-GRPO code works so on an inference server. As on a server, a row that is through leaves the batch at
    once; the next round waits for the last of them.

    Returns:
        The completions, and the number of forward passes.
    """
    rows = start_rows(text, prompts, limits, keys, settings)
    passes = 0
    for start in range(0, len(rows), batch):
        active = rows[start : start + batch]
        contexts = {row.index: list(row.prompt) for row in active}
        while active:
            for probing in (False, True):
                turn = [row for row in active if (row.machine.phase is Phase.PROBE) == probing]
                if turn:
                    passes += _round(model, turn, contexts, probing, sampling)
                active = [row for row in active if not row.machine.done]
    return [row.machine.trajectory(row.prompt) for row in rows], passes


def _round(model: Any, rows: list[_Row], contexts: dict[int, list[int]], probing: bool, sampling: Sampling) -> int:
    """One round; returns its number of forward passes."""
    passes = 0
    ids, mask = left_padded([contexts[row.index] for row in rows], pad=0)
    places = (mask.cumsum(-1) - 1).clamp_(min=0)
    cache = DynamicCache(config=model.config)
    while True:
        passes += 1
        logits = (
            model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            .logits[:, -1]
            .float()
        )
        _choose(rows, logits, sampling)
        stay = [slot for slot, row in enumerate(rows) if not row.machine.done and _extend(row, contexts, probing)]
        if not stay:
            return passes
        if len(stay) < len(rows):
            rows = [rows[slot] for slot in stay]
            kept = torch.tensor(stay)
            cache.batch_select_indices(kept)
            mask = mask[kept]
        ids = torch.tensor([contexts[row.index][-1:] for row in rows])
        places = torch.tensor([[len(contexts[row.index]) - 1] for row in rows])
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)


def _extend(row: _Row, contexts: dict[int, list[int]], probing: bool) -> bool:
    """Bring the row's context up to its next choice; returns whether the row can go on in this round."""
    before = contexts[row.index]
    first, tokens = pending(row)
    contexts[row.index] = [*before[:first], *tokens]
    return (row.machine.phase is Phase.PROBE) == probing and first == len(before) and len(tokens) == 1
