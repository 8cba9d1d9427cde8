"""Loading, checking and merging models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_tiny, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepgrpo_lab.models import encode_prompt, load_model, merge_lora
from stepgrpo_lab.tokenizer_checks import check_tokenizer, separate_padding


@pytest.fixture
def tokenizer() -> Any:
    return copy.deepcopy(tiny_tokenizer())


def test_a_saved_model_loads_as_it_was(tmp_path: Path) -> None:
    model, tokenizer = load_model(save_tiny(tmp_path), device="cpu")
    original = tiny_model().state_dict()
    assert all(torch.equal(value, original[name]) for name, value in model.state_dict().items())
    assert not model.training and model.dtype == torch.float32
    assert tokenizer.get_vocab() == tiny_tokenizer().get_vocab()
    half, _ = load_model(tmp_path, dtype="bfloat16", device="cpu")
    assert half.dtype == torch.bfloat16


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    save_tiny(tmp_path)
    torch.save(tiny_model().state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"cannot be loaded.*safetensors"):
        load_model(tmp_path, device="cpu")


def test_gradients_pass_through_4_bit_layers_after_a_rollout(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model, _ = load_model(save_tiny(tmp_path, hidden=64), quantization="nf4", device="cpu")
    embeddings = torch.randn(1, 5, 64)

    def gradient() -> torch.Tensor:
        inputs = embeddings.clone().requires_grad_()
        model.train()(inputs_embeds=inputs).logits.square().sum().backward()
        assert inputs.grad is not None
        return inputs.grad

    before = gradient()
    with torch.no_grad():
        model.eval()(inputs_embeds=embeddings)
    assert before.norm() > 0
    torch.testing.assert_close(gradient(), before)


def test_wrong_requests_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown dtype 'int3'"):
        load_model(tmp_path, dtype="int3")
    with pytest.raises(ValueError, match="unknown quantization 'int8'"):
        load_model(tmp_path, quantization="int8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_model(tmp_path / "nowhere")
    tiny_model().save_pretrained(str(tmp_path / "bare"))
    with pytest.raises(ValueError, match="no tokenizer that can be loaded"):
        load_model(tmp_path / "bare", device="cpu")


def test_a_prompt_ends_where_the_model_goes_on(tokenizer: Any) -> None:
    ids = encode_prompt(tokenizer, "1+1?", " Think.")
    assert tokenizer.decode(ids) == "<|im_start|>user\n1+1? Think.<|im_end|>\n<|im_start|>assistant\n"
    assert "</think>" in tokenizer.decode(encode_prompt(tokenizer, "1+1?", enable_thinking=False))


def test_a_fitting_tokenizer_passes(tokenizer: Any) -> None:
    check_tokenizer(tokenizer)


def without(name: str) -> Any:
    def change(tokenizer: Any) -> None:
        setattr(tokenizer, name, None)

    return change


def pad_with_eos(tokenizer: Any) -> None:
    tokenizer.pad_token = tokenizer.eos_token


def close_thoughts(tokenizer: Any) -> None:
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "enable_thinking is defined and enable_thinking is false", "true"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("eos_token"), "no eos_token"),
        (without("pad_token"), "pad_token is missing"),
        (pad_with_eos, "pad_token is missing or the same as its eos_token"),
        (without("chat_template"), "no chat_template"),
        (close_thoughts, "closes the thoughts"),
    ],
)
def test_unfit_tokenizers_are_refused(tokenizer: Any, change: Any, message: str) -> None:
    change(tokenizer)
    with pytest.raises(ValueError, match=message):
        check_tokenizer(tokenizer)


def test_a_tokenizer_that_cannot_write_the_tags_is_refused() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "[PAD]": 2, "[EOS]": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]")
    with pytest.raises(ValueError, match="cannot encode '<think>'"):
        check_tokenizer(tokenizer)


def test_padding_is_set_apart_where_the_tokenizer_knows_how(tokenizer: Any) -> None:
    pad_with_eos(tokenizer)
    separate_padding(tokenizer)
    assert tokenizer.pad_token == tokenizer.eos_token  # it knows no other padding token
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|vision_pad|>"]})
    separate_padding(tokenizer)
    assert tokenizer.pad_token == "<|vision_pad|>"


def test_real_tokenizer_passes(qwen3_tokenizer: Any) -> None:
    separate_padding(qwen3_tokenizer)
    check_tokenizer(qwen3_tokenizer)
    assert qwen3_tokenizer.decode(encode_prompt(qwen3_tokenizer, "1+1?")).endswith("<|im_start|>assistant\n")


def test_a_merged_adapter_is_a_plain_model(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = save_tiny(tmp_path / "base")
    model, tokenizer = load_model(base, device="cpu")
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    tokenizer.save_pretrained(str(tmp_path / "adapter"))
    merge_lora(tmp_path / "adapter", tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(str(tmp_path / "merged"))
    ids = torch.tensor([encode_prompt(tokenizer, "1+1?")])
    with torch.no_grad():
        expected, merged, before = adapted(ids).logits, plain(ids).logits, tiny_model()(ids).logits
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
    assert (before - expected).abs().max() > 0.1
    assert AutoTokenizer.from_pretrained(str(tmp_path / "merged")).chat_template == tokenizer.chat_template
    # An adapter's folder loads as it is, too.
    again, _ = load_model(tmp_path / "adapter", device="cpu")
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="holds no LoRA adapter"):
        merge_lora(base, tmp_path / "no")
