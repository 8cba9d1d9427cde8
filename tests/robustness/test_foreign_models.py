"""Models, adapters and tokenizers of strangers: refused in one line, before anything is allocated or matched."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_tiny

from stepgrpo_lab.engines.hub import loading_options
from stepgrpo_lab.engines.model_files import tensor_shapes
from stepgrpo_lab.engines.models import load_model, load_tokenizer
from stepgrpo_lab.engines.patterns import check_pattern


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model in ``base`` and a LoRA adapter on it in ``adapter``."""
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("saved")
    model, tokenizer = load_model(save_tiny(folder / "base"), device="cpu")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(str(folder / "adapter"))
    tokenizer.save_pretrained(str(folder / "adapter"))
    return folder


@pytest.fixture
def base(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved / "base", tmp_path / "base"))


@pytest.fixture
def adapter(saved: Path, base: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(saved / "adapter", tmp_path / "adapter"))
    change(folder / "adapter_config.json", base_model_name_or_path=str(base))
    return folder


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def refusal(work: Callable[[], Any], *named: str) -> str:
    """The one line with which a call refuses."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000
    for each in named:
        assert each in message, message
    return message


# ---- config.json and generation_config.json --------------------------------------------------------------------------

SIZES: list[tuple[str, Any]] = [
    ("hidden_size", 10**9),
    ("hidden_size", 0),
    ("hidden_size", 64),  # not that of the weights
    ("num_hidden_layers", 10**7),
    ("num_hidden_layers", 3),
    ("num_hidden_layers", "2"),
    ("vocab_size", 10**10),
    ("vocab_size", 1000),
    ("vocab_size", -1),
    ("intermediate_size", 10**6),
    ("num_attention_heads", 4),
    ("num_key_value_heads", 2),
    ("num_key_value_heads", [1]),
    ("head_dim", 0),
    ("head_dim", 10**6),
    ("head_dim", float("nan")),
    ("max_position_embeddings", 10**12),
    ("max_position_embeddings", -512),
    ("rms_norm_eps", float("inf")),
    ("num_experts", 10**9),
    ("sliding_window_size", 10**15),
    ("attn_implementation", "somebody/kernel"),
]


@pytest.mark.parametrize(("field", "value"), SIZES)
def test_an_absurd_configuration_is_refused_by_field(base: Path, field: str, value: Any) -> None:
    change(base / "config.json", **{field: value})
    refusal(lambda: load_model(base, device="cpu"), "config.json", field)


def test_nested_configurations_are_checked_too(base: Path) -> None:
    change(base / "config.json", text_config={"num_hidden_layers": 10**7})
    refusal(lambda: load_tokenizer(base), "config.json", "text_config.num_hidden_layers")


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_new_tokens", 10**12), ("temperature", float("nan")), ("temperature", -1), ("top_p", "x"), ("top_k", 10**9)],
)
def test_absurd_generation_settings_are_refused_by_field(base: Path, field: str, value: Any) -> None:
    change(base / "generation_config.json", **{field: value})
    refusal(lambda: load_model(base, device="cpu"), "generation_config.json", field)


# ---- weights ---------------------------------------------------------------------------------------------------------


def rewrite_header(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = path.read_bytes()
    [length] = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    new = json.dumps(edit(header) or header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + length :])


def first(header: dict[str, Any]) -> dict[str, Any]:
    return next(entry for name, entry in header.items() if name != "__metadata__")


HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another dtype": lambda header: first(header).update(dtype="F64"),
    "no dtype": lambda header: first(header).update(dtype=[]),
    "an unknown dtype": lambda header: first(header).update(dtype="object"),
    "a huge shape": lambda header: first(header).update(shape=[2**62, 2**62]),
    "a negative shape": lambda header: first(header).update(shape=[-1]),
    "overlapping": lambda header: first(header).update(data_offsets=[0, 8]),
    "beyond the end": lambda header: first(header).update(data_offsets=[2**40, 2**40 + 8]),
    "no offsets": lambda header: first(header).pop("data_offsets"),
    "a list": lambda header: [header],
    "no object": lambda header: header.update(more=7),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_lies_is_refused(base: Path, name: str) -> None:
    path = base / "model.safetensors"
    rewrite_header(path, HEADERS[name])
    refusal(lambda: tensor_shapes(path), "model.safetensors")
    refusal(lambda: load_model(base, device="cpu"), "model.safetensors")


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 8, struct.pack("<Q", 2**63) + b"{}", b"\0" * 64])
def test_what_is_no_safetensors_is_refused(base: Path, content: bytes) -> None:
    (base / "model.safetensors").write_bytes(content)
    refusal(lambda: load_model(base, device="cpu"), "model.safetensors")


def test_headers_tell_the_shapes_that_are_loaded(saved: Path) -> None:
    model, _ = load_model(saved / "base", device="cpu")
    shapes = tensor_shapes(saved / "base" / "model.safetensors")
    assert shapes == {name: tuple(value.shape) for name, value in model.state_dict().items() if name in shapes}
    assert len(shapes) == len(list(model.parameters()))


@pytest.mark.parametrize(
    "name", ["../base/model.safetensors", "/etc/passwd", "sub/model.safetensors", "gone.safetensors"]
)
def test_an_index_names_files_of_its_folder(base: Path, name: str) -> None:
    (base / "model.safetensors").rename(base / "other.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    refusal(lambda: load_model(base, device="cpu"), "model.safetensors.index.json")


def test_shards_are_held_against_the_configuration(base: Path) -> None:
    (base / "model.safetensors").rename(base / "part-1.safetensors")
    names = tensor_shapes(base / "part-1.safetensors")
    weight_map = dict.fromkeys(names, "part-1.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    load_model(base, device="cpu")
    change(base / "config.json", num_hidden_layers=5)
    refusal(lambda: load_model(base, device="cpu"), "num_hidden_layers", "5", "2 layers")


# ---- tokenizers ------------------------------------------------------------------------------------------------------


def test_a_tokenizer_with_more_ids_than_rows_is_refused_with_both_numbers(base: Path) -> None:
    model, tokenizer = load_model(base, device="cpu")
    rows = model.get_input_embeddings().weight.shape[0]
    tokenizer.add_tokens([f"<more {number}>" for number in range(7)])
    tokenizer.save_pretrained(str(base))
    refusal(lambda: load_model(base, device="cpu"), str(rows), str(rows + 6))


def replaced(content: str, times: int) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": content}
    return {"type": "Sequence", "normalizers": [step] * times}


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


TOKENIZERS: dict[str, dict[str, Any]] = {
    "a normaliser that doubles": {"normalizer": replaced("aa", 60)},
    "a normaliser that writes much": {"normalizer": replaced("a" * 10_000, 1)},
    "loops in loops": {"pre_tokenizer": split("(a+)+$")},
    "choices in loops": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split("(a|aa)*b")]}},
    "a long expression": {"pre_tokenizer": split("a" * 100_000)},
    "padding to a huge length": {"padding": {"strategy": {"Fixed": 10**12}}},
    "truncation to a huge length": {"truncation": {"max_length": 10**12}},
    "a negative id": {"added_tokens": [{"id": -1, "content": "x"}]},
    "a huge id": {"added_tokens": [{"id": 2**32, "content": "x"}]},
    "a huge id in the vocabulary": {"model": {"type": "BPE", "vocab": {"a": 2**32 - 1}, "merges": []}},
    "a list": {"model": []},
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_explodes_is_refused(base: Path, name: str) -> None:
    change(base / "tokenizer.json", **TOKENIZERS[name])
    refusal(lambda: load_tokenizer(base), str(base))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a": NaN}', '{"a": 1e400}', "{", "\xff", '{"a": ' * 500 + "1" + "}" * 500]
)
def test_settings_of_a_tokenizer_are_read_with_care(base: Path, name: str, content: str) -> None:
    (base / name).write_text(content, encoding="latin-1")
    refusal(lambda: load_tokenizer(base), name)


@pytest.mark.parametrize(
    "changes",
    [{"model_max_length": "x"}, {"model_max_length": []}, {"vocab_file": "/dev/zero"}, {"tokenizer_file": "/"}],
)
def test_odd_settings_of_a_tokenizer_are_refused_by_field(base: Path, changes: dict[str, Any]) -> None:
    change(base / "tokenizer_config.json", **changes)
    refusal(lambda: load_tokenizer(base), "tokenizer_config.json", *changes)


@pytest.mark.parametrize("changes", [{"model_max_length": 10**30}, {"vocab_file": "x" * 10**5}, {"vocab_file": "a\0b"}])
def test_harmless_settings_of_a_tokenizer_are_read(base: Path, changes: dict[str, Any]) -> None:
    change(base / "tokenizer_config.json", **changes)
    load_tokenizer(base)


def test_expressions_of_real_tokenizers_pass(qwen3_tokenizer: Any) -> None:
    found = re.findall(r'"Regex":"((?:[^"\\]|\\.)*)"', qwen3_tokenizer.backend_tokenizer.to_str())
    assert found
    for pattern in (
        *[json.loads(f'"{each}"') for each in found],
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+(?!\S)",
        r"[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$",
        r"\d{1,3}(?=(?:\d{3})*\b)",
    ):
        check_pattern(pattern, most_open=8)


# ---- adapters --------------------------------------------------------------------------------------------------------

ADAPTERS: list[tuple[str, Any]] = [
    ("r", 10**9),
    ("r", 0),
    ("r", "4"),
    ("r", 3),  # not the rank of the weights
    ("lora_alpha", float("nan")),
    ("lora_alpha", 10**300),
    ("lora_alpha", -1),
    ("target_modules", "(.*a)+_proj"),
    ("target_modules", ".*.*.*.*.*.*.*.*.*.*x"),
    ("target_modules", {"q_proj": 1}),
    ("target_modules", ["(q+)+"]),
    ("exclude_modules", "(a|b|ab)*c"),
    ("modules_to_save", ["(a+)+$"]),
    ("modules_to_save", ["x"] * 100_000),
    ("rank_pattern", {f"x{number}": 4 for number in range(10_000)}),
    ("layers_pattern", "(a+)+"),
    ("rank_pattern", {"(a+)+": 4}),
    ("rank_pattern", {"q_proj": 10**9}),
    ("alpha_pattern", {"(.*)*x": 4}),
    ("layer_replication", [[0, 2]] * 100_000),
    ("megatron_config", {"a": 1}),
    ("init_lora_weights", "pissa_niter_1000000000"),
    ("init_lora_weights", "loftq"),
    ("init_lora_weights", 7),
    ("peft_type", "IA3"),
    ("peft_type", None),
    ("base_model_name_or_path", None),
    ("base_model_name_or_path", ""),
    ("base_model_name_or_path", 7),
    ("base_model_name_or_path", "x" * 10**5),
    ("base_model_name_or_path", "a\0b"),
]


@pytest.mark.parametrize(("field", "value"), ADAPTERS)
def test_an_adapter_that_asks_for_too_much_is_refused_by_field(adapter: Path, field: str, value: Any) -> None:
    change(adapter / "adapter_config.json", **{field: value})
    refusal(lambda: load_model(adapter, device="cpu"), "adapter_config.json", field)


@pytest.mark.parametrize("base_of_it", ["{self}", "{other}", "/dev/zero", "/", "no/such/model", "../adapter"])
def test_an_adapter_s_base_is_a_model(adapter: Path, tmp_path: Path, base_of_it: str) -> None:
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    change(other / "adapter_config.json", base_model_name_or_path=str(adapter))
    change(adapter / "adapter_config.json", base_model_name_or_path=base_of_it.format(self=adapter, other=other))
    for read in (load_model, load_tokenizer, loading_options):
        refusal(lambda read=read: read(adapter))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"target_modules": r"^(?!.*mlp).*\.(q|v)_proj$"},
        {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}},
        {"rank_pattern": {"layers.0.self_attn.q_proj": 4}, "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 8}},
        {"init_lora_weights": "gaussian", "layer_replication": None},
    ],
)
def test_adapters_as_peft_writes_them_are_read(adapter: Path, changes: dict[str, Any]) -> None:
    change(adapter / "adapter_config.json", **changes)
    model, _ = load_model(adapter, device="cpu")
    assert sum("lora_A" in name for name, _ in model.named_parameters()) == 4


# ---- what is no file -------------------------------------------------------------------------------------------------

MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
MODEL_FILES += ("chat_template.jinja", "special_tokens_map.json", "adapter_config.json", "model.safetensors.index.json")
MODEL_FILES += ("a_file_of_another_version.json",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.parametrize("name", MODEL_FILES)
def test_what_is_no_file_never_hangs_a_model(base: Path, name: str, kind: str) -> None:
    path = base / name
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    try:
        load_model(base, device="cpu")
    except (ValueError, OSError) as error:
        assert "\n" not in str(error) and str(base) in str(error)
    else:
        assert kind == "folder" and name in (
            "adapter_config.json",
            "generation_config.json",
            "special_tokens_map.json",
            "model.safetensors.index.json",
            "a_file_of_another_version.json",
        )


def test_a_model_of_links_is_read(base: Path, tmp_path: Path) -> None:
    """The hub's downloads are folders of links to files elsewhere."""
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for path in base.iterdir():
        (linked / path.name).symlink_to(path)
    model, _ = load_model(linked, device="cpu")
    assert torch.isfinite(model(torch.tensor([[1, 2]])).logits).all()
