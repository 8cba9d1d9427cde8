"""The vLLM engines against a fake vLLM: they must be the lockstep engine to everyone who does not look at the clock."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from fake_vllm import FakeEngine, fake_server, installed, save_marker_file
from test_lockstep import LIMIT, NEVER, OFFICIAL, PAPER, SIZES, TiltedQwen3, complete, keys, logprob_gap
from test_lockstep import tiny_model as tilted_model
from transformers import Qwen3Config

from stepgrpo_lab.engines._vllm_requests import StopFinder
from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.serial import complete_serially
from stepgrpo_lab.engines.vllm_engine import VLLMEngine
from stepgrpo_lab.engines.vllm_server import VLLMServerEngine
from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.method.rollout import TrajectoryMachine, rollout_settings
from stepgrpo_lab.method.sampling import SampleKey, Sampling, request_seed
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText

GREEDY = Sampling(temperature=0.0)
SETTINGS = [None, OFFICIAL, PAPER, NEVER]


@pytest.fixture(autouse=True)
def fake_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with installed(monkeypatch):
        yield


@pytest.fixture(scope="module")
def model(byte_bpe_tokenizer: Any) -> Any:
    return tilted_model(byte_bpe_tokenizer)


@pytest.fixture(scope="module")
def prompts(byte_bpe_tokenizer: Any) -> list[list[int]]:
    return [byte_bpe_tokenizer.encode(text) for text in ("a", "What is 3 + 4?", "hello hello", "2", "Wait, what?")]


def assert_same(records: list[Trajectory], expected: list[Trajectory]) -> None:
    """Equal in everything; numbers of the model up to rounding."""
    for record, other in zip(records, expected, strict=True):
        assert record.completion_ids == other.completion_ids
        assert record.forced == other.forced
        assert [x for x in record.logprobs if x is not None] == pytest.approx(
            [x for x in other.logprobs if x is not None], abs=1e-4
        )
        assert [probe.token_ids for probe in record.probes] == [probe.token_ids for probe in other.probes]
        for probe, twin in zip(record.probes, other.probes, strict=True):
            assert probe.probabilities == pytest.approx(twin.probabilities, abs=1e-4)
            assert (probe.position, probe.step, probe.accepted) == (twin.position, twin.step, twin.accepted)
        for name in ("text", "steps", "close", "finish", "probed", "cost", "dropped"):
            assert getattr(record, name) == getattr(other, name), name


# ---- the same completions as the lockstep engine ---------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("vllm", [{}, {"tokens_a_step": 3}, {"late": True}])
def test_greedy_equals_lockstep(model: Any, byte_bpe_tokenizer: Any, prompts: Any, settings: Any, vllm: Any) -> None:
    expected = complete(LockstepEngine(model, byte_bpe_tokenizer), prompts, settings=settings, sampling=GREEDY)
    engine = VLLMEngine(FakeEngine({None: model}, **vllm), byte_bpe_tokenizer)
    assert_same(complete(engine, prompts, settings=settings, sampling=GREEDY), expected)
    if settings is not None:
        assert any(record.probes for record in expected), "nothing was probed"


@pytest.mark.parametrize("settings", SETTINGS)
def test_greedy_on_a_server_equals_lockstep(model: Any, byte_bpe_tokenizer: Any, prompts: Any, settings: Any) -> None:
    expected = complete(LockstepEngine(model, byte_bpe_tokenizer), prompts, settings=settings, sampling=GREEDY)
    with fake_server({"policy": model}) as (url, asked):
        engine = VLLMServerEngine(byte_bpe_tokenizer, url=url, max_rows=3)
        records, cost = engine.generate(prompts, Decoding(LIMIT, settings, GREEDY), keys=keys(len(prompts)))
    assert_same(records, expected)
    assert cost.decoded_tokens == sum(record.cost.decoded_tokens for record in expected)
    assert {body["temperature"] for body in asked} == {0.0} and {body["seed"] for body in asked} == {None}


def test_markers_over_several_tokens_are_found(bytes_tokenizer: Any) -> None:
    # One token a byte: no id opens a step by itself, and every turn is found by the machine's own scan.
    assert StopFinder(TokenText.from_tokenizer(bytes_tokenizer)).find(NEVER).markers == frozenset()
    model = TiltedQwen3(Qwen3Config(vocab_size=len(bytes_tokenizer), head_dim=16, **SIZES)).eval()
    loop = bytes_tokenizer.encode("Wait, ")
    for before, after in pairwise([*loop, loop[0]]):
        model.tilt[before, after] += 100
    options: dict[str, Any] = {"settings": NEVER, "sampling": GREEDY, "limit": 32}
    prompt = bytes_tokenizer.encode(" ")
    expected = complete(LockstepEngine(model, bytes_tokenizer), [prompt], **options)
    assert expected[0].text.startswith("Wait, Wait, Wait, ") and len(expected[0].probes) >= 3
    for tokens_a_step in (1, 4):
        engine = VLLMEngine(FakeEngine({None: model}, tokens_a_step=tokens_a_step), bytes_tokenizer)
        assert_same(complete(engine, [prompt], **options), expected)


def test_lora_is_sampled_with(model: Any, byte_bpe_tokenizer: Any, prompts: Any, tmp_path: Any) -> None:
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(
        tilted_model(byte_bpe_tokenizer), LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    ).eval()
    base, expected = (
        complete(LockstepEngine(policy, byte_bpe_tokenizer), prompts, settings=PAPER, sampling=GREEDY)
        for policy in (model, adapted)
    )
    assert [record.completion_ids for record in base] != [record.completion_ids for record in expected]
    folder = save_marker_file(tmp_path / "adapter")
    engine = VLLMEngine(FakeEngine({None: model, folder: adapted}), byte_bpe_tokenizer, adapter=folder)
    assert_same(complete(engine, prompts, settings=PAPER, sampling=GREEDY), expected)
    first = engine._adapter
    engine.use_adapter(folder)  # trained on meanwhile: a new name, so that nothing of the old weights is reused
    assert (engine._adapter.lora_name, engine._adapter.lora_int_id) != (first.lora_name, first.lora_int_id)
    engine.use_adapter(None)
    assert_same(complete(engine, prompts, settings=PAPER, sampling=GREEDY), base)
    with fake_server({"base": model, "adapter": adapted}) as (url, _):
        served = VLLMServerEngine(byte_bpe_tokenizer, url=url, model="adapter")
        assert_same(complete(served, prompts, settings=PAPER, sampling=GREEDY), expected)


def test_evaluation_takes_the_engine(model: Any, byte_bpe_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_bpe_tokenizer, "chat_template", "{{ messages[0]['content'] }}")
    problems = [Problem("sum", "3 + 4?", "7"), Problem("word", "a", "7")]
    engine = VLLMEngine(FakeEngine({None: model}), byte_bpe_tokenizer)
    ours, theirs = (
        evaluate(model, byte_bpe_tokenizer, problems, limit=32, sampling=GREEDY, keep_texts=2, engine=choice)
        for choice in (engine, None)
    )
    assert ours.texts == theirs.texts and ours.outcomes == theirs.outcomes


def test_serial_rollouts_take_the_engine(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    decoding = Decoding(LIMIT, PAPER, GREEDY)
    members = [
        complete_serially(engine, prompts, decoding, group_size=3, keys=keys(3 * len(prompts)))[0]
        for engine in (
            VLLMEngine(FakeEngine({None: model}), byte_bpe_tokenizer),
            LockstepEngine(model, byte_bpe_tokenizer),
        )
    ]
    assert_same(*members)


# ---- sampling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [None, OFFICIAL, PAPER])
def test_a_sampled_completion_depends_on_its_key_only(
    model: Any, byte_bpe_tokenizer: Any, prompts: Any, settings: Any
) -> None:
    def colocated(max_rows: int, **vllm: Any) -> VLLMEngine:
        return VLLMEngine(FakeEngine({None: model}, **vllm), byte_bpe_tokenizer, max_rows=max_rows)

    expected = complete(colocated(4), prompts, settings=settings)
    assert logprob_gap(model, expected) < 1e-4
    for engine in (colocated(1), colocated(3, tokens_a_step=2, late=True)):
        assert_same(complete(engine, prompts, settings=settings), expected)
    alone = complete(colocated(4), prompts[3:4], settings=settings, keys=keys(5)[3:4])
    assert_same(alone, expected[3:4])
    with fake_server({"policy": model}) as (url, _):
        served = VLLMServerEngine(byte_bpe_tokenizer, url=url)
        assert_same(complete(served, prompts, settings=settings), expected)
    others = complete(colocated(4), prompts, settings=settings, keys=[SampleKey(1, "test", 0, n) for n in range(5)])
    assert [record.completion_ids for record in others] != [record.completion_ids for record in expected]


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_recorded_logprobs_are_the_models(
    model: Any, byte_bpe_tokenizer: Any, prompts: Any, temperature: float
) -> None:
    engine = VLLMEngine(FakeEngine({None: model}), byte_bpe_tokenizer)
    records = complete(engine, prompts, settings=OFFICIAL, sampling=Sampling(temperature))
    assert logprob_gap(model, records, temperature) < 1e-4
    closed = [record for record in records if record.close in ("early", "budget", "near_budget")]
    assert closed and all(any(record.forced) for record in closed)


def test_no_two_requests_share_a_seed(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    fake = FakeEngine({None: model})
    complete(VLLMEngine(fake, byte_bpe_tokenizer), prompts, settings=NEVER)
    seeds = [request.options["seed"] for request in fake.asked if request.options["temperature"] > 0]
    assert len(seeds) > 2 * len(prompts) and len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert request_seed(keys(1)[0], 0) in seeds


# ---- requests --------------------------------------------------------------------------------------------------------


def test_id_stops_leave_little_to_throw_away(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    with fake_server({"policy": model}) as (url, asked):
        engine = VLLMServerEngine(byte_bpe_tokenizer, url=url)
        records = complete(engine, prompts, settings=OFFICIAL, sampling=GREEDY)
    stops = StopFinder(engine.token_text).find(OFFICIAL)
    words = {byte_bpe_tokenizer.decode([token]).strip() for token in stops.markers}
    assert {"Wait", ".Wait"} <= words and not {"Waiting", "ait"} & words
    for body in asked:
        assert engine.token_text.eos_ids <= set(body["stop_token_ids"])
        thinking = stops.markers <= set(body["stop_token_ids"])
        if thinking and body["prompt"][-1] in stops.markers and body["prompt"] not in prompts:
            assert body["max_tokens"] == 1  # the lookahead alone
    assert sum(len(record.probes) for record in records) > 0


def test_unprobed_members_are_not_stopped_at_markers(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    fake = FakeEngine({None: model})
    flags = [False] * len(prompts)
    records = complete(VLLMEngine(fake, byte_bpe_tokenizer), prompts, settings=NEVER, probed=flags, sampling=GREEDY)
    expected = complete(
        LockstepEngine(model, byte_bpe_tokenizer), prompts, settings=NEVER, probed=flags, sampling=GREEDY
    )
    assert_same(records, expected)
    assert all(set(request.options["stop_token_ids"]) == {byte_bpe_tokenizer.eos_token_id} for request in fake.asked)


def test_markers_are_looked_for_once(byte_bpe_tokenizer: Any) -> None:
    looked_at: list[int] = []

    class Spy(MarkerSegmenter):
        def may_open(self, piece: str) -> bool:
            looked_at.append(1)
            return super().may_open(piece)

    finder, spy = StopFinder(TokenText.from_tokenizer(byte_bpe_tokenizer)), Spy("paper")
    first = finder.find(PAPER, spy)
    count = len(looked_at)
    assert finder.find(PAPER, spy) == first and len(looked_at) == count > 0
    assert finder.find(OFFICIAL, MarkerSegmenter(["Hmm"])).markers != first.markers
    assert finder.find(PAPER).markers == first.markers


def test_room_is_what_the_machine_takes() -> None:
    toy = TokenText.from_pieces(["so ", "Wait ", "</think>", "7", *" \n*FinalAswer\\boxed{}"], eos_ids=[3])
    machine = TrajectoryMachine(
        toy, 12, rollout_settings("official", think_budget=5, probe_max_tokens=4, near_budget_margin=0)
    )
    assert machine.room == 5
    drive(machine, 0)
    assert machine.room == 4
    drive(machine, 1)  # "Wait " is certain at once
    assert machine.choice == "greedy" and machine.room == 4
    drive(machine, 0)
    assert machine.room == 3
    drive(machine, 2)  # closed, but not confident
    assert machine.choice == "sample" and machine.room == 3
    drive(machine, 2)
    assert machine.room == 12 - 3


def drive(machine: TrajectoryMachine, token: int) -> None:
    machine.observe(token, -1.0, 0.5)
    while not machine.done and machine.choice is None:
        machine.feed()


def test_costs_order_and_callback(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    finished: dict[int, Trajectory] = {}
    engine = VLLMEngine(FakeEngine({None: model}), byte_bpe_tokenizer, max_rows=2)
    records, cost = engine.generate(prompts, Decoding(LIMIT, OFFICIAL), keys=keys(5), on_finish=finished.__setitem__)
    assert [finished[index] for index in range(5)] == records and list(finished) != list(range(5))
    assert cost.decoded_tokens == sum(record.cost.decoded_tokens for record in records)
    assert cost.forward_passes >= max(record.tokens for record in records)
    assert engine.generate([], Decoding(4), keys=[])[0] == []


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_without_vllm_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, byte_bpe_tokenizer: Any) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"pip install vllm.*lockstep"):
        VLLMEngine(None, byte_bpe_tokenizer)
    with pytest.raises(ImportError, match="pip install vllm"):
        VLLMEngine.load("overthinker")


@pytest.mark.parametrize("name", ["tensor_parallel_size", "pipeline_parallel_size"])
def test_a_spread_model_is_refused(model: Any, byte_bpe_tokenizer: Any, name: str) -> None:
    fake = FakeEngine({None: model})
    setattr(fake.vllm_config.parallel_config, name, 2)
    with pytest.raises(ValueError, match=f"{name} is 2.*server"):
        VLLMEngine(fake, byte_bpe_tokenizer)


def test_bad_engines_and_calls_are_refused(model: Any, byte_bpe_tokenizer: Any, tmp_path: Any) -> None:
    fake = FakeEngine({None: model})
    with pytest.raises(ValueError, match="max_rows is 0"):
        VLLMEngine(fake, byte_bpe_tokenizer, max_rows=0)
    with pytest.raises(ValueError, match="enable_lora=True"):
        VLLMEngine(fake, byte_bpe_tokenizer, adapter=tmp_path)
    with pytest.raises(ValueError, match=r"no adapter_model\.safetensors"):
        VLLMEngine(FakeEngine({None: model, "x": model}), byte_bpe_tokenizer, adapter=tmp_path)
    engine = VLLMEngine(fake, byte_bpe_tokenizer)
    with pytest.raises(ValueError, match=r"601 positions.*512 \(max_model_len\)"):
        engine.generate([[1]], Decoding(600), keys=keys(1))
    with pytest.raises(ValueError, match="Prompt 0 is empty"):
        engine.generate([[]], Decoding(4), keys=keys(1))
    fake.vllm_config.model_config.logprobs_mode = "raw_logprobs"
    with pytest.raises(ValueError, match=r"raw_logprobs.*temperature 0\.6"):
        engine.generate([[1]], Decoding(4, sampling=Sampling(0.6)), keys=keys(1))
    engine.generate([[1]], Decoding(4), keys=keys(1))  # at temperature 1 they are the same
    fake.running["someone"] = None  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="other requests"):
        engine.generate([[1]], Decoding(4), keys=keys(1))


def test_an_error_leaves_no_request_behind(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    fake = FakeEngine({None: model})

    def fail(index: int, trajectory: Trajectory) -> None:
        raise KeyboardInterrupt

    engine = VLLMEngine(fake, byte_bpe_tokenizer)
    with pytest.raises(KeyboardInterrupt):
        complete(engine, prompts, settings=OFFICIAL, on_finish=fail)
    assert not fake.running
    assert len(complete(engine, prompts, settings=OFFICIAL)) == len(prompts)


def test_a_request_that_vllm_gives_up_is_an_error(
    model: Any, byte_bpe_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def advance(request: Any) -> tuple[int, float]:
        request.finish_reason = "error"
        return 5, -0.5

    monkeypatch.setattr("fake_vllm.Request.advance", advance)
    with pytest.raises(RuntimeError, match=r"ended a request.*error"):
        complete(VLLMEngine(FakeEngine({None: model}), byte_bpe_tokenizer), [[1]])


def test_logits_that_are_no_numbers_are_reported(byte_bpe_tokenizer: Any, prompts: Any) -> None:
    broken = tilted_model(byte_bpe_tokenizer)
    broken.tilt[:] = math.nan
    with pytest.raises(FloatingPointError, match="prompt 0 at position 0"):
        complete(VLLMEngine(FakeEngine({None: broken}), byte_bpe_tokenizer), prompts)


def test_servers_that_do_not_fit_are_refused(model: Any, byte_bpe_tokenizer: Any) -> None:
    with fake_server({"policy": model}) as (url, _):
        with pytest.raises(ValueError, match=r"'other'.*policy"):
            VLLMServerEngine(byte_bpe_tokenizer, url=url, model="other")
        engine = VLLMServerEngine(byte_bpe_tokenizer, url=url)
        with pytest.raises(ValueError, match=r"512 \(max_model_len\)"):
            complete(engine, [[1]], limit=600)
        with pytest.raises(RuntimeError, match=r"400.*too long"):
            complete(engine, [[1] * 505], limit=4)
    with pytest.raises(ConnectionError, match="vllm serve"):
        complete(engine, [[1]])
    with (
        fake_server({"policy": model}, token_ids=False) as (url, _),
        pytest.raises(RuntimeError, match=r"no token ids .*0\.10\.2"),
    ):
        complete(VLLMServerEngine(byte_bpe_tokenizer, url=url), [[1]])
