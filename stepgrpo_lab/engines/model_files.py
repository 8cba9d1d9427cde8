"""The files of a model, an adapter and a tokenizer, checked before a library opens them.

The libraries trust what they read: a configuration that asks for 10**9 layers has them made one by one, an adapter's
module names are matched as regular expressions, a tokenizer's normaliser may double a text sixty times. Each check here
takes milliseconds, is held against the headers of the weights where it can be, and ends in a ValueError of one line
that names file, field and remedy.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict

from stepgrpo_lab.engines.files import MIB, SMALL, open_regular, parse_json, read_bytes, read_json
from stepgrpo_lab.engines.hub import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from stepgrpo_lab.engines.patterns import check_pattern
from stepgrpo_lab.method.records import from_json

CONFIG, GENERATION, WEIGHTS, INDEX = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
)

FILES_OF_MODEL = (CONFIG, GENERATION)
FILES_OF_TOKENIZER = (
    CONFIG,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)

AGAIN = "get the model's files again"


# ---- weights ---------------------------------------------------------------------------------------------------------

MOST_HEADER = 8 * MIB
"""Most bytes of a safetensors header: room for 80,000 tensors."""

_BITS = {"F64": 64, "I64": 64, "U64": 64, "C64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16}
_BITS |= {"U16": 16, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8}
_BITS |= {"F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a safetensors file by name, from its header alone.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The header does not fit the file: cut off, tensors that overlap or have other lengths than types and
            shapes say.
    """
    try:
        with open_regular(path) as file:
            size = path.stat().st_size
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else MOST_HEADER + 1
            if length > min(size - 8, MOST_HEADER):
                raise ValueError("its header is cut off or too long")
            header = parse_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        header.pop("__metadata__", None)
        spans = sorted(_span(name, entry) for name, entry in header.items())
        ends = [0, *(end for _, end in spans)]
        if any(begin != end for (begin, _), end in zip(spans, ends, strict=False)) or ends[-1] != size - 8 - length:
            raise ValueError("its tensors overlap, leave gaps or end elsewhere than the file")
        return {name: tuple(entry["shape"]) for name, entry in header.items()}
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {AGAIN}") from error


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor's bytes begin and end."""
    entry = entry if isinstance(entry, dict) else {}
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2 or str(entry.get("dtype")) not in _BITS:
        raise ValueError(f"tensor {name[:80]!r} has no dtype, shape and data_offsets that can be")
    if 8 * (offsets[1] - offsets[0]) != math.prod(shape) * _BITS[entry["dtype"]]:
        raise ValueError(f"tensor {name[:80]!r} has other bytes than its dtype and shape say")
    return offsets[0], offsets[1]


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and len(values) <= 16 and all(type(each) is int and each >= 0 for each in values)


def model_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a whole model, of one safetensors file or of those that its index names; empty without either.

    Raises:
        ValueError: A file is broken or missing, or the index names one elsewhere.
    """
    if (folder / WEIGHTS).exists():
        return tensor_shapes(folder / WEIGHTS)
    if not (folder / INDEX).exists():
        return {}
    names = read_json(folder / INDEX, _shards, AGAIN, 4 * MOST_HEADER)
    shapes: dict[str, tuple[int, ...]] = {}
    for name in sorted(names):
        if not (folder / name).exists():
            raise ValueError(f"{folder / INDEX} names {name}, which is not there: {AGAIN}")
        shapes |= tensor_shapes(folder / name)
    return shapes


def _shards(value: Any) -> set[str]:
    class Index(TypedDict):
        weight_map: dict[str, str]

    names = set(from_json(Index, value)["weight_map"].values())
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"field 'weight_map' names {name[:80]!r}: it must be a safetensors file of this folder")
    return names


# ---- a model's configuration -----------------------------------------------------------------------------------------

_MOST = {
    r"vocab_size|max_position_embeddings|n_positions|n_ctx|max_.*": 10**8,
    r".*(_size|_dim|_rank|_features|_channels)|n_embd|n_inner|d_model|d_ff|.*_len(gth)?": 10**7,
    r"num_.*|n_.*|.*_(heads|layers|experts)": 10**4,
}
"""Names of sizes in configurations, and the most that any of them may be; the first that fits counts."""

_POSITIVE: tuple[str, ...] = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
_POSITIVE += (
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "n_embd",
    "n_layer",
    "n_head",
    "n_positions",
)

_LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures whose matrices have the shapes that :func:`_expected` tells."""


def check_model_files(folder: Path) -> dict[str, Any]:
    """Check a model's configurations by themselves; files that are missing are left to whoever opens it.

    Returns:
        What config.json says; empty without one.

    Raises:
        ValueError: A file cannot be read, a size is absurd, or a pipe or device stands in some file's place.
    """
    for path in folder.iterdir():  # which of them transformers opens depends on its version
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is a pipe or a device, no file: {AGAIN}")
    if (folder / GENERATION).exists():
        read_json(
            folder / GENERATION, _generation, f"correct it, or remove the file: {GENERATION} is not needed", SMALL
        )
    return read_json(folder / CONFIG, check_config, AGAIN, SMALL) if (folder / CONFIG).exists() else {}


def check_weights_fit(folder: Path, config: dict[str, Any], text: Any = None) -> None:
    """Hold the sizes of a model against the headers of its weights, so that nothing else is ever allocated.

    Args:
        folder: Holds config.json and the weights.
        config: What it says, or that with the architecture's defaults: a size that the file leaves out is one too.
        text: The part of it that describes the language model, if it has such a part.

    Raises:
        ValueError: They differ, or the weights' files are broken.
    """
    try:
        _compare(config, text if isinstance(text, dict) else config, model_shapes(folder))
    except ValueError as error:
        raise error if str(folder) in str(error) else ValueError(f"{folder / CONFIG}: {error}; {AGAIN}") from error


def check_config(value: Any) -> dict[str, Any]:
    """A configuration whose sizes can be.

    Raises:
        ValueError: A number is not finite, a size absurd, or code is named that would come from the hub.

    Example:
        >>> check_config({"model_type": "qwen3", "num_hidden_layers": 10**7})
        Traceback (most recent call last):
        ...
        ValueError: field 'num_hidden_layers' is 10000000: it must be a whole number from 1 to 10000
    """
    config = from_json(dict[str, Any], value)
    for path, holder in _objects(config):
        for name, item in holder.items():
            _check_size(path, name, item)
            if name.endswith("attn_implementation") and "/" in str(item):
                raise ValueError(f"field {path + name!r} is {str(item)[:80]!r}, code from the hub: leave it out")
    return config


def _objects(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        yield path, value
        for name, item in value.items():
            yield from _objects(item, f"{path}{name}.")


def _check_size(path: str, name: str, value: Any) -> None:
    least = 1 if name in _POSITIVE else -1
    most = next((most for names, most in _MOST.items() if re.fullmatch(names, name)), None)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is None or most is None or not (is_number or name in _POSITIVE):
        return
    if not is_number or not least <= value <= most or (name in _POSITIVE and value != int(value)):
        shown = value if is_number else f"{str(value)[:40]!r}"
        raise ValueError(f"field {path + name!r} is {shown}: it must be a whole number from {least} to {most}")


def _compare(config: dict[str, Any], text: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    layers = text.get("num_hidden_layers", text.get("n_layer"))
    stored = {int(found[1]) for name in shapes if (found := re.search(r"(?:^|\.)(?:layers|h)\.(\d{1,6})\.", name))}
    if stored and isinstance(layers, int) and layers > len(stored):
        raise ValueError(f"field 'num_hidden_layers' is {layers}, but the weights have {len(stored)} layers")
    expected = _expected(config, text)
    for name, shape in shapes.items():
        for ending, (fields, size) in expected.items():
            sides = zip(size, shape, strict=False)
            if name.endswith(ending) and any(side not in (None, stored) for side, stored in sides):
                expected_size = " x ".join("?" if side is None else str(side) for side in size)
                raise ValueError(
                    f"{fields} say {expected_size} of {name}, but its weights are {' x '.join(map(str, shape))}"
                )


def _expected(config: dict[str, Any], text: dict[str, Any]) -> dict[str, tuple[str, tuple[int | None, ...]]]:
    """Endings of names -> the fields that tell the shapes, and these; None, and what is left out, may be anything."""
    size: dict[str, Any] = {name: text.get(name) for name in _POSITIVE}
    narrower = any(text.get(name) for name in ("word_embed_proj_dim", "embedding_size"))
    embedding = (size["vocab_size"], None if narrower else size["hidden_size"])
    found: dict[str, tuple[str, tuple[int | None, ...]]] = {
        "embed_tokens.weight": ("vocab_size and hidden_size", embedding)
    }
    found["wte.weight"] = ("vocab_size and n_embd", (size["vocab_size"], size["n_embd"]))
    found["wpe.weight"] = ("n_positions and n_embd", (size["n_positions"], size["n_embd"]))
    hidden, heads = size["hidden_size"], size["num_attention_heads"]
    if text.get("model_type") not in _LLAMA_LIKE or config.get("quantization_config") or not (hidden and heads):
        return found
    head = size["head_dim"] or hidden // heads
    mlp = ("intermediate_size and hidden_size", (size["intermediate_size"], hidden))
    found |= {".mlp.gate_proj.weight": mlp, ".mlp.up_proj.weight": mlp}
    found[".q_proj.weight"] = ("num_attention_heads, head_dim and hidden_size", (heads * head, hidden))
    keys = (size["num_key_value_heads"] or heads) * head
    found |= dict.fromkeys((".k_proj.weight", ".v_proj.weight"), ("num_key_value_heads and head_dim", (keys, hidden)))
    return found


def _generation(value: Any) -> None:
    settings = from_json(dict[str, Any], value)
    for name, item in settings.items():
        _check_size("", name, item)
    for name, most in (("temperature", 100), ("top_p", 1), ("top_k", 10**7), ("repetition_penalty", 100)):
        item = settings.get(name)
        if item is not None and (isinstance(item, bool) or not isinstance(item, (int, float)) or not 0 <= item <= most):
            raise ValueError(f"field {name!r} is {str(item)[:40]}: it must be a number from 0 to {most}")


# ---- adapters --------------------------------------------------------------------------------------------------------

MOST_RANK, MOST_ALPHA = 16_384, 1e6


class Adapter(TypedDict, total=False):
    """What an ``adapter_config.json`` says that decides what is read, matched or allocated."""

    peft_type: Literal["LORA"]
    base_model_name_or_path: str | None
    r: int
    lora_alpha: float
    lora_dropout: float
    bias: Literal["none", "all", "lora_only"]
    target_modules: list[str] | str | None
    exclude_modules: list[str] | str | None
    modules_to_save: list[str] | None
    target_parameters: list[str] | None
    layers_to_transform: list[int] | int | None
    layers_pattern: list[str] | str | None
    rank_pattern: dict[str, int] | None
    alpha_pattern: dict[str, float] | None
    init_lora_weights: bool | str | None
    trainable_token_indices: list[int] | dict[str, list[int]] | None


_UNUSED = ("layer_replication", "megatron_config", "arrow_config", "corda_config", "eva_config", "lora_ga_config")
"""Settings that change the base or compute at length while an adapter is loaded; no training here uses them."""

_MOST_NAMES = {"target_modules": 4096, "exclude_modules": 4096, "modules_to_save": 64, "layers_pattern": 16}
_MOST_NAMES |= {"target_parameters": 512, "rank_pattern": 512, "alpha_pattern": 512, "layers_to_transform": 10_000}
_MOST_NAMES |= {"trainable_token_indices": 100_000}
"""Most entries of each list: peft holds each of them against every module."""

_INITIAL = r"gaussian|orthogonal|olora|pissa(_niter_\d{1,3})?|true|false"
_NAME = re.compile(r"[\w.-]{1,300}", re.ASCII)


def read_adapter(folder: Path) -> Adapter:
    """The configuration of a LoRA adapter, checked alone and against its weights.

    Raises:
        ValueError: It is broken, is no LoRA, or asks for what its weights do not have.
    """
    adapter = read_json(folder / ADAPTER_CONFIG, _adapter, "correct it, or save the adapter again with peft", SMALL)
    if not (folder / ADAPTER_WEIGHTS).exists():
        return adapter
    shapes = tensor_shapes(folder / ADAPTER_WEIGHTS)
    ranks = {adapter.get("r", 8), *(adapter.get("rank_pattern") or {}).values()}
    for name, shape in shapes.items():
        if ".lora_A" in name and not any(shape and shape[0] % rank == 0 for rank in ranks):
            raise ValueError(
                f"{folder / ADAPTER_CONFIG}: field 'r' is {adapter.get('r', 8)}, but {name[:100]} has the rank "
                f"{shape[0] if shape else 0}; correct it, or save the adapter again with peft"
            )
    return adapter


def _adapter(value: Any) -> Adapter:
    from_json(dict[str, Any], value)
    adapter = from_json(Adapter, value)
    for name in _UNUSED:
        if value.get(name):
            raise ValueError(f"field {name!r} is set, which is not supported: merge the adapter with peft")
    for name, longest in _MOST_NAMES.items():
        entries: Any = adapter.get(name)
        if isinstance(entries, (list, dict)) and len(entries) > longest:
            raise ValueError(f"field {name!r} has {len(entries)} entries: at most {longest} are read")
    for name, most, numbers in _numbers(adapter):
        if not all(0 < number <= most for number in numbers):
            raise ValueError(f"field {name!r} is {str(adapter.get(name))[:40]}: it must lie between 1 and {most:g}")
    for name in ("target_modules", "exclude_modules"):
        named = adapter.get(name)
        if isinstance(named, str) and not _NAME.fullmatch(named):
            _named(name, partial(check_pattern, named, most_open=4))
    for name, names in _names(adapter):
        for each in names:
            if not _NAME.fullmatch(each):
                raise ValueError(f"field {name!r} holds {each[:60]!r}: write the names of modules")
    if not re.fullmatch(_INITIAL, str(adapter.get("init_lora_weights", True)).lower().replace("none", "true")):
        raise ValueError(f"field 'init_lora_weights' is {str(adapter['init_lora_weights'])[:40]!r}: set it to true")
    return adapter


def _named(field: str, check: Callable[[], None]) -> None:
    try:
        check()
    except ValueError as error:
        raise ValueError(f"field {field!r}: {error}") from error


def _numbers(adapter: Adapter) -> Iterator[tuple[str, float, list[float]]]:
    yield "r", MOST_RANK, [adapter.get("r", 8)]
    yield "lora_alpha", MOST_ALPHA, [adapter.get("lora_alpha", 8)]
    yield "rank_pattern", MOST_RANK, list((adapter.get("rank_pattern") or {}).values())
    yield "alpha_pattern", MOST_ALPHA, list((adapter.get("alpha_pattern") or {}).values())


def _names(adapter: Adapter) -> Iterator[tuple[str, list[str]]]:
    """The fields of names, which peft takes for regular expressions."""
    for field in ("target_modules", "exclude_modules", "modules_to_save", "target_parameters", "layers_pattern"):
        value: Any = adapter.get(field)
        if isinstance(value, list) or (isinstance(value, str) and field == "layers_pattern"):
            yield field, [value] if isinstance(value, str) else value
    for field in ("rank_pattern", "alpha_pattern"):
        patterns: Any = adapter.get(field) or {}
        yield field, [each.removeprefix("^") for each in patterns]


# ---- tokenizers ------------------------------------------------------------------------------------------------------

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
MOST_TOKENIZER, MOST_TOKENIZER_CONFIG, MOST_TEMPLATE_FILE = 64 * MIB, 8 * MIB, MIB

MOST_ID = 2**24
"""Most ids of a vocabulary; the largest in use have 2**18."""

MOST_LISTS, MOST_VALUES = 1_500_000, 6_000_000
"""Most lists and objects, and most values, of a tokenizer.json: what bounds the memory that it takes once parsed."""

MOST_EXPANSION = 256
"""How many times longer a normaliser or decoder may make a text."""


def check_tokenizer_files(folder: Path) -> None:
    """Check the files of a tokenizer before it is built from them.

    Raises:
        ValueError: One cannot be read, or would take time, memory or ids without end.
    """
    for path in sorted(folder.glob("*.jinja")) + sorted((folder / "additional_chat_templates").glob("*.jinja")):
        _check_plain(path, MOST_TEMPLATE_FILE)
    if (folder / TOKENIZER).exists():
        _check_plain(folder / TOKENIZER, MOST_TOKENIZER)
        read_json(folder / TOKENIZER, _tokenizer, AGAIN, MOST_TOKENIZER)
    for name in (TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).exists():
            read_json(folder / name, partial(_settings, folder), AGAIN, MOST_TOKENIZER_CONFIG)
    for name in ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model"):
        if (folder / name).exists():
            _check_plain(folder / name, MOST_TOKENIZER)


def _check_plain(path: Path, most: int) -> None:
    """Check that a file is one, and not too long or too dense to be read."""
    content = read_bytes(path, most)
    if content.count(b"[") + content.count(b"{") > MOST_LISTS or content.count(b",") > MOST_VALUES:
        raise ValueError(f"{path} holds more lists or values than any tokenizer: {AGAIN}")


def _settings(folder: Path, value: Any) -> None:
    settings = from_json(dict[str, Any], _without_length(value))
    for name, item in settings.items():
        place = os.path.join(folder, str(item)[:4000]) if name.endswith("_file") else ""
        if "\0" not in place and os.path.exists(place) and not os.path.isfile(place):
            raise ValueError(f"field {name!r} names {str(item)[:80]!r}, which is no file: leave it out")
    _check_ids([int(key) for key in _object(settings, "added_tokens_decoder") if str(key).lstrip("-").isdecimal()])


def _without_length(value: Any) -> Any:
    """Without the length that transformers writes for "none": 10**30."""
    if not isinstance(value, dict):
        return value
    length = value.get("model_max_length", 0)
    if length is not None and type(length) not in (int, float):
        raise ValueError(f"field 'model_max_length' is {str(length)[:40]!r}: it must be a number")
    return {name: item for name, item in value.items() if name != "model_max_length"}


def _tokenizer(value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    vocabulary = _object(_object(value, "model"), "vocab")
    _check_ids([each for each in vocabulary.values() if isinstance(each, int)])
    added = value.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        _check_ids([token["id"]] if isinstance(token, dict) and isinstance(token.get("id"), int) else [])
    for part in ("normalizer", "decoder", "pre_tokenizer"):
        _named(part, partial(_check_part, value.get(part)))
    for part, field in (("truncation", "max_length"), ("padding", "strategy")):
        set_to = _object(value, part).get(field)
        number = set_to.get("Fixed") if isinstance(set_to, dict) else set_to
        if isinstance(number, int) and not 0 <= number <= MOST_ID:
            raise ValueError(f"field '{part}.{field}' is {number}: it must lie between 0 and {MOST_ID}")


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _check_ids(ids: list[int]) -> None:
    if ids and not 0 <= min(ids) <= max(ids) < MOST_ID:
        raise ValueError(f"it has a token of id {max(ids) if min(ids) >= 0 else min(ids)}: ids lie below {MOST_ID}")


def _check_part(part: Any) -> None:
    """Check the regular expressions of a part of the pipeline, and how far it may lengthen a text."""
    longer = 1.0
    for step in _steps(part):
        pattern = step.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        if isinstance(regex, str):
            check_pattern(regex, most_open=8)
        if step.get("type") == "Replace":
            found = pattern.get("String") if isinstance(pattern, dict) else None
            longer *= max(1, len(str(step.get("content", ""))) / max(1, len(found) if isinstance(found, str) else 1))
        elif step.get("type") == "Prepend":
            longer *= 1 + len(str(step.get("prepend", ""))) / 8
    if longer > MOST_EXPANSION:
        raise ValueError(f"it makes a text up to {longer:.3g} times longer: at most {MOST_EXPANSION} is read")


def _steps(part: Any) -> Iterator[dict[str, Any]]:
    """A part of the pipeline, and those that it is a sequence of."""
    if isinstance(part, dict):
        yield part
        for value in part.values():
            for item in value if isinstance(value, list) else []:
                yield from _steps(item)
