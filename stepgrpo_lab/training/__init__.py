"""Training with TRL: settings, the trainer with its truncated rollout, metrics and callbacks."""

from __future__ import annotations

from stepgrpo_lab._imports import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__, [("config", ("StepGRPOConfig",)), ("trainer", ("StepGRPOTrainer", "problems_dataset"))]
)

TRL_LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")
"""Those that TRL 1.16 knows; it refuses others only in the middle of the first step."""
