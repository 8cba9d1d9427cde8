"""A teaching laboratory for Step-GRPO (arXiv 2604.16890).

The public names are handed out lazily: ``import stepgrpo_lab`` is instant, and torch is imported only when a name
that needs it is first used.
"""

from __future__ import annotations

from stepgrpo_lab._imports import lazy_names, serve_old_paths

__version__ = "0.2.0"

serve_old_paths()

# The public interface, by subject; docs/interface.md shows it with signatures.
_PUBLIC: dict[str, dict[str, tuple[str, ...]]] = {
    "Problems and answers": {
        "engines.paths": ("data_path",),
        "method.records": ("Problem",),
        "evaluation.problems": ("load_problems", "write_problems"),
        "overthinker": ("label_steps", "overthinker_problems"),
        "method.boxes": ("extract_boxed",),
        "evaluation.grading": ("Grader",),
    },
    "Steps and markers": {
        "method.records": ("Step",),
        "method.steps": (
            *("MARKER_SETS", "BlankLineSegmenter", "MarkerHit", "MarkerSegmenter", "Segmenter", "StepScanner"),
        ),
        "method.token_text": ("TokenText",),
    },
    "Confidence and the truncated rollout": {
        "method.records": ("Cost", "Probe", "Trajectory"),
        "method.confidence": ("ExitRule", "confidence"),
        "method.settings": ("RolloutSettings", "probed_members", "rollout_settings"),
        "method.rollout": ("TrajectoryMachine",),
        "method.sampling": ("SampleKey", "Sampling"),
    },
    "Rewards, baselines and advantages": {
        "method.records": ("Outcome",),
        "method.rewards": ("BatchReward", "GroupReward", "StepAwareReward", "group_advantages", "step_aware_rewards"),
        "method.baselines": (
            "GRPOLambdaReward",
            "OutcomeReward",
            "correctness_rewards",
            "kimi_rewards",
            "length_penalty_rewards",
            "soft_overlong_rewards",
        ),
    },
    "Loss and update": {
        "method.loss": ("LossBatch", "LossSettings", "policy_loss"),
        "method.token_loss": ("token_loss",),
        "method.update": ("step_grpo_update",),
    },
    "Models and engines": {
        "engines.models": ("load_model",),
        "engines.tokenizers": ("encode_prompt",),
        "overthinker": ("load_overthinker",),
        "engines.completions": ("Decoding",),
        "engines.lockstep": ("LockstepEngine",),
    },
    "Training": {
        "recipes": ("load_recipe",),
        "run": ("train",),
        "training": ("StepGRPOConfig", "StepGRPOTrainer", "problems_dataset"),
    },
    "Measuring": {
        "evaluation.evaluating": ("evaluate",),
        "evaluation.results": ("Comparison", "Evaluation", "compare"),
        "evaluation.statistics": ("bootstrap_mean", "calibration", "paired_bootstrap"),
    },
    "Recorded trajectories": {
        "recordings": ("RecordedGroup", "RecordedMember", "load_recordings", "load_survey"),
        "recordings.measures": ("measure_overthinking", "trial_answers", "try_rule"),
    },
}

# Public in 0.1; they answer with a DeprecationWarning for one release.
_FORMERLY_PUBLIC: dict[str, tuple[str, ...]] = {
    "method.records": ("from_json", "to_json"),
    "method.settings": ("PRESETS",),
    "method.steps": ("MarkerScanner", "resolve_markers"),
}

_HOMES = [(module, names) for subject in _PUBLIC.values() for module, names in subject.items()]
_names, __getattr__, __dir__ = lazy_names(__name__, _HOMES, formerly=list(_FORMERLY_PUBLIC.items()))
__all__ = ["__version__", *_names]
