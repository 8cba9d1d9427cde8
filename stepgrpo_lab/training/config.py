"""The settings of one training run: TRL's, with Step-GRPO's own beside them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import wraps
from typing import Any, Literal

from trl import GRPOConfig

from stepgrpo_lab.engines.models import has_only_mps, native_dtype
from stepgrpo_lab.method.baselines import round_limit
from stepgrpo_lab.method.settings import RolloutSettings, rollout_settings
from stepgrpo_lab.training import TRL_LOSSES
from stepgrpo_lab.training._proof import Verify

_PRECISION_OF_DTYPE: dict[str, Literal["bf16", "fp16", "no"]] = {"bfloat16": "bf16", "float16": "fp16", "float32": "no"}


def native_precision() -> Literal["bf16", "fp16", "no"]:
    """Mixed precision that this machine's accelerator computes natively; "no" on a CPU."""
    return _PRECISION_OF_DTYPE[native_dtype()]


@dataclass
class StepGRPOConfig(GRPOConfig):
    """TRL's ``GRPOConfig`` with the settings of Step-GRPO.

    TRL's ``beta`` stays the weight of the KL term and its ``delta`` a clip bound. Step-GRPO's delta is
    ``rollout.exit_threshold``; its alpha and beta are the reward's own, ``step_alpha`` and ``step_beta``.

    Attributes:
        rollout: The dynamic truncated rollout; None samples plainly (ablation).
        serial_rollout: With its settings, a group's members are the exits of one chain instead, in order (S-GRPO).
        round_limits: Completion limits of equal rounds (ThinkPrune), instead of one limit.
        train_forced_close: Let forced closes train, as published; False masks them.
        rollout_rows: Completions that the rollout engine decodes at once.
        grading_timeout: Seconds of CPU time after which an answer counts as wrong.
        checkpoint_verify: What proves a checkpoint whole: full (SHA-256 of every file) or sizes.
        reward: What the reward is and with which settings, noted by the trainer for trackers.
        loss_type: TRL's loss; dapo is the token mean of the published script.
        scale_rewards: Divide advantages by the std of the group, the batch, or none.
        beta: Weight of the KL term; 0 needs no reference model.
        use_bias_correction_kl: Weight the KL term by the importance ratio.
        vllm_importance_sampling_mode: Sequence modes silence long completions.
        bf16, fp16: Mixed precision; without either, what the GPU computes natively.
        disable_tqdm: Progress is a callback's business.
        ddp_find_unused_parameters: Every weight of a causal language model is used in every pass.
        dataloader_pin_memory: Prompts are text, so there is nothing to pin.

    Raises:
        ValueError: A setting is out of range, or another cannot work with the truncated rollout; the message names it.

    Example:
        >>> StepGRPOConfig(output_dir="runs/x", rollout=rollout_settings(probe_rate=0.5), use_cpu=True).rollout.preset
        'official'
    """

    rollout: RolloutSettings | None = field(default_factory=rollout_settings)
    serial_rollout: bool = False
    round_limits: list[int] | None = None
    train_forced_close: bool = True
    rollout_rows: int = 64
    grading_timeout: float = 5.0
    checkpoint_verify: Verify = "full"
    reward: dict[str, Any] | None = field(init=False, default=None)

    # Stated, because the trainer's own defaults differ from the published script or from version to version.
    loss_type: str = "dapo"
    scale_rewards: str = "group"
    beta: float = 0.0
    use_bias_correction_kl: bool = False
    vllm_importance_sampling_mode: str = "token_truncate"
    gradient_checkpointing: bool = False
    bf16: bool | None = None
    fp16: bool = False
    logging_steps: float = 1
    disable_tqdm: bool | None = True
    ddp_find_unused_parameters: bool | None = False
    dataloader_pin_memory: bool = False

    def __post_init__(self) -> None:
        if has_only_mps():
            self.use_cpu = True
        self._choose_precision()
        super().__post_init__()
        self._check_ranges()
        self._check_engine()
        self._check_rollout()
        self._check_saves()

    def _choose_precision(self) -> None:
        precision = "no" if self.use_cpu else native_precision()
        if self.bf16 and precision == "fp16":
            raise ValueError("bf16: this GPU only emulates bfloat16 (compute capability below 8): set fp16=True")
        if self.bf16 is None:
            self.bf16 = precision == "bf16" and not self.fp16
            self.fp16 = self.fp16 or precision == "fp16"

    def _check_ranges(self) -> None:
        for name, least in (("grading_timeout", 0), ("rollout_rows", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}")
        if self.loss_type not in TRL_LOSSES:
            raise ValueError(f"loss_type is {self.loss_type!r}: use one of {', '.join(TRL_LOSSES)}")

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
        if self.rollout is not None and not isinstance(self.rollout, RolloutSettings):
            raise ValueError(f"rollout is {self.rollout!r}: give rollout_settings(...), or None")
        if self.serial_rollout and self.rollout is None:
            raise ValueError("serial_rollout needs the settings of its trial answers: give rollout=rollout_settings()")
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

    def to_dict(self) -> dict[str, Any]:
        """Everything that decides a run, as trackers log it: the rollout's settings and the reward's among it."""
        return {**super().to_dict(), "rollout": self.rollout and asdict(self.rollout), "reward": self.reward}


_ROLLOUT_OF_0_1 = {
    *("preset", "dynamic_rollout", "probe_rate", "exit_threshold", "markers", "confidence_rule", "think_budget"),
    *("near_budget_margin", "max_probes", "probe_max_tokens"),
}
_REWARD_OF_0_1 = {"step_alpha", "step_beta", "step_reward", "mean_over", "penalize_wrong"}


def _renamed(given: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments with those of 0.1 in today's form."""
    if moved := sorted(_REWARD_OF_0_1 & given.keys()):
        raise TypeError(
            f"{', '.join(moved)}: the reward holds its own settings; give the trainer "
            f"group_reward=StepAwareReward({moved[0]}={given[moved[0]]!r})"
        )
    old = {name: given[name] for name in _ROLLOUT_OF_0_1 & given.keys()}
    if not old:
        return given
    names = ", ".join(sorted(old))
    if "rollout" in given:
        raise TypeError(f"{names}: give them to rollout=rollout_settings(...), which is there too")
    warnings.warn(f"{names}: use rollout=rollout_settings(...)", DeprecationWarning, stacklevel=3)
    kept = {name: value for name, value in given.items() if name not in old}
    if not old.pop("dynamic_rollout", True) and not given.get("serial_rollout"):
        if "markers" in old:
            raise TypeError("markers: without a rollout, give the trainer segmenter=MarkerSegmenter(markers)")
        return {**kept, "rollout": None}
    return {**kept, "rollout": rollout_settings(**{name: value for name, value in old.items() if value is not None})}


def _accepts_old_names(init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def init_with_old_names(self: StepGRPOConfig, *args: Any, **given: Any) -> None:
        init(self, *args, **_renamed(given))

    return init_with_old_names


StepGRPOConfig.__init__ = _accepts_old_names(StepGRPOConfig.__init__)  # type: ignore[method-assign]
