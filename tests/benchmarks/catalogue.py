"""The benchmarks by name."""

from __future__ import annotations

from collections.abc import Callable

from .measuring import Result
from .rollouts import against_generate, against_one_by_one, against_rounds, net_gain, probe_overhead

BENCHMARKS: dict[str, Callable[[bool], Result]] = {
    "probe_overhead": probe_overhead,
    "net_gain": net_gain,
    "against_generate": against_generate,
    "against_one_by_one": against_one_by_one,
    "against_rounds": against_rounds,
}
