"""The lockstep engine, on tiny random models whose next-token odds are tilted so that every phase occurs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from stepgrpo_lab.engines.cache import LockstepCache
from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine, choose_likeliest, choose_sampled
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import RolloutSettings, rollout_settings
from stepgrpo_lab.method.sampling import SampleKey, Sampling

LIMIT = 64
NEVER = rollout_settings("official", exit_threshold=1.0, near_budget_margin=0)
OFFICIAL = rollout_settings("official", exit_threshold=0.975, near_budget_margin=0)
PAPER = rollout_settings("paper", exit_threshold=0.95, near_budget_margin=0, think_budget=0.6)

SIZES = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)


class TiltedQwen3(Qwen3ForCausalLM):
    """Qwen3 whose logits get an addend for each current token: random, and yet it says "Wait" and closes boxes."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__(config)
        self.register_buffer("tilt", torch.zeros(config.vocab_size, config.vocab_size))

    def forward(self, input_ids: Any = None, position_ids: Any = None, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
        output = super().forward(input_ids, position_ids=position_ids, logits_to_keep=logits_to_keep, **kwargs)
        count = output.logits.shape[1]
        output.logits = output.logits + self.tilt[input_ids[:, -count:]].to(output.logits.dtype)
        return output


def tiny_model(tokenizer: Any, **config: Any) -> TiltedQwen3:
    torch.manual_seed(0)
    options = dict(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        initializer_range=0.2,
    )
    model = TiltedQwen3(Qwen3Config(**{**options, **config})).eval()

    def token(text: str) -> int:
        [only] = tokenizer.encode(text, add_special_tokens=False)
        return only

    for text, weight in (("Wait", 5), (" Wait", 5), (".Wait", 4), ("\n\n", 4), ("(W", 4), (",", 4), ("a", 4)):
        model.tilt[:, token(text)] += weight
    for before, after, weight in (
        *(("(W", "ait", 9), ("d", "{", 14), ("{", "7", 12), ("7", "}", 13), ("}", "\n", 13), ("\n", "</think>", 11)),
        *(("x", "{", 14), ("</think>", "\n\n", 6), ("a", "</think>", 5), ("7", "<|im_end|>", 9), ("\n\n", "7", 6)),
    ):
        model.tilt[token(before), token(after)] += weight
    return model


@pytest.fixture(scope="module")
def model(byte_bpe_tokenizer: Any) -> TiltedQwen3:
    return tiny_model(byte_bpe_tokenizer)


@pytest.fixture(scope="module")
def prompts(byte_bpe_tokenizer: Any) -> list[list[int]]:
    questions = ["a", "What is 3 + 4?", "hello hello hello hello", "What is 3 + 4?", "x" * 40, "2", "Wait, what?"]
    return [byte_bpe_tokenizer.encode(question) for question in questions]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def keys(count: int) -> list[SampleKey]:
    return [SampleKey(0, "test", 0, sample) for sample in range(count)]


PER_PROMPT = ("keys", "probed", "limits", "on_finish")


def complete(engine: Any, prompts: list[list[int]], **options: Any) -> list[Trajectory]:
    """Trajectories of one call, whose decoding and arguments may be given side by side."""
    arguments = {name: options.pop(name) for name in PER_PROMPT if name in options}
    decoding = Decoding(**{"limit": LIMIT, **options})
    return engine.generate(prompts, decoding, **{"keys": keys(len(prompts)), **arguments})[0]


def run(model: Any, tokenizer: Any, prompts: list, *, max_rows: int = 64, **options: Any) -> list[Trajectory]:
    return complete(LockstepEngine(model, tokenizer, max_rows=max_rows), prompts, **options)


def logprob_gap(model: Any, trajectories: list[Trajectory], temperature: float = 1.0) -> float:
    """Largest difference between recorded log-probabilities and one teacher-forced pass of the model, cache-free."""
    gap = 0.0
    for record in trajectories:
        ids = torch.tensor([record.prompt_ids + record.completion_ids])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
        scores = (logits / temperature).log_softmax(dim=-1)
        first = len(record.prompt_ids) - 1
        for place, (token, logprob) in enumerate(zip(record.completion_ids, record.logprobs, strict=True)):
            if logprob is not None:
                gap = max(gap, abs(scores[first + place, token].item() - logprob))
    return gap


# ---- invariants ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_probes_that_never_exit_change_nothing(model: Any, byte_bpe_tokenizer: Any, prompts: Any, preset: str) -> None:
    settings = rollout_settings(preset, exit_threshold=1.0, near_budget_margin=0)
    probed = run(model, byte_bpe_tokenizer, prompts, settings=settings)
    plain = run(model, byte_bpe_tokenizer, prompts, settings=settings, probed=[False] * len(prompts))
    assert sum(len(record.probes) for record in probed) > len(prompts)
    assert [record.completion_ids for record in probed] == [record.completion_ids for record in plain]
    assert logprob_gap(model, probed) < 1e-4


@pytest.mark.parametrize("settings", [None, OFFICIAL, PAPER])
def test_a_completion_does_not_depend_on_its_batch(
    model: Any, byte_bpe_tokenizer: Any, prompts: Any, settings: Any
) -> None:
    together = run(model, byte_bpe_tokenizer, prompts, settings=settings)
    for max_rows in (1, 3):
        apart = run(model, byte_bpe_tokenizer, prompts, settings=settings, max_rows=max_rows)
        assert [record.completion_ids for record in apart] == [record.completion_ids for record in together]
    alone = run(model, byte_bpe_tokenizer, prompts[3:4], settings=settings, keys=keys(7)[3:4])
    assert alone[0].completion_ids == together[3].completion_ids
    backwards = run(model, byte_bpe_tokenizer, prompts[::-1], settings=settings, keys=keys(7)[::-1])
    assert [record.completion_ids for record in backwards] == [record.completion_ids for record in together[::-1]]
    assert together[1].completion_ids != together[3].completion_ids  # the same prompt, another key


@pytest.mark.parametrize("settings", [OFFICIAL, PAPER])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7), Sampling(1.3, top_p=0.9, top_k=30)])
def test_recorded_logprobs_are_the_models(
    model: Any, byte_bpe_tokenizer: Any, prompts: Any, settings: Any, sampling: Sampling
) -> None:
    records = run(model, byte_bpe_tokenizer, prompts, settings=settings, sampling=sampling, max_rows=4)
    assert logprob_gap(model, records, sampling.temperature) < 1e-4


def test_dropout_is_off_during_a_rollout(byte_bpe_tokenizer: Any, prompts: Any) -> None:
    model = tiny_model(byte_bpe_tokenizer, attention_dropout=0.5)
    expected = run(model, byte_bpe_tokenizer, prompts)
    model.train()
    assert run(model, byte_bpe_tokenizer, prompts) == expected
    assert model.training and all(layer.self_attn.training for layer in model.model.layers)


@pytest.mark.parametrize("settings", [OFFICIAL, PAPER])
def test_no_probe_leaves_a_trace(model: Any, byte_bpe_tokenizer: Any, prompts: Any, settings: RolloutSettings) -> None:
    records = run(model, byte_bpe_tokenizer, prompts * 4, settings=settings, max_rows=5)
    probes = [probe for record in records for probe in record.probes]
    assert {probe.accepted for probe in probes} == {True, False}, "both ways out of a probe must occur"
    assert {"early", "natural"} <= {record.close for record in records}
    for record in records:
        assert record.text == byte_bpe_tokenizer.decode(record.completion_ids, skip_special_tokens=False)
        kept = settings.keep_probe and any(probe.accepted for probe in record.probes)
        assert record.text.count(settings.probe_prompt) == (1 if kept else 0)
        if record.close in ("early", "budget") and not kept:
            assert record.text.count(settings.close_text.lstrip("\n")) >= 1
        for probe in record.probes:
            if not probe.accepted:
                before, marker, _ = byte_bpe_tokenizer.decode(record.completion_ids[probe.position :]).partition("Wait")
                assert marker == probe.marker and not any(map(str.isalnum, before)), "the marker was not put back"


def test_probe_confidence_is_the_models(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    # At temperature 1, whatever the thoughts are sampled at.
    records = run(model, byte_bpe_tokenizer, prompts, settings=OFFICIAL, sampling=Sampling(0.6))
    prompt = byte_bpe_tokenizer.encode(OFFICIAL.probe_prompt)
    record = next(record for record in records if record.probes)
    probe = record.probes[0]
    context = record.prompt_ids + record.completion_ids[: probe.position] + prompt
    for token, probability in zip(probe.token_ids, probe.probabilities, strict=True):
        with torch.no_grad():
            odds = model(input_ids=torch.tensor([context]), use_cache=False).logits[0, -1].softmax(dim=-1)
        assert odds.argmax().item() == token and odds[token].item() == pytest.approx(probability, abs=1e-5)
        context.append(token)


# ---- against transformers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_greedy_decoding_equals_generate(byte_bpe_tokenizer: Any, prompts: Any, attention: str) -> None:
    model = tiny_model(byte_bpe_tokenizer, attn_implementation=attention)
    for prompt, record in zip(prompts, run(model, byte_bpe_tokenizer, prompts, sampling=Sampling(0.0)), strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            max_new_tokens=LIMIT,
            do_sample=False,
            eos_token_id=byte_bpe_tokenizer.eos_token_id,
            pad_token_id=byte_bpe_tokenizer.pad_token_id,
        )
        assert record.completion_ids == expected[0, len(prompt) :].tolist()


def test_other_architectures(byte_bpe_tokenizer: Any, prompts: Any) -> None:
    torch.manual_seed(0)
    config = MistralConfig(vocab_size=len(byte_bpe_tokenizer), sliding_window=None, **SIZES)
    model = MistralForCausalLM(config).eval()
    records = run(model, byte_bpe_tokenizer, prompts, settings=NEVER)
    assert logprob_gap(model, records) < 1e-4


def test_lora(byte_bpe_tokenizer: Any, prompts: Any) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        tiny_model(byte_bpe_tokenizer), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    model.train()
    modes = [module.training for module in model.modules()]
    records = run(model, byte_bpe_tokenizer, prompts, settings=OFFICIAL, max_rows=3)
    assert [module.training for module in model.modules()] == modes
    assert logprob_gap(model.eval(), records) < 1e-4
    with model.disable_adapter():
        base = run(model, byte_bpe_tokenizer, prompts, settings=OFFICIAL, max_rows=3)
    assert [record.completion_ids for record in base] != [record.completion_ids for record in records]


def test_nf4(byte_bpe_tokenizer: Any, prompts: Any, tmp_path: Any) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    tiny_model(byte_bpe_tokenizer).save_pretrained(tmp_path)
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = TiltedQwen3.from_pretrained(tmp_path, quantization_config=nf4, dtype=torch.float32).eval()
    assert type(model.model.layers[0].self_attn.q_proj).__name__ == "Linear4bit"
    records = run(model, byte_bpe_tokenizer, prompts, settings=OFFICIAL, max_rows=3)
    assert any(record.probes for record in records)
    assert logprob_gap(model, records) < 1e-3


def test_bf16(byte_bpe_tokenizer: Any, prompts: Any) -> None:
    model = tiny_model(byte_bpe_tokenizer).to(torch.bfloat16)
    records = run(model, byte_bpe_tokenizer, prompts, settings=OFFICIAL, max_rows=3)
    assert any(record.probes for record in records)
    assert logprob_gap(model, records) < 0.5


def test_autocast_stores_half_precision_keys(
    model: Any, byte_bpe_tokenizer: Any, prompts: Any, monkeypatch: Any
) -> None:
    from stepgrpo_lab.engines import _feeding

    caches = []

    class Spy(LockstepCache):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            caches.append(self)

    monkeypatch.setattr(_feeding, "LockstepCache", Spy)
    with torch.autocast("cpu", torch.bfloat16):
        records = run(model, byte_bpe_tokenizer, prompts, settings=OFFICIAL, max_rows=3)
    assert {layer.keys.dtype for layer in caches[0].layers} == {torch.bfloat16}
    assert logprob_gap(model, records) < 0.5


def test_long_completions_grow_the_cache(byte_bpe_tokenizer: Any, prompts: Any) -> None:
    muted = tiny_model(byte_bpe_tokenizer)
    muted.tilt[:, byte_bpe_tokenizer.eos_token_id] = -100.0
    records = run(muted, byte_bpe_tokenizer, prompts[:3], limit=300, settings=NEVER)
    assert [record.tokens for record in records] == [300] * 3 and logprob_gap(muted, records) < 1e-4


# ---- bookkeeping -----------------------------------------------------------------------------------------------------


def test_costs_order_and_callback(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    finished: dict[int, Trajectory] = {}
    engine = LockstepEngine(model, byte_bpe_tokenizer, max_rows=3)
    records, cost = engine.generate(prompts, Decoding(LIMIT, OFFICIAL), keys=keys(7), on_finish=finished.__setitem__)
    assert [record.prompt_ids for record in records] == prompts
    assert [finished[index] for index in range(7)] == records and list(finished) != list(range(7))
    assert cost.prompt_tokens == sum(map(len, prompts))
    assert cost.kept_tokens == sum(record.tokens for record in records)
    assert cost.decoded_tokens == sum(record.cost.decoded_tokens for record in records)
    longest = max(record.cost.decoded_tokens for record in records)
    assert longest <= cost.forward_passes <= cost.decoded_tokens + len(prompts)


def test_a_single_row_needs_one_pass_a_token(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    engine = LockstepEngine(model, byte_bpe_tokenizer)
    [record], cost = engine.generate(prompts[1:2], Decoding(LIMIT, NEVER), keys=keys(1))
    assert record.finish == "length" or cost.forward_passes == record.cost.decoded_tokens + 1


def test_no_prompts_no_work(model: Any, byte_bpe_tokenizer: Any) -> None:
    records, cost = LockstepEngine(model, byte_bpe_tokenizer).generate([], Decoding(4), keys=[])
    assert records == [] and cost.forward_passes == 0


def test_limits_of_their_own_come_before_the_calls(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    limits = [3, 5, 9, 4, 7, 6, 8]
    short = run(model, byte_bpe_tokenizer, prompts, limits=limits)
    whole = run(model, byte_bpe_tokenizer, prompts)
    for limit, record, full in zip(limits, short, whole, strict=True):
        assert record.completion_ids == full.completion_ids[:limit]


def test_a_mixed_group_probes_only_its_members(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    flags = [False, True] * 3 + [False]
    mixed = run(model, byte_bpe_tokenizer, prompts, settings=OFFICIAL, probed=flags)
    assert [record.probed for record in mixed] == flags
    assert not any(record.probes for record in mixed if not record.probed)
    everyone = run(model, byte_bpe_tokenizer, prompts, settings=OFFICIAL)
    assert [record.completion_ids for record in mixed[1::2]] == [record.completion_ids for record in everyone[1::2]]


# ---- choosing --------------------------------------------------------------------------------------------------------


def test_drawing_follows_the_distribution_and_its_filters() -> None:
    odds = torch.tensor([0.1, 0.4, 0.05, 0.25, 0.2])
    logits = odds.log().expand(1000, 5)
    numbers = [(place + 0.5) / 1000 for place in range(1000)]
    tokens, logprobs = choose_sampled(logits, numbers, Sampling())
    assert [tokens.count(token) for token in range(5)] == [100, 400, 50, 250, 200]
    assert tokens == sorted(tokens)  # the inverse of the cumulative distribution, in vocabulary order
    assert logprobs[0] == pytest.approx(math.log(0.1))
    top_k, logprobs = choose_sampled(logits, numbers, Sampling(top_k=2))
    assert set(top_k) == {1, 3} and top_k.count(1) == round(1000 * 0.4 / 0.65)
    assert logprobs[0] == pytest.approx(math.log(0.4))  # before top-k
    assert set(choose_sampled(logits, numbers, Sampling(top_p=0.66))[0]) == {1, 3, 4}
    assert set(choose_sampled(logits, numbers, Sampling(top_p=0.6))[0]) == {1, 3}
    assert set(choose_sampled(logits, numbers, Sampling(top_p=0.01))[0]) == {1}
    assert set(choose_sampled(logits, numbers, Sampling(top_k=3, top_p=0.7))[0]) == {1, 3}
    cold, logprobs = choose_sampled(logits, numbers, Sampling(temperature=0.5))
    squared = (odds**2 / (odds**2).sum()).tolist()
    assert [cold.count(token) for token in range(5)] == pytest.approx([1000 * share for share in squared], abs=1)
    assert choose_sampled(logits[:1], [0.3], Sampling(temperature=0.0)) == choose_likeliest(logits[:1])
    assert choose_likeliest(logits[:1]) == ([1], [pytest.approx(math.log(0.4))])


def test_impossible_tokens_are_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, 0.0, -math.inf]])
    below_one = 1.0 - 2.0**-53
    assert choose_sampled(logits, [0.0], Sampling())[0] == [1]
    assert choose_sampled(logits, [below_one], Sampling())[0] == [3]


def test_a_large_vocabulary_is_drawn_from_exactly() -> None:
    # Just above the border between two tokens, where single precision would often fall below it.
    size = 50_000
    tokens = list(range(size - 2000, size, 97))
    logits = torch.zeros(len(tokens), size)
    assert choose_sampled(logits, [(token + 1e-3) / size for token in tokens], Sampling())[0] == tokens


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_bad_calls_are_refused(model: Any, byte_bpe_tokenizer: Any) -> None:
    engine = LockstepEngine(model, byte_bpe_tokenizer)
    with pytest.raises(ValueError, match="Prompt 1 is empty"):
        engine.generate([[1], []], Decoding(4), keys=keys(2))
    with pytest.raises(ValueError, match="limit is 0"):
        engine.generate([[1]], Decoding(0), keys=keys(1))
    with pytest.raises(ValueError, match="1 prompts, 2 keys"):
        engine.generate([[1]], Decoding(4), keys=keys(2))
    with pytest.raises(ValueError, match="2 limits"):
        engine.generate([[1]], Decoding(4), keys=keys(1), limits=[4, 4])
    with pytest.raises(ValueError, match=r"601 positions.*512"):
        engine.generate([[1]], Decoding(600), keys=keys(1))
    with pytest.raises(ValueError, match="max_rows"):
        LockstepEngine(model, byte_bpe_tokenizer, max_rows=0)


def test_models_that_cannot_be_rewound_are_refused(byte_bpe_tokenizer: Any) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    mamba = MambaForCausalLM(MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=1))
    with pytest.raises(ValueError, match="which cannot be rewound"):
        LockstepEngine(mamba, byte_bpe_tokenizer)
    flex = tiny_model(byte_bpe_tokenizer)
    flex.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match="sdpa"):
        LockstepEngine(flex, byte_bpe_tokenizer)


def test_prompt_learning_is_refused(byte_bpe_tokenizer: Any) -> None:
    from peft import PrefixTuningConfig, get_peft_model

    adapter = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    prefixed = get_peft_model(tiny_model(byte_bpe_tokenizer), adapter)
    with pytest.raises(ValueError, match="LoRA"):
        LockstepEngine(prefixed, byte_bpe_tokenizer)


def test_nan_logits_are_reported(byte_bpe_tokenizer: Any, prompts: Any) -> None:
    model = tiny_model(byte_bpe_tokenizer)
    model.train()
    model.tilt[:] = math.nan
    with pytest.raises(FloatingPointError, match="prompt 0 at position 0"):
        run(model, byte_bpe_tokenizer, prompts)
    assert model.training and all(module.training for module in model.modules())
