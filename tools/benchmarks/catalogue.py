"""The benchmarks by name, in the order of the record."""

from __future__ import annotations

from collections.abc import Callable

from .checkpoints import checkpoint_proof
from .grading import grading
from .growth import growth
from .measuring import Result
from .rollouts import against_generate, against_one_by_one, against_rounds, net_gain, pass_parts, peers, probe_overhead
from .startup import main_job, startup
from .training_step import padding, reward, training_step

BENCHMARKS: dict[str, Callable[[bool], Result]] = {
    "probe_overhead": probe_overhead,
    "net_gain": net_gain,
    "against_generate": against_generate,
    "against_one_by_one": against_one_by_one,
    "against_rounds": against_rounds,
    "peers": peers,
    "pass_parts": pass_parts,
    "growth": growth,
    "training_step": training_step,
    "padding": padding,
    "checkpoint_proof": checkpoint_proof,
    "reward": reward,
    "grading": grading,
    "startup": startup,
    "main_job": main_job,
}
