"""The settings of one training run: TRL's, with Step-GRPO's own beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from trl import GRPOConfig

from stepgrpo_lab.engines.models import native_dtype
from stepgrpo_lab.method.baselines import round_limit
from stepgrpo_lab.method.confidence import RULES
from stepgrpo_lab.method.rollout import PRESETS, RolloutSettings, rollout_settings
from stepgrpo_lab.method.steps import resolve_markers

_PRECISION_OF_DTYPE: dict[str, Literal["bf16", "fp16", "no"]] = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}


TRL_LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
"""Those that TRL 1.16 knows; it refuses others only in the middle of the first step."""


def native_precision() -> Literal["bf16", "fp16", "no"]:
    """Mixed precision that this machine's accelerator computes natively; "no" on a CPU."""
    return _PRECISION_OF_DTYPE[native_dtype()]


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class StepGRPOConfig(GRPOConfig):
    """TRL's ``GRPOConfig`` with the settings of Step-GRPO.

    TRL's ``beta`` stays the weight of the KL term and its ``delta`` a clip bound; Step-GRPO's alpha, beta and delta
    are called ``step_alpha``, ``step_beta`` and ``exit_threshold``. A rollout setting that is None is the preset's.

    Raises:
        ValueError: A setting is out of range, or another cannot work with the truncated rollout; the message names it.

    Example:
        >>> StepGRPOConfig(output_dir="runs/x", probe_rate=0.5, use_cpu=True).preset
        'official'
    """

    preset: str = field(default="official", metadata=_help("Values of the truncated rollout: official or paper."))
    dynamic_rollout: bool = field(
        default=True, metadata=_help("Use the dynamic truncated rollout; False samples plainly (ablation).")
    )
    serial_rollout: bool = field(
        default=False, metadata=_help("A group's members are the exits of one chain, in order (S-GRPO).")
    )
    round_limits: list[int] | None = field(
        default=None, metadata=_help("Completion limits of equal rounds (ThinkPrune), instead of one limit.")
    )
    exit_threshold: float | None = field(
        default=None, metadata=_help("Confidence above which the thoughts are closed.")
    )
    markers: list[str] | str | None = field(
        default=None, metadata=_help("Marker set (official, paper) or words that start a step.")
    )
    confidence_rule: str | None = field(
        default=None, metadata=_help("geometric, arithmetic, minimum or joint (Eq. 2).")
    )
    think_budget: float | None = field(
        default=None, metadata=_help("Share of the completion limit, or tokens, for thoughts.")
    )
    near_budget_margin: float | None = field(
        default=None, metadata=_help("Near the budget any probe exits: a share, or tokens.")
    )
    max_probes: int | None = field(default=None, metadata=_help("Declined probes a completion may have."))
    probe_max_tokens: int | None = field(default=None, metadata=_help("Longest trial answer, in tokens."))
    probe_rate: float = field(
        default=1.0, metadata=_help("Share of each group's members that may be probed; published method: 1.")
    )
    train_forced_close: bool = field(
        default=True, metadata=_help("Let forced closes train, as published; False masks them.")
    )
    rollout_rows: int = field(default=64, metadata=_help("Completions that the rollout engine decodes at once."))

    step_alpha: float = field(default=0.9, metadata=_help("Weight of correctness against format (Eq. 5)."))
    step_beta: float = field(default=0.5, metadata=_help("Strength of the step term (Eq. 4)."))
    step_reward: bool = field(default=True, metadata=_help("Use the step term; False is plain correctness (ablation)."))
    mean_over: Literal["correct", "all"] = field(
        default="correct", metadata=_help("Mean number of steps over the correct members or over all.")
    )
    penalize_wrong: bool = field(default=False, metadata=_help("Give wrong answers a length signal too (ablation)."))
    grading_timeout: float = field(default=5.0, metadata=_help("Seconds after which an answer counts as wrong."))

    # Stated, because the trainer's own defaults differ from the published script or from version to version.
    loss_type: str = field(
        default="dapo", metadata=_help("TRL's loss; dapo is the token mean of the published script.")
    )
    scale_rewards: str = field(
        default="group", metadata=_help("Divide advantages by the std of the group, the batch, or none.")
    )
    beta: float = field(default=0.0, metadata=_help("Weight of the KL term; 0 needs no reference model."))
    use_bias_correction_kl: bool = field(default=False, metadata=_help("Weight the KL term by the importance ratio."))
    vllm_importance_sampling_mode: str = field(
        default="token_truncate", metadata=_help("Sequence modes silence long completions.")
    )
    gradient_checkpointing: bool = field(default=False, metadata=_help("Recompute activations to save memory."))
    bf16: bool | None = field(default=None, metadata=_help("None: what the GPU computes natively."))
    fp16: bool = field(default=False, metadata=_help("Mixed precision for GPUs without bfloat16 units."))
    logging_steps: float = field(default=1, metadata=_help("Steps between two lines of metrics."))
    disable_tqdm: bool | None = field(default=True, metadata=_help("Progress is a callback's business."))
    ddp_find_unused_parameters: bool | None = field(
        default=False, metadata=_help("Every weight of a causal language model is used in every pass.")
    )
    dataloader_pin_memory: bool = field(default=False, metadata=_help("Prompts are text: there is nothing to pin."))

    def __post_init__(self) -> None:
        self._choose_precision()
        super().__post_init__()
        self._check_ranges()
        self._check_engine()
        self._check_rollout()
        self._check_saves()
        self.rollout_settings()  # a bad rollout setting shows here, not minutes later

    def _choose_precision(self) -> None:
        precision = "no" if self.use_cpu else native_precision()
        if self.bf16 and precision == "fp16":
            raise ValueError("bf16: this GPU only emulates bfloat16 (compute capability below 8): set fp16=True")
        if self.bf16 is None:
            self.bf16 = precision == "bf16" and not self.fp16
            self.fp16 = self.fp16 or precision == "fp16"

    def _check_ranges(self) -> None:
        for name, low, high in (
            ("exit_threshold", 0.0, math.inf),
            ("probe_rate", 0.0, 1.0),
            ("step_alpha", 0.0, 1.0),
            ("step_beta", 0.0, 1.0),
            ("grading_timeout", 0.0, math.inf),
            ("rollout_rows", 1, math.inf),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise ValueError(f"{name} is {value}: it must lie between {low} and {high}")
        for name, options in (
            ("preset", tuple(PRESETS)),
            ("mean_over", ("correct", "all")),
            ("confidence_rule", (None, *RULES)),
            ("loss_type", TRL_LOSSES),
        ):
            if getattr(self, name) not in options:
                allowed = ", ".join(str(option) for option in options if option is not None)
                raise ValueError(f"{name} is {getattr(self, name)!r}: use one of {allowed}")

    def _check_engine(self) -> None:
        for name, neutral in (
            *(("repetition_penalty", 1.0), ("min_p", None)),
            ("ds3_gather_for_generation", True),  # else every pass is common to all processes, and their numbers differ
        ):
            if getattr(self, name) != neutral:
                raise ValueError(f"{name} is {getattr(self, name)!r}: the rollout only knows {name}={neutral}")
        if self.use_vllm:
            raise ValueError(
                "use_vllm is True: TRL's own use of vLLM knows no truncated rollout; leave it False and give the "
                "trainer engine=SyncedEngine(VLLMEngine.load(...))"
            )
        if self.vllm_tensor_parallel_size > 1:
            raise ValueError(
                f"vllm_tensor_parallel_size is {self.vllm_tensor_parallel_size}: this version samples with one GPU for "
                "each engine; set it to 1"
            )
        if self.use_transformers_continuous_batching:
            raise ValueError("use_transformers_continuous_batching turns the trained weights to bf16: set it to False")

    def _check_rollout(self) -> None:
        if self.serial_rollout and self.dynamic_rollout:
            raise ValueError("serial_rollout and dynamic_rollout are two ways to sample: set dynamic_rollout=False")
        for limit in self.round_limits or []:
            if not 1 <= limit <= self.max_completion_length:
                raise ValueError(
                    f"round_limits holds {limit}: it must lie between 1 and max_completion_length "
                    f"({self.max_completion_length})"
                )

    def _check_saves(self) -> None:
        window = self.window_steps
        if str(getattr(self.save_strategy, "value", self.save_strategy)) != "steps" or self.save_steps < 1:
            return
        if self.save_steps % window:
            above = math.ceil(self.save_steps / window) * window
            raise ValueError(
                f"save_steps is {self.save_steps:g}, but one rollout serves {window} steps and a checkpoint between "
                f"two rollouts cannot be resumed exactly: set save_steps={above}"
            )

    @property
    def window_steps(self) -> int:
        """Optimiser steps between two points where a fresh rollout meets a fresh step; 1 in the usual setting."""
        passes = self.steps_per_generation * self.num_iterations
        return math.lcm(passes, self.gradient_accumulation_steps) // self.gradient_accumulation_steps

    @property
    def rollouts_per_step(self) -> int:
        """Most rollouts that begin within one optimiser step."""
        return math.ceil(self.gradient_accumulation_steps / (self.steps_per_generation * self.num_iterations))

    def completion_limit(self, step: int) -> int:
        """Longest completion of a training rollout that begins at an optimiser step, in tokens."""
        if not self.round_limits:
            return self.max_completion_length
        return round_limit(min(step, self.max_steps - 1), self.max_steps, self.round_limits)

    @property
    def step_markers(self) -> tuple[str, ...]:
        """The words that start a step, with and without the truncated rollout."""
        return resolve_markers(PRESETS[self.preset].markers if self.markers is None else self.markers)

    def rollout_settings(self) -> RolloutSettings | None:
        """Settings of the truncated or the serial rollout, preset and overrides together; None for plain sampling."""
        if not (self.dynamic_rollout or self.serial_rollout):
            return None
        names = ("exit_threshold", "markers", "confidence_rule", "think_budget", "near_budget_margin", "max_probes")
        overrides = {name: getattr(self, name) for name in (*names, "probe_max_tokens")}
        given = {name: value for name, value in overrides.items() if value is not None}
        return rollout_settings(self.preset, probe_rate=self.probe_rate, **given)
