"""The trajectory machine: dynamic truncated rollout with backtracking, as pure Python without torch or I/O.

One machine holds one completion. An engine asks it what to do with the logits it has, tells it what was chosen, and
asks which token to feed next. The machine alone decides when a probe starts, what is forced, when to backtrack and when
to exit, so the same machine runs under every engine.

======  ==========================================  ============================================================
phase   what happens                                ends when
======  ==========================================  ============================================================
THINK   sample thoughts                             a marker is certain: PROBE; natural close: ANSWER; budget: CLOSE
PROBE   force the inducing prompt, answer greedily  the trial answer ends: CLOSE if it is confident, else THINK
CLOSE   force the close                             it is fed: ANSWER
ANSWER  sample the final answer                     end of sequence: DONE, as in every phase at the limit
======  ==========================================  ============================================================

Source: Chen et al., "Step-GRPO", arXiv 2604.16890, section on the dynamic truncated rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Literal

from stepgrpo_lab.method.boxes import boxed_answer_span, opening_tokens
from stepgrpo_lab.method.confidence import ExitRule, confidence
from stepgrpo_lab.method.records import CloseReason, Cost, FinishReason, Probe, Trajectory
from stepgrpo_lab.method.sampling import Sampling
from stepgrpo_lab.method.settings import (
    PRESETS,
    RolloutSettings,
    budget_tokens,
    close_tokens,
    probed_members,
    rollout_settings,
)
from stepgrpo_lab.method.steps import MarkerHit, MarkerSegmenter, Segmenter
from stepgrpo_lab.method.token_text import THINK_CLOSE, TokenText

__all__ = ["PRESETS", "Phase", "RolloutSettings", "Sampling", "TrajectoryMachine", "probed_members", "rollout_settings"]

Choice = Literal["sample", "greedy"]


class Phase(Enum):
    """Where a completion stands."""

    THINK = "think"
    PROBE = "probe"
    CLOSE = "close"
    ANSWER = "answer"
    DONE = "done"


class TrajectoryMachine:
    """One completion on its way from the prompt to its end.

    After each forward pass of this row an engine reads :attr:`choice`, answers it with :meth:`observe` if there is one,
    and, unless :attr:`done`, calls :meth:`feed`. It starts with the logits of the last prompt token.

    The context is the completion's tokens by place, 0 for the first. Backtracking is nothing but :meth:`feed` returning
    a smaller place than before: the engine overwrites its cache from there on.

    Args:
        token_text: Text of the token ids.
        limit: Longest completion, in tokens; forced tokens count.
        settings: The rollout's settings; None for plain decoding, without probes and without a think budget.
        probed: Whether this completion may be probed. Without probes it keeps the settings' think budget.
        segmenter: What a step is; by default the settings' markers (the paper's for plain decoding).

    Raises:
        ValueError: ``limit`` is below 1.
    """

    def __init__(
        self,
        token_text: TokenText,
        limit: int,
        settings: RolloutSettings | None = None,
        probed: bool = True,
        segmenter: Segmenter | None = None,
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit is {limit}: a completion needs room for at least one token.")
        self.phase = Phase.THINK
        self._text = token_text
        self._limit = limit
        self._probing = settings is not None and probed
        self._settings = settings or PRESETS["paper"]  # plain decoding uses nothing of it but the markers
        self._segmenter = segmenter or MarkerSegmenter(self._settings.markers)
        self._scanner = self._segmenter.scanner(token_text)
        self._think_budget = limit if settings is None else max(1, budget_tokens(settings.think_budget, limit))
        self._rule = self._settings.exit_rule(limit)
        self._prompt = token_text.encode(self._settings.probe_prompt) if self._probing else []
        self._kept: list[int] = []
        self._logprobs: list[float | None] = []
        self._fed = 0  # place of the next token to feed
        self._dropped: list[int] = []
        self._close: CloseReason | None = None
        self._probes: list[Probe] = []
        self._cost = Cost()

    # ---- what an engine asks -----------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the completion is finished."""
        return self.phase is Phase.DONE

    @property
    def reach(self) -> int:
        """More places than this are never used: the limit, or where a probe at the think budget's end could go."""
        if not self._probing:
            return self._limit
        return max(self._limit, self._think_budget + len(self._prompt) + self._settings.probe_max_tokens)

    @property
    def choice(self) -> Choice | None:
        """What to do with the logits of the last token fed: sample, take the likeliest, or (None) nothing."""
        if self.done or self._fed < self._context_length:
            return None
        return "greedy" if self.phase is Phase.PROBE else "sample"

    @property
    def room(self) -> int:
        """So many choices can follow one another at most, before something else is fed or the completion ends."""
        if self.phase is Phase.PROBE:
            return self._settings.probe_max_tokens - len(self._trial.token_ids)
        end = self._think_budget if self.phase is Phase.THINK else self._limit
        return min(end, self._limit) - len(self._kept)

    @property
    def position(self) -> int:
        """Position of the token to be sampled, as :func:`stepgrpo_lab.method.sampling.uniform` wants it.

        It is the token's place in the kept trajectory. After an exit it skips the numbers that had drawn the dropped
        tokens: those are known to have led to a marker, so drawing the answer with them would not be fair.
        """
        return len(self._kept) + len(self._dropped)

    def observe(self, token: int, logprob: float | None, top_probability: float = 0.0) -> None:
        """Take the engine's choice.

        Args:
            token: The chosen id.
            logprob: Its log-probability at the sampling temperature (a probe's is not used).
            top_probability: A greedy token's probability at temperature 1, in [0, 1] (a sampled token's is not used).

        Raises:
            RuntimeError: The machine did not ask for a choice.
        """
        if self.choice is None:
            raise RuntimeError(f"Phase {self.phase.name} has tokens to feed: call feed() until choice is not None.")
        if self.phase is Phase.PROBE:
            if self._trial.observe(token, top_probability):
                self._end_probe()
            return
        self._kept.append(token)
        self._logprobs.append(logprob)
        hit = self._scanner.push(token) if self.phase is Phase.THINK else None
        if hit is not None and self._may_probe(hit):
            self._start_probe(hit)
        else:
            self._settle()

    def feed(self) -> tuple[int, int]:
        """The next token to feed and its place in the completion's context.

        Raises:
            RuntimeError: The machine is done, or waits for a choice.
        """
        if self.done or self._fed >= self._context_length:
            raise RuntimeError(f"Phase {self.phase.name} has nothing to feed: observe() a choice first.")
        place = self._fed
        self._fed += 1
        if self.phase is Phase.PROBE and place >= self._base:
            return (self._prompt + self._trial.token_ids)[place - self._base], place
        if self.phase is Phase.CLOSE and self._fed == len(self._kept):
            self.phase = Phase.ANSWER
        return self._kept[place], place

    def trajectory(self, prompt_ids: list[int]) -> Trajectory:
        """The finished completion, as a record.

        Raises:
            RuntimeError: The machine is not done.
        """
        if not self.done:
            raise RuntimeError(f"The completion is in phase {self.phase.name}: drive the machine until it is done.")
        text = self._text.decode(self._kept)
        finish: FinishReason = "eos" if self._kept[-1] in self._text.eos_ids else "length"
        cost = self._cost + Cost(prompt_tokens=len(prompt_ids), kept_tokens=len(self._kept))
        return Trajectory(
            prompt_ids=list(prompt_ids),
            completion_ids=self._kept,
            logprobs=self._logprobs,
            text=text,
            steps=self._segmenter.count(text),
            close=self._close,
            finish=finish,
            probed=self._probing,
            probes=self._probes,
            cost=cost,
            dropped=self._dropped,
        )

    # ---- thoughts and answer -----------------------------------------------------------------------------------------

    @property
    def _context_length(self) -> int:
        if self.phase is Phase.PROBE:
            return self._base + len(self._prompt) + len(self._trial.token_ids)
        return len(self._kept)

    def _settle(self) -> None:
        """Let the newest kept token act: end of sequence, close, limit, think budget."""
        if self._kept[-1] in self._text.eos_ids or len(self._kept) >= self._limit:
            if self.phase is Phase.THINK and self._scanner.closed:
                self._close = "natural"
            self.phase = Phase.DONE
        elif self.phase is Phase.THINK and self._scanner.closed:
            self._close = "natural"
            self.phase = Phase.ANSWER
        elif self.phase is Phase.THINK and len(self._kept) >= self._think_budget:
            self._force_close("budget")

    def _force_close(self, reason: CloseReason) -> None:
        self._close = reason
        self.phase = Phase.CLOSE
        self._force(close_tokens(self._kept, self._settings, self._text))

    def _force(self, tokens: list[int]) -> None:
        """Append tokens that were not sampled, as many as the limit has room for."""
        tokens = tokens[: self._limit - len(self._kept)]
        self._kept += tokens
        self._logprobs += [None] * len(tokens)
        if len(self._kept) >= self._limit:
            self.phase = Phase.DONE

    # ---- probes ------------------------------------------------------------------------------------------------------

    def _may_probe(self, hit: MarkerHit) -> bool:
        # An accepted probe ends the thoughts, so all probes so far were declined.
        allowed = self._probing and self._rule.allows(len(self._probes))
        return allowed and len(self._kept) < self._limit and len(self._kept) - hit.held < self._think_budget

    def _start_probe(self, hit: MarkerHit) -> None:
        """Hold the marker and its lookahead back, and go on with the inducing prompt in their place."""
        self.phase = Phase.PROBE
        self._base = len(self._kept) - hit.held
        self._fed = min(self._fed, self._base)  # a lookahead that stays (nothing held) is still to be fed
        self._trial = _TrialAnswer(
            self._settings, self._rule, self._text, self._base, self._scanner.steps - 1, hit.marker
        )

    def _end_probe(self) -> None:
        probe = self._trial.record()
        reason = self._rule.verdict(probe)
        self._probes.append(replace(probe, accepted=reason is not None))
        if reason is None:
            self._put_back()
        elif self._settings.keep_probe and probe.closed:
            self._keep_probe(reason)
        else:
            self._exit(reason)

    def _put_back(self) -> None:
        """Feed the held-back tokens again, at their old places; the lookahead then acts as it would have."""
        self._cost.probe_tokens += self._fed - self._base
        self.phase = Phase.THINK
        newest = len(self._kept) - 1
        self._settle()
        if not self.done:
            # The lookahead had not been fed before; but if it stayed, it is fed again for its logits.
            self._cost.replayed_tokens += abs(newest - self._base)
            self._fed = min(self._base, newest)

    def _exit(self, reason: CloseReason) -> None:
        """End the thoughts before the marker, without the trial answer."""
        self._cost.probe_tokens += self._fed - self._base
        self._drop_held()
        self._fed = self._base
        self._force_close(reason)

    def _keep_probe(self, reason: CloseReason) -> None:
        """End the thoughts before the marker; what was fed for the probe is the close and the answer."""
        self._drop_held()
        self._close = reason
        self.phase = Phase.CLOSE  # until the trial answer's last token is fed
        self._force(self._prompt + self._trial.token_ids)
        self._cost.probe_tokens += max(0, self._fed - len(self._kept))  # what the limit cut off

    def _drop_held(self) -> None:
        held = len(self._kept) - self._base
        self._cost.replayed_tokens += max(0, held - 1)  # fed for nothing, except the lookahead
        self._dropped += self._kept[self._base :]
        self._scanner.drop(held)
        del self._kept[self._base :], self._logprobs[self._base :]


class _TrialAnswer:
    """A trial answer while its greedy tokens arrive.

    Args:
        settings: How it is induced and ended.
        rule: What it is judged by.
        token_text: Text of the token ids.
        position, step, marker: Where the probe stands, as in :class:`stepgrpo_lab.method.records.Probe`.
    """

    def __init__(
        self, settings: RolloutSettings, rule: ExitRule, token_text: TokenText, position: int, step: int, marker: str
    ) -> None:
        self._settings, self._rule = settings, rule
        self._token_text = token_text
        self._position, self._step, self._marker = position, step, marker
        self.token_ids: list[int] = []
        self.probabilities: list[float] = []
        self.closed = False

    def observe(self, token: int, probability: float) -> bool:
        """Take the next greedy token and its probability at temperature 1; returns whether it is the last one."""
        self.token_ids.append(token)
        self.probabilities.append(probability)
        text = self._token_text.decode(self.token_ids)
        self.closed = THINK_CLOSE in text if self._settings.require_close else self._box(text) is not None
        cut_off = token in self._token_text.eos_ids or len(self.token_ids) >= self._settings.probe_max_tokens
        return self.closed or cut_off or (self._settings.stop_decided and self._is_decided(text))

    def _is_decided(self, text: str) -> bool:
        """Whether the answer stands, and nothing that may follow lifts the score above the threshold."""
        if self._box(text) is None:
            return False
        opening = opening_tokens(self._pieces(), self._settings.box_opened)
        return self._rule.is_out_of_reach(self.probabilities, opening, self._settings.probe_max_tokens, self._position)

    def _pieces(self) -> list[str]:
        return [self._token_text.decode([token]) for token in self.token_ids]

    def record(self) -> Probe:
        """The ended probe as a record with the rule's score, not yet accepted."""
        text, pieces = self._token_text.decode(self.token_ids), self._pieces()
        answer, tokens = self._box(text), self._box(pieces)
        probe = Probe(
            position=self._position,
            step=self._step,
            marker=self._marker,
            token_ids=self.token_ids,
            probabilities=self.probabilities,
            text=text,
            answer=text[answer[0] : answer[1] - 1] if answer else None,
            closed=self.closed,
            confidence=0.0,
            joint=confidence(self.probabilities[slice(*tokens)], "joint") if tokens else 0.0,
            accepted=False,
            opening=opening_tokens(pieces, self._settings.box_opened),
        )
        return replace(probe, confidence=self._rule.score(probe))

    def _box(self, pieces: Sequence[str]) -> tuple[int, int] | None:
        """Span of the boxed answer and its closing brace, in ``pieces`` (tokens, or the characters of a text)."""
        return boxed_answer_span(pieces, self._settings.box_opened)
