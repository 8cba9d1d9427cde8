"""A rollout that backtracks badly, on purpose: what a probe leaves behind, and what that does to the completion.

The loop is one that anybody might write around a ``transformers`` model and its growing cache. Without a fault it gives
what :class:`stepgrpo_lab.engines.lockstep.LockstepEngine` gives, token for token.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepgrpo_lab.method.loss import completion_logprobs
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import Phase, TrajectoryMachine
from stepgrpo_lab.method.sampling import SampleKey, Sampling, uniform
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.token_text import TokenText

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Fault = Literal["cache", "positions", "random numbers"]
"""What a declined probe leaves behind: its keys and values, its count of positions, or a generator further on."""
FAULTS: tuple[Fault, ...] = ("cache", "positions", "random numbers")


def complete_naively(
    model: PreTrainedModel,
    token_text: TokenText,
    prompt_ids: Sequence[int],
    key: SampleKey,
    *,
    limit: int,
    settings: RolloutSettings,
    probed: bool = True,
    fault: Fault | None = None,
) -> Trajectory:
    """Complete one prompt, one row at a time.

    Args:
        model: Any causal language model of transformers with full attention.
        token_text: Text of its tokens.
        prompt_ids: Token ids of the prompt.
        key: The completion's random numbers; with the fault "random numbers" the seed of a generator.
        limit: Longest completion in tokens.
        settings: The truncated rollout.
        probed: Whether the completion is probed.
        fault: What goes wrong after each probe; nothing by default.

    Raises:
        ValueError: There is no such fault.
    """
    import torch

    from stepgrpo_lab.engines.lockstep import choose_likeliest, choose_sampled

    if fault is not None and fault not in FAULTS:
        raise ValueError(f"fault is {fault!r}: choose one of {', '.join(FAULTS)}, or None")
    machine = TrajectoryMachine(token_text, limit, settings, probed)
    context = _Context(model, list(prompt_ids), fault)
    generator = random.Random(str(key))
    with torch.no_grad():
        logits = context.read_prompt()
        while True:
            number = uniform(key, machine.position)
            if fault == "random numbers" and machine.choice is not None:
                number = generator.random()  # a probe's greedy tokens advance it as well
            if machine.choice == "sample":
                (token,), (logprob,) = choose_sampled(logits, [number], Sampling())
                machine.observe(token, logprob)
            elif machine.choice == "greedy":
                (token,), (logprob,) = choose_likeliest(logits)
                machine.observe(token, None, math.exp(logprob))
            if machine.done:
                return machine.trajectory(list(prompt_ids))
            probing = machine.phase is Phase.PROBE
            logits = context.feed(*machine.feed(), probing=probing)


class _Context:
    """What the next token attends to: a cache that grows with every token fed, and the count of positions."""

    def __init__(self, model: PreTrainedModel, prompt: list[int], fault: Fault | None) -> None:
        from transformers import DynamicCache

        self.model, self.prompt, self.fault = model, prompt, fault
        self.cache = DynamicCache(config=model.config)
        self.newest = -1  # place of the last token fed
        self.shift = 0  # how far positions have run ahead of places

    def read_prompt(self) -> torch.Tensor:
        return self._forward(self.prompt, 0)

    def feed(self, token: int, place: int, *, probing: bool) -> torch.Tensor:
        """Feed one token at its place; logits ``[1, vocabulary]``."""
        back = self.newest + 1 - place
        if back > 0:
            after_probe = not probing
            if not (after_probe and self.fault == "cache"):
                self.cache.crop(-back)
            if after_probe and self.fault == "positions":
                self.shift += back
        self.newest = place
        return self._forward([token], len(self.prompt) + place + self.shift)

    def _forward(self, tokens: list[int], position: int) -> torch.Tensor:
        import torch

        from stepgrpo_lab.engines.cache import cache_argument

        output = self.model(
            input_ids=torch.tensor([tokens]),
            position_ids=torch.arange(position, position + len(tokens))[None],
            **{cache_argument(self.model): self.cache},
            use_cache=True,
        )
        return output.logits[:, -1].float()


def largest_surprise(model: PreTrainedModel, trajectory: Trajectory) -> float:
    """How far the recorded log-probabilities are from those that the model gives the same tokens without any probe.

    Returns:
        The largest difference over the sampled tokens; rounding alone stays below 1e-4.
    """
    import torch

    with torch.no_grad():
        own = completion_logprobs(model, trajectory.prompt_ids, trajectory.completion_ids).tolist()
    recorded = zip(own, trajectory.logprobs, strict=True)
    return max((abs(mine - logprob) for mine, logprob in recorded if logprob is not None), default=0.0)


@dataclass(frozen=True)
class FaultReport:
    """What a fault did to completions that were probed at least once.

    Attributes:
        fault: The fault; None for the sound loop.
        probed: How many completions held a probe.
        changed: How many of these differ from the completion without probes.
        surprise: Largest difference between a recorded log-probability and the model's own.
    """

    fault: Fault | None
    probed: int
    changed: int
    surprise: float


def measure_fault(
    model: PreTrainedModel,
    token_text: TokenText,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[SampleKey],
    *,
    limit: int,
    settings: RolloutSettings,
    fault: Fault | None = None,
) -> FaultReport:
    """Complete every prompt with and without probes, and compare.

    Args:
        model, token_text, limit, settings, fault: As for :func:`complete_naively`; use a threshold of 1, so that no
            probe exits.
        prompts: Token ids of each prompt.
        keys: Random numbers of each.

    Example:
        >>> from stepgrpo_lab.course.toys import tiny_policy
        >>> from stepgrpo_lab.method.settings import rollout_settings
        >>> from stepgrpo_lab.course.toys import tiny_policy
        >>> from stepgrpo_lab.method.settings import rollout_settings
        >>> settings = rollout_settings("official", exit_threshold=1.0, near_budget_margin=0)
        >>> keys = [SampleKey(0, "course", 0, sample) for sample in range(4)]
        >>> measure_fault(*tiny_policy(), [[3, 4]] * 4, keys, limit=24, settings=settings).changed
        0
    """
    probed = changed = 0
    surprise = 0.0
    for prompt, key in zip(prompts, keys, strict=True):
        plain, asked = (
            complete_naively(model, token_text, prompt, key, limit=limit, settings=settings, probed=flag, fault=fault)
            for flag in (False, True)
        )
        if asked.probes:
            probed += 1
            changed += asked.completion_ids != plain.completion_ids
            surprise = max(surprise, largest_surprise(model, asked))
    return FaultReport(fault, probed, changed, surprise)
