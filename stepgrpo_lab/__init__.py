"""A teaching laboratory for Step-GRPO (arXiv 2604.16890).

The public names are handed out lazily: ``import stepgrpo_lab`` is instant, and torch is imported only when a name
that needs it is first used.
"""

from __future__ import annotations

from stepgrpo_lab._imports import lazy_names, serve_old_paths

__version__ = "0.1.0"

serve_old_paths()

_NAMES_OF_MODULE = {
    "engines.paths": ("data_path",),
    "method.records": ("Cost", "Outcome", "Probe", "Problem", "Step", "Trajectory", "from_json", "to_json"),
    "method.token_text": ("TokenText",),
    "method.steps": ("MARKER_SETS", "MarkerScanner", "MarkerSegmenter", "Segmenter", "resolve_markers"),
    "method.rewards": (
        "BatchReward",
        "GroupReward",
        "StepAwareReward",
        "group_advantages",
        "step_aware_rewards",
    ),
    "method.baselines": ("GRPOLambdaReward", "OutcomeReward"),
    "evaluation.grading": ("Grader",),
    "method.boxes": ("extract_boxed",),
    "evaluation.problems": ("load_problems", "write_problems"),
    "method.rollout": ("PRESETS", "RolloutSettings", "TrajectoryMachine", "probed_members", "rollout_settings"),
    "method.sampling": ("SampleKey", "Sampling"),
    "engines.completions": ("Decoding",),
    "engines.lockstep": ("LockstepEngine",),
    "overthinker": ("label_steps", "load_overthinker", "overthinker_problems"),
    "evaluation.evaluating": ("evaluate",),
    "evaluation.statistics": ("paired_bootstrap",),
    "training": ("StepGRPOConfig", "StepGRPOTrainer"),
    "recipes": ("load_recipe",),
}

_names, __getattr__, __dir__ = lazy_names(__name__, _NAMES_OF_MODULE)
__all__ = ["__version__", *_names]
