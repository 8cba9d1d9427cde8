"""What is recorded of a group: its trajectories, their truth, and enough of the tokenizer to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten

from stepgrpo_lab.method.confidence import ExitRule
from stepgrpo_lab.method.records import Outcome, Probe, Problem, ShortRepr, Step, StepLabel, Trajectory
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.steps import MarkerSegmenter, Segmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.recordings.replay import Frame, replay

TITLE_LENGTH = 44
"""Characters of a problem in a group's title."""


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


@dataclass(frozen=True, repr=False)
class RecordedMember(ShortRepr):
    """One completion of a group.

    Attributes:
        trajectory: All that happened.
        outcome: What the reward needs.
        trials_right: Of each probe, whether its trial answer is right.
        labels: Label of each semantic step; None where the truth is not known.
        policy_logprobs: Log-probability of every completion token under the policy, forced ones included, at the
            sampling temperature; None where the policy was not asked.

    Raises:
        ValueError: The lists differ in length.
    """

    trajectory: Trajectory
    outcome: Outcome
    trials_right: list[bool]
    labels: list[StepLabel] | None = None
    policy_logprobs: list[float] | None = None

    def __post_init__(self) -> None:
        trajectory = self.trajectory
        for name, values, expected in (
            ("trials_right", self.trials_right, len(trajectory.probes)),
            ("policy_logprobs", self.policy_logprobs, trajectory.tokens),
            ("trajectory.logprobs", trajectory.logprobs, trajectory.tokens),
        ):
            if values is not None and len(values) != expected:
                raise ValueError(f"{name} has {len(values)} entries, not {expected}")


@dataclass(frozen=True, repr=False)
class RecordedGroup(ShortRepr):
    """The completions of one prompt.

    Attributes:
        model: Name of the policy ("untrained", "trained", ...).
        rollout: What kind of rollout it was ("plain", "official", "paper", ...), for menus.
        problem: The problem.
        members: The completions.
        settings: The rollout's settings; None for plain decoding without probes.
        limit: Completion limit in tokens.
        token_text: Text of the tokens that occur.
    """

    model: str
    rollout: str
    problem: Problem
    members: Sequence[RecordedMember]
    settings: RolloutSettings | None
    limit: int
    token_text: TokenText

    @property
    def title(self) -> str:
        """A name for menus: model, rollout, and how the problem begins."""
        question = shorten(self.problem.prompt, TITLE_LENGTH, placeholder=" …")
        return f"{self.model}, {self.rollout}: {self.problem.family or 'problem'}, {question}"

    @cached_property
    def watched(self) -> bool:
        """Whether every member was probed and no probe ended its thoughts: then every exit rule can be tried on it.

        A completion without a marker has no probe and is watched all the same.
        """
        rolled = [member.trajectory for member in self.members]
        return all(entry.probed and not any(probe.accepted for probe in entry.probes) for entry in rolled)

    @property
    def first_probed(self) -> int:
        """Index of the first member with a probe; 0 if there is none."""
        return next((index for index, entry in enumerate(self.members) if entry.trajectory.probes), 0)

    @property
    def most_probed(self) -> int:
        """Index of the member with the most probes, a right one if there is any."""

        def telling(index: int) -> tuple[bool, int]:
            return self.members[index].outcome.correct, len(self.members[index].trajectory.probes)

        return max(range(len(self.members)), key=telling)

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token; a token with a part of a character shows as U+FFFD."""
        return [self.token_text.decode([token]) for token in token_ids]

    def steps(self, member: int, markers: str | Sequence[str] | Segmenter = "paper") -> list[Step]:
        """The semantic steps of one member, with their token spans; by markers, or by a segmenter of your own."""
        segmenter = markers if hasattr(markers, "split_ids") else MarkerSegmenter(markers)
        return segmenter.split_ids(self.members[member].trajectory.completion_ids, self.token_text)

    def exit_point(self, member: int, rule: ExitRule) -> ExitPoint:
        """Where a rule would have stopped one member.

        Raises:
            ValueError: Some probes were acted upon, or never made: what a rule would have seen is not known.
        """
        if not self.watched:
            raise ValueError(f"{self.title}: a probe ended thoughts or was not made; use a group that was only watched")
        entry = self.members[member]
        return exit_point(
            rule,
            entry.trajectory.probes,
            entry.trials_right,
            tokens=entry.trajectory.tokens,
            closing_tokens=entry.trajectory.tokens - (self.steps(member)[-1].token_end or 0),
            answer=entry.outcome.answer,
            right=entry.outcome.correct,
        )

    def outcomes(self, rule: ExitRule | None = None, probed: Sequence[bool] | None = None) -> list[Outcome]:
        """What the members came to; with a rule, what they would have come to had it ended their thoughts.

        Args:
            rule: The exit rule; None for the outcomes as they were recorded.
            probed: Whose thoughts the rule may end; by default everybody's.

        Raises:
            ValueError: The probes were acted upon already, or ``probed`` has not one entry for each member.

        Example:
            >>> from stepgrpo_lab.recordings import load_recordings
            >>> plain = load_recordings()[0]
            >>> [outcome.steps for outcome in plain.outcomes(ExitRule(), [True] * 4 + [False] * 4)]
            [2, 2, 2, 2, 8, 9, 12, 6]
        """
        recorded = [member.outcome for member in self.members]
        if rule is None:
            return recorded
        if probed is not None and len(probed) != len(recorded):
            raise ValueError(f"probed has {len(probed)} entries but the group {len(recorded)} members; give one each")
        return [
            self._stopped(index, rule) if may_exit else outcome
            for index, (outcome, may_exit) in enumerate(zip(recorded, probed or [True] * len(recorded), strict=True))
        ]

    def _stopped(self, member: int, rule: ExitRule) -> Outcome:
        point, entry = self.exit_point(member, rule), self.members[member]
        if point.probe is None:
            return entry.outcome
        return Outcome(
            correct=point.right,
            formatted=point.answer is not None,
            steps=entry.trajectory.probes[point.probe].step,
            tokens=point.tokens,
            answer=point.answer,
            close="early",
        )

    def frames(self, member: int) -> list[Frame]:
        """One member, forward pass by forward pass."""
        return replay(self.members[member].trajectory, self.token_text, limit=self.limit, settings=self.settings)
