"""What a run measures on held-out problems while it trains: what was learnt, and what the rollout only pretends."""

from __future__ import annotations

from collections.abc import Callable

from stepgrpo_lab.evaluation.evaluation_records import Evaluation
from stepgrpo_lab.method.presets import RolloutSettings, cut_at_first_marker

Measure = Callable[[RolloutSettings | None], Evaluation]
"""Evaluates the policy on the held-out problems: plain decoding (None), or a truncated rollout."""


def validation_figures(measure: Measure, rollout: RolloutSettings | None) -> dict[str, float]:
    """The figures of one validation.

    Args:
        measure: See :data:`Measure`.
        rollout: The truncated rollout of the training; None if it trains without one.

    Returns:
        Means over completions under plain decoding: ``accuracy``, ``tokens``, ``steps``, ``truncated``. With a
        truncated rollout also ``rollout_accuracy`` and ``rollout_tokens`` under it: ``tokens - rollout_tokens`` is what
        the model has *not* made its own. And ``first_cut_accuracy``, when all thoughts end at the first marker (as long
        as it stays low, later steps are needed), with ``first_probe_ece``, the calibration error (10 bins, joint
        probability) of the trial answers given there.
    """
    plain = measure(None)
    figures = {name: plain.mean(field) for name, field in _FIELDS.items()}
    if rollout is None:
        return figures
    truncated, cut = measure(rollout), measure(cut_at_first_marker(rollout))
    figures |= {
        "rollout_accuracy": truncated.mean("correct"),
        "rollout_tokens": truncated.mean("tokens"),
        "first_cut_accuracy": cut.mean("correct"),
    }
    calibration = cut.calibration()
    return figures if calibration is None else {**figures, "first_probe_ece": calibration.ece}


_FIELDS = {"accuracy": "correct", "tokens": "tokens", "steps": "steps", "truncated": "truncated"}
