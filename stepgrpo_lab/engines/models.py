"""Load a causal language model with its tokenizer, check both for what the method needs, merge LoRA.

This is the one place where models are opened. A path may be a run folder, a folder with a whole model or with an
adapter (a checkpoint and an export are such folders), a Hugging Face id, "overthinker" or "overthinker-2".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stepgrpo_lab._imports import require
from stepgrpo_lab.engines.files import SMALL, read_json
from stepgrpo_lab.engines.hub import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    base_of_adapter,
    first_line,
    loading_options,
    model_location,
)
from stepgrpo_lab.engines.model_files import (
    AGAIN,
    CONFIG,
    FILES_OF_MODEL,
    FILES_OF_TOKENIZER,
    check_config,
    check_model_files,
    check_tokenizer_files,
    check_weights_fit,
    read_adapter,
)
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
    merge: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, ready to sample from.

    Weights are read from safetensors only and no code of the repository is run.

    Args:
        path_or_id: Local folder or Hugging Face id of a model or a LoRA adapter, a run folder, or "overthinker". An
            adapter comes as a ``PeftModel`` on its base.
        dtype: "float32", "bfloat16", "float16", or "auto" for what the machine computes natively. Train whole models in
            float32: at a learning rate of 1e-6 most updates of a 16-bit weight round to nothing.
        quantization: "nf4" loads the linear layers in 4 bits (needs bitsandbytes); train it with LoRA. The base of an
            adapter that was trained on 4 bits always comes in 4 bits.
        device: "cpu", "cuda", "cuda:1", ...; by default this process's GPU if there is one.
        merge: An adapter comes merged into its base, as a plain model. A base that it was trained on in 4 bits is
            de-quantised first: so the merged model is the one that was trained and measured, up to rounding.

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
    path = model_location(path_or_id)
    adapter = adapter_folder(path)
    if adapter is None:
        model = _read_weights(path, dtype, quantization, device)
    else:
        model = _read_adapter(adapter, dtype, quantization or adapter_quantization(adapter), device, merge)
    tokenizer = load_tokenizer(path)
    _check_ids(path, tokenizer, model)
    return model.eval(), tokenizer


def _check_ids(path: str, tokenizer: Any, model: Any) -> None:
    """Check that every token has a row of the embedding; models often have rows to spare."""
    rows, largest = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ValueError(
            f"model {path!r}: its tokenizer has ids up to {largest}, but its embedding has {rows} rows: give it the "
            "tokenizer that it was trained with"
        )


def adapter_folder(path: str) -> Path | None:
    """The folder of the adapter at a place of :func:`model_location`; None where a whole model is, or nothing.

    Raises:
        ValueError: The adapter's weights are not stored as safetensors.
    """
    if Path(path).is_dir():
        folder = Path(path)
        if not (folder / ADAPTER_CONFIG).is_file():
            return None
    else:
        from transformers.utils import cached_file

        quiet: Any = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        try:
            found = cached_file(path, ADAPTER_CONFIG, **quiet)
            if found is None:
                return None
            cached_file(path, ADAPTER_WEIGHTS, **quiet)
        except (OSError, ValueError):  # no such id: whoever reads the model says so
            return None
        folder = Path(found).parent
    if not (folder / ADAPTER_WEIGHTS).is_file():  # peft would fall back to adapter_model.bin
        raise ValueError(f"{path} holds no {ADAPTER_WEIGHTS}, and pickled weights are not read: save it as safetensors")
    return folder


def adapter_base(adapter: Path) -> str:
    """The folder or Hugging Face id of the model below an adapter.

    Raises:
        ValueError: Its configuration names none, or another adapter.
    """
    base = read_json(
        adapter / ADAPTER_CONFIG, base_of_adapter, "correct it, or save the adapter again with peft", SMALL
    )
    if adapter_folder(base) is not None:
        raise ValueError(f"the base model of {adapter} is {base!r}, an adapter itself: merge that with stepgrpo export")
    return base


def adapter_quantization(adapter: Path) -> Literal["nf4"] | None:
    """How the base was quantised that an adapter was trained on: trainers here keep its ``config.json`` beside it."""
    if not (adapter / CONFIG).exists():
        return None
    quantised = read_json(adapter / CONFIG, check_config, AGAIN, SMALL).get("quantization_config")
    return "nf4" if isinstance(quantised, dict) and quantised.get("load_in_4bit") else None


def load_tokenizer(path_or_id: str | Path) -> PreTrainedTokenizerBase:
    """A model's tokenizer alone, as :func:`load_model` gives it: padding apart from the end of sequence, and checked.

    Raises:
        ValueError: There is none, or one that the method cannot use.
    """
    tokenizer = _read_tokenizer(model_location(path_or_id))
    try:
        with _panics_as_errors():
            separate_padding(tokenizer)
            check_tokenizer(tokenizer)
    except ValueError as error:
        raise ValueError(f"model {str(path_or_id)!r}: {error}") from error
    return tokenizer


@contextmanager
def _panics_as_errors() -> Iterator[None]:
    """The tokenizers library, written in Rust, panics where it meets what it does not expect; that is no Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"its tokenizer.json cannot be used ({first_line(error)}): {AGAIN}") from None


def _folder_of(path: str, names: tuple[str, ...]) -> Path | None:
    """The folder that holds files of a model: for a Hugging Face id, that of its download; None where there is none."""
    if Path(path).is_dir():
        return Path(path)
    from transformers.utils import cached_file

    quiet: Any = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = None
    for name in names:
        with suppress(OSError, ValueError):  # whoever reads the file says so
            found = cached_file(path, name, **quiet) or found
    return None if found is None else Path(found).parent


def _read_weights(path: str, dtype: str, quantization: str | None, device: str) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    found = loading_options(path)
    if folder := _folder_of(path, FILES_OF_MODEL):
        config = check_model_files(folder)
        if Path(path).is_dir():
            check_weights_fit(folder, config, config.get("text_config"))
    options: dict[str, Any] = {
        **found,
        "dtype": getattr(torch, dtype),
        "use_safetensors": True,
        "trust_remote_code": False,
        **({"quantization_config": nf4_config(dtype), "device_map": {"": device}} if quantization else {}),
    }
    try:
        if Path(path).is_dir():
            config = AutoConfig.from_pretrained(path, trust_remote_code=False, **found)
            check_weights_fit(Path(path), config.to_dict(), config.get_text_config(decoder=True).to_dict())
        model = AutoModelForCausalLM.from_pretrained(path, **options)
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


def _read_base(adapter: Path, dtype: str, quantization: str | None, device: str) -> PreTrainedModel:
    base = adapter_base(adapter)
    try:
        return _read_weights(base, dtype, quantization, device)
    except ValueError as error:
        raise ValueError(
            f"the base of the adapter {adapter}: {error}; if it lies elsewhere now, say so in {ADAPTER_CONFIG}"
        ) from error


def _read_adapter(adapter: Path, dtype: str, quantization: str | None, device: str, merge: bool) -> Any:
    """transformers by itself would give a plain model with hidden adapters, which no one else takes for one."""
    from peft import PeftModel

    read_adapter(adapter)
    base = _read_base(adapter, dtype, quantization, device)
    if merge and quantization:
        base = base.dequantize()  # merging into 4 bits would round
    try:
        model = PeftModel.from_pretrained(base, str(adapter))
        return model.merge_and_unload() if merge else model
    except Exception as error:  # a broken file of each format has an error of its own
        raise ValueError(f"adapter {str(adapter)!r} cannot be loaded: {first_line(error)}") from error


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
    if folder := _folder_of(path, FILES_OF_TOKENIZER):
        check_tokenizer_files(folder)
        check_model_files(folder)
    try:
        with _panics_as_errors():
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, **options)
    except Exception as error:  # a broken file of each format has an error of its own
        lacking = f" ({first_line(error)})" if isinstance(error, ImportError) else ""
        raise ValueError(
            f"model {path!r} has no tokenizer that can be loaded{lacking}: save it into the same folder"
        ) from error
    # Where files are missing, transformers makes up an empty tokenizer.
    if not tokenizer.encode("a", add_special_tokens=False):
        raise ValueError(f"model {path!r} has no tokenizer that can be loaded: save it into the same folder")
    return tokenizer


def merge_lora(adapter: str | Path, output: str | Path, *, dtype: str = "float32") -> Path:
    """Merge a LoRA adapter into its base model; the result loads with plain ``AutoModelForCausalLM``.

    Args:
        adapter: Folder with ``adapter_config.json``; its base model is found through that file.
        output: Folder to write, safetensors and tokenizer.
        dtype: Precision of the merged weights; see ``merge`` of :func:`load_model` for adapters on 4-bit weights.

    Raises:
        ValueError: The folder holds no adapter.
    """
    output = Path(output)
    if adapter_folder(str(adapter)) is None:
        raise ValueError(f"{adapter} holds no LoRA adapter ({ADAPTER_CONFIG} is missing): nothing to merge")
    model, _ = load_model(adapter, dtype=dtype, device="cpu", merge=True)
    model.save_pretrained(str(output), safe_serialization=True)
    _read_tokenizer(str(adapter)).save_pretrained(str(output))  # as it was: without a padding token chosen here
    return output
