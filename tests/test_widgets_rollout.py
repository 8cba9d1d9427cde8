"""The step inspector and the rollout player, without a browser."""

from __future__ import annotations

import dataclasses
import re
from itertools import pairwise

import pytest
from test_replay import DECLINED_THEN_ACCEPTED, DECLINED_TWICE, LIMIT, OFFICIAL
from test_rollout import TEXT

from stepgrpo_lab.method.records import Outcome, Probe, Problem, Step, Trajectory
from stepgrpo_lab.method.rollout import Phase
from stepgrpo_lab.method.settings import rollout_settings
from stepgrpo_lab.method.steps import Segmenter, StepScanner
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.recordings import RecordedGroup, RecordedMember, load_recordings
from stepgrpo_lab.widgets import RolloutPlayer, StepInspector

TOY = TokenText.from_pieces(["so ", "Wait ", "then ", "Alternatively ", "</think>", "7", "<eos>"], eos_ids=[6])
IDS = [0, 2, 1, 2, 3, 2, 1, 2, 4, 5, 6]


def probe(position: int, marker: str, probabilities: list[float], *, answer: str = "7") -> Probe:
    ids = [5] * len(probabilities)
    return Probe(position, 1, marker, ids, probabilities, "7", answer, True, 0.0, 0.0, False, opening=1)


def group_of(probes: list[Probe], right: list[bool] | None = None) -> RecordedGroup:
    """A group of two equal completions: "so then | Wait then | Alternatively then | Wait then", then the answer."""
    trajectory = Trajectory([0], IDS, [-0.1] * len(IDS), TOY.decode(IDS), 4, "natural", "eos", True, probes)
    member = RecordedMember(
        trajectory=trajectory,
        outcome=Outcome(True, True, 4, len(IDS), "7", close="natural"),
        trials_right=right or [True] * len(probes),
        labels=["needed", "verifying", "redundant", "redundant"],
        policy_logprobs=[-0.1] * len(IDS),
    )
    settings = rollout_settings("official", exit_threshold=1.0, markers="paper")
    return RecordedGroup("toy", "plain", Problem("p", "3+4?", "7"), [member, member], settings, 64, TOY)


PROBES = [
    probe(2, "Wait", [0.5, 0.8], answer="5"),
    probe(4, "Alternatively", [0.5, 0.9]),
    probe(6, "Wait", [0.5, 0.97]),
]
GROUP = group_of(PROBES, [False, True, True])


def test_the_inspector_begins_with_the_richest_completion_and_the_rollout_s_own_score() -> None:
    inspector = StepInspector()
    right = [member for member in inspector.recorded.members if member.outcome.correct]
    assert len(inspector.probes) == max(len(member.trajectory.probes) for member in right) > 1
    scores = [inspector.point.rule.score(probe) for probe in inspector.probes]
    assert scores == pytest.approx([probe.confidence for probe in inspector.probes], abs=1e-5)


def test_the_inspector_stops_where_the_rule_says() -> None:
    inspector = StepInspector([GROUP], skip_first=1, threshold=0.85)
    assert inspector.point.probe == 1
    assert (inspector.point.tokens, inspector.point.saved) == (4 + 3, 4)
    assert inspector.sentence == (
        "geometric > 0.85 stops at probe 2 of 3: 7 of 11 tokens, 4 saved, trial answer 7 is right "
        "(the whole completion: right)."
    )
    inspector.threshold = 0.7
    assert "trial answer 5 is wrong" in inspector.sentence
    inspector.threshold = 0.98
    assert inspector.sentence == "geometric > 0.98 never stops this completion: all 11 tokens, right."


def test_the_inspector_s_other_settings_move_the_stop() -> None:
    inspector = StepInspector([GROUP], skip_first=1, threshold=0.85)
    inspector.markers = ("Wait",)
    assert inspector.point.probe == 2
    inspector.markers = ("Wait", "Alternatively")
    inspector.skip_first = 0
    assert inspector.point.probe is None  # the first token of each trial answer is unsure
    inspector.confidence_rule = "arithmetic"
    inspector.threshold = 0.68
    assert inspector.point.probe == 1


def test_the_inspector_shows_steps_labels_probes_and_the_stop() -> None:
    html = StepInspector([GROUP], skip_first=1, threshold=0.85).body()
    order = ["1 needed", "so then", "5 ✗ wrong 0.80", "2 verifying", "■ stops here: 7 ✓ right 0.90", "3 redundant"]
    places = [html.index(part) for part in order]
    assert places == sorted(places)
    assert 'class="step verifying"' in html
    assert 'class="step redundant after"' in html  # what the rule cuts off
    only = StepInspector([GROUP], skip_first=1, markers=("Wait",)).body()
    assert '<span class="badge">redundant</span>Alternatively' in only  # opens no step of its own then


def test_the_inspector_s_table_holds_every_rule() -> None:
    inspector = StepInspector([GROUP], skip_first=1, threshold=0.85, confidence_rule="minimum")
    assert [point.rule.confidence_rule for point in inspector.points] == ["geometric", "arithmetic", "minimum", "joint"]
    assert '<tr class="chosen" aria-current="true"><th scope="row">minimum</th><td>probe 2</td>' in inspector.body()


def test_the_inspector_wants_watched_groups() -> None:
    acted = group_of([dataclasses.replace(PROBES[0], accepted=True)])
    with pytest.raises(ValueError, match="probed without exiting"):
        StepInspector([acted])
    assert StepInspector([acted, GROUP]).groups == [GROUP]


def test_places_beyond_the_end_mean_the_last_one() -> None:
    inspector = StepInspector([GROUP], group=5, member=9)
    assert (inspector.group, inspector.member) == (0, 1)
    player = RolloutPlayer(frame=10_000)
    assert player.frame == len(player.frames) - 1
    player.member = 0
    assert player.frame <= len(player.frames) - 1


def test_the_shipped_set_shows_an_exit_that_moves() -> None:
    inspector = StepInspector()
    found = set()
    for threshold in (0.0, 0.5, 0.9, 1.0):
        inspector.threshold = threshold
        found.add(inspector.point.tokens)
    assert len(found) > 1


@pytest.fixture
def player() -> RolloutPlayer:
    """One rollout with a declined and an accepted probe, and one whose probes were both declined."""
    members = [
        dataclasses.replace(GROUP.members[0], trajectory=trajectory, trials_right=[True, True], policy_logprobs=None)
        for trajectory in (DECLINED_THEN_ACCEPTED, DECLINED_TWICE)
    ]
    group = RecordedGroup("toy", "official", GROUP.problem, members, OFFICIAL, LIMIT, TEXT)
    return RolloutPlayer([group, dataclasses.replace(group, members=members[1:])])


def test_the_player_goes_forwards_and_backwards(player: RolloutPlayer) -> None:
    assert "the completion is finished" not in player.sentence.lower()
    seen = []
    for _ in range(len(player.frames)):
        seen.append(player.body())
        player.forward()
    assert player.frame == len(player.frames) - 1
    assert "The completion is finished." in player.sentence
    for before in reversed(seen[:-1]):
        player.forward(-1)
        assert player.body() == before
    player.forward(-1)
    assert player.frame == 0


def test_a_probe_appears_and_vanishes(player: RolloutPlayer) -> None:
    player.to_event()
    assert player.frames[player.frame].event == "probe"
    assert "it is held back, and a probe begins" in player.sentence
    player.forward()
    assert player.frames[player.frame].phase is Phase.PROBE
    assert 'class="cell forced probe now"' in player.body()
    assert "Held back: <span" in player.body()
    player.to_event()
    declined = player.frames[player.frame]
    assert declined.event == "declined"
    assert "Trial answer" in player.sentence
    assert 'class="cell greedy probe now"' in player.body()
    player.forward()
    assert "probe now" not in player.body()
    assert " stale" in player.body()  # masked, and overwritten next
    assert "Nothing is held back" in player.body()
    assert "again (sampled)" in player.sentence
    player.to_event(-1)
    assert player.frames[player.frame] is declined


def test_positions_count_the_prompt(player: RolloutPlayer) -> None:
    player.frame = 2
    assert '"Wait" (sampled) is fed at place 1, position 3' in player.sentence
    assert "it attends to the 2 prompt tokens and 2 places" in player.sentence


def test_the_slider_fits_the_completion(player: RolloutPlayer) -> None:
    slider = next(control for control in player.view.controls if getattr(control, "description", "") == "forward pass")
    play = next(control for control in player.view.controls if type(control).__name__ == "Play")
    lengths = set()
    for group, member in ((0, 1), (0, 0), (1, 0)):
        player.group, player.member = group, member
        assert slider.max == play.max == len(player.frames) - 1
        lengths.add(slider.max)
    assert len(lengths) == 2
    forward = next(c for c in player.view.controls if getattr(c, "description", "").startswith("forward ▶"))
    forward.click()
    assert slider.value == player.frame == 1


def test_no_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="no groups to play"):
        RolloutPlayer([])


class Lines(Segmenter):
    """Every line of the thoughts is a step."""

    def split(self, text: str) -> list[Step]:
        thoughts = text.partition("</think>")[0]
        ends = [*(match.end() for match in re.finditer("\n", thoughts)), len(thoughts)]
        return [Step(i, None, text[a:b], a, b) for i, (a, b) in enumerate(pairwise([0, *dict.fromkeys(ends)]))]

    def scanner(self, token_text: TokenText) -> StepScanner:
        raise NotImplementedError("showing recorded completions needs none")


def test_a_segmenter_of_ones_own_cuts_what_is_shown() -> None:
    group = load_recordings()[0]
    lines = group.steps(0, Lines())
    text = group.members[0].trajectory.text
    assert "".join(step.text for step in lines) == text.partition("</think>")[0]
    inspector = StepInspector(segmenter=Lines())
    shown = inspector.recorded.steps(inspector.place, Lines())
    assert inspector.body().count('class="badge"') == len(shown)
    assert inspector.points == StepInspector().points  # the probes stay where they were recorded
