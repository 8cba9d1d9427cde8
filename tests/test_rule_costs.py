"""What exit rules would have cost on recorded completions, and how sure the policy was of its trial answers."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from statistics import fmean

import pytest

from stepgrpo_lab.evaluation.statistics import calibration
from stepgrpo_lab.method.confidence import ExitRule
from stepgrpo_lab.recordings import RecordedGroup, load_recordings, load_survey
from stepgrpo_lab.recordings.measures import cost_of_rule, trial_answers, trial_answers_after_same_thoughts

SURVEY = load_survey()
UNTRAINED, TRAINED = ([group for group in SURVEY if group.model == name] for name in ("untrained", "trained"))


@pytest.mark.parametrize("groups", [UNTRAINED, TRAINED], ids=["untrained", "trained"])
def test_a_rule_that_never_exits_costs_what_was_recorded(groups: list[RecordedGroup]) -> None:
    outcome = cost_of_rule(groups, ExitRule(1.0))
    costs = [member.trajectory.cost for group in groups for member in group.members]
    assert outcome.kept_tokens == fmean(cost.kept_tokens for cost in costs)
    assert outcome.probe_tokens == fmean(cost.probe_tokens for cost in costs)
    assert outcome.replayed_tokens == pytest.approx(fmean(cost.replayed_tokens for cost in costs))
    assert outcome.decoded_tokens == pytest.approx(fmean(cost.decoded_tokens for cost in costs))


def test_a_higher_threshold_never_makes_completions_shorter() -> None:
    for earlier, later in pairwise(cost_of_rule(SURVEY, ExitRule(step / 5)) for step in range(6)):
        assert earlier.probes <= later.probes
        assert earlier.kept_tokens <= later.kept_tokens


def test_threshold_zero_makes_one_probe_where_there_is_a_marker() -> None:
    outcome = cost_of_rule(TRAINED, ExitRule(0.0))
    assert outcome.probes == fmean(bool(group.members[0].trajectory.probes) for group in TRAINED) < 1


def test_probes_that_a_rule_passes_over_cost_nothing() -> None:
    every = cost_of_rule(UNTRAINED, ExitRule(1.0))
    for rule in (ExitRule(1.0, markers="official"), ExitRule(1.0, min_steps=2), ExitRule(1.0, min_tokens=40)):
        some = cost_of_rule(UNTRAINED, rule)
        assert some.probes < every.probes and some.probe_tokens < every.probe_tokens
        assert some.kept_tokens == every.kept_tokens


def test_only_watched_groups_are_counted() -> None:
    acted = [group for group in load_recordings() if group.rollout == "official"]
    with pytest.raises(ValueError, match="only watched"):
        cost_of_rule(acted, ExitRule())
    probed = dataclasses.replace(acted[0], members=[answer for answer in acted[0].members if answer.trajectory.probed])
    with pytest.raises(ValueError, match="a probe ended thoughts"):
        cost_of_rule([probed], ExitRule())
    with pytest.raises(ValueError, match="no groups"):
        cost_of_rule([], ExitRule())


def test_trial_answers_are_the_recorded_ones() -> None:
    trials = trial_answers(SURVEY)
    assert trials.stated == [probe.joint for group in SURVEY for probe in group.members[0].trajectory.probes]
    assert trials.right == [verdict for group in SURVEY for verdict in group.members[0].trials_right]
    first = trial_answers(SURVEY, first_only=True)
    probed = [group.members[0] for group in SURVEY if group.members[0].trajectory.probes]
    assert first.probes == [member.trajectory.probes[0] for member in probed]
    assert first.right == [member.trials_right[0] for member in probed]


def test_reliability_is_of_the_joint_probability_unless_a_rule_is_named() -> None:
    trials = trial_answers(UNTRAINED[:50])
    assert trials.calibration() == calibration([probe.joint for probe in trials.probes], trials.right)
    # The score that the exit saw, as recorded to six digits.
    scores = [probe.confidence for probe in trials.probes]
    assert trials.scores("geometric") == pytest.approx(scores, abs=1e-5)
    assert trials.calibration("geometric", bins=5).ece == pytest.approx(
        calibration(scores, trials.right, 5).ece, abs=1e-5
    )


def test_pairs_were_asked_after_the_same_thoughts() -> None:
    before, after = trial_answers_after_same_thoughts(UNTRAINED, TRAINED)
    assert len(before) == len(after) == 650
    assert [probe.position for probe in before.probes] == [probe.position for probe in after.probes]
    assert before.stated != after.stated  # the models differ, not the places
    same, again = trial_answers_after_same_thoughts(UNTRAINED, UNTRAINED)
    assert same == again == trial_answers(UNTRAINED)
