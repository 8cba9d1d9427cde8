"""Load a causal language model with its tokenizer, check both for what the method needs, merge LoRA."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stepgrpo_lab._imports import require
from stepgrpo_lab.engines.hub import first_line, loading_options, model_location
from stepgrpo_lab.engines.tokenizers import check_tokenizer, separate_padding

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("auto", "float32", "bfloat16", "float16")

BF16_CAPABILITY = 8
"""First CUDA compute capability with bfloat16 units. A T4 (7.5) claims bf16 too, but only emulates it."""


def native_dtype_of(capability: tuple[int, int] | None) -> Literal["bfloat16", "float16", "float32"]:
    """The type that a GPU of some compute capability computes fastest; float32 without one, on a CPU.

    Example:
        >>> native_dtype_of((7, 5)), native_dtype_of((8, 0)), native_dtype_of(None)
        ('float16', 'bfloat16', 'float32')
    """
    if capability is None:
        return "float32"
    return "bfloat16" if capability[0] >= BF16_CAPABILITY else "float16"


def native_dtype() -> Literal["bfloat16", "float16", "float32"]:
    """The type that this machine's accelerator computes natively."""
    import torch

    return native_dtype_of(torch.cuda.get_device_capability() if torch.cuda.is_available() else None)


def mixed_precision(model: Any, choice: str = "auto") -> AbstractContextManager[Any]:
    """Compute an fp32 model's products in 16 bits on a GPU, as its training does; changes nothing on a CPU.

    Args:
        model: The model that is about to run.
        choice: "auto" (what the GPU computes natively), "bf16", "fp16" or "no".
    """
    import torch

    dtype = {"auto": native_dtype(), "bf16": "bfloat16", "fp16": "float16", "no": "float32"}[choice]
    if model.device.type != "cuda" or model.dtype != torch.float32 or dtype == "float32":
        return nullcontext()
    return torch.autocast("cuda", dtype=getattr(torch, dtype))


def default_device() -> str:
    """This process's GPU, if there is one: under ``torchrun`` each process has its own."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def has_only_mps() -> bool:
    """Whether the one accelerator here is Apple's (MPS): transformers would train on it, and this package does not."""
    import torch

    return torch.backends.mps.is_available() and not torch.cuda.is_available()


def refuse_mps(device: str) -> None:
    """Apple's GPU has no float64, in which tokens are drawn.

    Raises:
        ValueError: The device, as torch names it, is one of Apple's.
    """
    if device.partition(":")[0] == "mps":
        raise ValueError(
            f"device is {device!r}: Apple's GPU has no float64, in which tokens are drawn; use device='cpu'"
        )


def load_model(
    path_or_id: str | Path,
    *,
    dtype: str = "float32",
    quantization: Literal["nf4"] | None = None,
    device: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, ready to sample from.

    Weights are read from safetensors only and no code of the repository is run.

    Args:
        path_or_id: Local folder, Hugging Face id, a LoRA adapter's folder, or "overthinker".
        dtype: "float32", "bfloat16", "float16", or "auto" for what the machine computes natively. Train whole models in
            float32: at a learning rate of 1e-6 most updates of a 16-bit weight round to nothing.
        quantization: "nf4" loads the linear layers in 4 bits (needs bitsandbytes); train it with LoRA.
        device: "cpu", "cuda", "cuda:1", ...; by default this process's GPU if there is one.

    Raises:
        ValueError: Unknown dtype or quantization, Apple's GPU (mps), no model there, or a tokenizer that the method
            cannot use.
        ImportError: 4-bit loading without bitsandbytes.

    Example:
        >>> model, tokenizer = load_model("overthinker", device="cpu")
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    if quantization not in (None, "nf4"):
        raise ValueError(f"unknown quantization {quantization!r}: use 'nf4' or none")
    dtype = native_dtype() if dtype == "auto" else dtype
    device = device or default_device()
    refuse_mps(device)
    model = _read_weights(model_location(path_or_id), dtype, quantization, device)
    return model.eval(), load_tokenizer(path_or_id)


def load_tokenizer(path_or_id: str | Path) -> PreTrainedTokenizerBase:
    """A model's tokenizer alone, as :func:`load_model` gives it: padding apart from the end of sequence, and checked.

    Raises:
        ValueError: There is none, or one that the method cannot use.
    """
    tokenizer = _read_tokenizer(model_location(path_or_id))
    separate_padding(tokenizer)
    check_tokenizer(tokenizer)
    return tokenizer


def _read_weights(path: str, dtype: str, quantization: str | None, device: str) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    _refuse_pickled_adapter(Path(path))
    options: dict[str, Any] = {
        **loading_options(path),
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "trust_remote_code": False,
        **({"quantization_config": nf4_config(dtype), "device_map": {"": device}} if quantization else {}),
    }
    try:
        model = AutoModelForCausalLM.from_pretrained(path, **options)
    except ImportError:
        raise
    except Exception as error:  # a broken file of each format has an error of its own
        raise ValueError(
            f"model {path!r} cannot be loaded: {first_line(error)} (give a folder with config.json and *.safetensors, "
            "or a Hugging Face id that can be reached)"
        ) from error
    if not quantization:
        return model.to(device)
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # On a CPU, bitsandbytes repacks the weights at the first forward pass in evaluation mode, for a kernel
            # without gradient: after a rollout, the layers below would silently get none.
            module.support_avx512bf16_for_cpu = False
    return model


def _refuse_pickled_adapter(folder: Path) -> None:
    """peft would fall back to adapter_model.bin."""
    if (folder / "adapter_config.json").is_file() and not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(
            f"{folder} holds no adapter_model.safetensors, and pickled weights are not read: save it as safetensors"
        )


def nf4_config(dtype: str) -> Any:
    """The 4-bit configuration (NF4, double quantisation), which computes in ``dtype``.

    Raises:
        ImportError: bitsandbytes is not installed.
    """
    require("4-bit loading", "bitsandbytes", install="'stepgrpo-lab[quant]'")
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )


def _read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    options = loading_options(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options)
    except ImportError:
        raise
    except Exception as error:  # a broken file of each format has an error of its own
        raise ValueError(f"model {path!r} has no tokenizer that can be loaded: save it into the same folder") from error
    # Where files are missing, transformers makes up an empty tokenizer.
    if not tokenizer.encode("a", add_special_tokens=False):
        raise ValueError(f"model {path!r} has no tokenizer that can be loaded: save it into the same folder")
    return tokenizer


def merge_lora(adapter: str | Path, output: str | Path, *, dtype: str = "float32") -> Path:
    """Merge a LoRA adapter into its base model; the result loads with plain ``AutoModelForCausalLM``.

    Args:
        adapter: Folder with ``adapter_config.json``; its base model is found through that file.
        output: Folder to write, safetensors and tokenizer.
        dtype: Precision of the merged weights. A 4-bit base is read again unquantised, so that merging does not round.

    Raises:
        ValueError: The folder holds no adapter.
    """
    adapter, output = Path(adapter), Path(output)
    if not (adapter / "adapter_config.json").exists():
        raise ValueError(f"{adapter} holds no LoRA adapter (adapter_config.json is missing): nothing to merge")
    _refuse_pickled_adapter(adapter)
    from peft import PeftConfig, PeftModel

    base = PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path
    if not base:
        raise ValueError(
            f"{adapter / 'adapter_config.json'} names no base_model_name_or_path: add the base model's path"
        )
    model = PeftModel.from_pretrained(_read_weights(base, dtype, None, "cpu"), str(adapter))
    model.merge_and_unload().save_pretrained(str(output), safe_serialization=True)
    _read_tokenizer(str(adapter)).save_pretrained(str(output))
    return output
