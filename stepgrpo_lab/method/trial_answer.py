"""The trial answer of one probe: when it ends, what it says, and how sure the policy is of it (Eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence

from stepgrpo_lab.method.confidence import boxed_answer_span, confidence
from stepgrpo_lab.method.presets import RolloutSettings
from stepgrpo_lab.method.records import Probe
from stepgrpo_lab.method.token_text import THINK_CLOSE, TokenText


class TrialAnswer:
    """A trial answer while its greedy tokens arrive.

    Args:
        settings: How it is induced, ended and scored.
        token_text: Text of the token ids.
        position, step, marker: Where the probe stands, as in :class:`stepgrpo_lab.method.records.Probe`.
    """

    def __init__(self, settings: RolloutSettings, token_text: TokenText, position: int, step: int, marker: str) -> None:
        self._settings = settings
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
        return self.closed or cut_off

    @property
    def confidence(self) -> float:
        """The exit rule's score in [0, 1]; 0 unless the trial answer ended as its preset asks for."""
        if not self.closed:
            return 0.0
        return confidence(self.probabilities, self._settings.confidence_rule, self._skipped())

    def _skipped(self) -> int:
        """How many leading tokens the score leaves out: none that holds a part of the answer.

        The public code always leaves out the first token, for it is the opening brace. But tokenizers merge a brace
        with what follows (Qwen3 has ``{x``, ``{-`` and ``{\\``), and the surest part of an answer is not its first.
        """
        skip = self._settings.skip_first
        return skip if self._token_text.decode(self.token_ids[:skip]).strip() in ("", "{") else 0

    def record(self, accepted: bool) -> Probe:
        """The ended probe, as a record."""
        text = self._token_text.decode(self.token_ids)
        answer = self._box(text)
        tokens = self._box([self._token_text.decode([token]) for token in self.token_ids])
        return Probe(
            position=self._position,
            step=self._step,
            marker=self._marker,
            token_ids=self.token_ids,
            probabilities=self.probabilities,
            text=text,
            answer=text[answer[0] : answer[1] - 1] if answer else None,
            closed=self.closed,
            confidence=self.confidence,
            joint=confidence(self.probabilities[slice(*tokens)], "joint") if tokens else 0.0,
            accepted=accepted,
        )

    def _box(self, pieces: Sequence[str]) -> tuple[int, int] | None:
        """Span of the boxed answer and its closing brace, in ``pieces`` (tokens, or the characters of a text)."""
        return boxed_answer_span(pieces, opened=self._settings.probe_prompt.endswith("{"))
