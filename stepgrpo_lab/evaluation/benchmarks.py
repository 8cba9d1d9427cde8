"""The paper's evaluation for real models: six benchmarks, Qwen3's decoding, one table.

The loaders and their schemas are in :mod:`stepgrpo_lab.evaluation.problems`; this module says how each set is
measured. The paper's own figures look like one sample for each problem, which on 30 problems leaves a standard error of
8 to 9 points, so the small sets are sampled often here and every figure comes with its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from stepgrpo_lab.engines.completions import RolloutEngine
from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.evaluation.evaluating import EVALUATION_SAMPLING, RAW_ACCURACY, evaluate
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.problems import BENCHMARKS, check_golds_of_a_set, load_problems
from stepgrpo_lab.evaluation.results import Comparison, Evaluation, compare, overall_figures
from stepgrpo_lab.method.names import did_you_mean
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.sampling import Sampling
from stepgrpo_lab.method.settings import RolloutSettings

COMPLETION_LIMIT = 16384
"""Longest completion of the paper's evaluation, in tokens."""

MATH_SUFFIX = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
CHOICE_SUFFIX = "\n\nPlease reason step by step, and put the letter alone within \\boxed{}."


@dataclass(frozen=True)
class BenchmarkProtocol:
    """How a benchmark is measured.

    Attributes:
        problems: How many it has.
        samples: Completions of each problem: the fewer problems, the more.
        suffix: Appended to every question.
    """

    problems: int
    samples: int
    suffix: str = MATH_SUFFIX


PAPER_SUITE: dict[str, BenchmarkProtocol] = {
    "gsm8k": BenchmarkProtocol(1319, 1),
    "math500": BenchmarkProtocol(500, 4),
    "amc23": BenchmarkProtocol(40, 16),
    "aime24": BenchmarkProtocol(30, 16),
    "aime25": BenchmarkProtocol(30, 16),
    "gpqa": BenchmarkProtocol(198, 4, CHOICE_SUFFIX),
}
"""The six sets of the Step-GRPO paper, by their names in :data:`stepgrpo_lab.evaluation.problems.BENCHMARKS`."""


def check_suite(names: Sequence[str], folder: str | Path | None = None) -> None:
    """Check the names of sets, and the folder that may hold their files, before any of them is read.

    Raises:
        ValueError: An unknown set, no such folder, or one that holds none of the sets.
    """
    for name in names:
        if name not in PAPER_SUITE:
            near = did_you_mean(name, PAPER_SUITE)
            raise ValueError(f"unknown benchmark {name!r}: choose from {', '.join(PAPER_SUITE)}{near}")
    if folder is None:
        return
    missing = [f"{name}.jsonl" for name in names if not (Path(folder) / f"{name}.jsonl").is_file()]
    if len(missing) == len(names):
        raise ValueError(f"{folder} holds no {', no '.join(missing)}: give the folder of these files, or none")


def suite_problems(
    name: str, folder: str | Path | None = None, *, count: int | None = None, require_all: bool = True
) -> list[Problem]:
    """The problems of one set, from the hub or from ``NAME.jsonl`` in a folder.

    Args:
        name: A name of :data:`PAPER_SUITE`.
        folder: Where to look for a file first.
        count: Keep only the first so many.
        require_all: Refuse a set that does not have as many problems as it should; a part of a set is no benchmark.

    Raises:
        ValueError: Unknown set, or a set of another size.

    Example:
        >>> suite_problems("aime24")  # doctest: +SKIP
    """
    check_suite([name])
    if count is not None and count < 1:
        raise ValueError(f"count is {count}; give at least 1, or None for all problems")
    path = Path(folder) / f"{name}.jsonl" if folder else None
    source = path if path and path.is_file() else BENCHMARKS[name].hub_id
    problems = load_problems(source)
    expected = PAPER_SUITE[name].problems
    if require_all and len(problems) != expected:
        raise ValueError(
            f"{source} has {len(problems)} problems, but {name} has {expected}: check the file or its split"
        )
    return problems[:count]


def evaluate_suite(
    model: Any,
    tokenizer: Any,
    problems: Mapping[str, Sequence[Problem]],
    *,
    samples: int | None = None,
    limit: int = COMPLETION_LIMIT,
    sampling: Sampling = EVALUATION_SAMPLING,
    settings: RolloutSettings | None = None,
    seed: int = 0,
    max_rows: int = 64,
    markers: str | Sequence[str] = "paper",
    keep_texts: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    engine: RolloutEngine | None = None,
) -> dict[str, Evaluation]:
    """Measure a model on several benchmarks.

    Args:
        model, tokenizer: Any causal language model; the chat template's default is Qwen3's thinking mode.
        problems: Name of the set -> its problems (:func:`suite_problems`).
        samples: Completions of each problem, if not the set's own number.
        limit: Longest completion, in tokens.
        sampling: How tokens are drawn; :data:`EVALUATION_SAMPLING` by default.
        settings: Measure under the truncated rollout (DEER) instead of plain decoding.
        seed: Decides the samples.
        max_rows: Completions decoded at once; lower it when memory runs out.
        markers: What starts a step.
        keep_texts: How many problems of each set keep the text of their first sample.
        progress: Called with (name of the set, completions finished, completions).
        engine: Samples with the same weights in place of the model, which may then be None.

    Raises:
        ValueError: Unknown set, no problems, or a set whose golds cannot be graded.
    """
    check_suite(list(problems))
    measured = {}
    with Grader() as grader:
        for chosen in problems.values():
            check_golds_of_a_set(chosen, grader)
        for name, chosen in problems.items():
            protocol = PAPER_SUITE[name]
            measured[name] = evaluate(
                model,
                tokenizer,
                chosen,
                samples=protocol.samples if samples is None else samples,
                limit=limit,
                sampling=sampling,
                settings=settings,
                seed=seed,
                max_rows=max_rows,
                markers=markers,
                grader=grader,
                suffix=protocol.suffix,
                keep_texts=keep_texts,
                progress=_named(progress, name),
                raw=True,
                engine=engine,
            )
    return measured


def _named(progress: Callable[[str, int, int], None] | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(name, done, total)


def suite_table(measured: Mapping[str, Evaluation], before: Mapping[str, Evaluation] | None = None) -> str:
    """The benchmarks as a Markdown table, with the plain average over sets in the last row.

    Beside the accuracy stands what math-verify alone would say, as in published figures.

    Args:
        measured: Name of the set -> evaluation.
        before: The untrained model on the same sets; adds the change in accuracy and the compression rate.

    Raises:
        ValueError: There is nothing to show, or ``before`` is of other sets or problems.
    """
    if not measured or (before is not None and set(before) != set(measured)):
        raise ValueError("give evaluations of at least one benchmark, and of the same ones before and after")
    raw = all(RAW_ACCURACY in each.settings for each in measured.values())
    head = ["benchmark", "problems x samples", "accuracy", "tokens", "closed", "truncated"]
    head += ["accuracy by math-verify alone"] if raw else []
    if before is not None:
        head += ["change in accuracy", "compression rate"]
    changes = {name: compare(before[name], each) for name, each in measured.items()} if before is not None else {}
    rows = [[name, *_cells(each, raw), *_change_cells(changes.get(name))] for name, each in measured.items()]
    accuracy, tokens = (_average(measured, name) for name in ("correct", "tokens"))
    average = ["average", "", _percent(accuracy), f"{tokens:.0f}", "", ""]
    average += [_percent(fmean(each.settings[RAW_ACCURACY] for each in measured.values()))] if raw else []
    if before is not None:
        average += [
            f"{100 * (accuracy - _average(before, 'correct')):+.1f} points",
            f"{100 * tokens / _average(before, 'tokens'):.0f} %",
        ]
    return markdown_table(head, [*rows, average])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _cells(evaluation: Evaluation, raw: bool) -> list[str]:
    figures = overall_figures(evaluation)
    return [
        f"{figures['problems']} x {figures['samples']}",
        f"{figures['accuracy'] * 100} %",
        str(figures["tokens"]),
        *(_percent(figures[name].estimate) for name in ("closed", "truncated")),
        *([_percent(evaluation.settings[RAW_ACCURACY])] if raw else []),
    ]


def _change_cells(change: Comparison | None) -> list[str]:
    return [] if change is None else [f"{change.accuracy_points} points", f"{change.token_ratio * 100} %"]


def _average(measured: Mapping[str, Evaluation], name: str) -> float:
    """Mean over sets, each counting once, as the paper averages."""
    return fmean(each.mean(name) for each in measured.values())
