"""The engine that a command samples with."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepgrpo_lab.engines.completions import RolloutEngine


def check_engine(options: Namespace) -> None:
    """Check that engine and model of a command are there, before problems are made and weights are loaded.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: No such model.
    """
    from stepgrpo_lab.engines.hub import loading_options, model_location
    from stepgrpo_lab.engines.vllm_engine import check_vllm

    if options.engine == "vllm":
        check_vllm("--engine")
    loading_options(model_location(options.model))


@contextmanager
def opened_engine(
    options: Namespace, *, dtype: str | None = None, rows: int = 64
) -> Iterator[tuple[RolloutEngine, Any]]:
    """The engine that ``--engine`` names for the model of a command, and the model's tokenizer.

    Args:
        options: With ``model``, ``engine``, ``url``, ``served_name`` and ``self_test``.
        dtype: What the model computes in; by default float32, and under vLLM what the machine computes natively.
        rows: Completions decoded at once.

    Raises:
        ImportError: vLLM is not installed.
        ConnectionError: No server answers.
        ValueError: No such model.
    """
    from stepgrpo_lab.engines.hub import model_location
    from stepgrpo_lab.engines.models import load_model, load_tokenizer

    path = model_location(options.model)
    engine: Any
    if options.engine == "lockstep":
        from stepgrpo_lab.engines.lockstep import LockstepEngine

        model, tokenizer = load_model(path, dtype=dtype or "float32")
        if options.self_test == "warn":
            from stepgrpo_lab.engines.self_test import warn_only

            warn_only(model)
        yield LockstepEngine(model, tokenizer, max_rows=rows), tokenizer
        return
    tokenizer = load_tokenizer(path)
    if options.engine == "vllm":
        from stepgrpo_lab.engines.models import native_dtype
        from stepgrpo_lab.engines.vllm_engine import VLLMEngine

        engine = VLLMEngine.load(dtype=dtype or native_dtype(), max_num_seqs=rows, **_base_and_adapter(path))
    else:
        from stepgrpo_lab.engines.vllm_server import VLLMServerEngine

        engine = VLLMServerEngine(tokenizer, url=options.url, model=options.served_name, max_rows=rows)
    try:
        yield engine, tokenizer
    finally:
        engine.close()


def _base_and_adapter(path: str) -> dict[str, Any]:
    """What vLLM is started with: a model, or the model below a LoRA adapter with room for that adapter's rank."""
    import torch

    from stepgrpo_lab.engines.model_files import read_adapter
    from stepgrpo_lab.engines.models import adapter_base, adapter_folder, adapter_quantization
    from stepgrpo_lab.engines.vllm_engine import lora_room

    options: dict[str, Any] = {"enforce_eager": not torch.cuda.is_available()}
    adapter = adapter_folder(path)
    if adapter is None:
        return {"path_or_id": path, **options}
    if adapter_quantization(adapter):
        raise ValueError(
            f"{path} was trained on 4-bit weights, vLLM would sample from others: stepgrpo export it first"
        )
    rank = read_adapter(adapter).get("r", 8)
    return {"path_or_id": adapter_base(adapter), "adapter": str(adapter), "max_lora_rank": lora_room(rank), **options}
