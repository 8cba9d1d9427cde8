"""Plain records, one for each station that the data passes.

``Problem`` -> prompt ids -> ``Trajectory`` (with its ``Probe`` records and ``Cost``) -> ``Outcome`` -> group ->
rewards.

Every record is a data class of Python builtins: printable, comparable, and JSON-able through :func:`to_json` and
:func:`from_json`, so each station can be recorded, replayed and tested without the others.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

CloseReason = Literal["natural", "early", "near_budget", "budget"]
"""Why the thoughts ended: the policy closed them itself, a confident probe, a probe near the budget, or the budget."""

FinishReason = Literal["eos", "length"]
"""Why the completion ended: an end-of-sequence token, or the completion limit (then it counts as truncated)."""

StepLabel = Literal["needed", "verifying", "redundant", "malformed"]
"""Whether a semantic step was needed, where the truth is known."""


@dataclass(frozen=True)
class Problem:
    """One problem with its gold answer.

    Attributes:
        id: Unique name of the problem inside its data set.
        prompt: The question as the user writes it (no chat template, no suffix).
        answer: The gold answer, LaTeX or plain text, without ``\\boxed``.
        family: Kind of problem, for tables ("chain", "search", "gsm8k", ...).
        level: Difficulty, larger is harder; None where unknown.
        meta: Whatever a verifier needs to know (JSON-able).
    """

    id: str
    prompt: str
    answer: str
    family: str = ""
    level: int | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One semantic step of a completion.

    Attributes:
        index: 0 for the text before the first marker.
        marker: The marker that opens the step; None for step 0.
        text: The step's text, its marker included.
        start, end: Character span in the completion's text, ``text == completion[start:end]``.
        token_start, token_end: Half-open token span; None when the step was split from text alone.
    """

    index: int
    marker: str | None
    text: str
    start: int
    end: int
    token_start: int | None = None
    token_end: int | None = None


@dataclass(frozen=True)
class Probe:
    """One trial answer (the PROBE phase), which leaves no trace in the trajectory when it is declined.

    Attributes:
        position: Number of kept completion tokens when the probe began (its place in the trajectory).
        step: How many semantic steps had been finished (1 at the first marker).
        marker: The marker that was held back.
        token_ids: The greedy tokens, the inducing prompt not included.
        probabilities: Top-1 probability of each of them, raw logits at temperature 1.
        text: Decoded ``token_ids``.
        answer: What stands in the box; None if no box was completed.
        closed: Whether the probe ended as its preset asks for (official: ``</think>``; paper: a completed box).
        confidence: Score of the preset's rule (Eq. 2), in [0, 1]; what the exit compares with its threshold.
        joint: Joint probability of the boxed answer and its closing brace, in [0, 1]: the calibrated quantity.
        accepted: Whether the thoughts were closed here.
        opening: How many leading tokens hold nothing of the answer (white space, the brace that opens the box): only
            these may be left out of a score (see :class:`stepgrpo_lab.method.confidence.ExitRule`).
    """

    position: int
    step: int
    marker: str
    token_ids: list[int]
    probabilities: list[float]
    text: str
    answer: str | None
    closed: bool
    confidence: float
    joint: float
    accepted: bool
    opening: int = 0


@dataclass
class Cost:
    """What a rollout fed through the model, in tokens (one token fed = one row of one forward pass).

    Attributes:
        prompt_tokens: Prefill.
        kept_tokens: Length of the finished completion.
        probe_tokens: Tokens fed for probes: inducing prompts and trial answers.
        replayed_tokens: Held-back tokens fed a second time after a declined probe, and kept tokens that were dropped.
        forward_passes: Forward passes of the whole batch; 0 on the record of a single trajectory.
    """

    prompt_tokens: int = 0
    kept_tokens: int = 0
    probe_tokens: int = 0
    replayed_tokens: int = 0
    forward_passes: int = 0

    @property
    def decoded_tokens(self) -> int:
        """Everything but the prompts: the net price of a rollout."""
        return self.kept_tokens + self.probe_tokens + self.replayed_tokens

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclass
class Trajectory:
    """One finished completion, with all that happened on the way.

    Attributes:
        prompt_ids, completion_ids: Token ids; the completion includes its end-of-sequence token if there is one.
        logprobs: For each completion token its log-probability at the sampling temperature, before top-p and top-k;
            None for a token that was forced (or greedy, when it came from an accepted probe).
        text: The decoded completion, special tokens kept.
        steps: Number of semantic steps, Eq. 3.
        close: Why the thoughts ended; None if they never did.
        finish: Why the completion ended.
        probed: Whether this trajectory was allowed to probe at all.
        probes: Every probe, in order.
        cost: Tokens fed for it.
        dropped: Tokens that had been sampled where an accepted probe then ended the thoughts: the held-back marker and
            its lookahead. With them a trajectory can be replayed (see :mod:`stepgrpo_lab.recordings.replay`).
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float | None]
    text: str
    steps: int
    close: CloseReason | None
    finish: FinishReason
    probed: bool = False
    probes: list[Probe] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    dropped: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Length of the completion in tokens."""
        return len(self.completion_ids)

    @property
    def forced(self) -> list[bool]:
        """For each completion token, whether it was put there instead of sampled."""
        return [logprob is None for logprob in self.logprobs]


@dataclass(frozen=True)
class Outcome:
    """What the reward and the evaluation need to know of one completion.

    Attributes:
        correct: The answer after the close equals the gold answer.
        formatted: A non-empty box follows the first ``</think>`` (the format term of Eq. 5).
        steps: Number of semantic steps, Eq. 3.
        tokens: Completion length in tokens.
        answer: The extracted answer; None if there is none.
        truncated: The completion hit its limit.
        close: Why the thoughts ended; None if they never did.
    """

    correct: bool
    formatted: bool
    steps: int
    tokens: int
    answer: str | None = None
    truncated: bool = False
    close: CloseReason | None = None


Record = TypeVar("Record")


def to_json(record: Any) -> dict[str, Any]:
    """Turn any record into a JSON-able dictionary.

    Example:
        >>> to_json(Problem("p1", "1+1?", "2"))["answer"]
        '2'
    """
    return dataclasses.asdict(record)


_NESTED: dict[str, dict[str, type]] = {"Trajectory": {"probes": Probe, "cost": Cost}}


def from_json(kind: type[Record], data: dict[str, Any]) -> Record:
    """Rebuild a record of type ``kind`` from :func:`to_json`'s dictionary.

    Raises:
        TypeError: A field is missing or unknown; the message names it.

    Example:
        >>> from_json(Cost, to_json(Cost(kept_tokens=3))).kept_tokens
        3
    """
    data = dict(data)
    for name, nested in _NESTED.get(kind.__name__, {}).items():
        if isinstance(data.get(name), list):
            data[name] = [from_json(nested, item) for item in data[name]]
        elif isinstance(data.get(name), dict):
            data[name] = from_json(nested, data[name])
    return kind(**data)
