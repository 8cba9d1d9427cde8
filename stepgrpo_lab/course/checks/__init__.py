"""Checks of the course's exercises, importable for coursework: ``from stepgrpo_lab import checks``.

A check takes what a learner wrote and *returns* a result, green or red, with a message that says where to look; so a
notebook runs to its end with exercises unsolved. With ``STEPGRPO_STRICT=1`` a red one raises :class:`Unsolved`, for
graders and CI.
"""

from stepgrpo_lab.course.checks._result import (
    STRICT_VARIABLE,
    CheckResult,
    Unsolved,
    agree,
    draws,
    exercise,
    expect,
    torch_exercise,
)
from stepgrpo_lab.course.checks.backtracking import backtracking_cache, draw, places_of_probe, visible
from stepgrpo_lab.course.checks.confidence_of_probes import (
    calibration_curve,
    calibration_error,
    cheapest_threshold,
    geometric_mean,
    probe_confidence_from_logits,
)
from stepgrpo_lab.course.checks.full_run import choose_checkpoint, first_step_below, shortest_right_reward
from stepgrpo_lab.course.checks.grpo import clipped_surrogate, group_relative_advantages, k3_estimate, loss_type_weights
from stepgrpo_lab.course.checks.grpo_in_torch import group_advantages, grpo_loss, training_loop
from stepgrpo_lab.course.checks.overthinking import cut_curve, label_chain, oracle_saving
from stepgrpo_lab.course.checks.own_engine import roll_out
from stepgrpo_lab.course.checks.own_reward import own_reward
from stepgrpo_lab.course.checks.reading_results import closing_signal, drawn_ratio, paired_bootstrap, verdict
from stepgrpo_lab.course.checks.recalibrating import fit_temperature
from stepgrpo_lab.course.checks.rollouts import decoded_tokens, exit_reason, run_engine, truncated_rollout
from stepgrpo_lab.course.checks.scaling_up import longest_completion, memory_plan
from stepgrpo_lab.course.checks.semantic_steps import avoid_markers, count_steps, split_turns
from stepgrpo_lab.course.checks.step_aware_reward import advantages_of_right, step_rewards
from stepgrpo_lab.course.checks.streaming import scan_markers
from stepgrpo_lab.course.checks.torch_pieces import chunked_logprobs, length_penalty
from stepgrpo_lab.course.checks.tour import first_confident, kept_share, replay_exits

__all__ = [
    "STRICT_VARIABLE",
    "CheckResult",
    "Unsolved",
    "advantages_of_right",
    "agree",
    "avoid_markers",
    "backtracking_cache",
    "calibration_curve",
    "calibration_error",
    "cheapest_threshold",
    "choose_checkpoint",
    "chunked_logprobs",
    "clipped_surrogate",
    "closing_signal",
    "count_steps",
    "cut_curve",
    "decoded_tokens",
    "draw",
    "drawn_ratio",
    "draws",
    "exercise",
    "exit_reason",
    "expect",
    "first_confident",
    "first_step_below",
    "fit_temperature",
    "geometric_mean",
    "group_advantages",
    "group_relative_advantages",
    "grpo_loss",
    "k3_estimate",
    "kept_share",
    "label_chain",
    "length_penalty",
    "longest_completion",
    "loss_type_weights",
    "memory_plan",
    "oracle_saving",
    "own_reward",
    "paired_bootstrap",
    "places_of_probe",
    "probe_confidence_from_logits",
    "replay_exits",
    "roll_out",
    "run_engine",
    "scan_markers",
    "shortest_right_reward",
    "split_turns",
    "step_rewards",
    "torch_exercise",
    "training_loop",
    "truncated_rollout",
    "verdict",
    "visible",
]
