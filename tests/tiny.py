"""A random-weight Qwen3 with a small tokenizer of its own, for tests that need a model but no skill."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path
from typing import Any

from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.overthinker.tokenizer import train_tokenizer
from stepgrpo_lab.overthinker.traces import format_completion, write_thoughts


@lru_cache(maxsize=1)
def tiny_tokenizer() -> Any:
    """Byte-complete BPE with Qwen3's chat format."""
    rng = random.Random(0)
    problems = overthinker_problems("train", 100)
    return train_tokenizer(
        [problem.prompt + format_completion(write_thoughts(problem, rng), problem.answer) for problem in problems]
    )


def tiny_model(seed: int = 0, *, hidden: int = 32, layers: int = 2) -> Any:
    """A model of some 30,000 random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=hidden // 2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config).eval()


def save_tiny(folder: Path, seed: int = 0, *, hidden: int = 32) -> Path:
    """Write model and tokenizer; returns the folder."""
    tiny_model(seed, hidden=hidden).save_pretrained(str(folder))
    tiny_tokenizer().save_pretrained(str(folder))
    return folder


def tiny_overrides(model: Path, **changes: Any) -> list[str]:
    """Overrides that turn the Overthinker's recipe into a run of seconds with a model from :func:`save_tiny`."""
    values = {
        "model.path": str(model),
        "data.counts.train": 8,
        "data.counts.validation": 4,
        "data.counts.test": 6,
        "optimisation.max_steps": 4,
        "optimisation.prompts_per_step": 2,
        "optimisation.group_size": 4,
        "optimisation.rows_per_pass": 4,
        "optimisation.learning_rate": 1e-3,
        "rollout.max_tokens": 24,
        "evaluation.every": 2,
        "evaluation.texts": 3,
        **changes,
    }
    return [f"{key}={value}" for key, value in values.items()]


def by_position(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    """A reward for models that are never right, whose weights would not move: a member's place in its group."""
    return [float(position) for position in range(len(correct))]
