"""What all engines share: how they are called, the completions that a call opens, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stepgrpo_lab.method.records import Cost, Trajectory
from stepgrpo_lab.method.rollout import TrajectoryMachine
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.steps import Segmenter
from stepgrpo_lab.method.token_text import TokenText

OnFinish = Callable[[int, Trajectory], None]
"""Called with (index of the prompt, trajectory) as soon as a completion is finished."""


@dataclass(frozen=True)
class Decoding:
    """How a call decodes: what is the same for all of its prompts.

    Attributes:
        limit: Longest completion, in tokens.
        settings: The dynamic truncated rollout; None for plain decoding.
        sampling: How tokens are drawn; by default at temperature 1 from the whole vocabulary.
        segmenter: What a step is; by default the settings' markers.

    Example:
        >>> Decoding(256, sampling=Sampling(temperature=0.6)).settings is None
        True
    """

    limit: int
    settings: RolloutSettings | None = None
    sampling: Sampling = Sampling()  # noqa: RUF009 (it is immutable)
    segmenter: Segmenter | None = None


class RolloutEngine(Protocol):
    """Completes prompts with some model; :class:`stepgrpo_lab.engines.lockstep.LockstepEngine` is the reference."""

    token_text: TokenText

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        decoding: Decoding,
        *,
        keys: Sequence[SampleKey],
        probed: Sequence[bool] | None = None,
        limits: Sequence[int] | None = None,
        on_finish: OnFinish | None = None,
    ) -> tuple[list[Trajectory], Cost]:
        """Complete every prompt, as :meth:`stepgrpo_lab.engines.lockstep.LockstepEngine.generate` says."""
        raise NotImplementedError


@dataclass
class Completion:
    """One completion under way: the prompt's index and ids, the machine that decides, and its random numbers."""

    index: int
    prompt: list[int]
    machine: TrajectoryMachine
    key: SampleKey

    def check_finite(self, logprob: float) -> None:
        """Refuse a NaN or infinite log-probability of a token.

        Raises:
            FloatingPointError: It is not finite; the message names prompt and position.
        """
        if not math.isfinite(logprob):
            raise FloatingPointError(
                f"The model's logits for prompt {self.index} at position {self.machine.position} of the completion are "
                "not finite: check the weights (a diverged training run?) or use bf16 or fp32 instead of fp16."
            )


def open_completions(
    token_text: TokenText,
    prompt_ids: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    keys: Sequence[SampleKey],
    probed: Sequence[bool] | None,
    limits: Sequence[int] | None,
    positions: int | None,
    positions_name: str,
) -> list[Completion]:
    """A completion with its machine for each prompt of a call.

    Args:
        token_text: Text of the token ids.
        prompt_ids, decoding, keys, probed, limits: As the call gave them.
        positions: How many positions the model has; None if it does not say.
        positions_name: What the model calls that number, for the message.

    Raises:
        ValueError: Lengths that do not match, an empty prompt, a limit below 1 or beyond the model's positions.
    """
    probed = [True] * len(prompt_ids) if probed is None else probed
    limits = [decoding.limit] * len(prompt_ids) if limits is None else limits
    if not len(prompt_ids) == len(keys) == len(probed) == len(limits):
        raise ValueError(
            f"{len(prompt_ids)} prompts, {len(keys)} keys, {len(probed)} probed flags and {len(limits)} limits: "
            "give as many of each."
        )
    for index, prompt in enumerate(prompt_ids):
        if not len(prompt):
            raise ValueError(f"Prompt {index} is empty: it needs at least one token.")
    completions = [
        Completion(
            index,
            list(prompt),
            TrajectoryMachine(token_text, limit, decoding.settings, may_probe, decoding.segmenter),
            key,
        )
        for index, (prompt, key, may_probe, limit) in enumerate(zip(prompt_ids, keys, probed, limits, strict=True))
    ]
    reach = longest_reach(completions)
    if positions is not None and reach > positions:
        raise ValueError(
            f"The longest prompt, the limit of {max(limits)} tokens and the probes need {reach} positions, but the "
            f"model has {positions} ({positions_name}): lower the limit by {reach - positions} or shorten the prompt."
        )
    return completions


def longest_reach(completions: Sequence[Completion]) -> int:
    """How many positions the completions can need at most, prompt included; 0 without completions."""
    return max((len(row.prompt) + row.machine.reach for row in completions), default=0)


def text_of(tokenizer: Any, eos_ids: int | Sequence[int] | None = None) -> TokenText:
    """The text of a tokenizer's tokens (a :class:`TokenText` stays as it is), with the model's end-of-sequence ids.

    Args:
        tokenizer: The tokenizer, or the text of its tokens.
        eos_ids: As the model's generation configuration names them.
    """
    if isinstance(tokenizer, TokenText):
        return tokenizer
    return TokenText.from_tokenizer(tokenizer, eos_ids=[eos_ids] if isinstance(eos_ids, int) else eos_ids or [])
