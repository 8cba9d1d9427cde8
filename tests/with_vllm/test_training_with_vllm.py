"""Training samples with vLLM itself: after a step, its engine and its server hold the new weights.

``tests/with_vllm/run`` sets vLLM up and runs this; without vLLM it is skipped.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed: tests/with_vllm/run sets it up")

from test_lockstep import logprob_gap
from tiny import tiny_overrides

from stepgrpo_lab.engines.vllm_server import VLLMServerEngine
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.run import job as run
from stepgrpo_lab.training import StepGRPOTrainer
from stepgrpo_lab.training._engine_weights import SyncedEngine, gathered_policy

Rollouts = list[tuple[float, list[Trajectory]]]


@pytest.fixture
def rollouts(monkeypatch: pytest.MonkeyPatch) -> Rollouts:
    """Of the training to come: what was sampled, and how far its log-probabilities are from the policy's of then."""
    found: Rollouts = []
    complete = StepGRPOTrainer.complete

    def watch(trainer: Any, prompts: list[Any]) -> dict[str, Any]:
        answer = complete(trainer, prompts)
        with gathered_policy(trainer) as policy:
            found.append((logprob_gap(policy, answer["step_trajectory"]), answer["step_trajectory"]))
        return answer

    monkeypatch.setattr(StepGRPOTrainer, "complete", watch)
    return found


def two_steps(folder: Path, model: str | Path, *overrides: str) -> list[dict[str, Any]]:
    """Train two steps with rollouts from vLLM; returns the lines of metrics."""
    common = tiny_overrides(Path("overthinker"), **{"optimisation.max_steps": 2, "rollout.max_tokens": 128})
    recipe = load_recipe("overthinker", [*common, f"model.path={model}", "optimisation.schedule=constant", *overrides])
    result = run.train(recipe, folder)
    assert result.finished and result.after is not None
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_follows(rollouts: Rollouts, metrics: list[dict[str, Any]], untrained: Any) -> None:
    (first_gap, first), (second_gap, second) = rollouts
    assert first_gap < 1e-3
    assert second_gap < 1e-3, "the second rollout is not the updated policy's"
    assert logprob_gap(untrained, second) > 1e-2, "the step changed too little to tell"
    assert any(any(row.forced) for row in first + second)
    ratios = [line for line in metrics if "sampling/importance_sampling_ratio/max" in line]
    assert len(ratios) == 2
    for line in ratios:
        assert line["sampling/importance_sampling_ratio/max"] == pytest.approx(1, abs=1e-3)
        assert line["sampling/importance_sampling_ratio/min"] == pytest.approx(1, abs=1e-3)


LORA = ("model.lora.r=4", "optimisation.learning_rate=1e-2")
COLOCATED = ("rollout.engine=vllm", "rollout.vllm.context=512")


@pytest.mark.parametrize("trained", [(), LORA], ids=["all weights", "adapter"])
def test_an_engine_in_this_process(rollouts: Rollouts, policy: Any, tmp_path: Path, trained: tuple[str, ...]) -> None:
    metrics = two_steps(tmp_path / "run", "overthinker", *COLOCATED, *trained)
    assert_follows(rollouts, metrics, policy[0])


@pytest.mark.parametrize("trained", [(), LORA], ids=["all weights", "adapter"])
def test_a_server(
    rollouts: Rollouts, server: str, untied: Path, policy: Any, tmp_path: Path, trained: tuple[str, ...]
) -> None:
    try:
        metrics = two_steps(
            tmp_path / "run", untied, "rollout.engine=vllm-server", f"rollout.vllm.url={server}", *trained
        )
    finally:
        untrained = copy.deepcopy(policy[0])
        untrained.lm_head.weight = copy.deepcopy(untrained.lm_head.weight)
        SyncedEngine(VLLMServerEngine(policy[1], url=server, model="base")).push(untrained)
    assert_follows(rollouts, metrics, policy[0])
