"""Training with TRL: settings, the trainer with its truncated rollout, metrics and callbacks."""

from __future__ import annotations

from stepgrpo_lab.training.config import StepGRPOConfig
from stepgrpo_lab.training.trainer import StepGRPOTrainer, problems_dataset

__all__ = ["StepGRPOConfig", "StepGRPOTrainer", "problems_dataset"]
