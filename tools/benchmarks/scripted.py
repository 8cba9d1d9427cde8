"""A random-weight Qwen3 whose every completion is known beforehand, so that strategies can be timed on equal work.

Its tokens are numbers and each is followed by the next smaller one, so a prompt's last token says how long the
completion will be. Some numbers are written " Wait": there a step begins. The computation is a real model's; only the
last logits get an addend.
"""

from __future__ import annotations

import random
from functools import lru_cache
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.method.token_text import TokenText

SIGNS = ["<eos>", "\n", "**", "Final", " Answer", "\\boxed", "{", "7", "9", "}", "</think>", "\n\n", "8", "?", "!", ";"]
NUMBERS = 4096
"""Longest completion, in tokens."""

_CERTAIN = 60.0
_AFTER = [("\\boxed", "{"), ("{", "7"), ("7", "}"), ("9", "}"), ("}", "\n"), ("\n", "</think>"), ("</think>", "\n\n")]
_AFTER += [("\n\n", "8"), ("8", "<eos>")]
EOS = 0


class ScriptedQwen3(Qwen3ForCausalLM):
    """Qwen3 that counts down, and answers a probe with ``{7}`` at some places surely, at others not."""

    def __init__(self, config: Qwen3Config, sure_every: int | None) -> None:
        super().__init__(config)
        follow = torch.arange(config.vocab_size) - 1
        follow[len(SIGNS)] = EOS
        for before, after in _AFTER:
            follow[SIGNS.index(before)] = SIGNS.index(after)
        self.register_buffer("follow", follow.clamp_(min=0))
        self.sure_every = sure_every

    def forward(self, input_ids: Any = None, position_ids: Any = None, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
        cache = kwargs.get("past_key_values")
        if position_ids is None:
            start = cache.get_seq_length() if cache is not None else 0
            position_ids = torch.arange(start, start + input_ids.shape[1])[None].expand(input_ids.shape)
        output = super().forward(input_ids, position_ids=position_ids, logits_to_keep=logits_to_keep, **kwargs)
        last = input_ids[:, -1]
        rows = torch.arange(len(last))
        logits = output.logits[:, -1]
        logits[rows, self.follow[last]] += _CERTAIN
        if self.sure_every:
            places = position_ids[:, -1].expand(len(last))
            unsure = (last == SIGNS.index("{")) & ((places * 40503 >> 4) % self.sure_every != 0)
            logits[rows[unsure], SIGNS.index("9")] = logits[rows[unsure], SIGNS.index("7")]
        return output


@lru_cache(maxsize=8)
def scripted_model(
    sure_every: int | None = None, positions: int = 4608, hidden: int = 144, layers: int = 4
) -> ScriptedQwen3:
    """Random weights in the Overthinker's shape. ``sure_every``: about every how many-th probe is confident."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(SIGNS) + NUMBERS,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        eos_token_id=EOS,
        pad_token_id=EOS,
        bos_token_id=None,
    )
    return ScriptedQwen3(config, sure_every).eval()


def scripted_text(step_tokens: tuple[int, int] | list[int]) -> TokenText:
    """The numbers' text: a marker after every so many tokens, drawn between two bounds or given one by one."""
    rng = random.Random(0)
    pieces = [*SIGNS, *[" so"] * NUMBERS]
    place = len(SIGNS)
    steps = iter(step_tokens) if isinstance(step_tokens, list) else iter(lambda: rng.randint(*step_tokens), None)
    while (place := place + next(steps)) < len(pieces):
        pieces[place] = " Wait"
    return TokenText.from_pieces(pieces, eos_ids=[EOS])


def scripted_prompts(lengths: list[int], prompt_tokens: int = 32) -> list[list[int]]:
    """A prompt for each completion length; no two are equal."""
    rng = random.Random(1)
    return [
        [len(SIGNS) + rng.randrange(NUMBERS) for _ in range(prompt_tokens - 1)] + [len(SIGNS) + n - 1] for n in lengths
    ]


def uneven_lengths(count: int, median: int, most: int) -> list[int]:
    """Log-normal lengths with a long tail, as reasoning has."""
    rng = random.Random(2)
    return [min(most, max(2, round(rng.lognormvariate(0, 0.6) * median))) for _ in range(count)]


def sample_keys(count: int) -> list[SampleKey]:
    """Random numbers for ``count`` completions."""
    return [SampleKey(0, "benchmark", 0, sample) for sample in range(count)]


def same_tokens(first: list[Trajectory], second: list[Trajectory]) -> bool:
    """Whether two strategies made the same completions."""
    return [row.completion_ids for row in first] == [row.completion_ids for row in second]
