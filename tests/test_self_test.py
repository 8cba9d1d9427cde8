"""The self-test of the lockstep engine: what it catches, what it lets pass, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Phi3Config, Phi3ForCausalLM

from stepgrpo_lab.engines import self_test
from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.method.token_text import TokenText

SIZES = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    initializer_range=0.3,
    pad_token_id=0,
)
TEXT = TokenText.from_pieces([chr(32 + place) for place in range(64)])


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: Any) -> None:
    """Every architecture is tried, whatever the library knows of it."""
    monkeypatch.setattr(self_test, "TESTED", frozenset())
    monkeypatch.setattr(self_test, "_passed", {})
    monkeypatch.setattr(self_test, "_warned_only", set())


def llama(cls: type = LlamaForCausalLM, **changes: Any) -> Any:
    torch.manual_seed(0)
    return cls(LlamaConfig(**{**SIZES, **changes})).eval()


def complete(model: Any, prompt: int, limit: int, **options: Any) -> Any:
    engine = LockstepEngine(model, TEXT, **options)
    return engine.generate([list(range(3, 3 + prompt))], Decoding(limit), keys=[SampleKey(0, "test", 0, 0)])[0]


class BatchDependent(LlamaForCausalLM):
    """A row's logits depend on the longest row of its batch, as with rotary factors that switch for all."""

    def forward(self, input_ids: Any = None, position_ids: Any = None, **options: Any) -> Any:
        output = super().forward(input_ids, position_ids=position_ids, **options)
        if position_ids is not None and position_ids.shape[0] > 1:
            output.logits = output.logits + 0.1 * (position_ids.max() > position_ids) * torch.arange(64.0)
        return output


class Remembers(LlamaForCausalLM):
    """What was fed at a place shows in all that follows, also after it was taken back: as a recurrent state would."""

    def forward(self, past_key_values: Any = None, position_ids: Any = None, **options: Any) -> Any:
        output = super().forward(past_key_values=past_key_values, position_ids=position_ids, **options)
        if past_key_values is not None and position_ids.shape == (len(output.logits), 1):
            fed = vars(past_key_values).setdefault("highest", torch.zeros(len(position_ids), 1) - 1)
            output.logits = output.logits + 0.1 * (position_ids <= fed)[:, None] * torch.arange(64.0)
            past_key_values.highest = torch.maximum(fed, position_ids)
        return output


class OwnWindow(LlamaForCausalLM):
    """An attention window in the module, which no configuration key of transformers' caches names."""

    def forward(self, attention_mask: Any = None, position_ids: Any = None, **options: Any) -> Any:
        if attention_mask is not None:
            width = attention_mask.shape[-1]
            near = attention_mask & (torch.arange(width) >= width - self.config.local_attention)
            attention_mask = near | ~near.any(-1, keepdim=True)
        return super().forward(attention_mask=attention_mask, position_ids=position_ids, **options)


class TwoDimensional(LlamaForCausalLM):
    """A forward pass that unpacks a two-dimensional mask."""

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None, **options: Any
    ) -> Any:
        if attention_mask is not None:
            _, _ = attention_mask.shape
        return super().forward(input_ids, attention_mask=attention_mask, position_ids=position_ids, **options)


def test_a_model_that_is_right_passes_once() -> None:
    model = llama()
    complete(model, 3, 4)
    passes = []
    model.register_forward_hook(lambda *_: passes.append(1))
    complete(model, 3, 4)
    assert len(passes) == 5  # its prefill and four steps: no second self-test


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_16_bits_passes(dtype: torch.dtype) -> None:
    complete(llama(num_hidden_layers=8).to(dtype), 3, 4)


def test_autocast_passes() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        complete(llama(num_hidden_layers=8), 3, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("cls", "named"),
    [
        (BatchDependent, "others share its batch"),
        (Remembers, "leaves a trace"),
        (TwoDimensional, "too many values"),
    ],
)
def test_a_broken_invariant_is_named(cls: type, named: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"{cls.__name__}.*({named})"):
        LockstepEngine(llama(cls).to(dtype), TEXT)


def test_warn_lets_it_pass_for_good() -> None:
    model = llama(BatchDependent)
    self_test.warn_only(model)
    with pytest.warns(UserWarning, match="share its batch"):
        LockstepEngine(model, TEXT)
    LockstepEngine(model, TEXT)  # told once


def test_a_window_in_a_module_is_found_where_rows_reach_beyond_it() -> None:
    model = llama(OwnWindow)
    model.config.local_attention = 40
    complete(model, 3, 20)
    with pytest.raises(ValueError, match=r"position 40 \(local_attention\)"):
        complete(model, 3, 60)


def test_longrope_ends_at_its_original_length() -> None:
    factors = dict(short_factor=[1.0] * 4, long_factor=[4.0] * 4)
    rope = dict(rope_type="longrope", rope_theta=10000.0, **factors)
    torch.manual_seed(0)
    model = Phi3ForCausalLM(Phi3Config(**SIZES, original_max_position_embeddings=48, rope_parameters=rope)).eval()
    assert complete(model, 8, 40)[0].tokens == 40
    with pytest.raises(ValueError, match=r"original_max_position_embeddings.*lower the limit by 1"):
        complete(model, 8, 41)


def test_nan_weights_are_left_to_the_decoding() -> None:
    model = llama()
    model.lm_head.weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="prompt 0"):
        complete(model, 3, 4)


def test_positions_of_its_own_are_refused() -> None:
    from transformers import RobertaConfig, RobertaForCausalLM

    torch.manual_seed(0)
    config = RobertaConfig(**{**SIZES, "hidden_size": 32, "is_decoder": True, "pad_token_id": 1})
    with pytest.raises(ValueError, match="not those of one pass"):
        LockstepEngine(RobertaForCausalLM(config).eval(), TEXT)


def test_training_refuses_positions_that_count_padding() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=256)).eval()
    assert complete(gpt2, 8, 20)[0].tokens == 20  # sampling gives every row its own positions
    with pytest.raises(ValueError, match=r"GPT2LMHeadModel.*padding"):
        self_test.check_padding(gpt2)
    self_test.check_padding(llama())


def test_windows_of_every_row_are_tried() -> None:
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)).eval()
    assert complete(model, 20, 60)[0].tokens == 60
