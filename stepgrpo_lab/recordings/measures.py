"""What can be counted on a survey: how much of it was overthinking, and what an exit rule would have made of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean

from stepgrpo_lab.evaluation.statistics import Interval, bootstrap_mean, paired_bootstrap
from stepgrpo_lab.method.exit_rules import ExitPoint, ExitRule
from stepgrpo_lab.method.records import StepLabel
from stepgrpo_lab.overthinker.verifier import LABELS, oracle_tokens
from stepgrpo_lab.recordings.schema import RecordedGroup


@dataclass(frozen=True)
class LabelledSize:
    """One completion by what its tokens were good for.

    Attributes:
        labels: ``[steps]`` what each step was good for.
        step_tokens: ``[steps]`` tokens of each step.
        closing_tokens: Tokens of the close and the answer.
    """

    labels: tuple[StepLabel, ...]
    step_tokens: tuple[int, ...]
    closing_tokens: int

    @property
    def tokens(self) -> int:
        """Length of the whole completion."""
        return sum(self.step_tokens) + self.closing_tokens

    @property
    def oracle_tokens(self) -> int:
        """Its length if it stopped after its last needed step."""
        return oracle_tokens(self.labels, self.step_tokens, self.closing_tokens)


def labelled_size(group: RecordedGroup, member: int = 0) -> LabelledSize:
    """The labels of one completion's steps beside their lengths.

    Raises:
        ValueError: Its steps are not labelled.

    Example:
        >>> from stepgrpo_lab.recordings import load_survey
        >>> size = labelled_size(load_survey()[0])
        >>> size.labels[:2], size.step_tokens[:2], size.tokens
        (('needed', 'verifying'), (16, 15), 113)
    """
    told = group.members[member]
    if told.labels is None:
        raise ValueError(f"{group.title}: its steps are not labelled; use problems of a family with a verifier")
    sizes = tuple((step.token_end or 0) - (step.token_start or 0) for step in group.steps(member))
    return LabelledSize(tuple(told.labels), sizes, told.trajectory.tokens - sum(sizes))


def right_after_needed(group: RecordedGroup, member: int = 0) -> bool:
    """Whether the answer given right after the last needed step is right.

    It is a trial answer, or the completion's own where it ends there, or where no step was of any use.

    Raises:
        ValueError: The steps are not labelled, or the completion went on and was not probed there.

    Example:
        >>> from stepgrpo_lab.recordings import load_survey
        >>> right_after_needed(load_survey()[0])
        True
    """
    told = group.members[member]
    labels = labelled_size(group, member).labels
    finished = max((place for place, label in enumerate(labels) if label == "needed"), default=-1) + 1
    if finished in (0, len(labels)):
        return told.outcome.correct
    for probe, right in zip(told.trajectory.probes, told.trials_right, strict=True):
        if probe.step == finished:
            return right
    raise ValueError(f"{group.title}: no probe after step {finished}; use a group that was probed at every marker")


@dataclass(frozen=True)
class Overthinking:
    """What the steps and tokens of some completions were good for.

    Attributes:
        completions: How many there are.
        steps: Label -> mean number of steps of a completion.
        tokens: Mean length of a completion.
        right: Share of right answers, in [0, 1].
        oracle_tokens: Mean length, had each stopped after its last needed step.
        oracle_right: Share of right answers then.
        saved: Share of all tokens that this oracle saves, with its interval over problems.
    """

    completions: int
    steps: dict[StepLabel, float]
    tokens: float
    right: float
    oracle_tokens: float
    oracle_right: float
    saved: Interval


def measure_overthinking(groups: Sequence[RecordedGroup]) -> Overthinking:
    """Count the steps by label, and the tokens after the last needed step; the first member of each group counts.

    Raises:
        ValueError: There are no groups, or steps are not labelled.

    Example:
        >>> from stepgrpo_lab.recordings import load_survey
        >>> untrained = [group for group in load_survey() if group.model == "untrained"]
        >>> round(measure_overthinking(untrained).saved.estimate, 3)
        0.668
    """
    if not groups:
        raise ValueError("no groups to measure; pass at least one")
    sizes = [labelled_size(group) for group in groups]
    counts = Counter(label for size in sizes for label in size.labels)
    whole, oracle = [size.tokens for size in sizes], [size.oracle_tokens for size in sizes]
    kept = paired_bootstrap(whole, oracle, statistic="ratio")
    return Overthinking(
        completions=len(sizes),
        steps={label: counts[label] / len(sizes) for label in LABELS},
        tokens=mean(whole),
        right=mean(group.members[0].outcome.correct for group in groups),
        oracle_tokens=mean(oracle),
        oracle_right=mean(map(right_after_needed, groups)),
        saved=Interval(1 - kept.estimate, 1 - kept.high, 1 - kept.low),
    )


@dataclass(frozen=True)
class RuleTrial:
    """An exit rule tried on completions that were only watched.

    Attributes:
        rule: The rule.
        points: ``[completions]`` where it stops each of them.
    """

    rule: ExitRule
    points: tuple[ExitPoint, ...]

    @property
    def tokens(self) -> float:
        """Mean length of a completion, stopped there."""
        return mean(point.tokens for point in self.points)

    @property
    def right(self) -> float:
        """Share of right answers, in [0, 1]."""
        return mean(point.right for point in self.points)

    @property
    def exits(self) -> float:
        """Share of the completions that the rule stops, in [0, 1]."""
        return mean(point.probe is not None for point in self.points)

    @cached_property
    def right_interval(self) -> Interval:
        """Share of right answers with its interval over problems."""
        return bootstrap_mean([float(point.right) for point in self.points])


def try_rule(groups: Sequence[RecordedGroup], rule: ExitRule) -> RuleTrial:
    """Where a rule would have stopped the first member of each group.

    Raises:
        ValueError: There are no groups, or one was not only watched.

    Example:
        >>> from stepgrpo_lab.recordings import load_survey
        >>> untrained = [group for group in load_survey() if group.model == "untrained"]
        >>> round(try_rule(untrained, ExitRule(0.0, min_steps=1)).right, 3)
        0.31
    """
    if not groups:
        raise ValueError("no groups to try the rule on; pass at least one")
    return RuleTrial(rule, tuple(group.exit_point(0, rule) for group in groups))
