"""The policy's weights: gathered from all processes, and on their way to a second engine that samples with them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from trl.distributed import DistributedBackend
from trl.models import unwrap_model_for_generation

from stepgrpo_lab.engines.distributed import broadcast, is_main_process
from stepgrpo_lab.engines.fsdp import gathered_weights
from stepgrpo_lab.engines.vllm_engine import VLLMEngine
from stepgrpo_lab.engines.vllm_server import VLLMServerEngine


@contextmanager
def gathered_policy(trainer: Any) -> Iterator[Any]:
    """The model that a trainer trains, unwrapped and with all of its weights at hand.

    DDP is taken off; the weights of DeepSpeed's ZeRO-3 are gathered and its hooks removed; those of FSDP2 are gathered
    and stay. So a forward pass needs no other process, and processes may make as many as each of them needs. Gradient
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


class SyncedEngine:
    """A vLLM engine that follows a policy.

    Whole weights go to an engine in this process from tensor to tensor; to a server, and all adapters, as safetensors
    through a folder.

    Every process of a training has one of these; all of them must call :meth:`push`.

    Args:
        engine: It samples with the same model as the policy; with an adapter, it was started for LoRA.
        folder: Where the weights are handed over; by default one among the system's temporary folders. A server must
            see it under the same path.
        dtype: What whole weights are rounded to on their way: the type that the engine computes in. None leaves them
            as they are; adapters always stay so.

    Example:
        >>> engine = SyncedEngine(VLLMEngine.load("overthinker", dtype="float32"))    # doctest: +SKIP
        >>> engine.push(model)    # doctest: +SKIP
    """

    def __init__(
        self,
        engine: VLLMEngine | VLLMServerEngine,
        *,
        folder: str | Path | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.engine, self.dtype = engine, dtype
        made = ""
        if is_main_process():
            if folder is not None:
                Path(folder).mkdir(parents=True, exist_ok=True)
            made = tempfile.mkdtemp(prefix="stepgrpo-weights-", dir=folder)
        self._folder = Path(broadcast(made))
        self._remove = weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        self._versions = 0

    def push(self, model: Any) -> None:
        """Let the engine sample from the present weights of a model, with its adapter if it has one.

        Args:
            model: Unwrapped, with all of its weights at hand, as in
                :func:`gathered_policy`.
        """
        if self._pushed_in_place(model):
            return
        self._versions += 1
        folder, previous = (self._folder / f"{version:06d}" for version in (self._versions, self._versions - 1))
        if is_main_process():
            write_policy(model, folder, self.dtype)
            self._load(folder)
        broadcast(None)  # the others wait until the weights are there
        if not is_main_process():
            self._load(folder)
        broadcast(None)
        if is_main_process():  # the newest stays: an engine may read an adapter no sooner than it is asked
            shutil.rmtree(previous, ignore_errors=True)

    def _pushed_in_place(self, model: Any) -> bool:
        from accelerate.utils import is_peft_model

        if is_peft_model(model) or not isinstance(self.engine, VLLMEngine) or not self.engine.takes_tensors:
            return False
        self.engine.wake()
        try:
            self.engine.update_weights(policy_weights(model, self.dtype))
        except TypeError:  # an older vLLM
            return False
        return True

    def _load(self, folder: Path) -> None:
        self.engine.wake()
        if (folder / "adapter_config.json").exists():
            self.engine.use_adapter(folder)
        elif is_main_process() or not self.engine.shared:
            self.engine.load_weights(folder)

    @contextmanager
    def awake(self) -> Iterator[VLLMEngine | VLLMServerEngine]:
        """The engine, on its GPU; afterwards it leaves the GPU to the update."""
        self.engine.wake()
        try:
            yield self.engine
        finally:
            self.engine.sleep()

    def close(self) -> None:
        """Stop the engine, if it is this process's own, and remove the folder."""
        self.engine.close()
        self._remove()


def policy_weights(model: Any, dtype: torch.dtype | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """A model's weights under the names that its checkpoints use, rounded one after the other."""
    for name, weight in model.named_parameters():
        yield name, weight.detach().to(dtype or weight.dtype)


def write_policy(model: Any, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Write a model's weights as safetensors under the names that its checkpoints use; of an adapter, itself alone.

    The parameters are taken as they are, not from ``state_dict()``, which would shard gathered ones again.
    """
    from accelerate.utils import is_peft_model
    from huggingface_hub import save_torch_state_dict

    adapted = is_peft_model(model)
    # Copied, because gathered weights are views of one large buffer.
    weights = {
        name: weight.detach().to("cpu", weight.dtype if adapted else dtype or weight.dtype, copy=True).contiguous()
        for name, weight in model.named_parameters()
        if weight.requires_grad or not adapted
    }
    if adapted:
        model.save_pretrained(
            str(folder), state_dict=weights, save_embedding_layers=False, selected_adapters=["default"]
        )
        return
    folder.mkdir(parents=True)
    save_torch_state_dict(weights, folder)
