"""Which problems to train on: measure how often the untrained model solves each, and keep those it solves sometimes.

A group in which every member is right, or none is, earns no advantage by correctness. Step-GRPO's data are *selected*
from DAPO-Math-17k; how is not published. Repeated problems go first:
:func:`stepgrpo_lab.evaluation.problems.drop_repeats`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stepgrpo_lab.engines.completions import Decoding, RolloutEngine
from stepgrpo_lab.engines.files import iterate_rows
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.evaluation.evaluating import outcomes
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.records import Problem, from_json
from stepgrpo_lab.method.sampling import SampleKey, Sampling


@dataclass(frozen=True)
class PassRate:
    """How often a model solved a problem.

    Attributes:
        id: The problem's.
        correct, samples: Right completions, and all.
    """

    id: str
    correct: int
    samples: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.samples or self.samples < 1:
            raise ValueError("correct must lie between 0 and samples")

    @property
    def rate(self) -> float:
        """Share of right completions."""
        return self.correct / self.samples


def measure_pass_rates(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    grader: Grader,
    *,
    samples: int,
    limit: int,
    sampling: Sampling | None = None,
    seed: int = 0,
    rows: int = 64,
    suffix: str = "",
    known: Iterable[str] = (),
    on_batch: Callable[[list[PassRate]], None] | None = None,
    engine: RolloutEngine | None = None,
) -> list[PassRate]:
    """Sample every problem under plain decoding and count the right completions.

    A problem's completions depend on its place in ``problems`` and the seed, not on what else is measured in the call,
    so a measurement that was interrupted goes on exactly.

    Args:
        model, tokenizer: As loaded by :func:`stepgrpo_lab.engines.models.load_model`.
        problems: With distinct ids.
        grader: Judges answers.
        samples: Completions of each problem.
        limit: Longest completion, in tokens.
        sampling: How tokens are drawn; by default at temperature 1, as in training.
        seed: Decides the samples.
        rows: Completions decoded at once.
        suffix: Appended to every question.
        known: Ids that are measured already, and skipped.
        on_batch: Called with the rates of each batch as soon as they are known.
        engine: Samples with the same weights in place of the model.

    Raises:
        ValueError: ``samples`` below 1.

    Example:
        >>> from stepgrpo_lab import load_overthinker, overthinker_problems
        >>> with Grader() as grader:
        ...     rates = measure_pass_rates(
        ...         *load_overthinker(), overthinker_problems("train", 2), grader, samples=2, limit=256
        ...     )
        >>> [rate.samples for rate in rates]
        [2, 2]
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}: give at least 1")
    engine = engine or LockstepEngine(model, tokenizer, max_rows=rows)
    decoding = Decoding(limit, sampling=sampling or Sampling())
    skipped = set(known)
    waiting = [(place, problem) for place, problem in enumerate(problems) if problem.id not in skipped]
    batch = max(1, 4 * rows // samples)
    measured: list[PassRate] = []
    for start in range(0, len(waiting), batch):
        asked = waiting[start : start + batch]
        trajectories, _ = engine.generate(
            [encode_prompt(tokenizer, problem.prompt, suffix) for _, problem in asked for _ in range(samples)],
            decoding,
            keys=[
                SampleKey(seed, "rate", 0, place * samples + sample) for place, _ in asked for sample in range(samples)
            ],
        )
        judged = outcomes(trajectories, [problem.answer for _, problem in asked for _ in range(samples)], grader)
        rates = [
            PassRate(problem.id, sum(one.correct for one in judged[index * samples : (index + 1) * samples]), samples)
            for index, (_, problem) in enumerate(asked)
        ]
        measured += rates
        if on_batch:
            on_batch(rates)
    return measured


def select_by_pass_rate(
    problems: Sequence[Problem], rates: Mapping[str, PassRate], *, least: float = 0.1, most: float = 0.9
) -> list[Problem]:
    """Keep the problems whose pass rate lies in [least, most]; the rate goes into their ``meta``.

    Raises:
        ValueError: A problem without a rate, or none that is kept.

    Example:
        >>> problems = [Problem("easy", "1+1?", "2"), Problem("fair", "x?", "3")]
        >>> rates = {"easy": PassRate("easy", 8, 8), "fair": PassRate("fair", 2, 8)}
        >>> [(problem.id, problem.meta) for problem in select_by_pass_rate(problems, rates)]
        [('fair', {'pass_rate': 0.25})]
    """
    missing = [problem.id for problem in problems if problem.id not in rates]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(problems)} problems have no pass rate (the first is {missing[0]!r}): measure them "
            "with stepgrpo rate, which goes on where it stopped"
        )
    kept = [
        replace(problem, meta={**problem.meta, "pass_rate": rates[problem.id].rate})
        for problem in problems
        if least <= rates[problem.id].rate <= most
    ]
    if not kept:
        raise ValueError(
            f"no problem has a pass rate from {least:g} to {most:g}: widen data.pass_rates.least and .most"
        )
    return kept


def append_pass_rates(path: str | Path, rates: Iterable[PassRate]) -> None:
    """Add rates to a JSON Lines file; what is in it stays, but for a last line that a kill cut off.

    Raises:
        ValueError: It is a folder, a pipe or a device.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe would never let go
        raise ValueError(f"{path} is not a file: give the path of one")
    with path.open("a+b") as file:
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
        file.write("".join(json.dumps(asdict(rate)) + "\n" for rate in rates).encode())


def read_pass_rates(path: str | Path) -> dict[str, PassRate]:
    """Id -> rate, from a file of :func:`append_pass_rates`; a last line that a kill cut off is passed over.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line that is no pass rate; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no pass rates there; measure them with: stepgrpo rate --recipe RECIPE")
    return {rate.id: rate for rate in iterate_rows(path, partial(from_json, PassRate), "delete the row")}
