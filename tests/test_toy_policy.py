"""The toy policy: its gradient is the loss's slope, it learns, and it fails where it should."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.course.toy_policy import (
    ToyCompletion,
    ToyRun,
    ToySettings,
    loss_gradient,
    softmax,
    toy_policies,
    train_toy_policy,
)
from stepgrpo_lab.method.baselines import OutcomeReward
from stepgrpo_lab.method.loss import LOSS_TYPES, LossSettings, token_weights
from stepgrpo_lab.method.rewards import StepAwareReward
from stepgrpo_lab.method.token_loss import token_loss

HARD = [ToyCompletion("guess", 1, 4, 0.05), ToyCompletion("think", 4, 16, 0.3), ToyCompletion("think long", 8, 32, 0.4)]


@given(
    logits=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    choices=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    data=st.data(),
    loss_type=st.sampled_from(LOSS_TYPES),
)
def test_the_gradient_is_the_loss_s_slope(
    logits: list[float], choices: list[int], data: st.DataObject, loss_type: str
) -> None:
    settings = LossSettings(loss_type, epsilon_low=1.0, epsilon_high=1e6, max_completion_length=32)  # no corners
    advantages = data.draw(st.lists(st.floats(-2, 2), min_size=len(choices), max_size=len(choices)))
    old = [0.2, 0.3, 0.5]
    weights = [row[0] for row in token_weights([[True] * HARD[choice].tokens for choice in choices], settings)]

    def loss(values: list[float]) -> float:
        now = softmax(values)
        return sum(
            weight * token_loss(math.log(now[choice]), advantage, settings, old_logprob=math.log(old[choice])).loss
            for weight, choice, advantage in zip(weights, choices, advantages, strict=True)
        )

    gradient, held = loss_gradient(choices, advantages, weights, old, softmax(logits), settings)
    assert held == 0
    for place in range(3):
        nudged = [[value + sign * 1e-5 * (index == place) for index, value in enumerate(logits)] for sign in (1, -1)]
        assert gradient[place] == pytest.approx((loss(nudged[0]) - loss(nudged[1])) / 2e-5, abs=1e-5)


def test_what_is_right_and_short_is_learnt() -> None:
    easy = [ToyCompletion("wrong", 1, 4, 0.0), ToyCompletion("short", 3, 12, 1.0), ToyCompletion("long", 9, 36, 1.0)]
    run = train_toy_policy(easy, StepAwareReward())
    assert run.probabilities[0] == pytest.approx([1 / 3] * 3)
    assert len(run.probabilities) == 101 and len(run.clipped) == 100
    assert run.probabilities[-1][1] > 0.8
    assert run.accuracy[-1] == pytest.approx(sum(run.probabilities[-1][1:]))
    assert run.tokens[0] == pytest.approx((4 + 12 + 36) / 3)
    assert run.clipped == [0.0] * 100  # one update: every ratio is 1
    assert run == train_toy_policy(easy, StepAwareReward())
    assert run != train_toy_policy(easy, StepAwareReward(), ToySettings(seed=1))


@pytest.mark.parametrize("seed", range(3))
def test_punishing_wrong_answers_for_length_teaches_guessing(seed: int) -> None:
    """On a hard problem; the published reward, on the same problem, does not."""
    settings = ToySettings(learning_rate=8, seed=seed)
    published = train_toy_policy(HARD, StepAwareReward(), settings)
    penalised = train_toy_policy(HARD, StepAwareReward(penalize_wrong=True), settings)
    assert published.accuracy[0] == pytest.approx(0.25)
    assert published.accuracy[-1] > 0.33
    assert penalised.probabilities[-1][0] > 0.9
    assert penalised.accuracy[-1] < 0.1


def test_the_clip_holds_old_samples_back() -> None:
    settings = ToySettings(rollouts=1, updates=100, learning_rate=10)
    clipped = train_toy_policy(HARD, OutcomeReward(), settings)
    free = replace(settings, loss=LossSettings(epsilon_low=1.0, epsilon_high=1e9))
    unclipped = train_toy_policy(HARD, OutcomeReward(), free)
    assert clipped.clipped[0] > 0 and unclipped.clipped == [0.0]

    def moved(run: ToyRun) -> float:
        return sum(abs(b - a) for a, b in zip(run.probabilities[0], run.probabilities[1], strict=True))

    assert moved(clipped) < 0.5 * moved(unclipped)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group_size": 1}, "group_size at least 2"),
        ({"updates": 0}, "must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ToySettings(**changes)


def test_bad_completions_are_named() -> None:
    with pytest.raises(ValueError, match="'x' needs at least 1 step"):
        ToyCompletion("x", 0, 1, 0.5)
    with pytest.raises(ValueError, match="leave nothing to choose"):
        train_toy_policy(HARD[:1], OutcomeReward())


def test_the_figure_has_a_panel_for_each_run_and_escapes_names() -> None:
    completions = (ToyCompletion("<b>", 1, 1, 1.0), ToyCompletion("b", 1, 1, 1.0))
    run = ToyRun(completions, [[0.5, 0.5], [0.9, 0.1]], [0.0])
    figure = toy_policies({"one": run, "two": run})
    assert [trace.name for trace in figure.data] == ["&lt;b&gt;", "b"] * 2
    assert list(figure.data[2].y) == [0.5, 0.9]
    assert [trace.showlegend for trace in figure.data] == [True, True, False, False]
    with pytest.raises(ValueError, match="0 runs"):
        toy_policies({})
