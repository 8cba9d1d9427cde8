"""Checks of the course's exercises, importable for coursework: ``from stepgrpo_lab import checks``.

A check takes what a learner wrote and *returns* a result, green or red, with a message that says where to look; so a
notebook runs to its end with exercises unsolved. With ``STEPGRPO_STRICT=1`` a red one raises :class:`Unsolved`, for
graders and CI.
"""

from stepgrpo_lab.checks.grpo import clipped_surrogate, group_relative_advantages, k3_estimate, loss_type_weights
from stepgrpo_lab.checks.result import STRICT_VARIABLE, CheckResult, Unsolved, exercise, expect
from stepgrpo_lab.checks.step_aware_reward import advantages_of_right, mean_steps_of_right, member_reward

__all__ = [
    "STRICT_VARIABLE",
    "CheckResult",
    "Unsolved",
    "advantages_of_right",
    "clipped_surrogate",
    "exercise",
    "expect",
    "group_relative_advantages",
    "k3_estimate",
    "loss_type_weights",
    "mean_steps_of_right",
    "member_reward",
]
