"""The trial answers of recorded groups: how sure the policy was of them, and whether they were right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from stepgrpo_lab.evaluation.statistics import Calibration, calibration
from stepgrpo_lab.method.confidence import confidence
from stepgrpo_lab.method.records import Probe
from stepgrpo_lab.recordings.schema import RecordedGroup


@dataclass(frozen=True)
class Trials:
    """Trial answers, in order.

    Attributes:
        probes: ``[trials]`` the probes.
        right: ``[trials]`` whether each trial answer is right.
    """

    probes: list[Probe] = field(repr=False)
    right: list[bool] = field(repr=False)

    def __len__(self) -> int:
        return len(self.probes)

    @property
    def stated(self) -> list[float]:
        """``[trials]`` joint probability of each boxed answer."""
        return [probe.joint for probe in self.probes]

    def scores(self, rule: str) -> list[float]:
        """``[trials]`` what a confidence rule makes of all of each trial answer's tokens."""
        return [confidence(probe.probabilities, rule) for probe in self.probes]

    def calibration(self, rule: str | None = None, bins: int = 10) -> Calibration:
        """Reliability of the joint probability of the boxed answer, as the model's card has it, or of a rule's score.

        Raises:
            ValueError: There are no trial answers, or the rule is unknown.
        """
        return calibration(self.stated if rule is None else self.scores(rule), self.right, bins)


def trial_answers(groups: Sequence[RecordedGroup], *, first_only: bool = False) -> Trials:
    """Every trial answer of some groups.

    Args:
        groups: Recorded groups.
        first_only: Only the first probe of each completion.

    Example:
        >>> from stepgrpo_lab.recordings import load_survey
        >>> untrained = [group for group in load_survey() if group.model == "untrained"]
        >>> round(trial_answers(untrained, first_only=True).calibration().ece, 2)
        0.03
    """
    found = [trial for group in groups for member in _by_place(group) for trial in member[: 1 if first_only else None]]
    return _trials(pair for _, pair in found)


def trial_answers_after_same_thoughts(
    before: Sequence[RecordedGroup], after: Sequence[RecordedGroup]
) -> tuple[Trials, Trials]:
    """The trial answers that two models gave to the same problem after the very same thoughts, pair by pair.

    A model that has learnt to stop is probed only where it goes on. To tell what training did to its confidence from
    what it did to the places where it is asked, compare places where both were asked.

    Args:
        before, after: Groups of the two models.

    Example:
        >>> from stepgrpo_lab.recordings import load_survey
        >>> survey = load_survey()
        >>> untrained, trained = (
        ...     [group for group in survey if group.model == name] for name in ("untrained", "trained")
        ... )
        >>> pairs = trial_answers_after_same_thoughts(untrained, trained)
        >>> [len(trials) for trials in pairs]
        [650, 650]
    """
    first, second = (
        {key: pair for group in groups for member in _by_place(group) for key, pair in member}
        for groups in (before, after)
    )
    shared = [key for key in first if key in second]
    return _trials(first[key] for key in shared), _trials(second[key] for key in shared)


_Key = tuple[str, int, tuple[int, ...]]
_Pair = tuple[Probe, bool]


def _by_place(group: RecordedGroup) -> Iterator[list[tuple[_Key, _Pair]]]:
    """For each member its trials, each named by problem, member and the thoughts before it."""
    for index, member in enumerate(group.members):
        ids = member.trajectory.completion_ids
        yield [
            ((group.problem.id, index, tuple(ids[: probe.position])), (probe, right))
            for probe, right in zip(member.trajectory.probes, member.trials_right, strict=True)
        ]


def _trials(pairs: Iterator[_Pair]) -> Trials:
    found = list(pairs)
    return Trials([probe for probe, _ in found], [right for _, right in found])
