"""The loss in plain numbers: golden values, its derivative, and equality with TRL's own loss on the same batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny import tiny_model, tiny_tokenizer

from stepgrpo_lab.method.loss import LOSS_TYPES, LossSettings, token_weights
from stepgrpo_lab.method.token_loss import token_loss, token_push
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.training import StepGRPOConfig, StepGRPOTrainer, problems_dataset


@pytest.mark.parametrize(
    ("ratio", "advantage", "surrogate", "clipped", "gradient"),
    [
        (1.0, 2.0, 2.0, False, -2.0),
        (1.1, 1.0, 1.1, False, -1.1),
        (1.5, 1.0, 1.3, True, 0.0),  # likelier already: the pull ends at 1 + epsilon_high
        (0.5, 1.0, 0.5, False, -0.5),  # less likely than it was: the pull goes on
        (0.5, -1.0, -0.8, True, 0.0),
        (1.5, -1.0, -1.5, False, 1.5),
        (0.5, 0.0, 0.0, False, 0.0),
    ],
)
def test_clipping_by_hand(ratio: float, advantage: float, surrogate: float, clipped: bool, gradient: float) -> None:
    settings = LossSettings(epsilon_low=0.2, epsilon_high=0.3)
    token = token_loss(math.log(ratio) - 1, advantage, settings, old_logprob=-1.0)
    assert token.ratio == pytest.approx(ratio)
    assert token.surrogate == pytest.approx(surrogate)
    assert token.clipped is clipped
    assert token.gradient == pytest.approx(gradient)
    assert token.loss == pytest.approx(-surrogate)


def test_a_forced_token_has_ratio_one() -> None:
    assert token_loss(-3.0, 0.7, LossSettings()).ratio == 1.0
    assert token_loss(-3.0, 0.7, LossSettings()).gradient == pytest.approx(-0.7)


def test_kl_by_hand() -> None:
    token = token_loss(math.log(0.5), 0.0, LossSettings(kl_weight=0.1), reference_logprob=math.log(0.25))
    assert token.kl == pytest.approx(0.5 + math.log(2) - 1)
    assert token.loss == pytest.approx(0.1 * token.kl)
    assert token.gradient == pytest.approx(0.1 * 0.5)  # likelier than the reference has it: pulled back
    with pytest.raises(ValueError, match="reference_logprob is needed"):
        token_loss(-1.0, 1.0, LossSettings(kl_weight=0.1))


@given(
    logprob=st.floats(-3, -0.01),
    old=st.floats(-3, -0.01),
    reference=st.floats(-3, -0.01),
    advantage=st.floats(-2, 2),
    corrected=st.booleans(),
    delta=st.sampled_from([None, 1.7]),
)
def test_the_gradient_is_the_loss_s_slope(
    logprob: float, old: float, reference: float, advantage: float, corrected: bool, delta: float | None
) -> None:
    settings = LossSettings(kl_weight=0.3, bias_corrected_kl=corrected, delta=delta)
    step = 1e-6
    corners = (0.8, 1.2, 1.7)
    assume(all(abs(logprob - old - math.log(corner)) > 10 * step for corner in corners))

    def loss(value: float) -> float:
        return token_loss(value, advantage, settings, old_logprob=old, reference_logprob=reference).loss

    slope = (loss(logprob + step) - loss(logprob - step)) / (2 * step)
    token = token_loss(logprob, advantage, settings, old_logprob=old, reference_logprob=reference)
    assert token.gradient == pytest.approx(slope, abs=1e-4)


def test_weights_by_hand() -> None:
    masks = [[True, True], [True, True, True, False]]
    assert token_weights(masks, LossSettings("grpo")) == [[1 / 4] * 2, [1 / 6, 1 / 6, 1 / 6, 0.0]]
    assert token_weights(masks, LossSettings("bnpo")) == [[1 / 5] * 2, [1 / 5, 1 / 5, 1 / 5, 0.0]]
    assert token_weights(masks, LossSettings("dapo"), batch_tokens=10)[0] == [1 / 10] * 2
    assert token_weights(masks, LossSettings("dr_grpo", max_completion_length=8))[0] == [1 / 16] * 2
    assert token_push([2.0, -1.0], masks, LossSettings("bnpo")) == [[0.4, 0.4], [-0.2, -0.2, -0.2, 0.0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": "ppo"}, "loss_type is 'ppo'"),
        ({"loss_type": "dr_grpo"}, "max_completion_length"),
        ({"epsilon_low": 1.5}, "epsilon_low is 1.5"),
        ({"kl_weight": -1.0}, "must not be negative"),
        ({"delta": 1.1}, "delta is 1.1"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LossSettings(**settings)
    with pytest.raises(ValueError, match="masks is empty"):
        token_weights([], LossSettings())


LENGTHS = (5, 3, 4, 1)
GENERATION_BATCH_TOKENS = 23


@pytest.fixture
def make_trainer(tmp_path: Path) -> Any:
    made: list[StepGRPOTrainer] = []

    def make(**changes: Any) -> StepGRPOTrainer:
        config = StepGRPOConfig(
            output_dir=str(tmp_path),
            use_cpu=True,
            max_steps=1,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=8,
            report_to="none",
            save_strategy="no",
            **changes,
        )
        data = problems_dataset(overthinker_problems("train", 4))
        made.append(StepGRPOTrainer(tiny_model(), config, data, tiny_tokenizer()))
        return made[-1]

    yield make
    for trainer in made:
        trainer.close()


def trl_loss(trainer: StepGRPOTrainer, batch: dict[str, torch.Tensor], logprobs: torch.Tensor) -> float:
    """TRL's own loss on log-probabilities of our choice; its gradient ends up in ``logprobs.grad``."""
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss.detach())


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize(
    "extra", [{}, {"beta": 0.05}, {"beta": 0.05, "use_bias_correction_kl": True}, {"delta": 1.5}], ids=str
)
def test_loss_and_gradient_are_trl_s(make_trainer: Any, loss_type: str, extra: dict[str, Any]) -> None:
    kl_weight = extra.get("beta", 0.0)
    others = {name: value for name, value in extra.items() if name != "beta"}
    trainer = make_trainer(loss_type=loss_type, epsilon=0.2, epsilon_high=0.28, **others)
    trainer.beta = kl_weight  # set here, because a reference model would have to come from a path
    generator = torch.Generator().manual_seed(0)
    shape = (len(LENGTHS), max(LENGTHS))

    def draw() -> torch.Tensor:
        return -3 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.01

    logprobs, old, reference = draw().requires_grad_(), draw(), draw()
    completion_mask = torch.tensor([[place < length for place in range(shape[1])] for length in LENGTHS]).long()
    loss_mask = torch.ones(shape, dtype=torch.long)
    loss_mask[0, 2] = 0  # a forced token that does not train
    advantages = torch.tensor([1.0, -0.5, 0.0, 2.0], dtype=torch.float64)
    ours = LossSettings(
        loss_type,
        epsilon_low=0.2,
        epsilon_high=0.28,
        delta=extra.get("delta"),
        kl_weight=kl_weight,
        bias_corrected_kl=extra.get("use_bias_correction_kl", False),
        max_completion_length=8,
    )
    theirs = trl_loss(
        trainer,
        {
            "prompt_ids": torch.ones((shape[0], 2), dtype=torch.long),
            "prompt_mask": torch.ones((shape[0], 2), dtype=torch.long),
            "completion_ids": torch.ones(shape, dtype=torch.long),
            "completion_mask": completion_mask,
            "tool_mask": loss_mask,
            "advantages": advantages,
            "old_per_token_logps": old,
            "ref_per_token_logps": reference,
            "num_items_in_batch": torch.tensor(float(GENERATION_BATCH_TOKENS)),
        },
        logprobs,
    )

    masks = [
        [bool(flag) for flag in row][:length]
        for row, length in zip((completion_mask * loss_mask).tolist(), LENGTHS, strict=True)
    ]
    weights = token_weights(masks, ours, batch_tokens=GENERATION_BATCH_TOKENS)
    loss, gradient = 0.0, torch.zeros(shape, dtype=torch.float64)
    for row, row_weights in enumerate(weights):
        for place, weight in enumerate(row_weights):
            token = token_loss(
                logprobs[row, place].item(),
                advantages[row].item(),
                ours,
                old_logprob=old[row, place].item(),
                reference_logprob=reference[row, place].item(),
            )
            loss += weight * token.loss
            gradient[row, place] = weight * token.gradient
    assert loss == pytest.approx(theirs, rel=1e-6)
    assert logprobs.grad is not None
    torch.testing.assert_close(gradient, logprobs.grad, rtol=1e-6, atol=1e-9)
    assert gradient.abs().sum() > 0.01
