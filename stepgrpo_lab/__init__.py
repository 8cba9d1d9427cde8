"""A teaching laboratory for Step-GRPO (arXiv 2604.16890).

The public names are handed out lazily: ``import stepgrpo_lab`` is instant, and torch is imported only when a name
that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES_OF_MODULE = {
    "paths": ("data_path",),
    "records": ("Cost", "Outcome", "Probe", "Problem", "Step", "Trajectory", "from_json", "to_json"),
    "token_text": ("TokenText",),
    "steps": ("MARKER_SETS", "MarkerScanner", "MarkerSegmenter", "Segmenter", "resolve_markers"),
    "rewards": ("BatchReward", "GroupReward", "StepAwareReward", "format_ok", "group_advantages", "step_aware_rewards"),
    "group_rewards": ("GRPOLambdaReward", "OutcomeReward"),
    "grading": ("Grader", "extract_boxed"),
    "problems": ("load_problems", "write_problems"),
    "rollout": ("PRESETS", "RolloutSettings", "TrajectoryMachine", "probed_members", "rollout_settings"),
    "sampling": ("SampleKey", "Sampling"),
    "engines.lockstep": ("LockstepEngine",),
    "overthinker": ("label_steps", "load_overthinker", "overthinker_problems"),
    "evaluation": ("evaluate",),
    "statistics": ("paired_bootstrap",),
    "training": ("StepGRPOConfig", "StepGRPOTrainer"),
    "recipes": ("load_recipe",),
}
# A name must differ from every module's: importing the module would bind the package attribute to the module. So the
# function `confidence` is reached as `stepgrpo_lab.confidence.confidence`.
_MODULE_OF_NAME = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF_NAME)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF_NAME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
