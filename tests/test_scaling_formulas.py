"""The memory formulas against bytes counted on shrunken models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgrpo_lab.planning.sizes import (
    OPTIMIZERS,
    QWEN3,
    config_dimensions,
    full_parameters,
    head_bytes,
    kv_bytes,
    layer_activations,
    lora_parameters,
    model_dimensions,
    nf4_bytes,
    optimizer_bytes,
    sampling_bytes,
)
from tools.counting import PeakBytes, SavedBytes, qwen3_config, random_qwen3, small_dimensions, storage_bytes

DIMENSIONS = small_dimensions()
WIDER = small_dimensions(hidden=128, intermediate=320, heads=8, layers=3, tied=False)
PUBLISHED = {"Qwen/Qwen3-0.6B": 0.44, "Qwen/Qwen3-1.7B": 1.4, "Qwen/Qwen3-4B": 3.6, "Qwen/Qwen3-8B": 6.95}
"""Billions of parameters without embeddings, as Qwen's model cards give them."""


@pytest.mark.parametrize("name", QWEN3)
def test_the_table_counts_what_the_architecture_holds(name: str) -> None:
    from transformers import Qwen3ForCausalLM

    dimensions = QWEN3[name]
    with torch.device("meta"):
        model = Qwen3ForCausalLM(qwen3_config(dimensions))
    assert model.num_parameters() == dimensions.parameters
    embeddings, others = full_parameters(dimensions)
    assert sum(embeddings) + sum(others) == dimensions.parameters
    linear = [m for m in model.model.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(layer.weight.numel() for layer in linear) == dimensions.layers * dimensions.layer_linear
    body = dimensions.parameters - dimensions.embedding - dimensions.untied_head
    assert body / 1e9 == pytest.approx(PUBLISHED[name], abs=0.05)
    assert model_dimensions(name) == config_dimensions(model.config.to_dict()) == config_dimensions(dimensions.config)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_the_families_of_r1_s_distilled_models_are_counted_too(kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2
    )
    config.vocab_size = 300
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert config_dimensions(config.to_dict()).parameters == model.num_parameters()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba"}, "cannot plan for model_type 'mamba': known are qwen3, qwen2, llama"),
        ({"model_type": "llama", "mlp_bias": True}, "cannot plan for this llama model"),
        ({"model_type": "qwen3"}, "field 'vocab_size' is missing"),
    ],
)
def test_other_architectures_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_dimensions(config)


def test_a_model_that_is_nowhere_is_named() -> None:
    with pytest.raises(ValueError, match=r"'no/such' has no configuration.*or one of Qwen/Qwen3-0\.6B"):
        model_dimensions("no/such")
    assert model_dimensions("overthinker").parameters == pytest.approx(1e6, rel=0.5)


@pytest.mark.parametrize("dimensions", [DIMENSIONS, WIDER])
def test_weights_gradients_and_adam_states(dimensions: Any) -> None:
    model = random_qwen3(dimensions)
    assert storage_bytes(model.parameters()) == 4 * dimensions.parameters
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(input_ids=torch.arange(8)[None]).logits.sum().backward()
    optimizer.step()
    assert storage_bytes(p.grad for p in model.parameters() if p.grad is not None) == 4 * dimensions.parameters
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert storage_bytes(moments) == optimizer_bytes(OPTIMIZERS["adamw_torch_fused"], *full_parameters(dimensions))


@pytest.mark.parametrize("dimensions", [DIMENSIONS, WIDER])
def test_adam_states_in_8_bits(dimensions: Any) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = random_qwen3(dimensions)
    optimizer = bitsandbytes.optim.AdamW8bit(model.parameters())
    # As transformers' trainer does for every embedding.
    manager = bitsandbytes.optim.GlobalOptimManager.get_instance()
    manager.register_module_override(model.model.embed_tokens, "weight", {"optim_bits": 32})
    model(input_ids=torch.arange(8)[None]).logits.sum().backward()
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor)]
    assert storage_bytes(kept) == optimizer_bytes(OPTIMIZERS["adamw_bnb_8bit"], *full_parameters(dimensions))


@pytest.mark.parametrize("dimensions", [DIMENSIONS, WIDER])
def test_4_bit_weights_and_their_constants(dimensions: Any, tmp_path: Any) -> None:
    pytest.importorskip("bitsandbytes")
    from tiny import tiny_tokenizer

    from stepgrpo_lab.engines.models import load_model

    random_qwen3(dimensions).save_pretrained(str(tmp_path))
    tiny_tokenizer().save_pretrained(str(tmp_path))
    model, _ = load_model(tmp_path, quantization="nf4", device="cpu")
    packed = [module.weight for module in model.modules() if type(module).__name__ == "Linear4bit"]
    assert len(packed) == 7 * dimensions.layers
    states = [weight.quant_state for weight in packed]
    constants = [
        tensor
        for state in states
        for tensor in (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
    ]
    shapes = list(dimensions.linear_shapes.values()) * dimensions.layers
    weights, expected = nf4_bytes(shapes)
    assert sum(weight.nbytes for weight in packed) == weights
    assert sum(tensor.nbytes for tensor in constants) == expected
    others = [p for p in model.parameters() if p.dtype == torch.float32]
    assert storage_bytes(others) == 4 * (dimensions.parameters - dimensions.layers * dimensions.layer_linear)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_adapters(targets: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(random_qwen3(WIDER), LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert sorted(trained) == sorted(lora_parameters(WIDER, 4, targets))
    with pytest.raises(ValueError, match=r"model\.lora\.targets names 'lm_head'"):
        lora_parameters(WIDER, 4, ["lm_head"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rollout_s_cache(dtype: torch.dtype) -> None:
    from stepgrpo_lab.engines.cache import LockstepCache

    model, rows, tokens = random_qwen3(DIMENSIONS, dtype), 3, 200
    cache = LockstepCache(DIMENSIONS.layers, rows, tokens)
    with torch.no_grad():
        for place in (10, tokens - 1):  # it starts small and grows to its reach
            mask = cache.begin_step(torch.full((rows,), place), place + 1)
            positions = torch.full((rows, 1), place)
            model(torch.ones(rows, 1).long(), mask, positions, past_key_values=cache, use_cache=True)
    held = storage_bytes(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
    assert held == kv_bytes(DIMENSIONS, rows, tokens, dtype.itemsize)


def counted_per_token(dimensions: Any, dtype: torch.dtype, mixed: bool, *, checkpointing: bool = False) -> float:
    """Bytes kept for the backward pass by one more layer for one more token: weights' casts cancel out."""

    def total(layers: int, tokens: int) -> int:
        model = random_qwen3(small_dimensions(**{**vars(dimensions), "layers": layers}), dtype).train()
        if checkpointing:
            # Older versions of transformers know it by its other name alone.
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed), SavedBytes(model) as saved:
            model.model(input_ids=torch.ones(1, tokens).long(), use_cache=False)
        return saved.total

    by_layer = [total(3, tokens) - total(2, tokens) for tokens in (32, 64)]
    return (by_layer[1] - by_layer[0]) / 32


@pytest.mark.parametrize(
    ("dtype", "mixed", "compute", "residual"),
    [
        (torch.float32, False, 4, 4),
        (torch.bfloat16, False, 2, 2),
        (torch.float32, True, 2, 4),
    ],
    ids=["fp32", "bf16", "bf16 autocast of fp32 weights"],
)
@pytest.mark.parametrize("dimensions", [DIMENSIONS, WIDER], ids=["narrow", "wide"])
def test_activations(dimensions: Any, dtype: torch.dtype, mixed: bool, compute: int, residual: int) -> None:
    counted = counted_per_token(dimensions, dtype, mixed)
    assert layer_activations(dimensions, compute, residual) == pytest.approx(counted, rel=0.02)
    kept = counted_per_token(dimensions, dtype, mixed, checkpointing=True)
    assert kept == dimensions.hidden * residual


def counted_head(tokens: int, *, trains: bool) -> int:
    """Peak bytes of the fused head, forward and backward."""
    from trl.trainer.utils import add_fused_lm_head

    dimensions = small_dimensions(vocabulary=1000, tied=False)
    model = random_qwen3(dimensions)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    model.lm_head.weight.requires_grad_(trains)
    hidden = torch.randn(1, tokens + 1, dimensions.hidden, requires_grad=True)
    model.model.forward = lambda **_: type("Output", (), {"last_hidden_state": hidden})()
    with PeakBytes() as count:
        model(labels=torch.ones(1, tokens + 1).long(), fused_lm_head=True).loss.backward()
    return count.peak


def test_the_fused_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not covered: on a GPU a Triton kernel works on the tile in place, where torch makes copies of it here; and there
    the scored positions are copied together and the gradient is cast, which are the formula's two 16-bit copies.
    """
    monkeypatch.setattr("trl.kernels.chunked_logprob.TOKEN_CHUNK_SIZE", 16)
    monkeypatch.setattr("stepgrpo_lab.planning.sizes.HEAD_TOKENS", 16)
    dimensions = small_dimensions(vocabulary=1000, tied=False)
    grown = counted_head(512, trains=False) - counted_head(256, trains=False)
    planned = head_bytes(dimensions, 512, 4, trains=False) - head_bytes(dimensions, 256, 4, trains=False)
    copies = 256 * 2 * 4 * dimensions.hidden
    assert planned - copies == pytest.approx(grown, rel=0.1)
    assert counted_head(64, trains=True) - counted_head(64, trains=False) == 4 * dimensions.embedding
    tile = 16 * dimensions.vocabulary * 4
    assert 0 <= counted_head(16, trains=False) - head_bytes(dimensions, 16, 4, trains=False) <= 4 * tile


def test_drawing_tokens_needs_what_is_planned() -> None:
    from stepgrpo_lab.engines.lockstep import choose_sampled
    from stepgrpo_lab.method.sampling import Sampling

    rows, dimensions = 4, small_dimensions(vocabulary=20_000)
    logits = torch.randn(rows, dimensions.vocabulary)
    with PeakBytes() as count:
        choose_sampled(logits.float(), [0.5] * rows, Sampling(0.8))
    planned = sampling_bytes(dimensions, rows, 4) - 2 * logits.nbytes  # the model's own, and its copy in fp32
    assert count.peak <= planned <= 1.3 * count.peak


@given(rows=st.integers(1, 64), tokens=st.integers(1, 5000))
@settings(max_examples=50, deadline=None)
def test_the_cache_grows_with_rows_and_tokens(rows: int, tokens: int) -> None:
    size = kv_bytes(DIMENSIONS, rows, tokens, 2)
    assert size == rows * kv_bytes(DIMENSIONS, 1, tokens, 2)
    exact = rows * tokens * DIMENSIONS.kv_per_token * 2
    assert exact <= size <= exact + rows * 31 * DIMENSIONS.kv_per_token * 2
