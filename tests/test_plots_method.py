"""Figures of one completion, one group and the loss show exactly what they are given, and escape it."""

from __future__ import annotations

import math

import pytest
from test_replay import DECLINED_THEN_ACCEPTED, LIMIT, OFFICIAL
from test_rollout import TEXT

from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.method.loss import LossSettings
from stepgrpo_lab.method.rewards import step_aware_rewards
from stepgrpo_lab.method.token_loss import token_loss
from stepgrpo_lab.recordings.replay import replay
from stepgrpo_lab.viz.completions import exit_scores, forward_passes
from stepgrpo_lab.viz.groups import group_advantages_chart, step_reward_curve, token_push_map
from stepgrpo_lab.viz.loss import surrogate_curve, token_pulls
from stepgrpo_lab.viz.tradeoff import tradeoff_changes


def test_exit_scores_mark_the_deciding_rule_its_truth_and_its_stop() -> None:
    scores = {"geometric": [0.6, 0.97], "joint": [0.3, 0.9]}
    options = {"chosen": "joint", "threshold": 0.8, "tokens": 50}
    figure = exit_scores([10, 20], scores, [False, True], stop=20, **options)
    geometric, joint, threshold, stop = figure.data
    assert (list(joint.x), list(joint.y)) == ([10, 20], [0.3, 0.9])
    assert list(joint.marker.symbol) == ["x", "circle"]  # a cross where the trial answer is wrong
    assert joint.line.width > geometric.line.width
    assert (list(threshold.y), list(stop.x)) == ([0.8, 0.8], [20, 20])
    assert len(exit_scores([10, 20], scores, [False, True], **options).data[3].x) == 0
    with pytest.raises(ValueError, match="no scores of the chosen rule 'minimum'"):
        exit_scores([10, 20], scores, [False, True], chosen="minimum", threshold=0.8, tokens=50)


def test_forward_passes_climb_and_snap_back() -> None:
    frames = replay(DECLINED_THEN_ACCEPTED, TEXT, limit=LIMIT, settings=OFFICIAL)
    figure = forward_passes(frames, current=4)
    places = {trace.name: dict(zip(trace.x, trace.y, strict=True)) for trace in figure.data}
    assert places["think"][1] == 0
    assert list(places["probe"].values())[:4] == [1, 2, 3, 4]
    after = max(step for step in places["probe"] if step < 12) + 1
    assert places["think"][after] == 1  # the marker is fed where the probe began
    assert places["shown"] == {4: len(frames[4].cells) - 1}
    assert sum(len(trace) for name, trace in places.items() if name != "shown") == len(frames) - 1
    with pytest.raises(ValueError, match="current is 99"):
        forward_passes(frames, 99)


def test_group_chart_has_a_bar_for_every_member_and_reward() -> None:
    figure = group_advantages_chart({"LP": [1.0, -1.0], "<b>": [0.5, -0.5]}, ["0 ✓\n2 steps", "<i>"], chosen="LP")
    assert [list(trace.y) for trace in figure.data] == [[1.0, -1.0], [0.5, -0.5]]
    assert list(figure.data[0].x) == ["0 ✓<br>2 steps", "&lt;i&gt;"]
    assert figure.data[1].name == "&lt;b&gt;"
    assert figure.data[0].marker.line.width > figure.data[1].marker.line.width
    with pytest.raises(ValueError, match="advantages is empty"):
        group_advantages_chart({}, [])


def test_reward_curves_are_the_reward() -> None:
    figure = step_reward_curve([0.0, 0.5])
    flat, curve = figure.data
    assert set(flat.y) == {1.0}
    rewards = step_aware_rewards([True] * 3, [2, 4, 6], [True] * 3)
    assert [curve.y[list(curve.x).index(ratio)] for ratio in (0.5, 1.0, 1.5)] == pytest.approx(rewards)
    with pytest.raises(ValueError, match=r"step_beta is 1\.5"):
        step_reward_curve([1.5])
    with pytest.raises(ValueError, match="at least one step_beta"):
        step_reward_curve([])


def test_push_map_keeps_short_rows_short_and_rings_forced_tokens() -> None:
    push = [[0.1, 0.2, 0.3], [-0.4]]
    figure = token_push_map(push, [["a", "\n", "</think>"], ["b"]], ["0", "1"], forced=[[False, False, True], [False]])
    heat, rings = figure.data
    assert [list(row) for row in heat.z] == [[0.1, 0.2, 0.3], [-0.4, None, None]]
    assert (heat.zmin, heat.zmax) == (-0.4, 0.4)  # nothing is in the middle of the scale
    assert list(heat.text[0]) == ["a", "⏎", "&lt;/think&gt;"]
    assert (list(rings.x), list(rings.y)) == ([2], ["0"])
    with pytest.raises(ValueError, match="push holds no token"):
        token_push_map([[]], [[]], ["0"])


@pytest.mark.parametrize(("advantage", "end"), [(2.0, 2.4), (-2.0, -5.0)])
def test_surrogate_is_flat_on_one_side_of_the_clip(advantage: float, end: float) -> None:
    settings = LossSettings(epsilon_low=0.2, epsilon_high=0.2, kl_weight=0.1)
    token = token_loss(math.log(0.5), advantage, LossSettings(), old_logprob=0.0)
    figure = surrogate_curve(advantage, settings, [token, token], selected=1)
    curve, others, chosen = figure.data[2:]
    assert curve.y[-1] == pytest.approx(end)
    assert (list(others.x), list(chosen.x)) == ([0.5], [0.5])
    assert list(figure.data[0].x) == [0.8, 0.8, 1.2, 1.2]


def test_pulls_are_told_apart_without_colour() -> None:
    [bars] = token_pulls([0.1, -0.2], ["<b>", "\n"], selected=1).data
    assert list(bars.x) == ["1: &lt;b&gt;", "2: ⏎"]
    assert bars.marker.pattern.shape[0] != bars.marker.pattern.shape[1]
    assert list(bars.marker.line.width) == [0, 3]


def test_changes_are_drawn_against_the_baseline() -> None:
    change = {
        "name": "<after>",
        "accuracy_points": Interval(-0.5, -1.0, 0.1),
        "token_ratio": Interval(0.5, 0.4, 0.7),
    }
    run, baseline = tradeoff_changes([change], "before").data
    assert (run.x[0], run.y[0], run.text[0]) == (50.0, -0.5, "&lt;after&gt;")
    assert run.error_x.array[0] == pytest.approx(20)
    assert (baseline.x[0], baseline.y[0]) == (100, 0)
    with pytest.raises(ValueError, match="no points"):
        tradeoff_changes([], "before")
