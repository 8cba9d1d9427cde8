"""What is recorded of a group: its trajectories, their truth, and enough of the tokenizer to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from stepgrpo_lab.method.exit_rules import ExitPoint, ExitRule, exit_point
from stepgrpo_lab.method.presets import RolloutSettings
from stepgrpo_lab.method.records import Outcome, Problem, Step, StepLabel, Trajectory
from stepgrpo_lab.method.replay import Frame, replay
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText


@dataclass(frozen=True)
class RecordedMember:
    """One completion of a group.

    Attributes:
        trajectory: All that happened.
        outcome: What the reward needs.
        trials_right: Of each probe, whether its trial answer is right.
        labels: What each semantic step was good for; None where nobody knows.
        policy_logprobs: Log-probability of every completion token under the policy, forced ones included, at the
            sampling temperature; None where the policy was not asked.
    """

    trajectory: Trajectory
    outcome: Outcome
    trials_right: list[bool]
    labels: list[StepLabel] | None = None
    policy_logprobs: list[float] | None = None


@dataclass(frozen=True)
class RecordedGroup:
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
        """A name for menus."""
        return f"{self.model}, {self.rollout}: {self.problem.id}"

    @cached_property
    def watched(self) -> bool:
        """Whether every member was probed and no probe ended its thoughts: then every exit rule can be tried on it.

        A completion without a marker has no probe and is watched all the same.
        """
        rolled = [member.trajectory for member in self.members]
        return all(told.probed and not any(probe.accepted for probe in told.probes) for told in rolled)

    @property
    def first_probed(self) -> int:
        """Index of the first member with a probe; 0 if there is none."""
        return next((index for index, told in enumerate(self.members) if told.trajectory.probes), 0)

    @property
    def most_probed(self) -> int:
        """Index of the member with the most probes, a right one if there is any."""

        def telling(index: int) -> tuple[bool, int]:
            return self.members[index].outcome.correct, len(self.members[index].trajectory.probes)

        return max(range(len(self.members)), key=telling)

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """The text of each token; a token with a part of a character shows as U+FFFD."""
        return [self.token_text.decode([token]) for token in token_ids]

    def steps(self, member: int, markers: str | Sequence[str] = "paper") -> list[Step]:
        """The semantic steps of one member, with their token spans."""
        return MarkerSegmenter(markers).split_ids(self.members[member].trajectory.completion_ids, self.token_text)

    def exit_point(self, member: int, rule: ExitRule) -> ExitPoint:
        """Where a rule would have stopped one member.

        Raises:
            ValueError: Some probes were acted upon, or never made: what a rule would have seen is not known.
        """
        if not self.watched:
            raise ValueError(f"{self.title}: a probe ended thoughts or was not made; use a group that was only watched")
        told = self.members[member]
        return exit_point(
            rule,
            told.trajectory.probes,
            told.trials_right,
            tokens=told.trajectory.tokens,
            closing_tokens=told.trajectory.tokens - (self.steps(member)[-1].token_end or 0),
            answer=told.outcome.answer,
            right=told.outcome.correct,
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
        point, told = self.exit_point(member, rule), self.members[member]
        if point.probe is None:
            return told.outcome
        return Outcome(
            correct=point.right,
            formatted=point.answer is not None,
            steps=told.trajectory.probes[point.probe].step,
            tokens=point.tokens,
            answer=point.answer,
            close="early",
        )

    def frames(self, member: int) -> list[Frame]:
        """One member, forward pass by forward pass."""
        return replay(self.members[member].trajectory, self.token_text, limit=self.limit, settings=self.settings)
