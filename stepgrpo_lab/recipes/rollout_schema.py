"""The schema of a recipe's rollout section, every key with its meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from stepgrpo_lab.engines import Engine


@dataclass(frozen=True)
class VLLM:
    """The vLLM engine, where ``rollout.engine`` asks for one. It samples on one GPU: tensor parallelism is not offered.

    Attributes:
        memory: Share of the GPU that an engine in this process may take; it sleeps during updates (vllm).
        context: Longest prompt and completion together, in tokens; null is what the model has (vllm).
        url: Where the server listens (vllm-server).
        timeout: Seconds after which a request counts as lost (vllm-server).
        folder: Where new weights are handed over after an optimiser step: the server must see it under the same path.
            Null makes one among the system's temporary folders; one in memory, such as /dev/shm, is faster.
    """

    memory: float = 0.45
    context: int | None = None
    url: str = "http://127.0.0.1:8000"
    timeout: float = 600.0
    folder: str | None = None


@dataclass(frozen=True)
class Rollout:
    """How completions are sampled in training. What is null is the preset's value.

    Attributes:
        engine: Who samples, in training and its evaluations: lockstep (the trained model itself), vllm (a second copy
            of it in this process) or vllm-server (a vLLM server). vLLM's copies get the new weights after every step.
        vllm: The vLLM engine's settings.
        dynamic: Use the dynamic truncated rollout; false samples plainly (ablation).
        serial: Instead of it, answer one chain at several exits (S-GRPO; with reward.function serial_group).
        preset: official (public code) or paper.
        max_tokens: Completion limit.
        round_limits: Published completion limits of equal rounds of training (ThinkPrune: [4000, 3000, 2000]), brought
            to our lengths by reward.length_scale; null keeps one limit.
        temperature: Of sampling; nothing else shapes the distribution, or log-probabilities would not fit it.
        probe_rate: Share of each group's members that are probed; 1 as published.
        exit_threshold: Confidence above which the thoughts are closed.
        markers: official, paper, or a list of words that start a step.
        confidence_rule: geometric, arithmetic, minimum or joint.
        think_budget, near_budget_margin: A share of the limit (0.9) or tokens (230).
        max_probes: Declined probes before thinking runs on without probes.
        probe_max_tokens: Longest trial answer.
        train_forced_close: Forced closes train, as published; false masks them (ablation).
        rows: Completions decoded at once.
    """

    engine: Engine = "lockstep"
    vllm: VLLM = field(default_factory=VLLM)
    dynamic: bool = True
    serial: bool = False
    preset: Literal["official", "paper"] = "official"
    max_tokens: int = 256
    round_limits: list[int] | None = None
    temperature: float = 1.0
    probe_rate: float = 1.0
    exit_threshold: float | None = None
    markers: str | list[str] | None = None
    confidence_rule: Literal["geometric", "arithmetic", "minimum", "joint"] | None = None
    think_budget: int | float | None = None
    near_budget_margin: int | float | None = None
    max_probes: int | None = None
    probe_max_tokens: int | None = None
    train_forced_close: bool = True
    rows: int = 64
