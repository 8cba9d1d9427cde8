"""Whether prompts fit into a model's context, asked before a run begins instead of in its middle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from stepgrpo_lab.engines.models import encode_prompt
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.rollout import TrajectoryMachine
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.token_text import TokenText

MOST_TOKENS_PER_BYTE = 3
"""A byte of text is at most so many tokens: a byte-level token has a byte, and normalisation triples it at most."""


def prompt_room(model: Any, tokenizer: Any, limit: int, settings: RolloutSettings | None = None) -> int | None:
    """How many tokens a prompt may have beside its completion and its probes; None where the model sets no bound."""
    positions = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
    if positions is None:
        return None
    return int(positions) - TrajectoryMachine(TokenText.from_tokenizer(tokenizer), limit, settings).reach


def long_prompts(problems: Sequence[Problem], tokenizer: Any, room: int | None, suffix: str = "") -> Iterator[str]:
    """Name the problems whose prompts do not fit: one line for each, with its id and the remedy.

    Args:
        problems: In any order.
        tokenizer: Any tokenizer with a chat template.
        room: Most tokens of a prompt (see :func:`prompt_room`); None lets everything pass.
        suffix: Appended to every question.
    """
    if room is None:
        return
    frame = len(encode_prompt(tokenizer, "", suffix))
    for problem in problems:
        if frame + MOST_TOKENS_PER_BYTE * len(problem.prompt.encode("utf-8", "replace")) <= room:
            continue
        tokens = len(encode_prompt(tokenizer, problem.prompt, suffix))
        if tokens > room:
            yield (
                f"problem {problem.id!r}: its prompt has {tokens} tokens, but the model's context leaves room for "
                f"{room} beside the completion; lower rollout.max_tokens, shorten the problem or drop it"
            )
