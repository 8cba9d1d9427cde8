"""A language model of random weights and a vocabulary that one can read: it knows nothing, but it attends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepgrpo_lab.method.token_text import TokenText

if TYPE_CHECKING:
    from transformers import Qwen3ForCausalLM

PIECES = (
    *(" Wait", "\nWait", " Alternatively", " so", " then", " is", " one", " two", " three", " four", ".", ","),
    *("\n", "\n\n", "</think>", " \\boxed", "{", "}", "7", "**Final Answer**", "\\boxed", "<eos>"),
)
"""Its tokens; markers are three of them, so that thoughts of random tokens hold some."""


def tiny_policy(seed: int = 0) -> tuple[Qwen3ForCausalLM, TokenText]:
    """A ``Qwen3ForCausalLM`` of two layers and random weights, and the text of its 22 tokens.

    What it writes is noise, but every token depends on everything before it, as in any causal language model. The same
    seed gives the same weights; torch's own random state is left alone.

    Example:
        >>> model, token_text = tiny_policy()
        >>> model.config.vocab_size, token_text.decode([0, 3])
        (22, ' Wait so')
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    eos = PIECES.index("<eos>")
    config = Qwen3Config(
        vocab_size=len(PIECES),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=256,
        initializer_range=0.3,
        eos_token_id=eos,
        pad_token_id=eos,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config).eval()
    return model, TokenText.from_pieces(PIECES, eos_ids=[eos])
