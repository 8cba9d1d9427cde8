"""Checks of notebook 03: confidence and calibration of the probe."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import exp, prod
from statistics import fmean
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.course.checks._result import agree, draws, exercise, torch_exercise
from stepgrpo_lab.method.confidence import confidence

if TYPE_CHECKING:
    from torch import Tensor

Bins = Sequence[tuple[int, float, float]]
Curve = Sequence[tuple[float, float, float]]


@exercise("03.1", "your score is the one that the exit rule compares with its threshold")
def geometric_mean(solution: Callable[[Sequence[float], int], float]) -> None:
    """``geometric_mean(probabilities, skip_first)``: the score of Eq. 2.

    Example:
        >>> geometric_mean(lambda probabilities, skip_first: sum(probabilities) / len(probabilities)).passed
        False
    """

    def right(probabilities: Sequence[float], skip_first: int) -> float:
        return confidence(probabilities, skip_first=skip_first)

    def hint(probabilities: Sequence[float], skip_first: int) -> str:
        return (
            ""
            if probabilities[skip_first:]
            else "no token is left, so nothing vouches for the answer: the score is 0.0"
        )

    def full_root(probabilities: Sequence[float], skip_first: int) -> float:
        return prod(probabilities[skip_first:]) ** (1 / len(probabilities)) if probabilities[skip_first:] else 0.0

    mistakes: dict[str, Callable[..., float]] = {
        "that is the arithmetic mean: multiply, and take the root": lambda p, skip: confidence(p[skip:], "arithmetic"),
        "that is the joint probability: take its root, over the number of counted tokens": lambda p, skip: confidence(
            p[skip:], "joint"
        ),
        "leave the first skip_first tokens out": lambda p, skip: confidence(p),
        "that leaves the last tokens out, not the first": lambda p, skip: confidence(p[: len(p) - skip]),
        "take the root over the tokens that count, not over all": full_root,
    }
    cases = [([0.99, 0.9, 0.8], 1), ([0.7], 1), ([0.7], 0), *draws(_probe)]
    agree(solution, right, cases, "geometric_mean", mistakes=mistakes, hint=hint)


def _probe(rng: random.Random, size: int) -> tuple[list[float], int]:
    return [rng.randint(1, 99) / 100 for _ in range(size)], rng.randint(0, min(3, size))


@exercise("03.2", "it is the expected calibration error of Guo et al. (2017), as the library counts it")
def calibration_error(solution: Callable[[Bins], float]) -> None:
    """``calibration_error(bins)``: bins are (answers, mean stated probability, share right).

    Example:
        >>> calibration_error(lambda bins: 0.0).passed
        False
    """

    def error(bins: Bins) -> float:
        return sum(count * abs(stated - right) for count, stated, right in bins) / sum(count for count, *_ in bins)

    mistakes: dict[str, Callable[..., float]] = {
        "every bin counts by its number of answers": lambda bins: fmean(
            abs(stated - right) for _, stated, right in bins
        ),
        "too sure in one bin and too modest in another do not cancel: take each gap's size": lambda bins: (
            abs(sum(count * (stated - right) for count, stated, right in bins)) / sum(count for count, *_ in bins)
        ),
        "divide by the number of all answers": lambda bins: error(bins) * sum(count for count, *_ in bins),
        "take the size of each gap, not its square": lambda bins: (
            sum(count * (stated - right) ** 2 for count, stated, right in bins) / sum(count for count, *_ in bins)
        ),
    }
    cases = [([(80, 0.2, 0.1), (20, 0.9, 1.0)],), ([(5, 0.5, 0.9), (0, 0.0, 0.0)],), *draws(_bins)]
    agree(solution, error, cases, "calibration_error", mistakes=mistakes)


def _bins(rng: random.Random, size: int) -> tuple[list[tuple[int, float, float]]]:
    return ([(rng.randint(1, 50), rng.randint(0, 100) / 100, rng.randint(0, 100) / 100) for _ in range(size)],)


@exercise("03.3", "fewest tokens among those that are right often enough; choose on validation problems, not on these")
def cheapest_threshold(solution: Callable[[Curve, float], float | None]) -> None:
    """``cheapest_threshold(curve, least)``: curve points are (threshold, tokens, share right).

    Example:
        >>> cheapest_threshold(lambda curve, least: 0.99).passed
        False
    """

    def enough(curve: Curve, least: float) -> list[tuple[float, float, float]]:
        return [point for point in curve if point[2] >= least]

    def cheapest(curve: Curve, least: float) -> float | None:
        return min(enough(curve, least), key=lambda point: point[1], default=(None,))[0]

    def hint(curve: Curve, least: float) -> str:
        if not enough(curve, least):
            return "no point is right often enough: return None"
        return "at least means that exactly as much is enough" if any(share == least for *_, share in curve) else ""

    mistakes: dict[str, Callable[..., float | None]] = {
        "fewest tokens, but only among the points that are right often enough": lambda curve, least: min(
            curve, key=lambda point: point[1]
        )[0],
        "several points are right often enough: take the one with the fewest tokens": lambda curve, least: max(
            enough(curve, least), default=(None,)
        )[0],
        "the lowest threshold is not always the cheapest: compare the tokens": lambda curve, least: min(
            enough(curve, least), default=(None,)
        )[0],
        "the points may come in any order: compare their tokens": lambda curve, least: next(
            iter(enough(curve, least)), (None,)
        )[0],
    }
    curve = [(0.5, 21.0, 0.31), (0.9, 41.7, 0.948), (0.95, 46.4, 1.0)]
    cases = [(curve, 0.9), ([(0.5, 21.0, 0.31)], 0.9), ([(0.9, 40.0, 0.9)], 0.9), *draws(_curve)]
    agree(solution, cheapest, cases, "cheapest_threshold", mistakes=mistakes, hint=hint)


def _curve(rng: random.Random, size: int) -> tuple[list[tuple[float, float, float]], float]:
    """In any order and not monotone, as measured curves are; all thresholds and all token counts differ."""
    thresholds, tokens = rng.sample(range(50, 100), size), rng.sample(range(20, 90), size)
    shares = [rng.randint(6, 10) / 10 for _ in range(size)]
    points = [(t / 100, float(n), s) for t, n, s in zip(thresholds, tokens, shares, strict=True)]
    return points, rng.randint(6, 10) / 10


# ---- on tensors ------------------------------------------------------------------------------------------------------


def _probabilities(logits: Any) -> list[list[float]]:
    """``[positions][vocabulary]`` softmax of a tensor, or of lists."""
    rows = logits.tolist() if hasattr(logits, "tolist") else logits
    powers = [[exp(value - max(row)) for value in row] for row in rows]
    return [[value / sum(row) for value in row] for row in powers]


def _chosen(logits: Any, token_ids: Any) -> list[float]:
    return [row[int(token)] for row, token in zip(_probabilities(logits), token_ids, strict=True)]


def _from_logits(logits: Any, token_ids: Any, skip_first: int = 1) -> float:
    return confidence(_chosen(logits, token_ids), skip_first=skip_first)


@torch_exercise(
    "03.4", "from the model's own numbers to the score that ends its thoughts, on tensors", reference=_from_logits
)
def probe_confidence_from_logits(solution: Callable[[Tensor, Tensor, int], float]) -> None:
    """``probe_confidence(logits, token_ids, skip_first=1)``: the confidence of a trial answer, from logits.

    ``logits`` is a tensor [positions, vocabulary]; its row i is what token i was chosen from. ``token_ids`` is a tensor
    [positions]. The confidence is the geometric mean of these tokens' probabilities at temperature 1, without the first
    ``skip_first``; 0.0 if none is left. Returns a number, or a tensor that holds one.

    Example:
        >>> probe_confidence_from_logits(lambda logits, token_ids, skip_first=1: logits.softmax(-1).max()).passed
        False
    """

    def over_positions(logits: Any, token_ids: Any, skip: int) -> float:
        return confidence(logits.softmax(0)[range(len(token_ids)), token_ids].tolist(), skip_first=skip)

    mistakes: dict[str, Callable[..., float]] = {
        "the softmax goes over the vocabulary, the last dimension": over_positions,
        "that is the likeliest token's probability: gather the token that was written": lambda logits, ids, skip: (
            confidence([max(row) for row in _probabilities(logits)], skip_first=skip)
        ),
        "that is the arithmetic mean: take exp of the mean log-probability": lambda logits, ids, skip: confidence(
            _chosen(logits, ids), "arithmetic", skip
        ),
        "that is the joint probability: take the mean of the log-probabilities, not their sum": lambda logits, ids, n: (
            confidence(_chosen(logits, ids), "joint", n)
        ),
        "that is the mean log-probability: take exp of it": lambda logits, ids, skip: (
            logits.log_softmax(-1)[range(len(ids)), ids][skip:].mean().item()
        ),
        "leave the first skip_first tokens out": lambda logits, ids, skip: _from_logits(logits, ids, 0),
        "use the skip_first that you are given": lambda logits, ids, skip: _from_logits(logits, ids),
        "logits are no log-probabilities yet: log_softmax makes them": lambda logits, ids, skip: (
            logits[range(len(ids)), ids][skip:].mean().exp().item()
        ),
    }

    def hint(logits: Any, token_ids: Any, skip: int) -> str:
        return "" if len(token_ids) > skip else "no token is left, so nothing vouches for the answer: the score is 0.0"

    agree(solution, _from_logits, draws(_logits), "probe_confidence", mistakes=mistakes, hint=hint)


def _logits(rng: random.Random, size: int) -> tuple[Tensor, Tensor, int]:
    """A peaked distribution at each position; now and then the token that was written is not the likeliest."""
    import torch

    words = 2 + size // 2
    logits = torch.tensor([[rng.randint(-20, 20) / 10 for _ in range(words)] for _ in range(size)])
    ids = logits.argmax(-1).tolist()
    written = [token if rng.random() < 0.6 else rng.randrange(words) for token in ids]
    return logits, torch.tensor(written), rng.choice([0, 1, 1, 2])


Curve2 = tuple[list[tuple[float, float, int]], float]


def _reliability(stated: Sequence[float], right: Sequence[bool], bins: int = 10) -> Curve2:
    from stepgrpo_lab.evaluation.statistics import calibration

    found = calibration(stated, right, bins)
    rows = [
        (row.confidence, row.accuracy, row.count)
        for row in found.bins
        if row.confidence is not None and row.accuracy is not None
    ]
    return rows, found.ece


@exercise(
    "03.5",
    "this is the reliability diagram, and one number for how far its points lie from the diagonal",
    reference=_reliability,
)
def calibration_curve(solution: Callable[[Sequence[float], Sequence[bool], int], Curve2]) -> None:
    """``calibration_curve(stated, right, bins=10)`` returns ``(rows, ece)``.

    ``stated`` holds a probability for each answer, ``right`` whether it was right. The bins are of equal width, closed
    below and open above; the last one includes 1. ``rows`` has, for each bin that holds answers and by rising
    probability, ``(mean stated probability, share right, number of answers)``. ``ece`` is the gap between the first
    two, weighted by the third.

    Example:
        >>> calibration_curve(lambda stated, right, bins=10: ([], 0.0)).passed
        False
    """

    def with_rows(change: Callable[[list[tuple[float, float, int]], int], Any]) -> Callable[..., Any]:
        def wrong(stated: Sequence[float], right: Sequence[bool], bins: int) -> Any:
            rows, ece = _reliability(stated, right, bins)
            return change(rows, bins), ece

        return wrong

    def with_error(error: Callable[[list[tuple[float, float, int]]], float]) -> Callable[..., Any]:
        def wrong(stated: Sequence[float], right: Sequence[bool], bins: int) -> Any:
            rows, _ = _reliability(stated, right, bins)
            return rows, error(rows)

        return wrong

    def total(rows: list[tuple[float, float, int]]) -> int:
        return sum(count for *_, count in rows)

    mistakes: dict[str, Callable[..., Any]] = {
        "state the mean probability of the answers in a bin, not the bin's middle": with_rows(
            lambda rows, bins: [
                ((min(int(s * bins + 1e-9), bins - 1) + 0.5) / bins, share, count) for s, share, count in rows
            ]
        ),
        "the second number is a share: divide by the answers in the bin": with_rows(
            lambda rows, bins: [(s, share * count, count) for s, share, count in rows]
        ),
        "every bin counts by its number of answers": with_error(
            lambda rows: fmean(abs(stated - share) for stated, share, _ in rows)
        ),
        "divide by the number of all answers": with_error(
            lambda rows: sum(count * abs(stated - share) for stated, share, count in rows)
        ),
        "too sure in one bin and too modest in another do not cancel: take each gap's size": with_error(
            lambda rows: abs(sum(count * (stated - share) for stated, share, count in rows)) / total(rows)
        ),
        "a bin is closed below and open above: 0.5 of two bins lies in the second": _closed_above,
        "a bin without answers has no row": _with_empty_bins,
    }
    cases = [([0.75, 0.75, 0.25, 1.0], [True, False, False, True], 2), ([1.0], [True], 4), *draws(_answers)]
    agree(solution, _reliability, cases, "calibration_curve", mistakes=mistakes)


def _closed_above(stated: Sequence[float], right: Sequence[bool], bins: int) -> Any:
    rows = []
    for low, high in pairwise(index / bins for index in range(bins + 1)):
        held = [(s, r) for s, r in zip(stated, right, strict=True) if low < s <= high]
        if held:
            rows.append((fmean(s for s, _ in held), fmean(r for _, r in held), len(held)))
    return rows, sum(count * abs(mean - share) for mean, share, count in rows) / len(stated)


def _with_empty_bins(stated: Sequence[float], right: Sequence[bool], bins: int) -> Any:
    rows, ece = _reliability(stated, right, bins)
    filled = {min(int(mean * bins + 1e-9), bins - 1): (mean, share, count) for mean, share, count in rows}
    return [filled.get(index, (0.0, 0.0, 0)) for index in range(bins)], ece


def _answers(rng: random.Random, size: int) -> tuple[list[float], list[bool], int]:
    """In sixteenths, which are exact, and with 2, 4 or 8 bins: an answer often lies on an edge."""
    stated = [rng.randint(1, 16) / 16 for _ in range(2 * size)]
    return stated, [rng.random() < value for value in stated], rng.choice([2, 4, 8])
