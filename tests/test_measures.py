"""What is counted on a survey: overthinking by true label, and exit rules tried on recorded completions."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from stepgrpo_lab.method.boxes import boxed_answer_span
from stepgrpo_lab.method.confidence import ExitRule
from stepgrpo_lab.method.records import Probe
from stepgrpo_lab.recordings import load_recordings, load_survey
from stepgrpo_lab.recordings.measures import (
    LabelledSize,
    labelled_size,
    measure_overthinking,
    right_after_needed,
    try_rule,
)
from stepgrpo_lab.viz.completions import labelled_completions, steps_against_tokens, stopping_curves

UNTRAINED = [group for group in load_survey() if group.model == "untrained"]
CUT_ANYWHERE = ExitRule(0.0)


def probe(position: int, step: int) -> Probe:
    return Probe(position, step, "Wait", [0], [0.5], "", "7", True, 0.5, 0.5, False)


@pytest.mark.parametrize(
    ("rule", "stops"),
    [
        (CUT_ANYWHERE, 0),
        (ExitRule(0.0, min_steps=1), 0),
        (ExitRule(0.0, min_steps=2), 1),
        (ExitRule(0.0, min_steps=4), None),
        (ExitRule(0.0, min_tokens=20), 1),  # the place itself is far enough
        (ExitRule(0.0, min_tokens=21), 2),
        (ExitRule(0.0, min_steps=3, min_tokens=5), 2),
        (ExitRule(0.5, min_steps=1), None),  # the score still has to be greater
    ],
)
def test_a_rule_may_wait_for_steps_or_tokens(rule: ExitRule, stops: int | None) -> None:
    assert rule.first_exit([probe(10, 1), probe(20, 2), probe(30, 3)]) == stops


@pytest.mark.parametrize("name", ["min_steps", "min_tokens"])
def test_a_negative_wait_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is -1: give 0 or more"):
        ExitRule(**{name: -1})


def test_the_sizes_of_a_completion_add_up() -> None:
    for group in UNTRAINED[:50]:
        size = labelled_size(group)
        assert size.tokens == group.members[0].trajectory.tokens
        assert len(size.labels) == group.members[0].trajectory.steps
        assert 0 < size.closing_tokens < size.oracle_tokens <= size.tokens


def test_overthinking_by_hand() -> None:
    assert LabelledSize(("needed", "malformed", "needed", "verifying"), (5, 6, 7, 8), 3).oracle_tokens == 21
    assert LabelledSize(("malformed", "redundant"), (5, 6), 3).oracle_tokens == 3
    pair = UNTRAINED[:2]
    measured = measure_overthinking(pair)
    first, second = map(labelled_size, pair)
    assert measured.completions == 2
    assert measured.tokens == (first.tokens + second.tokens) / 2
    # The share of all tokens, not the mean of shares.
    assert measured.saved.estimate == pytest.approx(
        1 - (first.oracle_tokens + second.oracle_tokens) / (first.tokens + second.tokens)
    )
    assert measured.saved.low <= measured.saved.estimate <= measured.saved.high
    assert sum(measured.steps.values()) == (len(first.labels) + len(second.labels)) / 2


def test_the_answer_after_the_last_needed_step() -> None:
    group = UNTRAINED[0]
    member = group.members[0]
    assert member.labels is not None
    assert member.labels[:2] == ["needed", "verifying"]

    def relabelled(labels: list[str], trials_right: list[bool]) -> bool:
        changed = dataclasses.replace(member, labels=labels, trials_right=trials_right)
        return right_after_needed(dataclasses.replace(group, members=[changed]))

    rest = [False] * (len(member.trials_right) - 1)
    redundant = ["redundant"] * (len(member.labels) - 1)
    assert relabelled(["needed", *redundant], [True, *rest])
    assert not relabelled(["needed", *redundant], [False, *rest])
    assert relabelled([*redundant, "needed"], [False, *rest])  # nothing to stop: the completion's own answer
    assert relabelled(["malformed", *redundant], [False, *rest])  # no place to stop at
    unprobed = dataclasses.replace(
        member, trajectory=dataclasses.replace(member.trajectory, probes=[]), trials_right=[]
    )
    with pytest.raises(ValueError, match="no probe after step 1"):
        right_after_needed(dataclasses.replace(group, members=[unprobed]))


def test_steps_without_labels_are_refused() -> None:
    group = UNTRAINED[0]
    bare = dataclasses.replace(group, members=[dataclasses.replace(group.members[0], labels=None)])
    with pytest.raises(ValueError, match="not labelled"):
        measure_overthinking([bare])
    with pytest.raises(ValueError, match="no groups to measure"):
        measure_overthinking([])


def test_a_cut_is_tried_on_every_group() -> None:
    pair = UNTRAINED[:2]
    trial = try_rule(pair, ExitRule(0.0, min_steps=1))
    members = [group.members[0] for group in pair]
    assert trial.exits == 1.0
    assert trial.right == sum(member.trials_right[0] for member in members) / 2
    closing = [labelled_size(group).closing_tokens for group in pair]
    first = [member.trajectory.probes[0].position for member in members]
    assert trial.tokens == sum(closing + first) / 2
    never = try_rule(pair, ExitRule(1.0))
    assert (never.exits, never.right) == (0.0, sum(member.outcome.correct for member in members) / 2)
    assert trial.right_interval.low <= trial.right <= trial.right_interval.high
    with pytest.raises(ValueError, match="no groups to try"):
        try_rule([], CUT_ANYWHERE)


def test_completions_are_drawn_step_after_step() -> None:
    group = next(group for group in load_recordings() if group.watched)
    sizes = {f"completion {place}": labelled_size(group, place) for place in range(len(group.members))}
    figure = labelled_completions(sizes)
    assert sum(sum(trace.x) for trace in figure.data) == sum(size.tokens for size in sizes.values())
    pieces = sorted(
        (base, base + length)
        for trace in figure.data
        for name, base, length in zip(trace.y, trace.base, trace.x, strict=True)
        if name == "completion 1"
    )
    assert pieces[0][0] == 0
    assert all(end == start for (_, end), (start, _) in pairwise(pieces))
    assert figure.layout.yaxis.categoryarray[-1] == "completion 0"  # on top
    with pytest.raises(ValueError, match="pass at least one"):
        labelled_completions({})


def test_curves_of_rules_are_drawn_with_their_marks() -> None:
    trials = [try_rule(UNTRAINED[:30], ExitRule(0.0, min_steps=steps)) for steps in (1, 3)]
    figure = stopping_curves({"<cut>": trials}, {"whole": (130.0, 0.5)})
    curve, mark = figure.data
    assert curve.name == "&lt;cut&gt;"
    assert list(curve.x) == [trial.tokens for trial in trials]
    assert list(curve.y) == pytest.approx([100 * trial.right for trial in trials])
    assert (list(mark.x), list(mark.y)) == ([130.0], [50.0])
    with pytest.raises(ValueError, match="nothing to draw"):
        stopping_curves({}, {})


def test_ways_to_count_share_their_lengths() -> None:
    figure = steps_against_tokens({"<a>": [1, 2], "b": [3, 1]}, [10, 20])
    assert [trace.name for trace in figure.data] == ["&lt;a&gt;", "b"]
    assert [list(trace.y) for trace in figure.data] == [[1, 2], [3, 1]]
    with pytest.raises(ValueError, match="'b' counts 1 completions, but there are 2 lengths"):
        steps_against_tokens({"b": [1]}, [10, 20])


def test_ending_decided_probes_changes_no_verdict_of_the_survey() -> None:
    rule, saved = ExitRule(0.95), 0
    for group in load_survey():
        for trial in group.members[0].trajectory.probes:
            pieces = group.pieces(trial.token_ids)
            for length in range(1, len(pieces)):
                decided = boxed_answer_span(pieces[:length], opened=False) and rule.is_out_of_reach(
                    trial.probabilities[:length], trial.opening, most=20, position=trial.position
                )
                if decided:
                    assert rule.verdict(trial) is None
                    saved += len(pieces) - length
                    break
    assert saved > 500
