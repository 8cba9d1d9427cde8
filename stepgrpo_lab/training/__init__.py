"""Training with TRL: settings, the trainer with its truncated rollout, metrics and callbacks."""

from __future__ import annotations

from stepgrpo_lab._imports import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__, [("config", ("StepGRPOConfig",)), ("trainer", ("StepGRPOTrainer", "problems_dataset"))]
)
