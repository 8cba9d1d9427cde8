"""What recorded groups tell: how much was overthinking, what an exit rule would have changed, and how far trial answers
can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean, mean

from stepgrpo_lab.evaluation.statistics import Calibration, Interval, bootstrap_mean, calibration, paired_bootstrap
from stepgrpo_lab.method.confidence import ExitRule
from stepgrpo_lab.method.records import Probe, StepLabel
from stepgrpo_lab.overthinker.verifier import oracle_tokens, shown_labels
from stepgrpo_lab.recordings.schema import ExitPoint, RecordedGroup


@dataclass(frozen=True)
class LabelledSize:
    """One completion by the labels of its steps.

    Attributes:
        labels: ``[steps]`` the label of each step.
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
    entry = group.members[member]
    if entry.labels is None:
        raise ValueError(f"{group.title}: its steps are not labelled; use problems of a family with a verifier")
    sizes = tuple((step.token_end or 0) - (step.token_start or 0) for step in group.steps(member))
    return LabelledSize(tuple(entry.labels), sizes, entry.trajectory.tokens - sum(sizes))


def right_after_needed(group: RecordedGroup, member: int = 0) -> bool:
    """Whether the answer given right after the last needed step is right.

    It is a trial answer, or the completion's own where it ends there, or where no step was needed.

    Raises:
        ValueError: The steps are not labelled, or the completion went on and was not probed there.

    Example:
        >>> from stepgrpo_lab.recordings import load_survey
        >>> right_after_needed(load_survey()[0])
        True
    """
    entry = group.members[member]
    labels = labelled_size(group, member).labels
    finished = max((place for place, label in enumerate(labels) if label == "needed"), default=-1) + 1
    if finished in (0, len(labels)):
        return entry.outcome.correct
    for probe, right in zip(entry.trajectory.probes, entry.trials_right, strict=True):
        if probe.step == finished:
            return right
    raise ValueError(f"{group.title}: no probe after step {finished}; use a group that was probed at every marker")


@dataclass(frozen=True)
class Overthinking:
    """How much of some completions was overthinking.

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
        steps={label: counts[label] / len(sizes) for label in shown_labels(counts)},
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


@dataclass(frozen=True)
class RuleCost:
    """Tokens fed for a completion under an exit rule; means over completions.

    Attributes:
        probes: Probes made, up to and including the one that exits.
        kept_tokens: Length of the completion, stopped there.
        probe_tokens: Tokens fed for probes: inducing prompts and trial answers.
        replayed_tokens: Held-back tokens that were fed a second time, or for nothing.
    """

    probes: float
    kept_tokens: float
    probe_tokens: float
    replayed_tokens: float

    @property
    def decoded_tokens(self) -> float:
        """Everything that was fed after the prompt."""
        return self.kept_tokens + self.probe_tokens + self.replayed_tokens


def cost_of_rule(groups: Sequence[RecordedGroup], rule: ExitRule) -> RuleCost:
    """What every member of groups that were only watched would have cost under a rule.

    A probe feeds its inducing prompt and its trial answer except the last token, whose logits are not needed. The
    tokens that it makes the rollout feed again are taken as the completion's mean.

    Args:
        groups: Groups of which no probe ended the thoughts, such as :func:`load_survey`'s.
        rule: The rule.

    Raises:
        ValueError: There are no groups, or a group's probes were acted upon.

    Example:
        >>> from stepgrpo_lab.recordings import load_survey
        >>> cost = cost_of_rule(load_survey()[:1], ExitRule())
        >>> cost.probes, cost.kept_tokens, cost.probe_tokens
        (1.0, 22.0, 8.0)
    """
    rows = [_member_cost(group, index, rule) for group in groups for index in range(len(group.members))]
    if not rows:
        raise ValueError("there are no groups; pass recorded completions, such as load_survey()")
    return RuleCost(*(fmean(column) for column in zip(*rows, strict=True)))


def _member_cost(group: RecordedGroup, index: int, rule: ExitRule) -> tuple[float, ...]:
    point = group.exit_point(index, rule)
    trajectory = group.members[index].trajectory
    made = [trajectory.probes[place] for place in rule.asked(trajectory.probes)]
    prompt = len(group.token_text.encode(group.settings.probe_prompt)) if group.settings else 0
    replayed = trajectory.cost.replayed_tokens * len(made) / max(1, len(trajectory.probes))
    return len(made), point.tokens, sum(prompt + len(probe.token_ids) - 1 for probe in made), replayed


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
        """``[trials]`` each trial answer's score under a confidence rule, as the exit would see it."""
        return [ExitRule(confidence_rule=rule).score(probe) for probe in self.probes]

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

    A model that has learned to stop is probed only where it goes on. To tell what training did to its confidence from
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
