"""What every trainer of this package guards: weights never move on NaN, a checkpoint is whole or not there, nothing of
ours is unpickled, no telemetry is sent.

A process can be killed, a machine can lose power and a disk can fill up while a checkpoint is written. So before one is
loaded, its files are held against their manifest (:mod:`._proof`); where there is none, as in version 0.1, against the
length that their formats give.
"""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from transformers import Trainer, TrainerCallback

from stepgrpo_lab.engines.distributed import all_reduce_any, is_main_process, process_count
from stepgrpo_lab.engines.failures import full_disk, in_words, machine_trouble
from stepgrpo_lab.engines.files import read_json, write_atomically
from stepgrpo_lab.engines.model_files import tensor_shapes
from stepgrpo_lab.training._proof import MARK, Proof, Verify, manifest_damage

TRAINER_STATE = "trainer_state.json"
"""Written last of the checkpoint's own files: one without it was cut off."""

PICKLED_ARGUMENTS = "training_args.bin"
"""A pickle that transformers writes beside the weights; it is removed unread."""

SAFE_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors")


class NotFiniteError(FloatingPointError):
    """A number that training needs is NaN or infinite.

    Attributes:
        evidence: What it was found in: a batch of tensors, or rows.
    """

    def __init__(self, message: str, evidence: Any = None) -> None:
        super().__init__(message)
        self.evidence = evidence


class GuardedTrainer(Trainer):
    """Mix in before a trainer of TRL.

    Every error about numbers names the step and the batch, and leaves the batch in ``not-finite-step-<n>.json`` of the
    output folder. Weights of that step have not moved.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._batch: tuple[int, int] = (0, 0)  # optimiser steps done, batches of the present one begun
        self._inputs: Any = None
        self._proof: Proof | None = None
        self.add_callback(_FiniteGradients(self))
        self.add_callback(_ProofAtEveryStep(self))

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Nothing, where a resumed training has reached its end already: transformers would train a step first."""
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        done = self.state.global_step
        self._batch = (done, self._batch[1] + 1 if self._batch[0] == done else 1)
        try:
            return super().training_step(model, inputs, *args, **kwargs)
        except FloatingPointError as error:
            evidence = error.evidence if isinstance(error, NotFiniteError) else inputs
            raise self.not_finite(str(error), evidence) from error

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        self._inputs = inputs
        value = (loss[0] if isinstance(loss, tuple) else loss).detach()
        if model.training and not torch.isfinite(value).all():
            raise NotFiniteError(f"the loss is {value.mean().item()}", inputs)
        return loss

    def check_gradients(self) -> None:
        """Refuse an update whose gradient is not finite.

        Raises:
            FloatingPointError: It is not; the message names the step, and the step's last batch is kept.
        """
        if self.accelerator.scaler is not None:  # with fp16 the scaler skips such updates by itself
            return
        if not finite_gradients(self.model):
            raise self.not_finite("the gradient is not finite", self._inputs)

    def not_finite(self, what: str, evidence: Any) -> FloatingPointError:
        """The error that ends training, its evidence written."""
        step, batch = self._batch[0] + 1, self._batch[1]
        where = "" if is_main_process() else f"-process-{self.accelerator.process_index}"
        path = Path(self.args.output_dir) / f"not-finite-step-{step}{where}.json"
        found = {"step": step, "batch": batch, "what": what, "evidence": self._plain(evidence)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found, allow_nan=False))
        return FloatingPointError(
            f"step {step}, batch {batch}: {what}; the weights were not updated, and what it was found in is in "
            f"{path}: lower the learning rate, or use bf16 or fp32 instead of fp16"
        )

    def _plain(self, value: Any) -> Any:
        """Anything as JSON: token ids beside their text, numbers that JSON lacks as words."""
        if isinstance(value, torch.Tensor):
            return self._plain(value.tolist())
        if isinstance(value, Mapping):
            plain = {str(key): self._plain(item) for key, item in value.items()}
            for key in [key for key in plain if key.endswith("_ids") and isinstance(value[key], torch.Tensor)]:
                plain[key.replace("_ids", "_text")] = self.processing_class.batch_decode(value[key])
            return plain
        if isinstance(value, (list, tuple)):
            return [self._plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:  # transformers calls this in every process
            folder = Path(output_dir or self.args.output_dir)
            (folder / PICKLED_ARGUMENTS).unlink(missing_ok=True)
            model = self.accelerator.unwrap_model(self.model)
            if is_peft_model(model):  # an adapter's own files do not say whether its base was quantised
                model.get_base_model().config.save_pretrained(str(folder))

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; when it returns, the last checkpoint is proven."""
        try:
            result = super().train(*args, **kwargs)
            self.finish_proof()
            self._drop_old_checkpoints()
            return result
        except Exception:
            if process_count() == 1:  # several may have failed one by one, and would wait for each other
                self.finish_proof()
            raise
        finally:
            self._proof = None  # whoever stops at once does not wait

    def finish_proof(self) -> None:
        """Wait until the last checkpoint is on the disk and counts; every process must call.

        Raises:
            OSError: It cannot be written; what there is of it is removed.
        """
        proof, self._proof = self._proof, None
        if proof is not None:
            with _naming_checkpoint(proof.checkpoint):
                proof.finish()
            self._drop_old_checkpoints()

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.finish_proof()
        checkpoint = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        with _naming_checkpoint(checkpoint):
            self.state.stateful_callbacks[MARK] = {"processes": process_count()}
            with self._keeping_checkpoints():
                super()._save_checkpoint(model, trial)
            self._proof = Proof(checkpoint, self.args.checkpoint_verify)

    @contextmanager
    def _keeping_checkpoints(self) -> Iterator[None]:
        """Within, no older checkpoint is dropped: the new one does not count yet."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            yield
        finally:
            self.args.save_total_limit = limit

    def _drop_old_checkpoints(self) -> None:
        """Drop what is above ``save_total_limit``, once the newest counts, in the order of their steps.

        transformers drops before that, and by date: a checkpoint that was half dropped when a kill came has the newest.
        """
        limit = self.args.save_total_limit
        if not self.args.should_save or not limit or limit < 0:
            return
        for path in checkpoints_in(Path(self.args.output_dir))[:-limit]:
            if str(path) != self.state.best_model_checkpoint:
                _remove(path)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not any((Path(resume_from_checkpoint) / name).is_file() for name in SAFE_WEIGHTS):
            raise ValueError(
                f"{resume_from_checkpoint} holds no weights in safetensors, and no others are read: give another one"
            )
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _send_telemetry(self) -> None:
        """Nothing, whatever was imported first."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a checkpoint is for resuming, and a model card would name tracking accounts."""


def finite_gradients(model: torch.nn.Module) -> bool:
    """Whether every gradient of a model is finite, in every process: sharding gives each a part of its own."""
    gradients = (parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    parts = (gradient.to_local() if hasattr(gradient, "to_local") else gradient for gradient in gradients)
    return not all_reduce_any(not all(torch.isfinite(part).all() for part in parts))


class _FiniteGradients(TrainerCallback):
    def __init__(self, trainer: GuardedTrainer) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.check_gradients()


class _ProofAtEveryStep(TrainerCallback):
    """Looks after every step whether a proof is ready, which several processes finish together, or has failed."""

    def __init__(self, trainer: GuardedTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        proof = self.trainer._proof
        if proof is not None and not all_reduce_any(proof.running):
            self.trainer.finish_proof()


@contextmanager
def _naming_checkpoint(checkpoint: Path) -> Iterator[None]:
    """An error of writing names the checkpoint and the remedy, and what there is of it is removed."""
    try:
        yield
    except Exception as error:  # each of the writers has an error of its own for a full disk
        if checkpoint_damage(checkpoint, "sizes") is not None:
            shutil.rmtree(checkpoint, ignore_errors=True)
        if full_disk(error) is None and machine_trouble(error) is not None:  # no room on the disk would not help
            raise
        raise OSError(
            f"{checkpoint} cannot be written ({full_disk(error) or in_words(error)}): make room there, then go on from "
            "the last checkpoint"
        ) from error


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints of a folder, whole or not, in the order of their steps."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def last_checkpoint(
    folder: Path, report: Callable[[str], None] = lambda line: None, verify: Verify = "full"
) -> Path | None:
    """The newest whole checkpoint of a folder; newer ones that are not whole are reported and removed.

    Args:
        folder: Holds folders ``checkpoint-<step>``.
        report: Receives a line for each checkpoint that is damaged (not for one that a kill cut off before its end).
        verify: How far a checkpoint's manifest is held against its files.
    """
    for path in reversed(checkpoints_in(folder)):
        damage = checkpoint_damage(path, verify)
        if damage is None:
            return path
        if (path / TRAINER_STATE).exists():
            report(f"{path.name} is passed over: {damage}")
        _remove(path)
    return None


def checkpoint_damage(checkpoint: Path, verify: Verify = "full") -> str | None:
    """What a checkpoint lacks to be resumed from, in words; None if it is whole.

    One of version 0.1, without a manifest, is held against the lengths that its files give themselves.

    Example:
        >>> checkpoint_damage(Path("no/such/checkpoint-4"))
        'trainer_state.json is missing'
    """
    weights = sorted(checkpoint.glob("*.safetensors"))
    generators = sorted(checkpoint.glob("rng_state*.pth"))
    states = [checkpoint / "scheduler.pt", *(generators or [checkpoint / "rng_state.pth"])]
    if not any(path.is_dir() for path in checkpoint.glob("*")):  # DeepSpeed and FSDP have folders of their own for it
        states.append(checkpoint / "optimizer.pt")
    for path in (checkpoint / TRAINER_STATE, *(weights or [checkpoint / "model.safetensors"]), *states):
        if not path.is_file():
            return f"{path.name} is missing"
    state = _state(checkpoint / TRAINER_STATE)
    if "global_step" not in state:
        return f"{TRAINER_STATE} is cut off"
    cut_off = [path for path in weights if not _is_whole_safetensors(path)]
    cut_off += [path for path in states if not _is_whole_zip(path)]
    if cut_off:
        return f"{cut_off[0].name} is cut off"
    callbacks = state.get("stateful_callbacks")
    return manifest_damage(checkpoint, verify, required=isinstance(callbacks, dict) and MARK in callbacks)


def _state(path: Path) -> dict[str, Any]:
    """The trainer state; empty if the file is damaged."""
    try:
        state = read_json(path, lambda value: value, "remove the checkpoint")
    except ValueError:
        return {}
    return state if isinstance(state, dict) else {}  # its metrics may hold NaN, which is no damage


def _is_whole_zip(path: Path) -> bool:
    """Whether a file ends with a zip file's directory."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # one that claims to go on elsewhere
        return False


def _is_whole_safetensors(path: Path) -> bool:
    """Whether a file is as long as its header says."""
    try:
        tensor_shapes(path)
    except ValueError:
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_symlink():  # never what lies elsewhere
        path.unlink()
    else:
        shutil.rmtree(path)
