"""Traps for the files of models: values that could stand there, and that ask for time or memory without end."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from typing import Any

Rng = random.Random

SIZES = [0, 1, -1, 3, 7, 1000, 10**6, 10**7, 10**9, 10**12, 2**31, 2**63, 10**30, 0.5, "2", None, [1]]
EXPRESSIONS = ["(a+)+$", "(a|aa)*b", "(.*)*x", ".*" * 12 + "x", "(?:a?){60}a{60}", "(" * 5000, "a{1,9999}{1,9999}", "["]
EXPRESSIONS += ["(?=.*.*.*.*x).*", "q_proj", ".*q_proj", "x" * 100_000, "\\", "(?P<a>x)(?P=a)*"]
PATHS = ["/dev/zero", "../../../etc", ".", "", "\0", "no/such/model", "x" * 10**6, "/", "{own}", "overthinker"]

_SIZE_FIELDS = "hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim"
_SIZE_FIELDS += " vocab_size max_position_embeddings num_experts max_window_layers sliding_window rope_theta"
CONFIG: dict[str, list[Any]] = dict.fromkeys(_SIZE_FIELDS.split(), SIZES)
CONFIG |= {
    "model_type": ["llama", "gpt2", "bert", "own", "", 7],
    "auto_map": [{"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}],
    "attn_implementation": ["somebody/kernel", "flash_attention_2", 7],
    "rope_parameters": [{"rope_type": "yarn", "factor": 10**30, "rope_theta": -1}, {"rope_type": "x"}, 7],
    "layer_types": [["full_attention"] * 10**5, ["x", "y"], "full_attention"],
    "text_config": [{"num_hidden_layers": 10**7}, {"vocab_size": 1}, 7],
    "quantization_config": [{"quant_method": "bitsandbytes", "load_in_4bit": True}, {"quant_method": "x"}, 7],
    "architectures": [["Evil"], 7, ["GPT2LMHeadModel"]],
    "dtype": ["float8", "save", 7],
    "id2label": [{str(number): "x" for number in range(10**4)}],
    "num_labels": SIZES,
    "eos_token_id": [10**12, -1, [], ["x"], None],
}

_MODULES: list[Any] = [*EXPRESSIONS, [], ["(a+)+"], None, "all-linear"]
_PATTERNS: list[Any] = [{each: 4} for each in EXPRESSIONS] + [{"q_proj": 10**9}]
ADAPTER: dict[str, list[Any]] = {
    **dict.fromkeys(("r", "lora_alpha", "lora_dropout", "qalora_group_size"), SIZES),
    **dict.fromkeys(("target_modules", "exclude_modules"), _MODULES),
    **dict.fromkeys(("rank_pattern", "alpha_pattern"), _PATTERNS),
    "modules_to_save": [["(a+)+"], ["lm_head"], [""], ["x"] * 10**5],
    "layers_to_transform": [list(range(10**5)), 10**12, [-1]],
    "layers_pattern": EXPRESSIONS,
    "layer_replication": [[[0, 2]] * 10**5, [[0, 10**9]], [[2, 0]]],
    "base_model_name_or_path": PATHS,
    "peft_type": ["IA3", "VERA", "PROMPT_TUNING", "x", 7, None],
    "task_type": ["SEQ_CLS", "x", 7, None],
    "auto_mapping": [{"base_model_class": "system", "parent_library": "os"}],
    "init_lora_weights": ["pissa", "pissa_niter_9999999", "olora", "eva", "corda", "loftq", "gaussian", 7],
    "megatron_core": ["os"],
    "megatron_config": [{"a": 1}],
    "use_dora": [True, 7],
    "bias": ["all", "x"],
    "target_parameters": [["(a+)+"], ["x"]],
    "trainable_token_indices": [list(range(10**5)), {"embed_tokens": [10**9]}, [-1]],
    "revision": ["../..", 7],
}


def _replace(content: str, times: int, parts: str) -> dict[str, Any]:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": content}
    return {"type": "Sequence", parts: [step] * times}


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


TOKENIZER = {
    "normalizer": [_replace("aa", 60, "normalizers"), _replace("a" * 10**5, 2, "normalizers"), {"type": "x"}, None],
    "pre_tokenizer": [_split(each) for each in EXPRESSIONS] + [{"type": "Whitespace"}, None],
    "decoder": [_replace("aa", 60, "decoders"), {"type": "Fuse"}, None],
    "post_processor": [{"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}, {"type": "x"}],
    "added_tokens": [[{"id": each, "content": "x", "special": True}] for each in (-1, 10**9, 2**32, 2**64, 0, "x")],
    "padding": [{"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_id": 0, "pad_token": "x"}],
    "truncation": [{"max_length": 10**12, "strategy": "LongestFirst", "stride": 10**12, "direction": "Right"}],
    "model": [{"type": "BPE", "vocab": {"a": each}, "merges": []} for each in (0, -1, 2**32 - 1, 2**64, "x")],
}

TOKENIZER_CONFIG = {
    "added_tokens_decoder": [{str(each): {"content": "x", "special": True}} for each in (-1, 10**9, 2**64, "x")],
    "tokenizer_class": ["Evil", "GPT2Tokenizer", "", 7, "PreTrainedTokenizerFast"],
    "auto_map": [{"AutoTokenizer": ["evil.Tokenizer", None]}],
    "model_max_length": [10**30, -1, "x", 0],
    "vocab_file": PATHS,
    "tokenizer_file": PATHS,
    "eos_token": ["", "x" * 10**5, {"content": 7}, None, "</think>"],
    "pad_token": ["", "<|im_end|>", None, 7],
    "extra_special_tokens": [{"a": "b"}, ["x"] * 1000, "x"],
    "fast_tokenizer_files": [["tokenizer.999.json"], ["../x.json"], 7],
}

_SHARES: list[Any] = [-1, 0, 1e308, "x", [], True]
GENERATION = {
    **dict.fromkeys(("max_new_tokens", "max_length", "top_k", "num_beams", "eos_token_id"), SIZES),
    **dict.fromkeys(("temperature", "top_p", "repetition_penalty"), _SHARES),
}

FIELDS: dict[str, dict[str, list[Any]]] = {
    "config.json": CONFIG,
    "adapter_config.json": ADAPTER,
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": TOKENIZER_CONFIG,
    "generation_config.json": GENERATION,
}
"""File -> field -> traps for it."""


def trapped_json(rng: Rng, name: str, content: bytes) -> bytes:
    """A file of :data:`FIELDS` with a trap in one field, or in two."""
    value = json.loads(content)
    for field in rng.sample(sorted(FIELDS[name]), rng.choice([1, 1, 2])):
        value[field] = rng.choice(FIELDS[name][field])
    return json.dumps(value).encode()


# ---- chat templates: loops around what makes much of little ----------------------------------------------------------

_COUNTS = ["3", "99999", "10**10", "messages", "'question'", "x", "range(99999)"]
_GROWING = ["x ~ x", "x + x", "x * 1000", "[x, x]", "{'a': x, 'b': x}", "dict(a=x, b=x)", "x | replace('a', 'aaaa')"]
_GROWING += ["x.replace('', x)", "(x, x)", "x | string", "x | tojson", "x | list", "x | join(x)", "x | upper", "x ** 9"]
_GROWING += [
    "x | center(10**9)",
    "x.ljust(10**9)",
    "'%1000000000d' % 1",
    "x | indent(10**9)",
    "f(x) ~ f(x)",
    "x.split('')",
]
_GROWING += [
    "x.__class__",
    "x.__init__.__globals__",
    "x | attr('__class__')",
    "x[::-1]",
    "x | sort",
    "x | map('string')",
]
_WRITTEN = ["{{ x }}", "{{ x | length }}", "{{ f(x) }}", "{{ x | tojson }}", "text " * 50, "{{ messages[0].content }}"]


def trapped_template(rng: Rng, content: bytes) -> bytes:
    """The valid template with loops, macros and growing variables before it."""
    return (_block(rng, 3) + content.decode()).encode()


def _block(rng: Rng, depth: int) -> str:
    kinds: list[Callable[[], str]] = [
        lambda: rng.choice(_WRITTEN),
        lambda: f"{{% set x = {rng.choice(_GROWING)} %}}",
        lambda: (
            f"{{% set n = namespace(x='aa') %}}{_loop(rng, depth, '{% set n.x = ' + _grown(rng) + ' %}')}{{{{ n.x }}}}"
        ),
        lambda: _loop(rng, depth, _block(rng, depth - 1)),
        lambda: _loop(rng, depth, _block(rng, depth - 1) + _block(rng, depth - 1)),
        lambda: f"{{% macro f(x) %}}{_block(rng, depth - 1)}{{{{ f(x) }}}}{{% endmacro %}}{{{{ f(1) }}}}",
        lambda: f"{{% set x %}}{_block(rng, depth - 1)}{{% endset %}}",
        lambda: f"{{% filter upper %}}{_block(rng, depth - 1)}{{% endfilter %}}",
        lambda: _block(rng, depth - 1) * rng.choice([2, 30, 500]),
    ]
    start = "{% set x = 'a' * 100 %}" if depth == 3 else ""
    return start + (rng.choice(kinds)() if depth > 0 else rng.choice(_WRITTEN))


def _grown(rng: Rng) -> str:
    return rng.choice(_GROWING).replace("x", "n.x", 1)


def _loop(rng: Rng, depth: int, body: str) -> str:
    over = rng.choice(_COUNTS)
    over = f"range({over})" if over[0].isdigit() else over
    return f"{{% for i in {over} {rng.choice(['', '', 'if x ', 'recursive '])}%}}{body}{{% endfor %}}"


# ---- safetensors -----------------------------------------------------------------------------------------------------


def broken_tensors(rng: Rng, content: bytes, broken_json: Callable[[Rng, Any], str]) -> bytes:
    """A safetensors file whose header is broken, whose lengths lie, or whose numbers are not finite."""
    [length] = struct.unpack("<Q", content[:8])
    header, tensors = content[8 : 8 + length], content[8 + length :]
    kinds: list[Callable[[], bytes]] = [
        *[lambda: _packed(broken_json(rng, json.loads(header)).encode("utf-8", "surrogatepass"), tensors)] * 4,
        lambda: struct.pack("<Q", rng.choice([0, 1, length - 1, length + 1, 2**31, 2**63])) + content[8:],
        lambda: _packed(b"[" * 10**6, tensors),
        lambda: _packed(b"{" + b",".join(b'"%d":{}' % number for number in range(10**5)) + b"}", tensors),
        lambda: _packed(header, b"\xff" * len(tensors)),
        lambda: _packed(header, tensors[: rng.randrange(len(tensors))]),
        lambda: _packed(header, tensors + tensors),
        lambda: _packed(header + b" " * 10**6, tensors),
    ]
    return rng.choice(kinds)()


def _packed(header: bytes, tensors: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + tensors
