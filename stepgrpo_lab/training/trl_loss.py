"""TRL's own loss on a batch of our choice, and ours beside it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import GRPOConfig, GRPOTrainer

from stepgrpo_lab.method.loss import LossBatch, LossSettings, batch_logprobs, policy_loss


@dataclass(frozen=True)
class LossComparison:
    """Our loss beside TRL's, on the same batch and the same weights.

    Attributes:
        ours, trl: The two losses.
        gradient_norm: Norm of our gradient, over all weights.
        gradient_gap: Norm of the difference between the two gradients.
    """

    ours: float
    trl: float
    gradient_norm: float
    gradient_gap: float

    @property
    def equal(self) -> bool:
        """Whether they agree to float32's precision, loss and gradient."""
        close = abs(self.ours - self.trl) <= 1e-5 * max(1.0, abs(self.trl))
        return close and self.gradient_gap <= 1e-4 * self.gradient_norm


def compare_with_trl(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: LossBatch, settings: LossSettings
) -> LossComparison:
    """Compute loss and gradient twice, with :func:`stepgrpo_lab.method.loss.policy_loss` and with TRL's trainer.

    Args:
        model: The policy; left as it is.
        tokenizer: Its tokenizer, for the padding token.
        batch: At least two completions.
        settings: How the loss is made.

    Raises:
        ValueError: The batch holds fewer than two completions, or a KL penalty has no reference.

    Example:
        >>> from stepgrpo_lab.overthinker import load_overthinker
        >>> batch = LossBatch([[1, 2], [3]], [[4, 5], [6]], [[True, True], [True]], [1.0, -1.0])
        >>> compare_with_trl(*load_overthinker(), batch, LossSettings("grpo")).equal
        True
    """
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model)
    our_loss, trl_loss = policy_loss(ours, batch, settings), trl_policy_loss(theirs, tokenizer, batch, settings)
    for loss in (our_loss, trl_loss):
        loss.backward()
    mine, its = _gradient(ours), _gradient(theirs)
    return LossComparison(our_loss.item(), trl_loss.item(), mine.norm().item(), (mine - its).norm().item())


def trl_policy_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: LossBatch, settings: LossSettings
) -> Tensor:
    """What TRL's ``GRPOTrainer`` computes for one batch: its forward pass, its loss, nothing of ours in between.

    TRL's trainer has no public function of a batch, so a trainer is made for the purpose and its private
    ``_compute_loss`` is called; the version of TRL is held by the package's dependencies. Making a trainer seeds the
    global random numbers, torch's too.

    Args:
        model: The policy; the trainer prepares it for its own forward pass, so give a copy.
        tokenizer, batch, settings: As in :func:`compare_with_trl`.

    Returns:
        A number with the model's gradient.

    Raises:
        ValueError: The batch holds fewer than two completions, or a KL penalty has no reference.
    """
    size = len(batch.advantages)
    if size < 2:
        raise ValueError("TRL compares the completions of a group: give a batch of at least 2")
    if settings.kl_weight and batch.reference_logprobs is None:
        raise ValueError("kl_weight is not 0, so reference_logprobs are needed; give them, or set kl_weight=0")
    inputs = _trl_inputs(model, tokenizer, batch)
    with TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=_no_reward,
            args=_trl_config(folder, size, settings, use_cpu=model.device.type == "cpu"),
            train_dataset=Dataset.from_dict({"prompt": ["prompt"] * size}),
            processing_class=tokenizer,
        )
        trainer.beta = settings.kl_weight  # set here, because a reference model would have to come from a path
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        return trainer._compute_loss(trainer.model, inputs)


def _trl_config(folder: str, size: int, settings: LossSettings, *, use_cpu: bool) -> GRPOConfig:
    return GRPOConfig(
        output_dir=folder,
        use_cpu=use_cpu,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=size,
        num_generations=size,
        gradient_accumulation_steps=1,
        max_completion_length=settings.max_completion_length or 256,
        temperature=1.0,
        loss_type=settings.loss_type,
        epsilon=settings.epsilon_low,
        epsilon_high=settings.epsilon_high,
        delta=settings.delta,
        use_bias_correction_kl=settings.bias_corrected_kl,
        report_to="none",
        disable_tqdm=True,
    )


def _trl_inputs(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: LossBatch) -> dict[str, Tensor]:
    """The batch as TRL holds it: prompts padded on the left, completions on the right."""
    own = batch_logprobs(model, batch)
    lengths = [len(row) for row in batch.completion_ids]
    tokens = sum(map(sum, batch.masks)) if batch.batch_tokens is None else batch.batch_tokens
    pad = int(tokenizer.pad_token_id)
    inputs = {
        "prompt_ids": _padded(batch.prompt_ids, pad, side="left"),
        "prompt_mask": _padded([[1] * len(row) for row in batch.prompt_ids], 0, side="left"),
        "completion_ids": _padded(batch.completion_ids, pad),
        "completion_mask": _padded([[1] * length for length in lengths], 0),
        "tool_mask": _padded([[int(trains) for trains in row] for row in batch.masks], 1),
        "advantages": torch.tensor(batch.advantages),
        "num_items_in_batch": torch.tensor(float(tokens)),
    }
    for name, rows in (("old", batch.old_logprobs), ("ref", batch.reference_logprobs)):
        if rows is not None:
            inputs[f"{name}_per_token_logps"] = _padded(
                [
                    [mine if given is None else given for given, mine in zip(row, mine_too, strict=True)]
                    for row, mine_too in zip(rows, own, strict=True)
                ],
                0.0,
            )
    return {name: value.to(model.device) for name, value in inputs.items()}


def _padded(rows: Sequence[Sequence[Any]], value: float, *, side: str = "right") -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], True, value, padding_side=side)


def _gradient(model: PreTrainedModel) -> Tensor:
    """Of all weights, in a row."""
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in model.parameters()]
    return torch.cat([gradient.flatten() for gradient in gradients])


def _no_reward(**_: Any) -> list[float]:
    raise RuntimeError("this trainer is only asked for its loss")
