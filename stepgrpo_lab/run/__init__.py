"""A training run, its folder and its report."""

from __future__ import annotations

from stepgrpo_lab._imports import lazy_names

__all__, __getattr__, __dir__ = lazy_names(__name__, [("job", ("RunResult", "measure_untrained", "train"))])
