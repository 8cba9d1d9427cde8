"""Loading, checking and merging models."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_tiny, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepgrpo_lab.engines.models import (
    default_device,
    load_model,
    merge_lora,
    mixed_precision,
    native_dtype,
    native_dtype_of,
)
from stepgrpo_lab.engines.tokenizers import check_tokenizer, encode_prompt, pad_with, separate_padding, thinks


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


def mark_special(tag: str) -> Any:
    def change(tokenizer: Any) -> None:
        tokenizer.add_special_tokens({"additional_special_tokens": [tag]})

    return change


def lower_case(tokenizer: Any) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()


def drop_newlines(tokenizer: Any) -> None:
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\n", "")


def template(text: str) -> Any:
    def change(tokenizer: Any) -> None:
        tokenizer.chat_template = text

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (mark_special("</think>"), "strips '</think>' from completions, because it is marked as special"),
        (mark_special("<think>"), "strips '<think>' from completions"),
        (lower_case, r"(changes .*Final Answer|hides the marker 'Wait')"),
        (drop_newlines, r"changes '.n</think>.n.n', which preset 'official' forces"),
        (template("{{ raise_exception('no system, no service') }}"), "refuses the messages .no system, no service"),
        (template("{{ messages"), "chat template refuses the messages"),
        (template("<|im_start|>assistant"), "loses the user's question"),
        (template("{{ messages[0].content }}<think></think>"), "closes the thoughts"),
    ],
)
def test_tokenizers_that_would_hide_something_are_refused(change: Any, message: str) -> None:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    change(tokenizer)
    with pytest.raises(ValueError, match=message) as caught:
        check_tokenizer(tokenizer)
    assert "\n" not in str(caught.value)


R1_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
    "{% for message in messages %}{% if message.role == 'user' %}{{ '<｜User｜>' + message.content }}"
    "{% elif message.role == 'assistant' %}{% set content = message.content.split('</think>')[-1] %}"
    "{{ '<｜Assistant｜>' + content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)
"""As DeepSeek-R1's distilled models ask: the template itself opens the thoughts, and forgets those of earlier turns."""


def r1_tokenizer() -> Any:
    """The tiny vocabulary with R1's special tokens: its end of a sentence is also its padding."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_special_tokens(
        {
            "bos_token": "<｜begin▁of▁sentence｜>",
            "eos_token": "<｜end▁of▁sentence｜>",
            "additional_special_tokens": ["<｜User｜>", "<｜Assistant｜>", "<|vision_pad|>"],
        }
    )
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = R1_TEMPLATE
    return tokenizer


def test_a_distilled_r1_loads_thinks_and_stops(tmp_path: Path) -> None:
    from stepgrpo_lab.engines.completions import Decoding
    from stepgrpo_lab.engines.lockstep import LockstepEngine
    from stepgrpo_lab.method.rollout import rollout_settings
    from stepgrpo_lab.method.sampling import SampleKey

    model, tokenizer = tiny_model(), r1_tokenizer()
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(str(tmp_path))
    tokenizer.save_pretrained(str(tmp_path))
    model, tokenizer = load_model(tmp_path, device="cpu")
    assert tokenizer.pad_token == "<|vision_pad|>" and tokenizer.eos_token == "<｜end▁of▁sentence｜>"
    prompt = encode_prompt(tokenizer, "1+1?")
    assert tokenizer.decode(prompt) == "<｜begin▁of▁sentence｜><｜User｜>1+1?<｜Assistant｜><think>\n"
    settings = rollout_settings("official", think_budget=6)
    [trajectory], _ = LockstepEngine(model, tokenizer).generate(
        [prompt], Decoding(24, settings), keys=[SampleKey(0, "eval", 0, 0)]
    )
    # The thoughts are open already: what the model writes is closed once, and its steps are counted as ever.
    assert trajectory.text.count("</think>") >= 1 and trajectory.steps >= 1


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    import json

    save_tiny(tmp_path)
    (tmp_path / "modeling_own.py").write_text("raise SystemExit('this code was run')\n")
    config = json.loads((tmp_path / "config.json").read_text())
    auto_map = {"AutoConfig": "modeling_own.Config", "AutoModelForCausalLM": "modeling_own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": auto_map}))
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        load_model(tmp_path, device="cpu")
    assert "\n" not in str(caught.value)


def test_precision_is_chosen_by_compute_capability(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [native_dtype_of(each) for each in ((7, 5), (8, 0), (8, 9), (9, 0), None)] == [
        "float16",
        "bfloat16",
        "bfloat16",
        "bfloat16",
        "float32",
    ]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert native_dtype() == "float16"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert default_device() == "cuda:3"
    model, _ = load_model(save_tiny(tmp_path), dtype="auto", device="cpu")
    assert model.dtype == torch.float16


def test_fp32_masters_compute_in_16_bits_on_a_gpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    with mixed_precision(model, "bf16"):
        assert not torch.is_autocast_enabled("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))

    asked: list[Any] = []
    monkeypatch.setattr(torch, "autocast", lambda device, dtype: asked.append((device, dtype)))

    class OnGpu:
        device, dtype = torch.device("cuda"), torch.float32

    for choice in ("auto", "fp16", "no"):
        mixed_precision(OnGpu(), choice)
    assert asked == [("cuda", torch.bfloat16), ("cuda", torch.float16)]


def test_padding_is_set_apart_where_the_tokenizer_knows_how(tokenizer: Any) -> None:
    pad_with_eos(tokenizer)
    separate_padding(tokenizer)
    assert tokenizer.pad_token != tokenizer.eos_token  # a special token that its template does not use
    assert tokenizer.pad_token not in tokenizer.chat_template
    pad_with_eos(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|vision_pad|>"]})
    separate_padding(tokenizer)
    assert tokenizer.pad_token == "<|vision_pad|>"


@pytest.mark.parametrize("change", [without("pad_token"), pad_with_eos])
def test_only_a_training_asks_for_a_padding_token(tokenizer: Any, change: Any) -> None:
    change(tokenizer)
    check_tokenizer(tokenizer)  # decoding pads nothing
    with pytest.raises(ValueError, match=r"set model\.pad_token"):
        pad_with(tokenizer, None)
    with pytest.raises(ValueError, match="no token of the model's vocabulary"):
        pad_with(tokenizer, "<|nowhere|>")
    with pytest.raises(ValueError, match="same as its eos_token"):
        pad_with(tokenizer, tokenizer.eos_token)
    pad_with(tokenizer, "7")
    assert tokenizer.pad_token == "7"


def test_a_reasoning_model_is_known_by_its_token_or_its_template(bytes_tokenizer: Any) -> None:
    assert thinks(tiny_tokenizer())
    plain = copy.deepcopy(bytes_tokenizer)
    plain.chat_template = "{{ messages[0].content }}"
    assert not thinks(plain)
    plain.chat_template += "<think>\n"
    assert thinks(plain)


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
