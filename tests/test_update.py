"""The algorithm on one page computes what the trainer computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import rollout_sampler
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.method.rewards import StepAwareReward
from stepgrpo_lab.method.settings import rollout_settings
from stepgrpo_lab.method.update import step_grpo_update
from stepgrpo_lab.overthinker import load_overthinker, overthinker_problems
from stepgrpo_lab.training.config import StepGRPOConfig
from stepgrpo_lab.training.trainer import StepGRPOTrainer, problems_dataset

PROBLEMS = overthinker_problems("train", 2)
SETTINGS = rollout_settings("official", markers="paper", probe_rate=0.5)


class _Watched(StepGRPOTrainer):
    """Keeps what one step of training saw and did; the optimizer's learning rate is 0."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.trajectories: list[Trajectory] = []
        self.losses: list[float] = []
        self.gradient = torch.empty(0)
        judge = self.reward_funcs[0]

        def watched(*, step_trajectory: Sequence[Trajectory], **columns: object) -> list[float]:
            self.trajectories += step_trajectory
            return judge(step_trajectory=step_trajectory, **columns)

        watched.__name__ = "watched"
        self.reward_funcs = [watched]

    def training_step(self, *args: object, **kwargs: object) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss.item())
        self.gradient = gradient_of(self.model)
        return loss


def gradient_of(model: torch.nn.Module) -> torch.Tensor:
    """All gradients in one vector."""
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def test_the_page_equals_the_trainer(tmp_path: Path) -> None:
    """Same completions: the trainer's loss and gradient, to float32 rounding."""
    model, tokenizer = load_overthinker()
    args = StepGRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=16,
        num_generations=8,
        max_completion_length=256,
        learning_rate=0.0,
        max_grad_norm=1e9,
        rollout=SETTINGS,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
    )
    trainer = _Watched(model, args=args, train_dataset=problems_dataset(PROBLEMS), processing_class=tokenizer)
    trainer.train()
    trainer.close()
    order = [trainer.trajectories[start].prompt_ids for start in range(0, 16, 8)]
    problems = [
        next(problem for problem in PROBLEMS if encode_prompt(tokenizer, problem.prompt) == prompt) for prompt in order
    ]

    fresh, _ = load_overthinker()
    optimizer = torch.optim.SGD(fresh.parameters(), lr=0.0)
    with Grader() as grader:
        result = step_grpo_update(
            fresh,
            optimizer,
            problems,
            lambda repeated, probed: trainer.trajectories,
            grader.grade,
            reward=StepAwareReward(),
            max_grad_norm=1e9,
        )
    assert sum(trainer.losses) == pytest.approx(result["loss"], abs=1e-5)
    assert result["grad_norm"] > 0
    gap = (gradient_of(fresh) - trainer.gradient).norm() / trainer.gradient.norm()
    assert gap < 1e-4


def test_an_update_sampled_for_real_moves_the_weights() -> None:
    model, tokenizer = load_overthinker()
    before = torch.cat([weight.detach().flatten().clone() for weight in model.parameters()])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    flags: list[bool] = []
    sample = rollout_sampler(model, tokenizer, Decoding(256, SETTINGS))

    def watched(problems: Sequence[Problem], probed: Sequence[bool]) -> Sequence[Trajectory]:
        flags.extend(probed)
        return sample(problems, probed)

    with Grader() as grader:
        result = step_grpo_update(model, optimizer, PROBLEMS[:2], watched, grader.grade, group_size=4)
    assert flags == [False, True] * 4
    assert result["grad_norm"] > 0 and 0 < result["right"] <= 1 and result["steps"] >= 1
    after = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    assert 0 < (after - before).abs().max() < 1e-3
