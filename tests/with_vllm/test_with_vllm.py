"""The vLLM engines on the Overthinker, with vLLM itself: in fp32 they write what the lockstep engine writes.

``tests/with_vllm/run`` sets vLLM up and runs this; without vLLM it is skipped.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: tests/with_vllm/run sets it up")

from test_lockstep import logprob_gap
from test_vllm_engine import assert_same

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.vllm_engine import VLLMEngine
from stepgrpo_lab.engines.vllm_server import VLLMServerEngine
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import rollout_settings
from stepgrpo_lab.method.sampling import SampleKey, Sampling

GREEDY, LIMIT = Sampling(temperature=0.0), 256
PAPER = rollout_settings("paper", exit_threshold=0.99)
SETTINGS = {
    "plain": None,
    "official": rollout_settings("official", exit_threshold=0.99),
    "paper": PAPER,
    "never exits": rollout_settings("official", exit_threshold=1.0, near_budget_margin=0),
    "closed by budget": rollout_settings("paper", exit_threshold=1.0, near_budget_margin=0, think_budget=60),
}


def keys(prompts: list[list[int]]) -> list[SampleKey]:
    return [SampleKey(0, "train", 0, sample) for sample in range(len(prompts))]


def complete(engine: Any, prompts: list[list[int]], **options: Any) -> list[Trajectory]:
    return engine.generate(prompts, Decoding(LIMIT, **options), keys=keys(prompts))[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_colocated_greedy_equals_lockstep(engine: VLLMEngine, policy: Any, prompts: Any, name: str) -> None:
    expected = complete(LockstepEngine(*policy), prompts, settings=SETTINGS[name], sampling=GREEDY)
    assert_same(complete(engine, prompts, settings=SETTINGS[name], sampling=GREEDY), expected)
    closes = {record.close for record in expected}
    assert {"official": "early", "paper": "early", "closed by budget": "budget"}.get(name, "natural") in closes


def test_colocated_lora_equals_lockstep(engine: VLLMEngine, policy: Any, adapted: Any, prompts: Any) -> None:
    base, expected = (
        complete(LockstepEngine(model, policy[1]), prompts, settings=PAPER, sampling=GREEDY)
        for model in (policy[0], adapted[0])
    )
    changed = sum(record.completion_ids != other.completion_ids for record, other in zip(base, expected, strict=True))
    assert changed > len(prompts) // 2 and any(record.probes for record in expected)
    engine.use_adapter(adapted[1])
    try:
        assert_same(complete(engine, prompts, settings=PAPER, sampling=GREEDY), expected)
    finally:
        engine.use_adapter(None)
    assert_same(complete(engine, prompts, settings=PAPER, sampling=GREEDY), base)


def test_server_equals_lockstep(server: str, policy: Any, adapted: Any, prompts: Any) -> None:
    for name, model in (("base", policy[0]), ("adapter", adapted[0])):
        expected = complete(LockstepEngine(model, policy[1]), prompts, settings=PAPER, sampling=GREEDY)
        served = VLLMServerEngine(policy[1], url=server, model=name, max_rows=8)
        assert_same(complete(served, prompts, settings=PAPER, sampling=GREEDY), expected)


def test_sampled_completions_depend_on_their_keys(engine: VLLMEngine, server: str, policy: Any, prompts: Any) -> None:
    records = complete(engine, prompts, settings=PAPER)
    assert logprob_gap(policy[0], records) < 1e-3
    assert any(any(record.forced) for record in records)
    alone = engine.generate(prompts[5:6], Decoding(LIMIT, PAPER), keys=keys(prompts)[5:6])[0]
    assert_same(alone, records[5:6])
    served = VLLMServerEngine(policy[1], url=server, model="base", max_rows=5)
    assert_same(complete(served, prompts, settings=PAPER), records)
    assert logprob_gap(policy[0], complete(engine, prompts, sampling=Sampling(0.6)), 0.6) < 1e-3
