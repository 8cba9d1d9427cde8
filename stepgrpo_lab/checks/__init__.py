"""Checks of the course's exercises, importable for coursework: ``from stepgrpo_lab import checks``.

A check takes what a learner wrote and *returns* a result, green or red, with a message that says where to look; so a
notebook runs to its end with exercises unsolved. With ``STEPGRPO_STRICT=1`` a red one raises :class:`Unsolved`, for
graders and CI.
"""

from stepgrpo_lab.checks.overthinking import cut_accuracy, pooled_saving, stop_after_needed
from stepgrpo_lab.checks.result import STRICT_VARIABLE, CheckResult, Unsolved, exercise, expect
from stepgrpo_lab.checks.scaling_up import adapter_size, cache_bytes_per_token, longest_completion
from stepgrpo_lab.checks.semantic_steps import avoid_markers, count_steps, covering_tokens
from stepgrpo_lab.checks.tour import first_confident, kept_share

__all__ = [
    "STRICT_VARIABLE",
    "CheckResult",
    "Unsolved",
    "adapter_size",
    "avoid_markers",
    "cache_bytes_per_token",
    "count_steps",
    "covering_tokens",
    "cut_accuracy",
    "exercise",
    "expect",
    "first_confident",
    "kept_share",
    "longest_completion",
    "pooled_saving",
    "stop_after_needed",
]
