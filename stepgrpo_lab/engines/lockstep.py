"""The lockstep engine: every active row feeds its next token in each forward pass, whatever its phase.

While few rows are active, a row feeds several tokens at once where they are known: a probe's prompt, a forced close, or
what is put back after a probe.

No row waits for another: sampled, forced and probed tokens of different rows share each pass, a probe needs neither a
new prefill nor a copy of the cache, and a finished row's slot goes to the next waiting prompt.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache as cached
from typing import Any

import torch

from stepgrpo_lab.engines._feeding import Feeder, evaluation_mode
from stepgrpo_lab.engines._positions import position_bound
from stepgrpo_lab.engines.cache import LockstepCache
from stepgrpo_lab.engines.completions import Completion, Decoding, OnFinish, longest_reach, open_completions, text_of
from stepgrpo_lab.engines.self_test import check_decoding
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.method.records import Cost, Problem, Trajectory
from stepgrpo_lab.method.rollout import Phase
from stepgrpo_lab.method.sampling import SampleKey, Sampling, uniform
from stepgrpo_lab.method.steps import MarkerSegmenter, resolve_markers
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.method.update import Sampler

TOKENS_A_PASS = 32
"""Known tokens are fed together up to so many in a pass, padding included: fewer cost a pass hardly more than one."""


@dataclass
class _Row(Completion):
    """One active completion; its index in the list of rows is its slot in the cache."""

    tokens: list[int]  # to be fed next,
    place: int  # the last of them at this place, the prompt included

    def advance(self, most: int) -> None:
        self.tokens, machine = [], self.machine
        while not self.tokens or (machine.choice is None and len(self.tokens) < most):
            token, place = machine.feed()
            self.tokens.append(token)
            self.place = len(self.prompt) + place

    def may_return(self, starts: Callable[[int], bool]) -> bool:
        """Whether a probe may begin where the token stands that is to be fed."""
        return self.machine.phase is Phase.THINK and self.place >= len(self.prompt) and starts(self.tokens[-1])


class LockstepEngine:
    """Completes prompts with a causal language model of transformers that has softmax attention in every layer.

    Attention may be full, in sliding windows or in chunks. An architecture that is not known to be right is tried on
    a few steps first (:mod:`stepgrpo_lab.engines.self_test`); ``docs/architectures.md`` lists what is right.

    Works in fp32, bf16, fp16 and 4-bit, with and without LoRA, on CPU and GPU, under autocast or not. A completion
    depends on (model, prompt, key) only, not on the batch it is decoded in, up to floating-point rounding.

    Args:
        model: The model; a ``PeftModel`` is fine. A trainer's model must be unwrapped first.
        tokenizer: The tokenizer, or the text of its tokens.
        max_rows: Most completions decoded at once. The cache grows with rows times longest context: lower this when
            memory runs out; completions stay the same.

    Raises:
        ValueError: The model's attention does not fit, its self-test failed, or ``max_rows`` is below 1.

    Example:
        >>> from stepgrpo_lab.engines.models import load_model
        >>> from stepgrpo_lab.engines.tokenizers import encode_prompt
        >>> model, tokenizer = load_model("overthinker")
        >>> prompt = encode_prompt(tokenizer, "Start at 7: +5 *3 -4 +9. Which digit, mod 10?")
        >>> keys = [SampleKey(seed=0, split="eval", rollout=0, sample=0)]
        >>> [trajectory], cost = LockstepEngine(model, tokenizer).generate([prompt], Decoding(limit=256), keys=keys)
        >>> trajectory.close, trajectory.text[-21:]
        ('natural', '\\n\\n\\\\boxed{1}<|im_end|>')
    """

    def __init__(self, model: Any, tokenizer: Any, *, max_rows: int = 64) -> None:
        if max_rows < 1:
            raise ValueError(f"max_rows is {max_rows}: give at least 1.")
        self.model = model
        self.max_rows = max_rows
        # It names every id that the model's own generate() stops at.
        generation = getattr(model, "generation_config", None)
        self.token_text = text_of(tokenizer, getattr(generation, "eos_token_id", None))
        self._feeder = Feeder(model)
        check_decoding(self._feeder, 0)

    @torch.no_grad()  # and not inference_mode: a trainer goes on with the same weights
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
        """Complete every prompt.

        Args:
            prompt_ids: Token ids of each prompt, ``[prompts][tokens]``.
            decoding: What is the same for all prompts: limit, rollout, sampling, segmenter.
            keys: Each completion's random numbers, ``[prompts]``.
            probed: Which completions may be probed, ``[prompts]``; by default all (without settings, none is).
            limits: Longest completion of each prompt, ``[prompts]``, in place of ``decoding.limit``.
            on_finish: Called with (index of the prompt, trajectory) as soon as a completion is finished.

        Returns:
            The trajectories in the order of the prompts, and what they cost together. Prompt tokens are counted once
            per completion, although equal prompts that start together share one prefill.

        Raises:
            ValueError: Lengths that do not match, an empty prompt, a limit below 1 or beyond the model's positions.
            FloatingPointError: The model returned NaN or infinite logits; the message names prompt and position.
        """
        sampling = decoding.sampling
        positions, name = position_bound(self.model.config)
        opened = open_completions(
            self.token_text,
            prompt_ids,
            decoding,
            keys=keys,
            probed=probed,
            limits=limits,
            positions=positions,
            positions_name=name,
        )
        check_decoding(self._feeder, longest_reach(opened))
        waiting = deque(_Row(**vars(row), tokens=row.prompt[-1:], place=len(row.prompt) - 1) for row in opened)
        cache = self._feeder.cache(min(self.max_rows, len(waiting)), longest_reach(opened))
        starts = marker_starts(self.token_text, decoding)
        finished: dict[int, Trajectory] = {}
        rows: list[_Row] = []
        total, passes_before = Cost(), self._feeder.passes
        with evaluation_mode(self.model):
            while waiting or rows:
                self._admit(rows, waiting, cache)
                keep = [slot for slot, row in enumerate(rows) if row.may_return(starts)] if cache.states else ()
                logits = self._feeder.step(cache, [row.tokens for row in rows], [row.place for row in rows], keep)
                _choose(rows, logits, sampling)
                # A state takes in every token it is fed, so padding would change it.
                together = 1 if cache.states else max(1, TOKENS_A_PASS // (len(rows) + len(waiting)))
                for row in rows:
                    if row.machine.done:
                        trajectory = finished[row.index] = row.machine.trajectory(row.prompt)
                        total += trajectory.cost
                        if on_finish is not None:
                            on_finish(row.index, trajectory)
                    else:
                        row.advance(together)
                cache.move(_drop_finished(rows))
        total.forward_passes = self._feeder.passes - passes_before
        return [finished[index] for index in range(len(finished))], total

    def _admit(self, rows: list[_Row], waiting: deque[_Row], cache: LockstepCache) -> None:
        """Prefill waiting prompts into the free slots.

        The last prompt token is left to the row's first decoding step, which brings its logits. Slots are filled
        several at once: a pass for one prompt costs a small model as much as a step of the whole batch.
        """
        free = cache.slots - len(rows)
        if not waiting or free < min(len(waiting), 1 + cache.slots // 8):
            return
        new = [waiting.popleft() for _ in range(min(free, len(waiting)))]
        slots = range(len(rows), len(rows) + len(new))
        rows += new
        self._feeder.prefill(cache, slots, [row.prompt[:-1] for row in new])


def marker_starts(token_text: TokenText, decoding: Decoding) -> Callable[[int], bool]:
    """Whether a token may begin a marker; never with steps of another kind, whose beginnings nobody knows."""
    settings, segmenter = decoding.settings, decoding.segmenter
    if settings is None or not isinstance(segmenter, MarkerSegmenter | None):
        return lambda token: False
    markers = resolve_markers(settings.markers) if segmenter is None else segmenter.markers
    starts = {marker[:size] for marker in markers for size in range(1, len(marker) + 1)}

    @cached
    def begins(token: int) -> bool:
        text = token_text.pieces(token).decode("utf-8", "ignore")
        return any(text.endswith(start) for start in starts) or any(marker in text for marker in markers)

    return begins


def _choose(rows: Sequence[_Row], logits: torch.Tensor, sampling: Sampling) -> None:
    """Give a token to every machine that asks for one."""
    choices = [row.machine.choice for row in rows]
    greedy = [slot for slot, choice in enumerate(choices) if choice == "greedy"]
    drawn = [slot for slot, choice in enumerate(choices) if choice == "sample"]
    if drawn:
        numbers = [uniform(rows[slot].key, rows[slot].machine.position) for slot in drawn]
        for slot, token, logprob in zip(drawn, *choose_sampled(_subset(logits, drawn), numbers, sampling), strict=True):
            rows[slot].check_finite(logprob)
            rows[slot].machine.observe(token, logprob)
    if greedy:
        for slot, token, logprob in zip(greedy, *choose_likeliest(_subset(logits, greedy)), strict=True):
            rows[slot].check_finite(logprob)
            rows[slot].machine.observe(token, None, math.exp(logprob))


def _subset(logits: torch.Tensor, slots: list[int]) -> torch.Tensor:
    return logits if len(slots) == len(logits) else logits[torch.tensor(slots, device=logits.device)]


def _drop_finished(rows: list[_Row]) -> list[tuple[int, int]]:
    """Drop finished rows and fill their slots with the last ones; return the (from, to) moves."""
    moves = []
    slot = 0
    while slot < len(rows):
        if not rows[slot].machine.done:
            slot += 1
            continue
        last = rows.pop()
        if slot < len(rows) and not last.machine.done:
            rows[slot] = last
            moves.append((len(rows), slot))
    return moves


# ---- from logits to tokens, for all rows at once and without a random number generator -------------------------------


def choose_likeliest(logits: torch.Tensor) -> tuple[list[int], list[float]]:
    """The likeliest token of each row and its log-probability at temperature 1.

    Args:
        logits: [rows, vocabulary], float32.
    """
    best = logits.max(dim=-1)
    return best.indices.tolist(), (best.values - logits.logsumexp(dim=-1)).tolist()


def choose_sampled(logits: torch.Tensor, numbers: Sequence[float], sampling: Sampling) -> tuple[list[int], list[float]]:
    """Draw one token per row by the inverse of its cumulative distribution, in the order of the vocabulary.

    Args:
        logits: [rows, vocabulary], float32.
        numbers: One uniform number in [0, 1) per row.
        sampling: At temperature 0 the likeliest token is taken and scored at temperature 1.

    Returns:
        Token ids, and their log-probabilities at the sampling temperature before top-k and top-p.
    """
    if sampling.temperature == 0:
        return choose_likeliest(logits)
    logprobs = (logits / sampling.temperature).log_softmax(dim=-1)
    weights = _keep_likeliest(logprobs.double().exp(), sampling)
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounding must not push a number near 1 up to the total: no token, or an impossible one, would lie there.
    targets = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None] * total
    targets = torch.minimum(targets, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, targets, right=True).clamp_(max=logits.shape[-1] - 1)
    return tokens[:, 0].tolist(), logprobs.gather(-1, tokens)[:, 0].tolist()


def _keep_likeliest(weights: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Zero the weights outside the top k and outside the nucleus; ties at the border are kept, whatever their order."""
    ordered = None
    if 0 < sampling.top_k < weights.shape[-1]:
        ordered = weights.topk(sampling.top_k, dim=-1).values
        weights = weights * (weights >= ordered[:, -1:])
    if sampling.top_p < 1:
        if ordered is None:
            ordered = weights.sort(dim=-1, descending=True).values
        before = ordered.cumsum(dim=-1) - ordered
        inside = before < sampling.top_p * ordered.sum(dim=-1, keepdim=True)
        border = ordered.masked_fill(~inside, torch.inf).amin(dim=-1, keepdim=True)
        weights = weights * (weights >= border)
    return weights


def rollout_sampler(model: Any, tokenizer: Any, decoding: Decoding, *, seed: int = 0) -> Sampler:
    """What :func:`stepgrpo_lab.method.update.step_grpo_update` samples with; each call is the next rollout.

    Args:
        model, tokenizer: The policy.
        decoding: Limit, rollout settings and sampling.
        seed: Same seed, same completions.

    Example:
        >>> from stepgrpo_lab import load_overthinker, overthinker_problems
        >>> sample = rollout_sampler(*load_overthinker(), Decoding(limit=64))
        >>> [completion.tokens <= 64 for completion in sample(overthinker_problems("train", 2), [False, False])]
        [True, True]
    """
    rollouts = itertools.count()

    def sample(problems: Sequence[Problem], probed: Sequence[bool]) -> list[Trajectory]:
        index = next(rollouts)
        prompts = [encode_prompt(tokenizer, problem.prompt) for problem in problems]
        keys = [SampleKey(seed, "train", index, place) for place in range(len(prompts))]
        return LockstepEngine(model, tokenizer).generate(prompts, decoding, keys=keys, probed=probed)[0]

    return sample
