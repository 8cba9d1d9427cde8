"""What the processes do with a bare FSDP2 model: roll out by lengths of their own, then update once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

LIMITS = (4, 4, 60, 60)
"""Of the four completions, two for each rank: the first is done long before the second."""


@dataclass
class Sharded:
    """What one process saw.

    Attributes:
        completions: Token ids of its own rows.
        passes: Its forward passes during the rollout.
        reshards: Whether each sharded unit gives its weights away after a forward pass: inside, after.
        local: Elements of this process's shards before the rollout, inside, and after.
        handed: Of the main process, what it writes for an engine of its own while the weights are whole.
        finite: What the guard against broken gradients says of the gradient, and of it with one NaN in rank 1's shard.
        weights: Whole weights after the update, by name.
        moved: Norm of their change.
    """

    completions: list[list[int]]
    passes: int
    reshards: list[list[bool]]
    local: list[int]
    handed: dict[str, np.ndarray]
    finite: tuple[bool, bool]
    weights: dict[str, np.ndarray]
    moved: float


def roll_out_and_update(layers_reshard: bool | None = True, half: bool = False) -> Sharded:
    """Shard the tiny model (where there is a group), complete prompts, and make one step on them.

    Args:
        layers_reshard: ``reshard_after_forward`` of the layers; None for torch's own choice.
        half: Gather in bf16, as on GPUs.
    """
    import torch
    from tiny import tiny_model, tiny_tokenizer

    from stepgrpo_lab.engines.completions import Decoding
    from stepgrpo_lab.engines.fsdp import gathered_weights
    from stepgrpo_lab.engines.lockstep import LockstepEngine
    from stepgrpo_lab.engines.tokenizers import encode_prompt
    from stepgrpo_lab.method.sampling import SampleKey
    from stepgrpo_lab.overthinker import overthinker_problems
    from stepgrpo_lab.training._guard import finite_gradients

    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    model = tiny_model()
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if processes > 1:
        _shard(model, layers_reshard, half)
    tokenizer = tiny_tokenizer()
    mine = range(rank * len(LIMITS) // processes, (rank + 1) * len(LIMITS) // processes)
    prompts = [encode_prompt(tokenizer, problem.prompt) for problem in overthinker_problems("train", len(LIMITS))]
    reshards, local = [], [_local(model)]
    with torch.no_grad(), gathered_weights(model):
        reshards.append(_reshards(model))
        handed = _handed(model) if rank == 0 else {}
        local.append(_local(model))
        trajectories, cost = LockstepEngine(model, tokenizer).generate(
            [prompts[row] for row in mine],
            Decoding(max(LIMITS)),
            keys=[SampleKey(0, "train", 0, row) for row in mine],
            limits=[LIMITS[row] for row in mine],
        )
    reshards.append(_reshards(model))
    local.append(_local(model))
    completions = [trajectory.completion_ids for trajectory in trajectories]

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for row, completion in zip(mine, completions, strict=True):  # means over rows, and FSDP2's mean over processes
        ids = torch.tensor([prompts[row] + completion])
        loss = model(input_ids=ids, labels=ids).loss / len(mine)
        loss.backward()
    finite = finite_gradients(model)
    optimizer.step()
    weights = {name: _whole(value).float() for name, value in model.state_dict().items()}
    moved = sum(float((weights[name] - before[name]).square().sum()) for name in before) ** 0.5
    if rank == processes - 1:
        _local_tensor(next(model.parameters()).grad).view(-1)[0] = float("nan")
    broken = finite_gradients(model)
    arrays = {name: value.numpy() for name, value in weights.items()}
    return Sharded(completions, cost.forward_passes, reshards, local, handed, (finite, broken), arrays, moved)


def _handed(model: Any) -> dict[str, np.ndarray]:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch
    from safetensors.numpy import load_file

    from stepgrpo_lab.training._engine_weights import write_policy

    with TemporaryDirectory() as folder:
        write_policy(model, Path(folder) / "weights", torch.float32)  # numpy knows no bf16
        return load_file(Path(folder) / "weights" / "model.safetensors")


def collective_rollout() -> None:
    """Decode without gathering first; the processes' numbers of forward passes differ."""
    import torch
    from tiny import tiny_model

    model = tiny_model()
    _shard(model, True, False, seconds=3)
    with torch.no_grad():
        for _ in range(LIMITS[2 * int(os.environ["RANK"])]):
            model(input_ids=torch.tensor([[1, 2, 3]]))


def _shard(model: Any, layers_reshard: bool | None, half: bool, seconds: float = 60) -> None:
    from datetime import timedelta

    import torch
    from accelerate import PartialState
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    PartialState(cpu=True, timeout=timedelta(seconds=seconds))  # forms the group
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16) if half else MixedPrecisionPolicy()
    mesh = torch.distributed.init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=layers_reshard, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _reshards(model: Any) -> list[bool]:
    from stepgrpo_lab.engines.fsdp import _parameter_groups

    return [group.post_forward_mesh_info is not None for group in _parameter_groups(model)]


def _local_tensor(value: Any) -> Any:
    return value.to_local() if hasattr(value, "to_local") else value


def _local(model: Any) -> int:
    return sum(_local_tensor(parameter).numel() for parameter in model.parameters())


def _whole(value: Any) -> Any:
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().clone()
