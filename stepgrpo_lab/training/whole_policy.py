"""The policy as a plain model to sample from, whatever spreads its weights over processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.distributed import DistributedBackend
from trl.models import unwrap_model_for_generation

from stepgrpo_lab.engines.fsdp import gathered_weights


@contextmanager
def whole_policy(trainer: Any) -> Iterator[Any]:
    """The model that a trainer trains, unwrapped and with all of its weights at hand.

    DDP is taken off; the weights of DeepSpeed's ZeRO-3 are gathered and its hooks removed; those of FSDP2 are gathered
    and stay. So a forward pass talks to nobody, and processes may make as many as each of them needs. Gradient
    checkpointing is off, and no gradients are recorded.

    Every process must enter and leave.

    Args:
        trainer: A trainer of TRL whose ``train`` has begun, or one that does not wrap its model.
    """
    with (
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=True,
            gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
        ) as model,
        torch.no_grad(),
        DistributedBackend(trainer.accelerator).summon_full_params(trainer.model_wrapped, recurse=False),
        gathered_weights(trainer.model_wrapped),
    ):
        yield model
