"""Which architectures the lockstep engine decodes rightly, and which it refuses: ``docs/architectures.md``.

    python -m tools.architectures              # try every row and write the page
    python -m tools.architectures NAME ...     # print these rows

A row is a tiny model with random weights of every causal language model class in transformers, with windows and chunks
of 8 tokens. It is *right* where four invariants hold on completions several windows long: greedy decoding equals the
model's own ``generate``; probes that never exit change nothing, under both presets; a completion does not depend on its
batch; recorded log-probabilities are those of one plain pass. Otherwise the engine must refuse it.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from stepgrpo_lab.engines import self_test
from stepgrpo_lab.engines._feeding import Feeder
from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.method.settings import PRESETS, rollout_settings
from stepgrpo_lab.method.token_text import TokenText

PAGE = Path("docs/architectures.md")
WINDOW = 8
LIMIT = 14
TOLERANCE = 1e-3
SAMPLED = Sampling(3.0)  # flat enough for markers in every model's completions

_LETTERS = sorted({letter for preset in PRESETS.values() for letter in preset.probe_prompt + preset.close_text})
_PIECES = ["<pad>", "<bos>", "<eos>", *_LETTERS, "</think>", "\n\n", *"0123456789.,:+-="]
VOCABULARY = 80
TEXT = TokenText.from_pieces([*_PIECES, *(["Wait", " Wait,"] * VOCABULARY)[len(_PIECES) : VOCABULARY]], eos_ids=[2])
"""Probes shall be frequent: about every third piece is a marker."""

PROMPTS = [[5 + (place * place + 7 * row) % 50 for place in range(length)] for row, length in enumerate((3, 33))]

SMALL: dict[str, Any] = {
    **dict(vocab_size=VOCABULARY, pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.3),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "encoder_ffn_dim", "decoder_ffn_dim", "dim_ff"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 256),
    **dict.fromkeys(("sliding_window", "attention_chunk_size"), WINDOW),
    **dict.fromkeys(("kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict(num_key_value_heads=2, num_experts_per_tok=2, moe_topk=2, n_group=1, topk_group=1, n_shared_experts=1),
    **dict(linear_num_value_heads=4, linear_num_key_heads=2, rotary_dim=4, first_k_dense_replace=1),
}
"""What is made small wherever a configuration has it."""

ABSENT = ("sliding_window", "attention_chunk_size", "q_lora_rank", "moe_intermediate_size")
"""What stays away where a class has none by default."""

# What a class needs beyond that, found by reading its configuration.
_MAMBA = dict(mamba_n_heads=4, mamba_d_head=16, mamba_d_state=8, mamba_n_groups=1, mamba_chunk_size=8)
_HYBRID = dict(layer_types=["linear_attention", "full_attention"])
_TURNS = dict(layer_types=["sliding_attention", "full_attention"] * 2, num_hidden_layers=4)
_PER_LAYER = dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=VOCABULARY)
_INDEXED = dict(
    indexer_n_heads=4,
    indexer_kv_heads=1,
    indexer_head_dim=8,
    indexer_budget=16,
    indexer_compress_ratio=2,
    ngram_vocab_size_base=VOCABULARY,
)
_ROPE = dict(rope_type="default", rope_theta=10000.0)
EXTRA: dict[str, dict[str, Any]] = {
    "bailing_hybrid": dict(num_expert_group=1, num_experts_per_token=2),
    "bamba": dict(_MAMBA, attn_layer_indices=[1]),
    "cohere_compass_text": dict(_TURNS, rope_parameters=dict(full_attention=_ROPE, sliding_attention=_ROPE)),
    "dbrx": dict(
        attn_config=dict(kv_n_heads=2, rope_theta=10000.0, clip_qkv=8.0),
        ffn_config=dict(hidden_size=32, ffn_hidden_size=48, moe_num_experts=4),
    ),
    "falcon_h1": dict(_MAMBA, mamba_d_ssm=64),
    "gemma3n_text": dict(_TURNS, **_PER_LAYER, laurel_rank=8, num_kv_shared_layers=2),
    "gemma4": dict(_TURNS, **_PER_LAYER),
    "gemma4_text": dict(_TURNS, **_PER_LAYER),
    "gpt_neo": dict(attention_types=[[["global", "local"], 1]], num_layers=2, window_size=WINDOW),
    "granitemoehybrid": dict(_MAMBA, **_HYBRID, shared_intermediate_size=48),
    "jamba": dict(attn_layer_period=2, attn_layer_offset=1, mamba_d_state=8),
    "kimi_linear": dict(_HYBRID, linear_head_dim=8, linear_num_heads=4, num_experts_per_tok=1),
    "lfm2_moe": dict(layer_types=["conv", "full_attention"]),
    "longcat_flash": dict(num_layers=2, head_dim=8, ffn_hidden_size=48, expert_ffn_hidden_size=16, zero_expert_num=2),
    "minicpm3": dict(dim_model_base=32),
    "mamba2": dict(num_heads=8, head_dim=8, n_groups=1, state_size=8, chunk_size=8),
    "recurrent_gemma": dict(num_hidden_layers=3),
    "reformer": dict(axial_pos_embds_dim=[16, 16], axial_pos_shape=[16, 16], is_decoder=True),
    "roc_bert": dict(is_decoder=True, pronunciation_vocab_size=VOCABULARY, shape_vocab_size=VOCABULARY),
    "qwen4_exp": _INDEXED,
    "qwen4_exp_text": _INDEXED,
    "xlm": dict(emb_dim=32, causal=True),
    "xmod": dict(is_decoder=True, default_language="en_XX"),
    "zamba": dict(num_hidden_layers=4, layer_types=["linear_attention", "hybrid"] * 2),
    "zaya": dict(num_experts_per_tok=1),
}
_BERTS = ("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert")
_BERTS += ("rembert", "roberta", "roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl")
EXTRA |= {name: dict(is_decoder=True) for name in _BERTS}

LEFT_OUT_REASON = "They read images or sound, draft for another model, or group bytes to patches"
LEFT_OUT = (
    *("blt", "dots3_note", "gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "git", "got_ocr2"),
    *("moshi", "moss_transcribe_diarize", "musicgen", "musicgen_melody", "phi4_multimodal"),
)
"""Classes without a row."""

_LONG = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0] * 4, long_factor=[4.0] * 4)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma4_text, keys shared by layers": ("gemma4_text", dict(EXTRA["gemma4_text"], num_kv_shared_layers=2)),
    "gpt_oss, full attention": ("gpt_oss", dict(layer_types=["full_attention"] * 2)),
    "llama, rope of Llama 3": (
        "llama",
        dict(
            rope_parameters=dict(
                **dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, original_max_position_embeddings=64),
                **dict(low_freq_factor=1.0, high_freq_factor=4.0),
            )
        ),
    ),
    "mistral, no window": ("mistral", dict(sliding_window=None)),
    "phi3, longrope": ("phi3", dict(original_max_position_embeddings=96, rope_parameters=_LONG)),
    "qwen2, windows": ("qwen2", dict(use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1)),
    "qwen3, rope dynamic": ("qwen3", dict(rope_parameters=dict(_ROPE, rope_type="dynamic", factor=4.0))),
    "qwen3, rope yarn": (
        "qwen3",
        dict(rope_parameters=dict(_ROPE, rope_type="yarn", factor=4.0, original_max_position_embeddings=64)),
    ),
}
"""Further rows: (class, what its configuration has)."""


def rows() -> list[str]:
    """Every row's name: ``model_type``, or ``model_type, what is special``."""
    return [*(name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in LEFT_OUT), *VARIANTS]


def tiny_config(name: str) -> Any:
    """A configuration of a row's class that a laptop computes in milliseconds."""
    kind, changes = VARIANTS.get(name, (name, EXTRA.get(name, {})))
    cls = CONFIG_MAPPING[kind]
    whole = cls()
    text = whole if whole.is_encoder_decoder else whole.get_text_config(decoder=True)
    if text is whole:
        return cls(**{**_small(text), **changes})
    place = next(key for key in cls.sub_configs if getattr(whole, key, None) is text)
    vision = {"vision_config": _small(whole.vision_config)} if getattr(whole, "vision_config", None) else {}
    return cls(**{place: {**_small(text), **changes}}, **vision)


def _small(config: Any) -> dict[str, Any]:
    """What of :data:`SMALL` a configuration has, and one of each of its layer types."""
    known = {**config.to_dict(), **dict.fromkeys(config.attribute_map, 0)}
    computed = {name for name in dir(type(config)) if isinstance(getattr(type(config), name, None), property)}
    renamed = config.attribute_map.get("layer_types", "layer_types")
    values = {
        name: value
        for name, value in SMALL.items()
        if name in known
        and name not in computed
        and name not in config.attribute_map
        and not (name in ABSENT and known[name] is None)
    }
    if "kv_lora_rank" in values:
        values |= {"num_key_value_heads": 4}
        values.pop("head_dim", None)
    types = getattr(config, "layer_types", None)
    if types is not None and not {"layer_types", renamed} & computed and hasattr(config, "layer_types"):
        kinds = list(dict.fromkeys(types))
        values["layer_types"] = (kinds * 2)[: max(2, len(kinds))]
        values["num_hidden_layers"] = len(values["layer_types"])
    return values


def tiny_model(name: str, device: str = "cpu") -> Any:
    """A row's model, with random weights; with none at all on the device "meta"."""
    config = tiny_config(name)
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config).eval()
    model.generation_config.eos_token_id = None
    return model


@dataclass(frozen=True)
class Outcome:
    """What became of a row: right, refused with a reason, or wrong, which must not happen."""

    result: str
    reason: str = ""


def refused(error: ValueError) -> Outcome:
    """With the reason, but without what differs from machine to machine or says what to do."""
    reason = re.sub(r" \(by [^)]*\)", "", str(error)).partition(". Use another model")[0]
    return Outcome("refused", " ".join(reason.removesuffix(".").split()))


def outcome(name: str) -> Outcome:
    """Try a row, and the self-test on it, whether the library knows the class or not."""
    try:
        Feeder(tiny_model(name, "meta"))
    except ValueError as error:
        return refused(error)
    model = tiny_model(name)
    with torch.no_grad():
        model(input_ids=torch.tensor([PROMPTS[1]]))  # a configuration that does not run at all is a mistake of ours
    with patch.object(self_test, "TESTED", frozenset()):
        try:
            complete(model, probed=[False] * len(PROMPTS))
        except ValueError as error:
            return refused(error)
        broken = violations(model)
    return Outcome("wrong", ", ".join(broken)) if broken else Outcome("right")


# ---- the four invariants ---------------------------------------------------------------------------------------------


def keys() -> list[SampleKey]:
    return [SampleKey(0, "test", 0, sample) for sample in range(len(PROMPTS))]


def violations(model: Any) -> list[str]:
    """The invariants that do not hold; none for a model that is decoded rightly."""
    broken = []
    for preset in PRESETS:
        settings = rollout_settings(
            preset, exit_threshold=1.0, near_budget_margin=0, markers=["Wait"], probe_max_tokens=4
        )
        probed = complete(model, settings=settings)
        if not any(record.probes for record in probed):
            broken.append(f"{preset} never probed")
        if ids(probed) != ids(complete(model, settings=settings, probed=[False] * len(PROMPTS), max_rows=1)):
            broken.append(f"probes of {preset}, or others in the batch, leave a trace")
        if logprob_gap(model, probed) > TOLERANCE:
            broken.append(f"log-probabilities of {preset} are not those of one pass")
    if ids(complete(model, sampling=Sampling(0.0))) != [generated(model, prompt) for prompt in PROMPTS]:
        broken.append("greedy decoding is not generate's")
    return broken


def complete(
    model: Any, *, settings: Any = None, sampling: Sampling = SAMPLED, max_rows: int = 64, probed: Any = None
) -> list[Trajectory]:
    engine = LockstepEngine(model, TEXT, max_rows=max_rows)
    return engine.generate(PROMPTS, Decoding(LIMIT, settings, sampling), keys=keys(), probed=probed)[0]


def ids(records: list[Trajectory]) -> list[list[int]]:
    return [record.completion_ids for record in records]


def logprob_gap(model: Any, records: list[Trajectory]) -> float:
    """Largest difference between recorded log-probabilities and those of one plain pass."""
    gap = 0.0
    for record in records:
        sequence = torch.tensor([record.prompt_ids + record.completion_ids])
        with torch.no_grad():
            logits = model(input_ids=sequence, use_cache=False).logits[0].float()
        scores = (logits / SAMPLED.temperature).log_softmax(-1)
        first = len(record.prompt_ids) - 1
        for place, (token, logprob) in enumerate(zip(record.completion_ids, record.logprobs, strict=True)):
            if logprob is not None:
                gap = max(gap, abs(scores[first + place, token].item() - logprob))
    return gap


def generated(model: Any, prompt: list[int]) -> list[int]:
    """The model's own greedy completion, up to the end of sequence."""
    found = model.generate(
        torch.tensor([prompt]), max_new_tokens=LIMIT, do_sample=False, eos_token_id=[2], pad_token_id=0
    )
    return found[0, len(prompt) :].tolist()


# ---- the page --------------------------------------------------------------------------------------------------------

HEAD = f"""# Architectures

Which models the lockstep engine decodes rightly, and which it refuses. Written by `python -m tools.architectures` with
transformers {transformers.__version__}; every row is a test of `tests/test_architectures.py`.

A row is a tiny model with random weights of a causal language model class, named by the `model_type` of its
`config.json`, with windows and chunks of {WINDOW} tokens and completions several windows long. *Right* means:

1. greedy decoding equals the model's own `generate`, token for token;
2. probes that never exit change nothing, under both presets, and a completion does not depend on its batch;
3. recorded log-probabilities are those of one plain pass, within {TOLERANCE:g} in fp32.

A class that is not in the table, or code of your own, is tried when an engine opens on it: a few steps in lockstep
against one plain pass, with rows on both sides of every window, chunk or length that its configuration names and that a
row can reach. Beyond {self_test.TOLERANCE:g} it is refused, and the message says what is broken; the recipe key
`model.self_test: warn` uses it all the same. LongRoPE (Phi-3.5, Phi-4-mini) is right up to its original length; a run
that needs more is refused with the number to lower. Training also refuses, at its first rollout, a model that counts
padding on the left as positions (GPT-2), because the loss would then not be of what was sampled.

"""


def page(outcomes: dict[str, Outcome]) -> str:
    """The whole page."""
    right = [name for name, found in outcomes.items() if found.result == "right"]
    lines = [f"## Right: {len(right)} rows\n", ", ".join(f"`{name}`" for name in right) + "\n"]
    refused = {name: found.reason for name, found in outcomes.items() if found.result == "refused"}
    lines += [f"## Refused: {len(refused)} rows\n", "| model_type | reason |", "| --- | --- |"]
    lines += [f"| `{name}` | {reason} |" for name, reason in refused.items()]
    left_out = ", ".join(f"`{name}`" for name in LEFT_OUT)
    lines += ["\n## Not in the table\n", f"{LEFT_OUT_REASON}: {left_out}."]
    return HEAD + "\n".join(lines) + "\n"


def read_page(text: str) -> dict[str, Outcome]:
    """The outcomes that a page shows."""
    right, _, refused = text.partition("## Refused")
    found = {name: Outcome("right") for name in re.findall(r"`([^`]+)`", right.partition("## Right")[2])}
    return found | {name: Outcome("refused", reason) for name, reason in _REFUSED.findall(refused)}


_REFUSED = re.compile(r"^\| `([^`]+)` \| (.*) \|$", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.architectures", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", help="rows to print; without any, all are tried and the page is written")
    names = parser.parse_args().names
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    outcomes = {}
    for name in names or rows():
        outcomes[name] = outcome(name)
        print(f"{name:36} {outcomes[name].result:8} {outcomes[name].reason}", flush=True)
    wrong = [name for name, found in outcomes.items() if found.result == "wrong"]
    if not names and not wrong:
        PAGE.write_text(page(outcomes), encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
