"""The Overthinkers: the package's own small reasoning models, and the generated problems they work on.

A Qwen3-architecture model of about a million parameters that solves problems step by step and overthinks by
construction. Because its problems are generated, every step it takes can be labelled: needed, verifying, redundant.

The first is right on all its problems, so its accuracy can only fall. ``overthinker-2`` errs where it leaps and follows
its last derivation, so both thinking on and stopping early can gain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.overthinker.tasks import laboratory_of, overthinker_problems
from stepgrpo_lab.overthinker.verifier import label_steps

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["label_steps", "load_overthinker", "overthinker_problems"]


def load_overthinker(name: str = "overthinker") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an embedded model (float32, CPU) and its tokenizer.

    Args:
        name: "overthinker"; "overthinker-2"; or "overthinker-2-step-grpo", the second one as Step-GRPO trained it.

    Raises:
        ValueError: There is no embedded model of that name.

    Example:
        >>> model, tokenizer = load_overthinker()
        >>> type(model).__name__, tokenizer.eos_token
        ('Qwen3ForCausalLM', '<|im_end|>')
    """
    from stepgrpo_lab.engines.models import load_model

    laboratory_of(name)  # refuses an unknown name
    return load_model(data_path(name), device="cpu")
