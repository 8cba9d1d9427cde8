"""The exit rule: how sure the policy is of its trial answer (Eq. 2), and whether that ends the thoughts.

The one home of the rule: the trajectory machine asks it while sampling, and every replay, figure and widget asks it
again on recorded probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from stepgrpo_lab.method.arrays import one_row
from stepgrpo_lab.method.records import Probe
from stepgrpo_lab.method.steps import resolve_markers


def _geometric(probabilities: Sequence[float]) -> float:
    if min(probabilities) == 0.0:
        return 0.0
    return math.exp(math.fsum(map(math.log, probabilities)) / len(probabilities))


def _arithmetic(probabilities: Sequence[float]) -> float:
    return math.fsum(probabilities) / len(probabilities)


_RULES: dict[str, Callable[[Sequence[float]], float]] = {
    "geometric": _geometric,
    "arithmetic": _arithmetic,
    "minimum": min,
    "joint": math.prod,
}

RULES = tuple(_RULES)
"""Names of the rules: geometric mean (= exp of the mean log-probability), arithmetic mean, smallest, product."""


def confidence(probabilities: Sequence[float], rule: str = "geometric", skip_first: int = 0) -> float:
    """Score a trial answer in [0, 1].

    The two means are normalised by length, so sure tokens around an answer (braces, newline, ``</think>``) lift an
    unsure answer: a joint probability of 0.80 scores 0.928 over 3 tokens and 0.956 over 5. That is the published exit
    score; to ask how often answers are right, use the ``joint`` rule on the tokens of
    :func:`stepgrpo_lab.method.boxes.boxed_answer_span`.

    Args:
        probabilities: Top-1 probability of each greedy token, raw logits at temperature 1.
        rule: One of :data:`RULES`.
        skip_first: Leave out that many tokens at the start.

    Returns:
        The score; 0.0 when no token is left, because nothing is left that supports the answer.

    Raises:
        ValueError: Unknown rule, negative ``skip_first``, or a probability outside [0, 1].

    Example:
        >>> round(confidence([0.99, 0.9, 0.8, 0.999], skip_first=1), 6)
        0.895982
    """
    if rule not in _RULES:
        raise ValueError(f"unknown confidence rule {rule!r}: choose one of {', '.join(RULES)}")
    if skip_first < 0:
        raise ValueError(f"skip_first is {skip_first}: it counts tokens, so use 0 or more")
    probabilities = one_row("probabilities", probabilities)
    for place, probability in enumerate(probabilities):
        if not 0.0 <= probability <= 1.0:  # also refuses NaN
            raise ValueError(
                f"probabilities[{place}] is {probability}: pass probabilities in [0, 1], not logits or logs"
            )
    counted = probabilities[skip_first:]
    return float(_RULES[rule](counted)) if len(counted) else 0.0


_ROUNDING = 1e-9
"""How far below the threshold a bound must lie, so that rounding cannot turn a verdict."""


@dataclass(frozen=True)
class ExitRule:
    """When a trial answer ends the thoughts: at the first probe that scores above the threshold.

    The defaults are those of the ``official`` preset at every marker of the paper, without a budget. The rule that a
    rollout ran with is :meth:`stepgrpo_lab.method.settings.RolloutSettings.exit_rule`.

    Attributes:
        threshold: Exit above this score (strictly, so 1.0 never exits).
        confidence_rule: How token probabilities become one score, one of :data:`RULES`.
        markers: Name of a marker set, or the words: probes at other markers are passed over.
        skip_first: How many leading tokens of the trial answer the score leaves out, if they hold nothing but the brace
            that opens the box. Tokenizers merge a brace with what follows (Qwen3 has ``{x``, ``{-`` and ``{\\``): such
            a token holds part of the answer and counts.
        min_steps: Pass over probes before so many steps are finished. With threshold 0, which takes any trial answer,
            this is a fixed cut.
        min_tokens: The same for tokens of the completion; the step in which they run out is finished.
        max_probes: Declined probes after which the thoughts run on without probes; None for no limit.
        near_budget: A probe at this place of the completion or later exits whatever its score; None for nowhere.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> sure = Probe(12, 1, "Wait", [5, 6], [0.5, 0.99], "{7}", "7", True, 0.99, 0.99, False, opening=1)
        >>> ExitRule(0.9).score(sure), ExitRule(0.9).first_exit([sure])
        (0.99, 0)
        >>> after_two_steps = ExitRule(0.0, min_steps=2)
        >>> after_two_steps.first_exit([sure]) is None
        True
    """

    threshold: float = 0.95
    confidence_rule: str = "geometric"
    markers: str | tuple[str, ...] = "paper"
    skip_first: int = 1
    min_steps: int = 0
    min_tokens: int = 0
    max_probes: int | None = None
    near_budget: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}: give a number from 0 to 1")
        for name in ("min_steps", "min_tokens", "max_probes"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give 0 or more")
        confidence([], self.confidence_rule, self.skip_first)  # refuses an unknown rule or a negative count
        resolve_markers(self.markers)

    def score(self, probe: Probe) -> float:
        """The probe's score in [0, 1]; 0 if its trial answer did not end as its preset asks for."""
        if not probe.closed:
            return 0.0
        return confidence(probe.probabilities, self.confidence_rule, min(self.skip_first, probe.opening))

    def verdict(self, probe: Probe) -> Literal["early", "near_budget"] | None:
        """Why this probe ends the thoughts; None if it is declined and they go on."""
        if self.score(probe) > self.threshold:
            return "early"
        near = self.near_budget is not None and probe.position >= self.near_budget
        return "near_budget" if near else None

    def is_out_of_reach(self, probabilities: Sequence[float], opening: int, most: int, position: int) -> bool:
        """Whether an unfinished trial answer will be declined, however sure its tokens to come are.

        No token is surer than 1, and under every rule a certain token leaves a score as it is or lifts it.

        Args:
            probabilities: Top-1 probability of each greedy token so far.
            opening: How many leading tokens hold nothing of the answer; final as soon as the answer has begun.
            most: Longest trial answer, in tokens.
            position: Number of kept completion tokens when the probe began.

        Example:
            >>> rule = ExitRule(0.95)
            >>> [rule.is_out_of_reach([0.9, answer, 0.99], 1, most=20, position=40) for answer in (0.5, 0.3)]
            [False, True]
        """
        if self.near_budget is not None and position >= self.near_budget:
            return False
        best = [*probabilities, *[1.0] * (most - len(probabilities))]
        return confidence(best, self.confidence_rule, min(self.skip_first, opening)) < self.threshold - _ROUNDING

    def allows(self, declined: int) -> bool:
        """Whether one more probe may follow so many declined ones."""
        return self.max_probes is None or declined < self.max_probes

    def asked(self, probes: Sequence[Probe]) -> list[int]:
        """Indices of the probes that the rule makes, out of those at every marker; the one that exits comes last."""
        words = resolve_markers(self.markers)
        asked: list[int] = []
        for index, probe in enumerate(probes):
            early = probe.step < self.min_steps or probe.position < self.min_tokens
            if probe.marker not in words or early:
                continue
            if not self.allows(len(asked)):
                break
            asked.append(index)
            if self.verdict(probe):
                break
        return asked

    def first_exit(self, probes: Sequence[Probe]) -> int | None:
        """Index of the probe that ends the thoughts; None if they run to their own end."""
        asked = self.asked(probes)
        return asked[-1] if asked and self.verdict(probes[asked[-1]]) else None


def rules_at(threshold: float, *, markers: str | tuple[str, ...] = "paper", skip_first: int = 1) -> list[ExitRule]:
    """Every confidence rule at one threshold, for comparison.

    Example:
        >>> [rule.confidence_rule for rule in rules_at(0.95)]
        ['geometric', 'arithmetic', 'minimum', 'joint']
    """
    return [ExitRule(threshold, name, markers, skip_first) for name in RULES]
