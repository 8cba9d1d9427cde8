"""Measuring: problems, grading, intervals."""

from __future__ import annotations

from stepgrpo_lab._imports import lazy_names

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    [
        ("evaluating", ("EVALUATION_SAMPLING", "evaluate", "outcome", "outcomes")),
        ("results", ("Comparison", "Evaluation", "compare", "completion_pairs")),
    ],
)
