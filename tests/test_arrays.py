"""Rewards, losses and segmenters take lists, NumPy arrays and tensors alike, and name a value that is not a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from stepgrpo_lab.method import baselines
from stepgrpo_lab.method.confidence import confidence
from stepgrpo_lab.method.loss import LossBatch, LossSettings, token_weights
from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.method.rewards import (
    StepAwareReward,
    group_advantages,
    group_mean_steps,
    grouped,
    is_informative,
    outcome_rewards,
    step_aware_rewards,
    step_excess,
)
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_loss import token_loss, token_push
from stepgrpo_lab.method.token_text import TokenText

Convert = Callable[[Sequence[Any]], Any]
KINDS: dict[str, Convert] = {
    "numpy": np.asarray,
    "torch": torch.tensor,
    "list of numpy scalars": lambda values: list(np.asarray(values)),
    "list of 0-d tensors": lambda values: list(torch.tensor(values)),
    "tuple": tuple,
    "float32": lambda values: np.asarray(values, dtype=np.float32),
}
CORRECT, STEPS, FORMATTED, TOKENS = [True, True, False, True], [2, 4, 9, 3], [True, False, True, True], [20, 40, 90, 31]
REWARDS: dict[str, Callable[[Any, Any, Any, Any], Any]] = {
    "step_aware": StepAwareReward(),
    "all, penalized": StepAwareReward(mean_over="all", penalize_wrong=True),
    "function": lambda c, k, f, n: step_aware_rewards(c, k, f),
    "mean": lambda c, k, f, n: [group_mean_steps(c, k)],
    "correctness": lambda c, k, f, n: baselines.correctness_rewards(c, n),
    "length_penalty": lambda c, k, f, n: baselines.length_penalty_rewards(c, n),
    "kimi_length": lambda c, k, f, n: baselines.kimi_length_rewards(c, n),
    "kimi": lambda c, k, f, n: baselines.kimi_rewards(c, n),
    "overlong": lambda c, k, f, n: baselines.soft_overlong_rewards(c, n, limit=80, cache=40),
    "l1_exact": lambda c, k, f, n: baselines.l1_exact_rewards(c, n, target=30),
    "l1_max": lambda c, k, f, n: baselines.l1_max_rewards(c, n, target=30),
    "shorter_better": lambda c, k, f, n: baselines.shorter_better_rewards(c, n),
    "serial": lambda c, k, f, n: baselines.serial_exit_rewards(c, n),
    "outcome": baselines.OutcomeReward(partial(baselines.length_penalty_rewards, strength=0.4)),
    "lambda": lambda c, k, f, n: baselines.GRPOLambdaReward(share=1.0).rewards_of_groups([c])[0](c, k, f, n),
    "shortest": lambda c, k, f, n: baselines.shortest_correct(["p"] * 4, c, n),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REWARDS)
def test_rewards_take_arrays(name: str, kind: str) -> None:
    given = [KINDS[kind](values) for values in (CORRECT, STEPS, FORMATTED, TOKENS)]
    found = REWARDS[name](*given)
    assert found == REWARDS[name](CORRECT, STEPS, FORMATTED, TOKENS)
    assert isinstance(found, list) and all(type(value) in (int, float) for value in found)


@pytest.mark.parametrize("kind", KINDS)
def test_advantages_and_losses_take_arrays(kind: str) -> None:
    convert = KINDS[kind]
    assert group_advantages(convert([0.5, 0.25, 1.0])) == group_advantages([0.5, 0.25, 1.0])
    assert group_advantages(convert([0.5, 1.0]), scale="batch", batch_std=convert([0.5])[0]) == group_advantages(
        [0.5, 1.0], scale="batch", batch_std=0.5
    )
    assert is_informative(convert([0.5, 1.0])) and not is_informative(convert([0.5, 0.5]))
    assert grouped(convert([1, 2, 3, 4]), 2) == [[1, 2], [3, 4]]
    assert step_excess(convert([6])[0], convert([4.0])[0]) == step_excess(6, 4.0)
    assert confidence(convert([0.5, 0.75]), "minimum", skip_first=1) == 0.75
    masks = [convert([True, False]), convert([True, True])]
    assert token_weights(masks, LossSettings()) == token_weights([[True, False], [True, True]], LossSettings())
    assert token_push(convert([1.0, -1.0]), masks, LossSettings()) == token_push(
        [1.0, -1.0], [[True, False], [True, True]], LossSettings()
    )
    number = convert([0.5])[0]
    assert token_loss(-number, number, LossSettings()) == token_loss(-0.5, 0.5, LossSettings())


@pytest.mark.parametrize("convert", [np.asarray, torch.tensor])
def test_whole_batches_as_arrays(convert: Convert) -> None:
    batch = LossBatch(
        convert([[1, 2], [3, 4]]), convert([[5, 6], [7, 8]]), convert([[1, 1], [1, 0]]), convert([0.5, -0.5]),
        old_logprobs=convert([[-0.5, -1.0], [-2.0, -0.25]]),
    )  # fmt: skip
    plain = LossBatch(
        [[1, 2], [3, 4]], [[5, 6], [7, 8]], [[True, True], [True, False]], [0.5, -0.5], [[-0.5, -1.0], [-2.0, -0.25]]
    )
    assert batch == plain
    correct = [[True, False], [True, True]]
    assert baselines.penalized_groups(convert(correct), share=0.5) == baselines.penalized_groups(correct, share=0.5)
    outcomes = [Outcome(True, True, 3, 40), Outcome(False, False, 5, 60)]
    assert outcome_rewards(lambda *_: convert([0.5, 0.25]), outcomes) == [0.5, 0.25]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1, 0, None, "3", [3]])
@pytest.mark.parametrize("name", ["step_aware", "function", "mean"])
def test_steps_that_are_none_are_refused_by_member(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"steps\[2\] is "):
        REWARDS[name](CORRECT, [2, 4, bad, 3], FORMATTED, TOKENS)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1, "3", [3]])
@pytest.mark.parametrize("name", sorted(set(REWARDS) - {"step_aware", "all, penalized", "function", "mean", "serial"}))
def test_lengths_that_are_none_are_refused_by_member(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"tokens\[1\] is "):
        REWARDS[name](CORRECT, STEPS, FORMATTED, [20, bad, 90, 31])


@pytest.mark.parametrize("bad", [math.nan, 0.5, 2, None, "yes", [True]])
@pytest.mark.parametrize("name", REWARDS)
def test_correctness_is_true_or_false(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=r"correct(\[0\])?\[3\] is "):
        REWARDS[name]([True, True, False, bad], STEPS, FORMATTED, TOKENS)


@pytest.mark.parametrize("kind", ["numpy", "torch", "tuple"])
@pytest.mark.parametrize("name", REWARDS)
def test_shapes_that_do_not_fit_are_refused(name: str, kind: str) -> None:
    correct, steps, formatted, tokens = (KINDS[kind](values) for values in (CORRECT, STEPS, FORMATTED, TOKENS))
    with pytest.raises(ValueError, match=r"give one per member|one dimension"):
        REWARDS[name](correct[:3], steps, formatted, tokens) if name != "serial" else baselines.serial_group_rewards(
            [correct]
        )
    with pytest.raises(ValueError, match=r"one value for each member|one dimension|give one per member"):
        REWARDS[name](correct[0], steps, formatted, tokens)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: group_advantages([0.5, math.nan]), r"rewards\[1\] is nan"),
        (lambda: group_advantages(torch.tensor([[0.5], [1.0]])), r"rewards\[0\] is .*one dimension"),
        (lambda: group_advantages([0.5, 1.0], scale="batch", batch_std=math.nan), "batch_std is nan"),
        (lambda: step_excess(math.nan, 2.0), "steps is nan"),
        (lambda: step_excess(3, 0.0), "mean is 0.0"),
        (lambda: outcome_rewards(lambda *_: np.ones((1, 1)), [Outcome(True, True, 3, 40)]), "one dimension"),
        (lambda: token_weights([[True, 0.5]], LossSettings()), r"masks\[0\]\[1\] is 0.5"),
        (lambda: token_push([math.inf], [[True]], LossSettings()), r"advantages\[0\] is inf"),
        (lambda: token_push([1.0, 1.0], [[True]], LossSettings()), "advantages has 2 entries but masks has 1"),
        (lambda: token_loss(math.nan, 1.0, LossSettings()), "logprob is nan"),
        (lambda: LossBatch([[1]], [[2]], [[True]], [math.nan]), r"advantages\[0\] is nan"),
        (lambda: LossBatch([[1]], [[2]], [[True]], [1.0], [[math.nan]]), r"old_logprobs\[0\]\[0\] is nan"),
        (lambda: LossBatch([[1.5]], [[2]], [[True]], [1.0]), "token_ids must be whole numbers"),
        (lambda: StepAwareReward()(CORRECT, STEPS, FORMATTED[:2], TOKENS), "formatted has 2 entries"),
        (lambda: StepAwareReward()([], [], [], []), "the group is empty"),
        (lambda: baselines.scaled_tokens(100, math.inf), "scale is inf"),
    ],
)
def test_what_is_no_value_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("markers", ["paper", "multilingual", "reader", "blank_lines"])
def test_segmenters_take_ids_as_arrays(markers: str) -> None:
    toy = TokenText.from_pieces(["So 4.\n\n", "Wait", ", no. ", "Hmm", ".", "</think>"])
    segmenter, ids = MarkerSegmenter(markers), [0, 1, 2, 3, 4, 5]
    for kind in ("numpy", "torch", "list of numpy scalars", "list of 0-d tensors", "tuple"):
        given = KINDS[kind](ids)
        assert segmenter.count_ids(given, toy) == segmenter.count_ids(ids, toy) > 1
        assert segmenter.split_ids(given, toy) == segmenter.split_ids(ids, toy)
        scanner = segmenter.scanner(toy)
        for token in given:
            scanner.push(token)
        assert scanner.finish() == segmenter.count_ids(ids, toy)
    for wrong in (np.array([[0, 1]]), torch.tensor([0.5]), [None]):
        with pytest.raises(ValueError, match="token_ids must be whole numbers"):
            segmenter.count_ids(wrong, toy)
