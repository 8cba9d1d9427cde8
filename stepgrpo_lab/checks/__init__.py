"""Checks of the course's exercises, importable for coursework: ``from stepgrpo_lab import checks``.

A check takes what a learner wrote and *returns* a result, green or red, with a message that says where to look; so a
notebook runs to its end with exercises unsolved. With ``STEPGRPO_STRICT=1`` a red one raises :class:`Unsolved`, for
graders and CI.
"""

from stepgrpo_lab.checks.full_run import choose_checkpoint, first_step_below, shortest_right_reward
from stepgrpo_lab.checks.reading_results import advantage_by_close, drawn_ratio, verdict
from stepgrpo_lab.checks.result import STRICT_VARIABLE, CheckResult, Unsolved, exercise, expect

__all__ = [
    "STRICT_VARIABLE",
    "CheckResult",
    "Unsolved",
    "advantage_by_close",
    "choose_checkpoint",
    "drawn_ratio",
    "exercise",
    "expect",
    "first_step_below",
    "shortest_right_reward",
    "verdict",
]
