"""Where an exit rule would have stopped a completion that was probed at every marker and never exited.

Such a completion is token for token the one without probes, so one recording answers for every rule: threshold,
markers and confidence score can be changed afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_lab.method.confidence import RULES, confidence
from stepgrpo_lab.method.records import Probe
from stepgrpo_lab.method.steps import resolve_markers


@dataclass(frozen=True)
class ExitRule:
    """When a trial answer ends the thoughts: the first probe at one of the markers that scores above the threshold.

    Attributes:
        threshold: Exit above this score (strictly, so 1.0 never exits).
        confidence_rule: How token probabilities become one score (see :mod:`stepgrpo_lab.method.confidence`).
        markers: Name of a marker set, or the words: probes at other markers are passed over.
        skip_first: How many leading tokens of the trial answer the score leaves out.
        min_steps: Pass over probes before so many steps are finished. With threshold 0, which takes any trial answer,
            this is a fixed cut.
        min_tokens: The same for tokens of the completion; the step in which they run out is finished.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> ExitRule(0.9, "joint").threshold
        0.9
        >>> after_two_steps = ExitRule(0.0, min_steps=2)
    """

    threshold: float = 0.95
    confidence_rule: str = "geometric"
    markers: str | tuple[str, ...] = "paper"
    skip_first: int = 0
    min_steps: int = 0
    min_tokens: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}: give a number from 0 to 1")
        for name in ("min_steps", "min_tokens"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: give 0 or more")
        confidence([], self.confidence_rule, self.skip_first)  # refuses an unknown rule or a negative count
        resolve_markers(self.markers)

    def score(self, probe: Probe) -> float:
        """The probe's score in [0, 1]; 0 if its trial answer did not end as its preset asks for."""
        return confidence(probe.probabilities, self.confidence_rule, self.skip_first) if probe.closed else 0.0

    def asks(self, probe: Probe) -> bool:
        """Whether the rule makes this probe at all, or passes over it."""
        early = probe.step < self.min_steps or probe.position < self.min_tokens
        return probe.marker in resolve_markers(self.markers) and not early

    def first_exit(self, probes: Sequence[Probe]) -> int | None:
        """Index of the probe that ends the thoughts; None if they run to their own end."""
        for index, probe in enumerate(probes):
            if self.asks(probe) and self.score(probe) > self.threshold:
                return index
        return None


@dataclass(frozen=True)
class ExitPoint:
    """What one rule would have made of one completion.

    Attributes:
        rule: The rule.
        probe: Index of the accepted probe; None if the thoughts run to their own end.
        tokens: Length of the completion in tokens, stopped there.
        saved: Tokens fewer than the whole completion; negative where the close costs more than it saves.
        answer: The answer it would give: the trial answer, or the completion's own.
        right: Whether that answer is right.
    """

    rule: ExitRule
    probe: int | None
    tokens: int
    saved: int
    answer: str | None
    right: bool


def exit_point(
    rule: ExitRule,
    probes: Sequence[Probe],
    trials_right: Sequence[bool],
    *,
    tokens: int,
    closing_tokens: int,
    answer: str | None,
    right: bool,
) -> ExitPoint:
    """Apply a rule to one recorded completion.

    The close and the answer are taken to be as long as the recorded ones, and the answer to be the trial answer. In
    ``paper`` that is what happens; ``official`` would sample the answer afresh, which agrees but for sampling noise.

    Args:
        rule: The rule.
        probes: Every probe, in order, none of which ended the thoughts.
        trials_right: Of each probe, whether its trial answer is right.
        tokens: Length of the whole completion.
        closing_tokens: Tokens of its close and answer.
        answer, right: The completion's own answer, and whether that is right.

    Raises:
        ValueError: The two sequences differ in length.

    Example:
        >>> probe = Probe(12, 1, "Wait", [5], [0.99], "7}", "7", True, 0.99, 0.99, False)
        >>> stopped = exit_point(ExitRule(), [probe], [True], tokens=60, closing_tokens=8, answer="7", right=True)
        >>> stopped.tokens, stopped.saved, stopped.right
        (20, 40, True)
    """
    if len(probes) != len(trials_right):
        raise ValueError(f"{len(probes)} probes but {len(trials_right)} verdicts in trials_right; give one for each")
    index = rule.first_exit(probes)
    if index is None:
        return ExitPoint(rule, None, tokens, 0, answer, right)
    stopped = probes[index].position + closing_tokens
    return ExitPoint(rule, index, stopped, tokens - stopped, probes[index].answer, trials_right[index])


def rules_at(threshold: float, *, markers: str | tuple[str, ...] = "paper", skip_first: int = 0) -> list[ExitRule]:
    """Every confidence rule at one threshold, for comparison.

    Example:
        >>> [rule.confidence_rule for rule in rules_at(0.95)]
        ['geometric', 'arithmetic', 'minimum', 'joint']
    """
    return [ExitRule(threshold, name, markers, skip_first) for name in RULES]
