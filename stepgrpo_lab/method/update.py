"""One Step-GRPO update, from problems to moved weights: the algorithm on one page.

Everything else in this package makes these lines fast (a lockstep engine), scalable (TRL's trainer, several processes)
or safe (checks, checkpoints). A test holds that :class:`stepgrpo_lab.training.StepGRPOTrainer` computes the same loss
and the same gradient on the same completions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.loss import LossBatch, LossSettings, policy_loss
from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.method.rewards import GroupReward, StepAwareReward, group_advantages
from stepgrpo_lab.method.settings import probed_members

if TYPE_CHECKING:
    from torch.optim import Optimizer

Sampler = Callable[[Sequence[Problem], Sequence[bool]], Sequence[Trajectory]]
"""Completes each problem once by the truncated rollout; the flags say which completions may be probed."""

Judge = Callable[[Sequence[str | None], Sequence[str]], Sequence[bool]]
"""Whether each answer equals its gold answer, such as :meth:`stepgrpo_lab.evaluation.grading.Grader.grade`."""

STEP_AWARE, DAPO = StepAwareReward(), LossSettings("dapo")


def step_grpo_update(
    model: Any,
    optimizer: Optimizer,
    problems: Sequence[Problem],
    sample: Sampler,
    grade: Judge,
    *,
    group_size: int = 8,
    probe_rate: float = 0.5,
    reward: GroupReward = STEP_AWARE,
    loss: LossSettings = DAPO,
    max_grad_norm: float = 1.0,
) -> dict[str, float]:
    """Move the weights once (Step-GRPO, arXiv 2604.16890; the loss is GRPO's, arXiv 2402.03300).

    Args:
        model: The policy, a causal language model.
        optimizer: Over its trained parameters.
        problems: One group of ``group_size`` completions is sampled for each.
        sample: The rollout engine: problems and who may be probed -> completions, in the same order.
        grade: Answers and gold answers -> right or wrong.
        group_size: Completions of each problem (G).
        probe_rate: Share of a group that is probed; the published method probes all (1.0).
        reward: From one group's correctness, steps, format and tokens to G rewards.
        loss: Loss type, clipping and KL penalty.
        max_grad_norm: The gradient is scaled down to this norm.

    Returns:
        Loss, gradient norm, share of right answers (0 to 1), mean tokens and steps of a completion.
    """
    import torch

    # 1. Dynamic truncated rollout with backtracking: G completions of each problem, some of them probed (Eq. 2).
    repeated = [problem for problem in problems for _ in range(group_size)]
    completions = sample(repeated, probed_members(group_size, probe_rate) * len(problems))

    # 2. Grade each answer, and compare each right completion's number of steps with its group's mean (Eq. 3 to 5).
    answers = [extract_boxed(completion.text) for completion in completions]
    correct = grade(answers, [problem.answer for problem in repeated])
    advantages: list[float] = []
    for start in range(0, len(completions), group_size):
        group = range(start, start + group_size)
        rewards = reward(
            [correct[i] for i in group],
            [completions[i].steps for i in group],
            [answers[i] is not None for i in group],
            [completions[i].tokens for i in group],
        )
        advantages += group_advantages(rewards)

    # 3. One step along the policy gradient, forced closes included. One completion at a time: their gradients add up.
    optimizer.zero_grad()
    total, all_tokens = 0.0, sum(completion.tokens for completion in completions)
    for completion, advantage in zip(completions, advantages, strict=True):
        ids, mask = completion.completion_ids, [True] * completion.tokens
        part = policy_loss(
            model, LossBatch([completion.prompt_ids], [ids], [mask], [advantage], batch_tokens=all_tokens), loss
        )
        part.backward()
        total += part.item()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimizer.step()
    return {
        "loss": total,
        "grad_norm": float(norm),
        "right": fmean(correct),
        "tokens": all_tokens / len(completions),
        "steps": fmean(completion.steps for completion in completions),
    }
