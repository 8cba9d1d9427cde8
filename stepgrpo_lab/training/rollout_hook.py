"""The truncated rollout as TRL's rollout hook: from prompts to what the loss and the reward are told."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines.completions import RolloutEngine
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.processes import every_process
from stepgrpo_lab.engines.serial import complete_serially
from stepgrpo_lab.method.records import Cost, Trajectory
from stepgrpo_lab.method.rollout import probed_members
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.training.whole_policy import whole_policy

if TYPE_CHECKING:
    from stepgrpo_lab.training.trainer import StepGRPOTrainer


def complete_prompts(prompts: list[Any], trainer: StepGRPOTrainer) -> dict[str, Any]:
    """TRL's rollout hook: complete each prompt once.

    Args:
        prompts: This process's prompts, each repeated once per member of its group; a group may be cut between
            processes.
        trainer: The trainer that asks.

    Returns:
        Token ids, log-probabilities (None where a token was forced, so that its importance ratio is 1) and what the
        reward needs. ``env_mask`` only where forced tokens shall not train.
    """
    started = time.perf_counter()
    training = trainer.model.training
    group_size = trainer.num_generations if training else trainer.num_generations_eval
    trajectories, cost = _generate(prompts, trainer, group_size)
    for trajectory in trajectories:
        if not trajectory.completion_ids:
            raise RuntimeError("the rollout returned an empty completion, which the trainer cannot use")
    trainer.clock("rollout", time.perf_counter() - started)
    passes = max(every_process(cost.forward_passes))  # the others wait for the slowest
    trainer._metrics["train" if training else "eval"]["cost/forward_passes"].append(float(passes))
    return {
        "prompt_ids": [trajectory.prompt_ids for trajectory in trajectories],
        "completion_ids": [trajectory.completion_ids for trajectory in trajectories],
        **loss_inputs(trajectories, train_forced_close=trainer.args.train_forced_close),
        "step_trajectory": trajectories,
        "step_group_size": group_size,
    }


def loss_inputs(trajectories: Sequence[Trajectory], *, train_forced_close: bool) -> dict[str, Any]:
    """What the loss is told of each completion token.

    A forced token trains as published: mask 1 and no log-probability of the sampler, which makes its importance ratio
    exactly 1 (a 0.0 would claim that the sampler was certain of it, and mute the token). In the ablation its mask is 0.

    Example:
        >>> row = Trajectory([1], [2, 3], [-0.5, None], "ab", 1, "early", "eos")
        >>> loss_inputs([row], train_forced_close=True)
        {'logprobs': [[-0.5, None]]}
        >>> loss_inputs([row], train_forced_close=False)
        {'logprobs': [[-0.5, 0.0]], 'env_mask': [[1, 0]]}
    """
    if train_forced_close:
        return {"logprobs": [trajectory.logprobs for trajectory in trajectories]}
    return {
        "logprobs": [[0.0 if value is None else value for value in row.logprobs] for row in trajectories],
        # Exactly as long as the completion: TRL pads a shorter mask with ones.
        "env_mask": [[int(not forced) for forced in row.forced] for row in trajectories],
    }


def _generate(prompts: list[Any], trainer: StepGRPOTrainer, group_size: int) -> tuple[list[Trajectory], Cost]:
    args, training = trainer.args, trainer.model.training
    split = "train" if training else "eval"
    index = trainer.next_rollout(split)
    first = trainer.accelerator.process_index * len(prompts)
    samples = range(first, first + len(prompts))
    prompt_ids = [trainer.encode(prompt) for prompt in prompts]
    keys = [SampleKey(args.seed, split, index, sample) for sample in samples]
    sampling = Sampling(args.temperature, args.top_p, args.top_k)
    settings = args.rollout if training else None
    with policy_engine(trainer) as engine:
        if args.serial_rollout and settings is not None:
            _check_whole_groups(len(prompts), group_size)
            return complete_serially(
                engine,
                prompt_ids[::group_size],
                group_size=group_size,
                limit=trainer.completion_limit,
                keys=keys,
                settings=settings,
                sampling=sampling,
                segmenter=trainer.segmenter,
            )
        members = probed_members(group_size, settings.probe_rate if settings else 0)
        return engine.generate(
            prompt_ids,
            limit=trainer.completion_limit,
            keys=keys,
            settings=settings,
            sampling=sampling,
            probed=[members[sample % group_size] for sample in samples],
            segmenter=trainer.segmenter,
        )


@contextmanager
def policy_engine(trainer: StepGRPOTrainer, *, rows: int | None = None) -> Iterator[RolloutEngine]:
    """An engine that samples from the trainer's present weights; every process must enter and leave.

    Args:
        trainer: With an engine of its own or, without one, as :func:`stepgrpo_lab.training.whole_policy.whole_policy`
            asks.
        rows: Completions that a lockstep engine decodes at once; by default those of the training.
    """
    if trainer.engine is not None:
        with trainer.engine.awake() as engine:
            trainer.sync_weights()
            yield engine
        return
    with (
        whole_policy(trainer) as model,
        trainer.accelerator.autocast(),  # around the whole rollout, else every step casts all weights again
    ):
        yield LockstepEngine(model, trainer.token_text, max_rows=rows or trainer.args.rollout_rows)


def _check_whole_groups(completions: int, group_size: int) -> None:
    if completions % group_size:
        raise ValueError(
            f"serial_rollout: this process has {completions} completions, which are no whole groups of {group_size}; "
            "make per_device_train_batch_size x steps_per_generation a multiple of num_generations"
        )
