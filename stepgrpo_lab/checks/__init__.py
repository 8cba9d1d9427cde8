"""Checks of the course's exercises, importable for coursework: ``from stepgrpo_lab import checks``.

A check takes what a learner wrote and *returns* a result, green or red, with a message that says where to look; so a
notebook runs to its end with exercises unsolved. With ``STEPGRPO_STRICT=1`` a red one raises :class:`Unsolved`, for
graders and CI.
"""

from stepgrpo_lab.checks.backtracking import draw, places_of_probe, visible
from stepgrpo_lab.checks.confidence_of_probes import calibration_error, cheapest_threshold, geometric_mean
from stepgrpo_lab.checks.result import STRICT_VARIABLE, CheckResult, Unsolved, exercise, expect
from stepgrpo_lab.checks.truncated_rollout import decoded_tokens, exit_reason, run_engine

__all__ = [
    "STRICT_VARIABLE",
    "CheckResult",
    "Unsolved",
    "calibration_error",
    "cheapest_threshold",
    "decoded_tokens",
    "draw",
    "exercise",
    "exit_reason",
    "expect",
    "geometric_mean",
    "places_of_probe",
    "run_engine",
    "visible",
]
