"""A recorded trajectory replays exactly: the cache at every pass, backtracking, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import pairwise

import pytest
from test_rollout import CLOSE, EOS, PAPER_PROMPT, PIECES, SURE, TEXT, UNSURE

from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import Phase, RolloutSettings, TrajectoryMachine, rollout_settings
from stepgrpo_lab.recordings.replay import Cell, Frame, replay

LIMIT = 60
OFFICIAL = rollout_settings("official", near_budget_margin=0)
PAPER = rollout_settings("paper", near_budget_margin=0)
THOUGHTS = ["a ", "Wait", ",", "b ", "Wait", ",", "a ", *CLOSE]
ANSWER = ["\\boxed", "{", "7", "}", EOS]
BOXED = [("7", 0.99), ("}", 0.98)]


def rolled(settings: RolloutSettings | None, thoughts: list[str], trials: list[list[tuple[str, float]]]) -> Trajectory:
    """A machine driven by scripted tokens, thoughts and answer apart."""
    machine = TrajectoryMachine(TEXT, LIMIT, settings)
    samples, answers, greedy = iter(thoughts), iter(ANSWER), (token for trial in trials for token in trial)
    while True:
        if machine.choice == "greedy":
            piece, probability = next(greedy)
            machine.observe(PIECES.index(piece), None, probability)
        elif machine.choice == "sample":
            source: Iterator[str] = answers if machine.phase is Phase.ANSWER else samples
            machine.observe(PIECES.index(next(source)), -0.5)
        if machine.done:
            return machine.trajectory([1, 2])
        machine.feed()


DECLINED_THEN_ACCEPTED = rolled(OFFICIAL, THOUGHTS, [UNSURE, SURE])
DECLINED_TWICE = rolled(OFFICIAL, THOUGHTS, [UNSURE, UNSURE])
KEPT_PROBE = rolled(PAPER, THOUGHTS, [BOXED])


def pieces(cells: tuple[Cell, ...]) -> list[str]:
    return [PIECES[cell.token] for cell in cells]


def in_phase(frames: list[Frame], phase: Phase) -> list[Frame]:
    return [frame for frame in frames if frame.phase is phase]


def test_a_declined_probe_appears_and_vanishes() -> None:
    frames = replay(DECLINED_TWICE, TEXT, limit=LIMIT, settings=OFFICIAL)
    first = [frame for frame in frames if frame.probe == 0]
    assert pieces(first[-1].cells) == ["a ", "\n", "**Final Answer**", "\n", "\\boxed", "{", "7", "}", "\n"]
    assert [cell.source for cell in first[-1].cells] == ["sampled", *["forced"] * 4, *["greedy"] * 4]
    assert [PIECES[token] for token in first[-1].held] == ["Wait", ","]
    assert first[-1].event == "declined"
    after = frames[frames.index(first[-1]) + 1]
    assert pieces(after.cells) == ["a ", "Wait"]
    assert not any(cell.probe for cell in after.cells)
    assert pieces(after.stale) == ["**Final Answer**", "\n", "\\boxed", "{", "7", "}", "\n"]
    assert after.held == ()
    assert pieces(frames[-1].cells) == [*THOUGHTS[:-1], *ANSWER[:-1]]
    assert PIECES[frames[-1].chosen or 0] == EOS


def test_an_exit_drops_the_marker_and_forces_the_close() -> None:
    frames = replay(DECLINED_THEN_ACCEPTED, TEXT, limit=LIMIT, settings=OFFICIAL)
    assert [frame.event for frame in frames if frame.event not in ("token", "done")] == [
        *("probe", "declined", "probe", "accepted")
    ]
    assert [PIECES[token] for token in DECLINED_THEN_ACCEPTED.dropped] == ["Wait", ","]
    close = in_phase(frames, Phase.CLOSE)
    assert pieces(close[-1].cells)[-3:] == CLOSE
    assert {cell.source for frame in close for cell in frame.cells[-1:]} == {"forced"}
    assert pieces(frames[-1].cells) == [*THOUGHTS[:4], *CLOSE, *ANSWER[:-1]]


def test_a_dropped_marker_was_sampled() -> None:
    # At its place the forced close stands in the end.
    frames = replay(DECLINED_THEN_ACCEPTED, TEXT, limit=LIMIT, settings=OFFICIAL)
    thought = [frame.cells[-1].source for frame in in_phase(frames, Phase.THINK) if frame.cells]
    assert set(thought) == {"sampled"}


def test_a_kept_probe_stays_in_the_cache() -> None:
    frames = replay(KEPT_PROBE, TEXT, limit=LIMIT, settings=PAPER)
    assert pieces(frames[-1].cells) == ["a ", *PAPER_PROMPT, "7", "}", *ANSWER[:-1]]
    assert KEPT_PROBE.close == "early"


def test_a_natural_close_and_a_spent_budget_are_told() -> None:
    natural = rolled(None, THOUGHTS, [])
    assert [frame.event for frame in replay(natural, TEXT, limit=LIMIT)].count("natural") == 1
    short = dataclasses.replace(OFFICIAL, think_budget=5)
    budget = rolled(dataclasses.replace(short, max_probes=0), THOUGHTS, [])
    frames = replay(budget, TEXT, limit=LIMIT, settings=dataclasses.replace(short, max_probes=0))
    assert [frame.event for frame in frames if frame.event == "budget"] == ["budget"]


@pytest.mark.parametrize(
    ("trajectory", "settings"),
    [(DECLINED_THEN_ACCEPTED, OFFICIAL), (DECLINED_TWICE, OFFICIAL), (KEPT_PROBE, PAPER)],
    ids=["accepted", "declined", "kept"],
)
def test_frames_account_for_the_cost(trajectory: Trajectory, settings: RolloutSettings) -> None:
    frames = replay(trajectory, TEXT, limit=LIMIT, settings=settings)
    kept_probe = trajectory.cost.probe_tokens == 0
    fed = frames[1:]  # the first is the prompt's
    probe_fed = sum(frame.cells[-1].probe for frame in fed)
    assert kept_probe or probe_fed == trajectory.cost.probe_tokens
    assert len(fed) == trajectory.cost.decoded_tokens - (1 if frames[-1].chosen is not None else 0)
    for before, frame in pairwise(frames):
        place = len(frame.cells) - 1
        assert frame.cells[:place] == (before.cells + before.stale)[:place]  # a pass writes one place and no other
        assert frame.stale == (before.cells + before.stale)[place + 1 :]


def test_what_does_not_replay_is_refused() -> None:
    for settings in (None, dataclasses.replace(OFFICIAL, exit_threshold=0.0), PAPER):
        with pytest.raises(ValueError, match="does not replay as recorded"):
            replay(DECLINED_THEN_ACCEPTED, TEXT, limit=LIMIT, settings=settings)
    with pytest.raises(ValueError, match="does not replay as recorded"):
        replay(DECLINED_THEN_ACCEPTED, TEXT, limit=9, settings=OFFICIAL)
