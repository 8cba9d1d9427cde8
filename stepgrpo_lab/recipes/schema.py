"""The schema of a recipe: one data class for each section, every key with its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal

from stepgrpo_lab.engines import Engine
from stepgrpo_lab.method.settings import PRESETS, RolloutSettings


@contextmanager
def naming_key(section: type, where: str) -> Iterator[None]:
    """Turn the error of a class that checks its own values into one that names the recipe's key, or its section.

    Example:
        >>> with naming_key(Rollout, "rollout"):
        ...     raise ValueError("probe_rate is 2: give a number from 0 to 1.")
        Traceback (most recent call last):
        ValueError: rollout.probe_rate is 2: give a number from 0 to 1.
    """
    try:
        yield
    except ValueError as error:
        names_key = str(error).split(maxsplit=1)[0].rstrip(":") in {item.name for item in fields(section)}
        raise ValueError(f"{where}{'.' if names_key else ': '}{error}") from error


class RecipeError(ValueError):
    """A recipe that cannot be.

    Attributes:
        mistakes: One line each, with the key, its value and the remedy.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True)
class Within:
    """The range of a number, or of each number in a list; both ends included.

    Example:
        >>> 3 in Within(1, 4), float("nan") in Within(0, 1), str(Within(0, 1))
        (True, False, 'at least 0 and at most 1')
    """

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"at least {self.low} and at most {self.high}"


Number = Annotated[int, Within(1, 10**9)]
"""A number of steps, tokens or problems."""

NumberOrZero = Annotated[int, Within(0, 10**9)]

Rows = Annotated[int, Within(1, 1_000_000)]
"""How many completions are in memory together."""

Share = Annotated[float, Within(0, 1)]

Seconds = Annotated[float, Within(0.01, 1_000_000)]

Seed = Annotated[int, Within(0, 2**32 - 1)]


@dataclass(frozen=True)
class Lora:
    """Train a low-rank adapter instead of the whole model.

    Attributes:
        r, alpha, dropout: Rank, scale (the update is multiplied by alpha / r) and dropout.
        targets: "all-linear", or names of the layers; never the LM head, which would not be trained.
    """

    r: Annotated[int, Within(1, 4096)] = 16
    alpha: Annotated[int, Within(1, 1_000_000)] = 32
    dropout: Share = 0.0
    targets: str | list[str] = "all-linear"


@dataclass(frozen=True)
class Model:
    """The policy.

    Attributes:
        path: "overthinker", a local folder or a Hugging Face id.
        dtype: Precision the weights are loaded in; auto is the 16-bit type that the GPU computes natively (bf16 from
            compute capability 8 on, fp16 on a T4), and fp32 on a CPU. Weights that train themselves need float32.
        quantization: nf4 for 4-bit linear layers (then with lora), or null.
        lora: The adapter to train; null trains every weight.
        pad_token: The token to pad with in training, where the tokenizer has none apart from its end of sequence.
        self_test: What becomes of a model that the lockstep engine's self-test finds wrong: refuse, or warn and use it.
    """

    path: str = "overthinker"
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    quantization: Literal["nf4"] | None = None
    lora: Lora | None = None
    pad_token: str | None = None
    self_test: Literal["refuse", "warn"] = "refuse"


@dataclass(frozen=True)
class Counts:
    """How many problems of each source are used; null takes all (a generated source needs a number)."""

    train: Number | None = 2000
    validation: Number | None = 200
    test: Number | None = 1000


@dataclass(frozen=True)
class PassRates:
    """Train only on problems that the untrained model solves sometimes: the others have no advantage to learn from.

    Attributes:
        file: Where ``stepgrpo rate`` writes the measured rates and training reads them.
        samples: Completions of each problem.
        least, most: The rates that are kept, both included.
    """

    file: str = "pass-rates.jsonl"
    samples: Annotated[int, Within(1, 10_000)] = 8
    least: Share = 0.1
    most: Share = 0.9


@dataclass(frozen=True)
class Data:
    """The problems.

    Attributes:
        train, validation, test: "overthinker:train" (or :validation, :test), the path of a .jsonl file, or a known
            Hugging Face id or its short name, with a split of its own behind a colon ("gsm8k:train").
        counts: How many of each.
        suffix: Appended to every question as it is.
        pass_rates: Which of the training problems are kept, by how often the untrained model solves them; null is all.
    """

    train: str = "overthinker:train"
    validation: str = "overthinker:validation"
    test: str = "overthinker:test"
    counts: Counts = field(default_factory=Counts)
    suffix: str = ""
    pass_rates: PassRates | None = None


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

    memory: Annotated[float, Within(0.01, 1)] = 0.45
    context: Annotated[int, Within(16, 10**9)] | None = None
    url: str = "http://127.0.0.1:8000"
    timeout: Annotated[float, Within(1, 1_000_000)] = 600.0
    folder: str | None = None


@dataclass(frozen=True)
class Rollout(RolloutSettings):
    """How completions are sampled in training: the settings of the truncated rollout, and what else shapes sampling.

    A key of :class:`~stepgrpo_lab.method.settings.RolloutSettings` that a file leaves out, or sets to null, has the
    preset's value.

    Attributes:
        preset: official (public code) or paper.
        engine: Who samples, in training and its evaluations: lockstep (the trained model itself), vllm (a second copy
            of it in this process) or vllm-server (a vLLM server). vLLM's copies get the new weights after every step.
        vllm: The vLLM engine's settings.
        dynamic: Use the dynamic truncated rollout; false samples plainly (ablation).
        force_close: Also close by force the thoughts of a model that is no reasoning model and knows no ``</think>``.
        serial: Instead of it, answer one chain at several exits (S-GRPO; with reward.function serial_group).
        max_tokens: Completion limit.
        round_limits: Published completion limits of equal rounds of training (ThinkPrune: [4000, 3000, 2000]), brought
            to our lengths by reward.length_scale; null keeps one limit.
        temperature: Of sampling; nothing else shapes the distribution, or log-probabilities would not fit it.
        train_forced_close: Forced closes train, as published; false masks them (ablation).
        rows: Completions decoded at once.
        segmenter: What a semantic step is: "module:name" of your own, or null for the markers. ":name" notes one that
            was passed in Python.
    """

    preset: Literal["official", "paper"]
    engine: Engine = "lockstep"
    vllm: VLLM = field(default_factory=VLLM)
    dynamic: bool = True
    force_close: bool = False
    serial: bool = False
    max_tokens: Annotated[int, Within(8, 10**9)] = 256
    round_limits: list[Number] | None = None
    temperature: Annotated[float, Within(0.01, 10)] = 1.0
    train_forced_close: bool = True
    rows: Rows = 64
    segmenter: str | None = None

    @property
    def settings(self) -> RolloutSettings:
        """The settings of the truncated rollout, whether the training uses one or not."""
        return RolloutSettings(**{name: getattr(self, name) for name in PRESET_KEYS})


PRESET_KEYS = tuple(item.name for item in fields(RolloutSettings))
"""Keys of the rollout section that a preset sets."""


def with_preset(rollout: Mapping[str, Any]) -> dict[str, Any]:
    """A rollout section with its preset's value for each key that it leaves out or sets to null.

    Example:
        >>> with_preset({"preset": "paper", "exit_threshold": 0.9, "max_probes": None})["max_probes"]
        10
    """
    preset = PRESETS.get(str(rollout.get("preset")), PRESETS["official"])
    given = {key: value for key, value in rollout.items() if value is not None or key not in PRESET_KEYS}
    return {**{name: getattr(preset, name) for name in PRESET_KEYS}, **given}


REWARD_FUNCTIONS = (
    "step_aware",
    "correctness",
    "length_penalty",
    "kimi",
    "soft_overlong",
    "l1_exact",
    "l1_max",
    "grpo_lambda",
    "shorter_better",
    "serial_group",
    "imitation",
    "gfpo",
)


@dataclass(frozen=True)
class Reward:
    """What a completion earns: ``step_alpha`` times the function's value, and the rest for its format.

    Constants in tokens are the published ones. ``length_scale``, the mean length of the untrained model over that of
    the source's, brings them to the lengths of this run; the prices of a token are divided by it.

    Attributes:
        function: step_aware (Eq. 4 and 5), correctness (plain GRPO; the ablation without step reward), a baseline of
            :mod:`stepgrpo_lab.method.baselines`, or a reward of your own: "module:name" of a function of one group, or
            of a class without arguments. Its rewards are taken as they are; the keys below, but for grading_timeout,
            are not used. ":name" notes one that was passed in Python.
        step_alpha: Weight of the function against format.
        step_beta: Strength of the step term (step_aware).
        mean_over: Mean number of steps over the correct members, or over all (step_aware; ablation).
        penalize_wrong: Wrong answers get a length signal too (step_aware; ablation).
        strength: What the length is worth; null is the published value. length_penalty, grpo_lambda: the most that a
            right answer can lose (0.2). kimi: weight of the length reward (0.4). l1_exact, l1_max (0.0003),
            shorter_better (0.001): price of a token.
        target_tokens: The length that l1_exact and l1_max ask for.
        overlong_limit, overlong_cache: Length of the full punishment, and the width of the slope before it
            (soft_overlong).
        penalized_share: Share of the groups that get a length penalty (grpo_lambda).
        length_scale: Our lengths over the published ones.
        grading_timeout: Seconds of CPU time after which an answer counts as wrong.
    """

    function: str = "step_aware"
    step_alpha: Share = 0.9
    step_beta: Share = 0.5
    mean_over: Literal["correct", "all"] = "correct"
    penalize_wrong: bool = False
    strength: Share | None = None
    target_tokens: Number = 2000
    overlong_limit: Number = 20480
    overlong_cache: Number = 4096
    penalized_share: Share = 0.2
    length_scale: Annotated[float, Within(1e-6, 10**9)] = 1.0
    grading_timeout: Seconds = 5.0


@dataclass(frozen=True)
class Optimisation:
    """How the weights move.

    Attributes:
        learning_rate: Peak learning rate.
        prompts_per_step: Prompts of one optimiser step.
        group_size: Completions of each prompt (G).
        max_steps: Optimiser steps.
        token_budget: Stop after the step whose rollout brings the tokens decoded in training, probes included, to this
            number; null: only max_steps counts.
        stop_without_signal: Stop after so many steps if no group of any of them could be learned from; null goes on.
        steps_per_rollout: Optimiser steps that one rollout serves (4 in the public script, 1 is on-policy).
        rows_per_pass: Completions of one forward and backward pass on one device; memory against speed.
        loss_type: TRL's name of the loss.
        mask_truncated_completions: Overlong filtering (DAPO, arXiv 2503.14476): completions that were cut off count in
            their group's rewards, but not in the loss.
        scale_rewards: Divide advantages by the std of the group, of the batch, or not at all.
        kl_beta: Weight of the KL term.
        epsilon, epsilon_high: Clip range; epsilon_high null is epsilon.
        optimizer: A transformers optimiser name.
        weight_decay, max_grad_norm: As in AdamW and gradient clipping.
        schedule: A transformers scheduler name.
        warmup_steps: Steps of linear warm-up.
        mixed_precision: auto (what the GPU computes natively), bf16, fp16, or no.
        gradient_checkpointing: Recompute activations to save memory.
        save_every: Steps between checkpoints; null saves at a quarter, half, three quarters and the end.
    """

    learning_rate: Share = 1e-6
    prompts_per_step: Rows = 16
    group_size: Annotated[int, Within(2, 10_000)] = 8
    max_steps: Number = 100
    token_budget: Annotated[int, Within(1, 10**15)] | None = None
    stop_without_signal: Number | None = 20
    steps_per_rollout: Number = 1
    rows_per_pass: Rows = 32
    loss_type: str = "dapo"
    mask_truncated_completions: bool = False
    scale_rewards: Literal["group", "batch", "none"] = "group"
    kl_beta: Annotated[float, Within(0, 10**9)] = 0.0
    epsilon: Share = 0.2
    epsilon_high: Annotated[float, Within(0, 1000)] | None = None
    optimizer: str = "adamw_torch"
    weight_decay: Annotated[float, Within(0, 10)] = 0.0
    max_grad_norm: Annotated[float, Within(0, 10**9)] = 1.0
    schedule: str = "constant"
    warmup_steps: NumberOrZero = 0
    mixed_precision: Literal["auto", "bf16", "fp16", "no"] = "auto"
    gradient_checkpointing: bool = False
    save_every: Number | None = None


@dataclass(frozen=True)
class Checkpoint:
    """How a checkpoint proves that it is whole; optimisation.save_every says how often one is written.

    Attributes:
        verify: full notes the SHA-256 of every file and holds them against it when a run is resumed, sizes only their
            lengths. Files are on the disk before a checkpoint counts, with either.
    """

    verify: Literal["full", "sizes"] = "full"


@dataclass(frozen=True)
class EvaluationSection:
    """Plain decoding, for validation during training and the test before and after it.

    Attributes:
        every: Steps between two validations.
        samples: Completions of each test problem; validation uses one.
        temperature, top_p, top_k: Decoding.
        texts: How many test completions are kept with their text.
        rows: Completions decoded at once; null is rollout.rows. Before training no weight is sharded yet.
    """

    every: Number = 10
    samples: Annotated[int, Within(1, 10_000)] = 1
    temperature: Annotated[float, Within(0, 10)] = 0.6
    top_p: Annotated[float, Within(0.01, 1)] = 0.95
    top_k: NumberOrZero = 20
    texts: NumberOrZero = 12
    rows: Rows | None = None


@dataclass(frozen=True)
class Hardware:
    """The machine that the recipe was written for; ``stepgrpo plan`` and the launch line start from it.

    Attributes:
        gpu: T4, L4, A100, H100 or H200; null is the CPU.
        gpus: How many.
        sharding: Spread weights, gradients and optimiser states over them by FSDP2 or DeepSpeed's ZeRO-3, or keep a
            whole copy on each.
    """

    gpu: Literal["T4", "L4", "A100", "H100", "H200"] | None = None
    gpus: Annotated[int, Within(1, 100_000)] = 1
    sharding: Literal["none", "fsdp2", "zero3"] = "none"


@dataclass(frozen=True)
class Recipe:
    """A whole run.

    Attributes:
        name: For people, and the run folder's: letters, digits, ``.``, ``_`` and ``-``, and no dot in front.
        description: For people.
        method: grpo (reinforcement learning), or sft: sample every training problem group_size times, keep the shortest
            right completion of each and imitate it, prompts_per_step at a time (DEER + SFT). The token budget then ends
            the sampling, and the reward section is not used.
        seed: Decides data order, sampling and evaluation.
        report_to: Trackers that receive the metrics beside the run folder's file, by their transformers names.
    """

    name: str = "recipe"
    description: str = ""
    method: Literal["grpo", "sft"] = "grpo"
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    rollout: Rollout = field(default_factory=lambda: Rollout(**with_preset({})))
    reward: Reward = field(default_factory=Reward)
    optimisation: Optimisation = field(default_factory=Optimisation)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    evaluation: EvaluationSection = field(default_factory=EvaluationSection)
    hardware: Hardware = field(default_factory=Hardware)
    seed: Seed = 0
    report_to: str | list[str] = "none"
