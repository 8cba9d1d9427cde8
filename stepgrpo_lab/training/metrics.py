"""What one training rollout looked like, in numbers, and the file in which a run keeps them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

from stepgrpo_lab.engines.files import iterate_rows
from stepgrpo_lab.evaluation.statistics import calibration
from stepgrpo_lab.method.records import Outcome, Probe, Trajectory, from_json
from stepgrpo_lab.method.rewards import group_advantages, grouped, is_informative

EXITS = ("natural", "early", "near_budget", "budget")
NO_SIGNAL = 1e-6
"""Advantages smaller than this move no weight: rounding, not signal."""


@dataclass(frozen=True)
class ProbeResult:
    """A probe with its truth.

    Attributes:
        confidence: Score of the exit rule, in [0, 1].
        joint: Joint probability of the trial answer, in [0, 1].
        right: The trial answer equals the gold answer.
        boxed: The probe completed its box; without one it stated no probability of an answer.
    """

    confidence: float
    joint: float
    right: bool
    boxed: bool


@dataclass(frozen=True)
class RolloutRow:
    """One completion of a rollout, small enough to be gathered from every process.

    Attributes:
        outcome: What the reward needs.
        probes: Every probe, in order.
        forced_close: The close of the thoughts was put there, not sampled.
        decoded_tokens: Tokens fed for it, probes included.
    """

    outcome: Outcome
    probes: tuple[ProbeResult, ...]
    forced_close: bool
    decoded_tokens: int


def rollout_row(trajectory: Trajectory, outcome: Outcome, probes_right: Sequence[bool]) -> RolloutRow:
    """Sum up a trajectory; ``probes_right`` says of each of its probes whether the trial answer is right."""

    def result(probe: Probe, right: bool) -> ProbeResult:
        return ProbeResult(probe.confidence, probe.joint, right, probe.answer is not None)

    return RolloutRow(
        outcome=outcome,
        probes=tuple(map(result, trajectory.probes, probes_right)),
        forced_close=trajectory.close in EXITS[1:],
        decoded_tokens=trajectory.cost.decoded_tokens,
    )


def mean(values: Iterable[float]) -> float | None:
    """Arithmetic mean; None of nothing.

    Example:
        >>> mean([True, False])
        0.5
    """
    values = list(values)
    return sum(values) / len(values) if values else None


def rollout_metrics(
    rows: Sequence[RolloutRow],
    rewards: Sequence[float],
    group_size: int,
    *,
    scale: Literal["group", "batch", "none", "given"] = "group",
) -> dict[str, float]:
    """Numbers that describe one rollout of whole groups.

    Args:
        rows: The completions of every process, group after group.
        rewards: Their rewards.
        group_size: Completions of one group; ``len(rows)`` is a multiple of it.
        scale: How advantages are scaled (it matters for nothing but which of them vanish); "given" where the rewards
            are the advantages already.

    Returns:
        Metric name -> value. A metric that is undefined here (steps of correct answers without a correct one) is left
        out. Lengths are in tokens, ``exits/*`` are shares that sum to 1, ``cost/net_ratio`` is tokens decoded per
        token kept, ``groups/mixed`` the share of groups that hold both forced and natural closes (only these can tell
        whether an exit pays), ``advantage/*`` the mean advantage of the completions with such a close.
    """
    outcomes = [row.outcome for row in rows]
    groups = grouped(list(rewards), group_size)
    std = statistics.stdev(rewards) if len(rewards) > 1 else 0.0
    advantages = (
        list(rewards)
        if scale == "given"
        else [a for group in groups for a in group_advantages(group, scale=scale, batch_std=std)]
    )
    probes = [probe for row in rows for probe in row.probes]
    kept = sum(outcome.tokens for outcome in outcomes)
    decoded = sum(row.decoded_tokens for row in rows)
    measured: dict[str, float | None] = {
        "accuracy": mean(outcome.correct for outcome in outcomes),
        "formatted": mean(outcome.formatted for outcome in outcomes),
        "truncated": mean(outcome.truncated for outcome in outcomes),
        "tokens": kept / len(rows),
        "steps/all": mean(outcome.steps for outcome in outcomes),
        "steps/correct": mean(outcome.steps for outcome in outcomes if outcome.correct),
        **{f"exits/{exit}": mean(outcome.close == exit for outcome in outcomes) for exit in EXITS},
        "exits/none": mean(outcome.close is None for outcome in outcomes),
        "probe/per_completion": len(probes) / len(rows),
        **_probe_metrics(probes),
        "groups/informative": mean(is_informative(group) for group in groups),
        "forced_close/signal": mean(
            abs(advantage) > NO_SIGNAL for row, advantage in zip(rows, advantages, strict=True) if row.forced_close
        ),
        "groups/mixed": mean(_is_mixed(group) for group in grouped(rows, group_size)),
        "advantage/forced": mean(
            advantage for row, advantage in zip(rows, advantages, strict=True) if row.forced_close
        ),
        "advantage/natural": mean(
            advantage for row, advantage in zip(rows, advantages, strict=True) if row.outcome.close == "natural"
        ),
        "cost/decoded_tokens": float(decoded),
        "cost/net_ratio": decoded / kept,
    }
    return {name: float(value) for name, value in measured.items() if value is not None}


def nothing_to_learn(row: Mapping[str, Any]) -> str | None:
    """Why no group of a logged step can be learned from, and what is likely to help; None where one can.

    Args:
        row: Metrics of one step, as in ``metrics.jsonl``.

    Example:
        >>> nothing_to_learn({"groups/informative": 0.0, "accuracy": 1.0, "truncated": 0.0})
        'all answers were right: take harder problems'
    """
    if row.get("groups/informative") != 0:
        return None
    accuracy, truncated = row.get("accuracy", 0.0), row.get("truncated", 0.0)
    if truncated == 1:
        return "every completion was cut off: raise rollout.max_tokens"
    if accuracy == 0:
        cut = f", and {truncated:.0%} were cut off" if truncated else ""
        return f"no answer was right{cut}: take easier problems, a stronger model or a higher rollout.max_tokens"
    if accuracy == 1:
        return "all answers were right: take harder problems"
    return "the members of each group earned the same: raise optimisation.group_size, or take a reward that differs"


def never_thought(row: Mapping[str, Any]) -> bool:
    """Whether no completion of a logged step closed its thoughts by itself and none held a marker."""
    closed = any(row.get(f"exits/{exit}", 0.0) for exit in ("natural", "early", "near_budget"))
    return "exits/none" in row and not closed and row.get("steps/all") == 1


def _is_mixed(group: Sequence[RolloutRow]) -> bool:
    """Whether a group compares forced closes with natural ones."""
    closes = [row.forced_close for row in group if row.outcome.close is not None]
    return any(closes) and not all(closes)


def _probe_metrics(probes: Sequence[ProbeResult]) -> dict[str, float | None]:
    if not probes:
        return {}
    boxed = [probe for probe in probes if probe.boxed]
    joint, right = [probe.joint for probe in boxed], [probe.right for probe in boxed]
    return {
        "probe/confidence": mean(probe.confidence for probe in probes),
        "probe/boxed": len(boxed) / len(probes),
        "probe/joint": mean(joint),
        "probe/right": mean(right),
        "probe/ece": calibration(joint, right, bins=10).ece if boxed else None,
    }


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``, also while it is being written; empty if there is no file yet.

    Raises:
        ValueError: A row is broken; the message names file and row. Not the last row if a kill cut it off.

    Example:
        >>> read_metrics("no/such/metrics.jsonl")
        []
    """
    try:
        return list(iterate_rows(path, _metrics_row, "repair the file, or remove it to go without its metrics"))
    except FileNotFoundError:
        return []


class _Row(TypedDict):
    step: int


def _metrics_row(row: Any) -> dict[str, Any]:
    """A row as it was written: a norm of gradients may be infinite there."""
    from_json(dict[str, Any], row)
    finite = {key: value for key, value in row.items() if not isinstance(value, float) or math.isfinite(value)}
    from_json(_Row, from_json(dict[str, float], finite))
    return cast(dict[str, Any], row)


METRICS_FILE = "metrics.jsonl"


def run_decoded_tokens(folder: str | Path) -> int:
    """Tokens decoded in the training rollouts of a run folder, probes included."""
    return round(sum(row.get("cost/decoded_tokens", 0.0) for row in read_metrics(Path(folder) / METRICS_FILE)))


def run_curves(folder: str | Path, keys: Sequence[str]) -> dict[str, list[list[float]]]:
    """Some metrics of a run folder: key -> [[step, value], ...], rounded for a record; keys without values left out."""
    rows = read_metrics(Path(folder) / METRICS_FILE)
    curves = {
        key: [[row["step"], round(row[key], 5)] for row in rows if key in row and math.isfinite(row[key])]
        for key in keys
    }
    return {key: curve for key, curve in curves.items() if curve}
