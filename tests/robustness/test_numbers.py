"""Numbers that are none stop the update and leave evidence; groups without a signal are defined and move nothing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import make_config, same_weights, weights
from test_training import trajectory as trajectory_of
from tiny import tiny_model, tiny_tokenizer

from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rewards import StepAwareReward, group_advantages, step_aware_rewards
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.training import StepGRPOTrainer, problems_dataset
from stepgrpo_lab.training._group_reward import GroupRewardFunction, judge
from stepgrpo_lab.training.fine_tuning import FineTuneConfig, FineTuneTrainer, Selection
from stepgrpo_lab.training.metrics import rollout_metrics


def by_position(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    return [float(position) for position in range(len(correct))]


def make_trainer(folder: Path, reward: Any = by_position, model: Any = None, **changes: Any) -> StepGRPOTrainer:
    return StepGRPOTrainer(
        tiny_model() if model is None else model,
        make_config(folder, max_steps=2, save_strategy="steps", save_steps=1, **changes),
        problems_dataset(overthinker_problems("train", 4)),
        tiny_tokenizer(),
        group_reward=reward,
    )


def stopped(trainer: Any, folder: Path, message: str, step: int = 1) -> dict[str, Any]:
    """Train into the error; returns the evidence, after the checks that hold for every such error."""
    before = weights(trainer) if step == 1 else None
    with pytest.raises(FloatingPointError) as caught:
        trainer.train()
    trainer.close()
    path = folder / f"not-finite-step-{step}.json"
    found = str(caught.value)
    assert f"step {step}, batch " in found and message in found and str(path) in found and "\n" not in found
    assert "lower the learning rate" in found
    if before is not None:
        assert same_weights(before, weights(trainer)), "weights moved"
    assert all(torch.isfinite(value).all() for value in trainer.model.state_dict().values() if step > 1)
    evidence = json.loads(path.read_text(), parse_constant=pytest.fail)  # strict JSON: no NaN in it
    assert evidence["step"] == step and message in evidence["what"]
    return evidence


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    trainer = make_trainer(tmp_path)
    compute = StepGRPOTrainer.__mro__[2].compute_loss
    batches = []

    def spoilt(self: Any, model: Any, inputs: Any, **rest: Any) -> torch.Tensor:
        batches.append(inputs)
        return compute(self, model, inputs, **rest) + (value if len(batches) == 4 else 0)

    monkeypatch.setattr(StepGRPOTrainer.__mro__[2], "compute_loss", spoilt)
    evidence = stopped(trainer, tmp_path, f"the loss is {value}", step=2)
    assert evidence["batch"] == 2  # the second of the second step
    assert evidence["evidence"]["completion_ids"] == batches[3]["completion_ids"].tolist()
    assert len(evidence["evidence"]["completion_text"]) == 4
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]


def test_logits_that_are_no_numbers_stop_the_rollout(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    trainer = make_trainer(tmp_path, model=model)
    with pytest.raises(FloatingPointError, match=r"step 1, batch 1: The model's logits for prompt \d+ at position 0"):
        trainer.train()
    trainer.close()
    found = json.loads((tmp_path / "not-finite-step-1.json").read_text())
    assert {"prompt", "answer", "problem_id"} <= set(found["evidence"][0])


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_reward_that_is_no_number_is_not_taken_for_none_at_all(tmp_path: Path, value: float) -> None:
    def reward(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
        return [1.0, value, 0.0, 0.0]

    evidence = stopped(make_trainer(tmp_path, reward), tmp_path, f"the reward of member 1 of group 0 is {value}")
    assert [row["reward"] for row in evidence["evidence"]] == [1.0, str(value), 0.0, 0.0]


def test_a_gradient_that_is_no_number_stops_the_update(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.model.model.layers[0].mlp.up_proj.weight.register_hook(lambda grad: grad * math.inf)
    evidence = stopped(trainer, tmp_path, "the gradient is not finite")
    assert "completion_ids" in evidence["evidence"]


def test_supervised_fine_tuning_is_guarded_too(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight[0] = math.nan
    selection = Selection([Trajectory([1, 2], [3, 4], [-0.1, -0.1], "", 1, None, "eos")] * 2, {})
    config = FineTuneConfig(output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, use_cpu=True)
    trainer = FineTuneTrainer(model, config, selection, tiny_tokenizer())
    with pytest.raises(FloatingPointError, match="step 1, batch 1: the loss is nan"):
        trainer.train()
    assert json.loads((tmp_path / "not-finite-step-1.json").read_text())["evidence"]["labels"][0] == [-100, -100, 3, 4]


def test_the_embedded_guard_does_not_stop_what_is_fine(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.close()
    assert trainer.state.global_step == 2 and not list(tmp_path.glob("not-finite-*"))


# ---- groups without a signal -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_constant_group_moves_no_weight(tmp_path: Path, scale: str) -> None:
    def constant(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
        return [0.1] * len(correct)

    trainer = make_trainer(tmp_path, constant, scale_rewards=scale)
    before = weights(trainer)
    trainer.train()
    trainer.close()
    assert same_weights(before, weights(trainer))
    assert [row["loss"] for row in trainer.state.log_history if "loss" in row] == [0.0, 0.0]
    assert trainer.state.log_history[0]["groups/informative"] == 0


GROUPS: dict[str, tuple[list[bool], list[int], list[bool], list[int]]] = {
    "constant": ([True] * 4, [2] * 4, [True] * 4, [50] * 4),
    "nobody is right": ([False] * 4, [1, 2, 3, 4], [True, False, True, False], [9, 8, 7, 6]),
    "all cut off at the limit": ([False] * 4, [5] * 4, [False] * 4, [256] * 4),
    "one token each": ([False] * 4, [1] * 4, [False] * 4, [1] * 4),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("scale", ["group", "none"])
def test_every_degenerate_group_has_finite_rewards_and_advantages(name: str, scale: Any) -> None:
    correct, steps, formatted, tokens = GROUPS[name]
    rewards = step_aware_rewards(correct, steps, formatted)
    advantages = group_advantages(rewards, scale=scale)
    assert all(map(math.isfinite, [*rewards, *advantages]))
    assert math.isclose(math.fsum(advantages), 0, abs_tol=1e-9)
    if len(set(rewards)) == 1:
        assert advantages == [0.0] * len(rewards)
    if not any(correct):  # nobody is right: no length signal, only the format tells members apart
        assert rewards == pytest.approx([0.1 * flag for flag in formatted])
    assert all(map(math.isfinite, StepAwareReward()(correct, steps, formatted, tokens)))


@pytest.mark.parametrize("right", [True, False])
def test_a_group_of_one_has_a_reward_but_nothing_to_be_compared_with(tmp_path: Path, right: bool) -> None:
    assert step_aware_rewards([right], [3], [right]) == [1.0 if right else 0.0]
    with pytest.raises(ValueError, match="a group needs at least 2 rewards to be compared, got 1"):
        group_advantages([1.0])
    with pytest.raises(ValueError, match=r"optimisation\.group_size is 1: it must be at least 2"):
        load_recipe("overthinker", ["optimisation.group_size=1"])
    with pytest.raises(ValueError, match="generations"):
        make_config(tmp_path, num_generations=1)


@pytest.mark.parametrize("name", GROUPS)
def test_the_rollouts_metrics_of_a_degenerate_group_are_finite(name: str) -> None:
    correct, _, formatted, tokens = GROUPS[name]
    rows = [
        trajectory_of(1, "7" if right else "0", tokens=count)
        if closed
        else Trajectory([1], [5] * count, [-0.1] * count, "on and on", 1, None, "length")
        for right, closed, count in zip(correct, formatted, tokens, strict=True)
    ]
    with Grader() as grader:
        judged = judge(rows, ["7"] * len(rows), grader)
        measured: dict[str, float] = {}
        rewards = GroupRewardFunction(StepAwareReward(), grader, scale="group", clock=lambda *_: None)(
            answer=["7"] * len(rows),
            step_trajectory=rows,
            step_group_size=[len(rows)] * len(rows),
            log_metric=measured.__setitem__,
        )
    assert [row.outcome.correct for row in judged] == correct
    assert measured.pop("grading/timeouts") == 0
    assert measured == rollout_metrics(judged, rewards, len(rows))
    assert all(map(math.isfinite, measured.values()))
