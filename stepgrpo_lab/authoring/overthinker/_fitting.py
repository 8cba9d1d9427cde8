"""The supervised loop under both stages of a build: seeded, resumable, next-token loss on chosen tokens only."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from stepgrpo_lab.engines.files import SMALL, inside, read_json, sync, write_atomically
from stepgrpo_lab.method.records import from_json

IGNORED = -100
PAD_MULTIPLE = 16  # a new shape means a new kernel on a CPU: few shapes, reused


@dataclass(frozen=True)
class Fork:
    """Tokens ``start`` to ``end`` of an example stand at ``place``: they see what is before it, and themselves.

    So one pass asks for the answer at every marker of a completion.
    """

    start: int
    end: int
    place: int


@dataclass(frozen=True)
class Example:
    """Token ids and which of them are predicted.

    Attributes:
        ids: ``[tokens]``.
        labels: ``[tokens]`` the id itself where it is trained, :data:`IGNORED` where it is context.
        forks: Side branches, which nothing else sees.
    """

    ids: list[int]
    labels: list[int]
    forks: tuple[Fork, ...] = ()


def continuation(context: Sequence[int], trained: Sequence[int]) -> Example:
    """An example whose tokens after ``context`` are trained.

    Example:
        >>> continuation([7, 8], [9]).labels
        [-100, -100, 9]
    """
    return Example([*context, *trained], [IGNORED] * len(context) + list(trained))


@dataclass(frozen=True)
class FitSettings:
    """One stage of supervised training.

    Attributes:
        updates: Optimiser steps.
        learning_rate: Peak; linear warm-up, then cosine decay to a twentieth.
        warmup: Updates of warm-up.
        weight_decay, betas, clip: AdamW and gradient-norm clipping.
        matrices: Optimiser of the layers' matrices; everything else is always AdamW's.
        save_every: Updates between resumable checkpoints.
    """

    updates: int
    learning_rate: float
    warmup: int = 100
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    save_every: int = 200
    matrices: Literal["adamw", "muon"] = "adamw"

    def rate(self, update: int) -> float:
        """Learning rate of one update."""
        if update < self.warmup:
            return self.learning_rate * (update + 1) / self.warmup
        progress = (update - self.warmup) / max(1, self.updates - self.warmup)
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))


Batch = dict[str, Tensor]
"""The model's inputs, and ``labels``."""


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pad on the right to a common, rounded length: ``input_ids`` and ``labels``, each [batch, length].

    Causal attention never looks right, so right padding needs no attention mask. Forks need one, and positions.
    """
    length = max(len(example.ids) for example in examples)
    length = math.ceil(length / PAD_MULTIPLE) * PAD_MULTIPLE
    ids = torch.full((len(examples), length), pad_id)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        size = len(example.ids)
        ids[row, :size] = torch.tensor(example.ids)
        labels[row, :size] = torch.tensor(example.labels)
    batch = {"input_ids": ids, "labels": labels}
    return batch | _branches(examples, length) if any(example.forks for example in examples) else batch


def _branches(examples: Sequence[Example], length: int) -> Batch:
    """``attention_mask`` [batch, 1, length, length], True where a token is seen, and ``position_ids``."""
    mask = torch.ones(length, length, dtype=torch.bool).tril().repeat(len(examples), 1, 1, 1)
    positions = torch.arange(length).repeat(len(examples), 1)
    for row, example in enumerate(examples):
        for fork in example.forks:
            mask[row, 0, fork.start : fork.end, fork.place : fork.start] = False
            positions[row, fork.start : fork.end] += fork.place - fork.start
    return {"attention_mask": mask, "position_ids": positions}


def token_loss(model: Any, batch: Batch, places: int = 0) -> Tensor:
    """Mean next-token cross-entropy (nats) over the labelled tokens; matrix products run in bfloat16.

    Args:
        model: A causal language model.
        batch: Of :func:`collate`.
        places: Compute the logits of so many last places alone; 0 for all.
    """
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.autocast(batch["input_ids"].device.type, torch.bfloat16):
        logits = model(**inputs, use_cache=False, logits_to_keep=places).logits[:, :-1].float()
    labels = batch["labels"][:, -logits.shape[1] :]
    return torch.nn.functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED
    )


def loss_of_endings(model: Any, batch: Batch) -> Tensor:
    """:func:`token_loss` without logits before the first labelled token, which a large vocabulary makes costly."""
    first = int((batch["labels"] != IGNORED).any(0).nonzero()[0])
    return token_loss(model, batch, batch["labels"].shape[1] - first + 1)


def _attend_in_float32(
    module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention outside of autocast: in bfloat16 its backward pass is three times as slow on a CPU."""
    with torch.autocast(query.device.type, enabled=False):
        return sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **options)


ATTENTION = "sdpa_float32"
AttentionInterface.register(ATTENTION, _attend_in_float32)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


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
    loss_of: Callable[[Any, Batch], Tensor] = token_loss,
) -> None:
    """Train ``model`` in place; take up the checkpoint folder if it holds one.

    Args:
        model: A causal language model; what needs no gradient is neither trained nor saved.
        batches: ``batches(update)`` gives the groups of examples of one update; the loss is the *sum over groups* of
            each group's token mean, so a group of few trained tokens weighs as much as one of many. It must depend on
            the update's number alone, so that a resumed run sees the same data.
        settings: Length and optimiser.
        pad_id: Padding token.
        checkpoint: Folder for resuming; written every ``save_every`` updates and at the end.
        progress: Called with (updates done, updates in all, smoothed loss).
        loss_of: The loss of a group of examples.
    """
    optimizers = _optimizers(model, settings)
    done = _restore(model, optimizers, checkpoint)
    smoothed = math.nan
    model.set_attn_implementation(ATTENTION)
    model.train()
    for update in range(done, settings.updates):
        loss = torch.stack([loss_of(model, collate(group, pad_id)) for group in batches(update) if group]).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(update)
            optimizer.step()
        model.zero_grad(set_to_none=True)
        value = float(loss.detach())
        smoothed = value if math.isnan(smoothed) else 0.95 * smoothed + 0.05 * value
        if progress:
            progress(update + 1, settings.updates, smoothed)
        if (update + 1) % settings.save_every == 0 or update + 1 == settings.updates:
            _save(model, optimizers, checkpoint, update + 1)
    model.set_attn_implementation("sdpa")
    model.eval()


Optimizers = Sequence[torch.optim.Optimizer]


def _trained(model: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((name, value) for name, value in model.named_parameters() if value.requires_grad)


def _optimizers(model: Any, settings: FitSettings) -> Optimizers:
    """AdamW for all, or Muon (Jordan et al. 2024) for the layers' matrices and AdamW for the rest."""
    named = list(_trained(model))
    matrices = [
        value for name, value in named if settings.matrices == "muon" and value.ndim == 2 and "embed" not in name
    ]
    chosen = set(map(id, matrices))
    rest = [value for _, value in named if id(value) not in chosen]
    rate, decay = settings.learning_rate, settings.weight_decay
    adamw = torch.optim.AdamW(rest, lr=rate, betas=settings.betas, weight_decay=decay)
    if not matrices:
        return [adamw]
    return [adamw, torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")]


def _save(model: Any, optimizers: Optimizers, folder: Path, done: int) -> None:
    """Write weights and optimiser state as safetensors; the small JSON file comes last and names a complete pair."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value.detach() for name, value in _trained(model)}
    for prefix, state in _states(optimizers):
        tensors |= {f"{prefix}{key}": torch.as_tensor(value) for key, value in state.items()}
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


def _restore(model: Any, optimizers: Optimizers, folder: Path) -> int:
    """Load the newest complete checkpoint, if any; returns the number of updates already done."""
    marker = folder / "progress.json"
    if not marker.exists():
        return 0
    record = _progress(marker)
    tensors = load_file(inside(folder, record["state"]))
    with torch.no_grad():
        for name, parameter in _trained(model):
            parameter.copy_(tensors[f"model.{name}"])
    for prefix, state in _states(optimizers):
        state |= {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return record["updates"]


def _states(optimizers: Optimizers) -> Iterator[tuple[str, dict[str, Any]]]:
    """The state of every parameter, and the name that its tensors begin with in a checkpoint."""
    for number, optimizer in enumerate(optimizers):
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for index, parameter in enumerate(parameters):
            yield f"optimizer.{number}.{index}.", optimizer.state[parameter]
