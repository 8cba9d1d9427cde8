"""The supervised loop under both stages of the build: seeded, resumable, next-token loss on chosen tokens only."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stepgrpo_lab.engines.files import SMALL, inside, read_json, sync, write_atomically
from stepgrpo_lab.method.records import from_json

IGNORED = -100
PAD_MULTIPLE = 16  # a new shape means a new kernel on a CPU: few shapes, reused


@dataclass(frozen=True)
class Example:
    """Token ids, and the index of the first one that is predicted (trained); everything before is context."""

    ids: list[int]
    loss_start: int


@dataclass(frozen=True)
class FitSettings:
    """One stage of supervised training.

    Attributes:
        updates: Optimiser steps.
        learning_rate: Peak; linear warm-up, then cosine decay to a twentieth.
        warmup: Updates of warm-up.
        weight_decay, betas, clip: AdamW and gradient-norm clipping.
        save_every: Updates between resumable checkpoints.
    """

    updates: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    save_every: int = 200

    def rate(self, update: int) -> float:
        """Learning rate of one update."""
        if update < self.warmup:
            return self.learning_rate * (update + 1) / self.warmup
        progress = (update - self.warmup) / max(1, self.updates - self.warmup)
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


def collate(examples: Sequence[Example], pad_id: int) -> tuple[Tensor, Tensor]:
    """Pad on the right to a common, rounded length; returns ids and labels, each [batch, length].

    Causal attention never looks right, so right padding needs no attention mask.
    """
    length = max(len(example.ids) for example in examples)
    length = math.ceil(length / PAD_MULTIPLE) * PAD_MULTIPLE
    ids = torch.full((len(examples), length), pad_id)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        size = len(example.ids)
        ids[row, :size] = torch.tensor(example.ids)
        labels[row, example.loss_start : size] = ids[row, example.loss_start : size]
    return ids, labels


def token_loss(model: Any, ids: Tensor, labels: Tensor) -> Tensor:
    """Mean next-token cross-entropy (nats) over the labelled tokens; matrix products run in bfloat16."""
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=IGNORED
    )


def bucketed(examples: list[Example], batch_size: int, rng: random.Random) -> list[list[Example]]:
    """Cut a pool into batches of similar length, in random order."""
    ordered = sorted(examples, key=lambda example: len(example.ids))
    batches = [ordered[i : i + batch_size] for i in range(0, len(ordered), batch_size)]
    rng.shuffle(batches)
    return batches


def fit(
    model: Any,
    batches: Callable[[int], Sequence[Sequence[Example]]],
    settings: FitSettings,
    pad_id: int,
    checkpoint: Path,
    progress: Callable[[int, int, float], None] | None = None,
) -> None:
    """Train ``model`` in place; take up the checkpoint folder if it holds one.

    Args:
        model: A causal language model.
        batches: ``batches(update)`` gives the groups of examples of one update; the loss is the *sum over groups* of
            each group's token mean, so a group of few trained tokens weighs as much as one of many. It must depend on
            the update's number alone, so that a resumed run sees the same data.
        settings: Length and optimiser.
        pad_id: Padding token.
        checkpoint: Folder for resuming; written every ``save_every`` updates and at the end.
        progress: Called with (updates done, updates in all, smoothed loss).
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )
    done = _restore(model, optimizer, checkpoint)
    smoothed = math.nan
    model.train()
    for update in range(done, settings.updates):
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(update)
        loss = torch.stack([token_loss(model, *collate(group, pad_id)) for group in batches(update) if group]).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = float(loss.detach())
        smoothed = value if math.isnan(smoothed) else 0.95 * smoothed + 0.05 * value
        if progress:
            progress(update + 1, settings.updates, smoothed)
        if (update + 1) % settings.save_every == 0 or update + 1 == settings.updates:
            _save(model, optimizer, checkpoint, update + 1)
    model.eval()


def _save(model: Any, optimizer: torch.optim.Optimizer, folder: Path, done: int) -> None:
    """Write weights and optimiser state as safetensors; the small JSON file comes last and names a complete pair."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for index, (_, state) in enumerate(sorted(_indexed_state(optimizer).items())):
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    name = f"state-{done}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    sync(folder / name)
    write_atomically(folder / "progress.json", json.dumps({"updates": done, "state": name}))
    for old in folder.glob("state-*.safetensors"):
        if old.name != name:
            old.unlink()


def updates_done(checkpoint: Path) -> int:
    """Updates that a checkpoint folder of :func:`fit` has behind it; 0 without one."""
    marker = checkpoint / "progress.json"
    return _progress(marker)["updates"] if marker.exists() else 0


class _Progress(TypedDict):
    updates: int
    state: str


def _progress(marker: Path) -> _Progress:
    return read_json(marker, partial(from_json, _Progress), "remove the folder to begin again", SMALL)


def _restore(model: Any, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    """Load the newest complete checkpoint, if any; returns the number of updates already done."""
    marker = folder / "progress.json"
    if not marker.exists():
        return 0
    record = _progress(marker)
    tensors = load_file(inside(folder, record["state"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(parameters):
        prefix = f"optimizer.{index}."
        optimizer.state[parameter] = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
    return record["updates"]


def _indexed_state(optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {index: optimizer.state[parameter] for index, parameter in enumerate(parameters)}
