"""What makes the Overthinker a fair laboratory, as gates on the figures of its card.

If needed steps could be guessed away, a plain length penalty would win and the question would be none; if trial answers
were not calibrated, no exit rule could work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LEAST_ACCURACY = 0.85
LEAST_ORACLE_SAVING = 0.60
LEAST_CUT_COST = 8.0
LEAST_CUT_COST_TRAINED = 5.0
MOST_CALIBRATION_ERROR = 0.05


@dataclass(frozen=True)
class Gate:
    """One condition: what it asks, what was measured, whether that passes."""

    asks: str
    measured: str
    passed: bool


def gates(figures: dict[str, Any]) -> list[Gate]:
    """The gates of a freshly built model.

    Args:
        figures: From :func:`stepgrpo_lab.authoring.overthinker.card.measure_overthinker`.

    Returns:
        In the order of the card. That the steps are still needed *after* training is the experiment "fairness".
    """
    accuracy = figures["plain"]["accuracy"]["estimate"]
    saves = figures["structure"]["all"]["oracle_saves"]
    calibration = figures["calibration"]
    found = [
        Gate(f"accuracy at least {100 * LEAST_ACCURACY:.0f} %", f"{100 * accuracy:.1f} %", accuracy >= LEAST_ACCURACY),
        Gate(
            f"stopping after the last needed step saves at least {100 * LEAST_ORACLE_SAVING:.0f} % of the tokens",
            f"{100 * saves:.1f} %",
            saves >= LEAST_ORACLE_SAVING,
        ),
    ]
    for family, change in figures["first_cut_change"].items():
        found.append(
            Gate(
                f"{family}: a cut after the first step costs at least {LEAST_CUT_COST:.0f} points",
                f"{-change['estimate']:.1f}",
                -change["estimate"] >= LEAST_CUT_COST,
            )
        )
    ece = calibration["ece"] if calibration else 1.0
    found.append(
        Gate(
            f"calibration error of the first trial answer at most {MOST_CALIBRATION_ERROR:.2f}",
            f"{ece:.3f}",
            ece <= MOST_CALIBRATION_ERROR,
        )
    )
    for preset, change in figures["deer_change"].items():
        found.append(
            Gate(
                f"truncated rollout at evaluation, `{preset}`: no loss (the interval of the change reaches 0)",
                f"{change['estimate']:+.1f} [{change['low']:+.1f}, {change['high']:+.1f}] points",
                change["high"] >= 0,
            )
        )
    return found
