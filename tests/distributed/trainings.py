"""What the processes do: short trainings of the Overthinker that tell what they saw."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

GROUP_SIZE = 4
PROMPTS = 3
"""Groups of a step: twelve completions, so each of two processes has a group and a half."""


@dataclass
class Seen:
    """What one process saw of a training.

    Attributes:
        groups: Arguments of the reward, group after group: correct, steps, formatted, tokens.
        rewards: What it returned for them.
        completions, advantages: Of this process's own rows, rollout after rollout.
        passes: Forward passes of each own rollout.
        weights: After training, by name.
        moved: Norm of all weights' change.
        steps: Optimiser steps done.
        logged: Metrics of each step.
    """

    groups: list[tuple[Any, ...]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    completions: list[list[list[int]]] = field(default_factory=list)
    advantages: list[list[float]] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    moved: float = 0.0
    steps: int = 0
    logged: list[dict[str, Any]] = field(default_factory=list)


def train(
    folder: str,
    *,
    resume: str | None = None,
    limits: Sequence[int] = (),
    settings: dict[str, Any] | None = None,
    silent: bool = False,
) -> Seen:
    """Train for a few steps in the processes that were started together.

    Args:
        folder: Output folder, the same for all.
        resume: Checkpoint to go on from.
        limits: Completion limit of each rank, in tokens, instead of one for all.
        settings: Changes to the trainer's settings.
        silent: Every second group has nothing to learn from; in the others a member's place is its reward.
    """
    from stepgrpo_lab import StepGRPOConfig, StepGRPOTrainer, load_overthinker, rollout_settings
    from stepgrpo_lab.cli.quiet import quiet
    from stepgrpo_lab.method.rewards import StepAwareReward
    from stepgrpo_lab.overthinker import overthinker_problems
    from stepgrpo_lab.training import problems_dataset

    quiet()
    processes, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    seen, reward = Seen(), StepAwareReward()

    def watched_reward(*group: Any) -> Sequence[float]:
        seen.groups.append(tuple(tuple(column) for column in group))
        if silent:
            return [float(place * (len(seen.groups) % 2)) for place in range(len(group[0]))]
        seen.rewards += reward(*group)
        return reward(*group)

    class Watched(StepGRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            batch = super()._generate_and_score_completions(inputs)
            seen.advantages.append(batch["advantages"].tolist())
            rows = zip(batch["completion_ids"].tolist(), batch["completion_mask"].sum(1).tolist(), strict=True)
            seen.completions.append([ids[:length] for ids, length in rows])
            return batch

        def _sample(self, *arguments: Any) -> Any:
            trajectories, cost = super()._sample(*arguments)
            seen.passes.append(cost.forward_passes)
            return trajectories, cost

        @property
        def completion_limit(self) -> int:
            return limits[rank] if limits else super().completion_limit

    rows = GROUP_SIZE * PROMPTS // 2
    options = {
        "output_dir": folder,
        "use_cpu": True,
        "max_steps": 3,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": 2 // processes,
        "num_generations": GROUP_SIZE,
        "max_completion_length": 160,
        "rollout": rollout_settings(markers="paper", probe_rate=0.5),
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "save_strategy": "no",
        "report_to": "none",
        **(settings or {}),
    }
    model, tokenizer = load_overthinker()
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    problems = problems_dataset(overthinker_problems("train", 4 * PROMPTS))
    trainer = Watched(model, StepGRPOConfig(**options), problems, tokenizer, group_reward=watched_reward)
    try:
        trainer.train(resume_from_checkpoint=resume)
    finally:
        trainer.close()
    after = model.state_dict()
    seen.weights = {name: value.numpy() for name, value in after.items()}
    seen.moved = sum(float((after[name] - before[name]).square().sum()) for name in before) ** 0.5
    seen.steps, seen.logged = trainer.state.global_step, trainer.state.log_history
    return seen


def interrupted_training(folder: str) -> tuple[bool, int]:
    """Ctrl-C reaches rank 1 alone, in the first of three steps; returns whether a rank stopped, and where."""
    from stepgrpo_lab.training.callbacks import Interrupt

    heard = []

    class OnRankOne(Interrupt):
        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            self.interrupted |= os.environ["RANK"] == "1"
            super().on_step_end(args, state, control, **options)
            heard.append(self.interrupted)

    from stepgrpo_lab import StepGRPOTrainer

    begin = StepGRPOTrainer.__init__

    def with_callback(self: Any, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, callbacks=[OnRankOne()], **options)

    StepGRPOTrainer.__init__ = with_callback  # type: ignore[method-assign]
    seen = train(folder, settings={"max_completion_length": 24, "save_strategy": "steps", "save_steps": 3})
    return heard[0], seen.steps
