"""The loss in torch: equal to the one in plain numbers, and to TRL's own, on a real model's log-probabilities."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from stepgrpo_lab.method.loss import (
    LOSS_TYPES,
    LossBatch,
    LossSettings,
    batch_logprobs,
    completion_logprobs,
    policy_loss,
    token_weights,
)
from stepgrpo_lab.method.token_loss import token_loss
from stepgrpo_lab.training.trl_loss import LossComparison, compare_with_trl, trl_policy_loss

BATCH = LossBatch(
    prompt_ids=[[5, 6, 7], [8, 9]],
    completion_ids=[[10, 11, 12, 13, 14], [20, 21]],
    masks=[[True, True, False, True, True], [True, True]],
    advantages=[1.0, -0.7],
)


MOVED = [[0.5, -0.1, 0.1, 0.3, 0.0], [-0.4, 0.3]]
"""Log-ratios: inside and outside of the clip, on both sides of it."""


@pytest.fixture(scope="module")
def moved() -> tuple[Any, LossBatch]:
    """A model, and a batch that was sampled by another policy."""
    model = tiny_model()
    now = batch_logprobs(model, BATCH)
    old = [[a - b for a, b in zip(row, log_ratios, strict=True)] for row, log_ratios in zip(now, MOVED, strict=True)]
    reference = batch_logprobs(tiny_model(1), BATCH)
    return model, replace(BATCH, old_logprobs=old, reference_logprobs=reference, batch_tokens=9)


def test_logprobs_are_the_model_s() -> None:
    model = tiny_model()
    logprobs = completion_logprobs(model, [5, 6, 7], [10, 11])
    assert logprobs.shape == (2,) and logprobs.requires_grad
    with torch.no_grad():
        after_prompt = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].log_softmax(-1)
        after_one = model(input_ids=torch.tensor([[5, 6, 7, 10]])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(logprobs.detach(), torch.stack([after_prompt[10], after_one[11]]))


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_it_is_the_loss_in_plain_numbers(moved: Any, loss_type: str) -> None:
    model, batch = moved
    settings = LossSettings(loss_type, epsilon_high=0.28, kl_weight=0.05, max_completion_length=8)
    weights = token_weights(batch.masks, settings, batch_tokens=9)
    expected, clipped = 0.0, 0
    for row, logprobs in enumerate(batch_logprobs(model, batch)):
        for place, logprob in enumerate(logprobs):
            token = token_loss(
                logprob,
                batch.advantages[row],
                settings,
                old_logprob=batch.old_logprobs[row][place],
                reference_logprob=batch.reference_logprobs[row][place],
            )
            expected += weights[row][place] * token.loss
            clipped += token.clipped
    assert policy_loss(model, batch, settings).item() == pytest.approx(expected, rel=1e-5)
    assert clipped == 3  # 0.5 and 0.3 above, -0.4 below; where the pull goes on, nothing is clipped


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize(
    "extra", [{}, {"kl_weight": 0.05}, {"kl_weight": 0.05, "bias_corrected_kl": True, "delta": 1.5}], ids=str
)
def test_loss_and_gradient_are_trl_s(moved: Any, loss_type: str, extra: dict[str, Any]) -> None:
    model, batch = moved
    settings = LossSettings(loss_type, epsilon_high=0.28, max_completion_length=8, **extra)
    before = copy.deepcopy(model.state_dict())
    compared = compare_with_trl(model, tiny_tokenizer(), batch, settings)
    assert compared.ours == pytest.approx(compared.trl, rel=1e-5, abs=1e-6)
    assert compared.gradient_norm > 0.01
    assert compared.gradient_gap < 1e-4 * compared.gradient_norm
    assert compared.equal
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_forced_tokens_have_ratio_one(moved: Any) -> None:
    """None among the old log-probabilities is the policy's own; in TRL too."""
    model, batch = moved
    forced = replace(batch, old_logprobs=[[None] * 5, [None] * 2])
    settings = LossSettings("bnpo")
    own = replace(batch, old_logprobs=None)
    assert policy_loss(model, forced, settings).item() == pytest.approx(policy_loss(model, own, settings).item())
    # Every ratio is 1, so the loss is minus the mean advantage over the tokens that train.
    assert policy_loss(model, forced, settings).item() == pytest.approx(-(4 * 1.0 - 2 * 0.7) / 6)
    half = replace(batch, old_logprobs=[[None, None, *batch.old_logprobs[0][2:]], batch.old_logprobs[1]])
    assert compare_with_trl(model, tiny_tokenizer(), half, settings).equal


def test_a_masked_token_pulls_nothing() -> None:
    model = tiny_model()
    nothing = replace(BATCH, masks=[[False] * 5, [False] * 2])
    policy_loss(model, nothing, LossSettings()).backward()
    assert all(not weight.grad.any() for weight in model.parameters())


def test_a_difference_is_seen() -> None:
    assert not LossComparison(ours=1.0, trl=1.001, gradient_norm=1.0, gradient_gap=0.0).equal
    assert not LossComparison(ours=1.0, trl=1.0, gradient_norm=1.0, gradient_gap=0.01).equal


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"advantages": [1.0]}, "2 completions, 2 prompts, 1 advantages"),
        ({"masks": [[True], [True]]}, "masks does not have one entry"),
        ({"old_logprobs": [[-1.0] * 5, [-1.0]]}, "old_logprobs does not have one entry"),
        ({"completion_ids": [[], [20, 21]]}, "the batch is empty, or a prompt or a completion is"),
    ],
)
def test_bad_batches_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(BATCH, **changes)


def test_a_kl_penalty_needs_a_reference() -> None:
    settings = LossSettings(kl_weight=0.1)
    with pytest.raises(ValueError, match="reference_logprobs are needed"):
        policy_loss(tiny_model(), BATCH, settings)
    with pytest.raises(ValueError, match="reference_logprobs are needed"):
        trl_policy_loss(tiny_model(), tiny_tokenizer(), BATCH, settings)
    one = LossBatch([[5]], [[6]], [[True]], [1.0])
    with pytest.raises(ValueError, match="a batch of at least 2"):
        trl_policy_loss(tiny_model(), tiny_tokenizer(), one, LossSettings())
