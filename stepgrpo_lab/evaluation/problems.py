"""Problems with gold answers: from a JSON Lines file of your own, or from the benchmarks and training sets on the hub.

Each hub data set has its own columns. Its ``row -> Problem`` conversion is one pure function below, so it is tested on
hand-made rows without any download.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.problem_files import Row, iterate_problems, optional_field, text_field, write_problems
from stepgrpo_lab.method.records import Problem

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "check_problems",
    "convert_rows",
    "drop_repeats",
    "find_benchmark",
    "load_problems",
    "write_problems",
]

GPQA_SEED = 0
"""Seed of the order of GPQA's options: the same for every run, different for every row."""

_DAPO_PREFIX = "Solve the following math problem step by step."
_DAPO_SUFFIX = 'Remember to put your answer on its own line after "Answer:".'


@dataclass(frozen=True)
class Benchmark:
    """Where a data set lies on the hub, and how its rows become problems.

    Attributes:
        hub_id: Its name on the Hugging Face hub.
        config: Its configuration there; None for the default.
        split: Its usual split.
        convert: ``(row, id) -> Problem``; raises ValueError, which names the column.
        repeats: Whether it is known to repeat its problems, which are then dropped.
    """

    hub_id: str
    config: str | None
    split: str
    convert: Callable[[Row, str], Problem]
    repeats: bool = False


def load_problems(source: str | Path, *, split: str | None = None, limit: int | None = None) -> list[Problem]:
    """Load problems from a JSON Lines file or from the hub.

    A file has one object a line: the question under ``prompt``, ``problem`` or ``question``; ``answer`` (a string or
    an integer); optionally ``id`` (else file name and line number), ``family``, ``level``, ``meta``. Other fields are
    ignored.

    Args:
        source: Path of a ``.jsonl`` file, or a name or hub id of :data:`BENCHMARKS`.
        split: Split of a hub data set, if not its usual one.
        limit: Keep only the first so many; of a file, no more than these rows are read.

    Returns:
        Problems with unique ids, in the source's order.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The source is unknown, or a row is bad; the message names the file, row, field and remedy.
        OSError: The hub data set cannot be loaded; the message says why and what to do.

    Example:
        >>> load_problems("my_problems.jsonl", limit=100)  # doctest: +SKIP
        >>> load_problems("math500")  # doctest: +SKIP
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; give at least 1, or None for all problems")
    benchmark = find_benchmark(str(source))
    if benchmark is not None:
        name, found = benchmark
        problems = convert_rows(_hub_rows(found, split), name, found)
    elif str(source).endswith(".jsonl"):
        if split is not None:
            raise ValueError(f"split={split!r} does not apply to the file {source}; leave it out")
        return list(islice(iterate_problems(source), limit))
    else:
        known = ", ".join(BENCHMARKS)
        raise ValueError(f"unknown source {str(source)!r}; give a path that ends in .jsonl, or one of: {known}")
    return problems[:limit]


def check_problems(problems: Sequence[Problem], grader: Grader) -> list[str]:
    """Report the problems whose gold answer nothing can be graded against.

    Returns:
        One line for each such problem, with its id, the gold, the reason and the remedy; empty if all is well.

    Example:
        >>> with Grader() as grader:
        ...     check_problems([Problem("p1", "1+1?", "2"), Problem("p2", "Why?", " ")], grader)
        ["problem 'p2': gold answer ' ' is unusable: it is empty; correct it or drop the problem"]
    """
    errors = grader.check_golds([problem.answer for problem in problems])
    return [
        f"problem {problem.id!r}: gold answer {problem.answer!r} is unusable: {error}; correct it or drop the problem"
        for problem, error in zip(problems, errors, strict=True)
        if error is not None
    ]


def drop_repeats(problems: Iterable[Problem]) -> list[Problem]:
    """Keep the first of the problems that share a prompt, white space aside; where golds disagree, trust and keep none.

    Example:
        >>> rows = [("a", "1+1?", "2"), ("b", "1+1?", "2"), ("c", "x?", "3"), ("d", "x?", "4")]
        >>> [problem.id for problem in drop_repeats(Problem(*row) for row in rows)]
        ['a']
    """
    same_prompt: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        same_prompt[" ".join(problem.prompt.split())].append(problem)
    return [same[0] for same in same_prompt.values() if len({problem.answer for problem in same}) == 1]


def find_benchmark(source: str) -> tuple[str, Benchmark] | None:
    """Look up a hub data set by its short name or its hub id; None if it is neither.

    Example:
        >>> find_benchmark("openai/gsm8k")[0]
        'gsm8k'
    """
    for name, benchmark in BENCHMARKS.items():
        if source in (name, benchmark.hub_id):
            return name, benchmark
    return None


def convert_rows(rows: Iterable[Row], name: str, benchmark: Benchmark) -> list[Problem]:
    """Turn raw hub rows into problems with the ids ``name-0``, ``name-1``, ...

    Raises:
        ValueError: A column is missing or holds what it should not; the message names data set, row and column.
    """
    problems = []
    for index, row in enumerate(rows):
        try:
            problems.append(benchmark.convert(row, f"{name}-{index}"))
        except ValueError as error:
            remedy = "if the data set has changed, export it to a .jsonl file and load that"
            raise ValueError(f"{benchmark.hub_id}, row {index}: {error}; {remedy}") from error
    return drop_repeats(problems) if benchmark.repeats else problems


def _hub_rows(benchmark: Benchmark, split: str | None) -> Iterable[Row]:
    hub_id, split = benchmark.hub_id, split or benchmark.split
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ImportError(f"{hub_id} comes from the hub, which needs: pip install datasets") from error
    try:
        rows: Iterable[Row] = load_dataset(hub_id, benchmark.config, split=split)
    except Exception as error:
        remedy = f"check the connection; if https://huggingface.co/datasets/{hub_id} is gated, accept its terms there"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise OSError(
            f"cannot load {hub_id} (split {split}): {reason}; {remedy} and log in with: hf auth login"
        ) from error
    return rows


def _convert_gsm8k(row: Row, id: str) -> Problem:
    _, mark, gold = text_field(row, "answer").rpartition("####")
    if not mark:
        raise ValueError("field 'answer' has no '####' before its final answer")
    return Problem(id, text_field(row, "question"), gold.strip().replace(",", ""), family="gsm8k")


def _convert_math500(row: Row, id: str) -> Problem:
    level, meta = optional_field(row, "level", int, None), {"subject": text_field(row, "subject")}
    return Problem(id, text_field(row, "problem"), text_field(row, "answer"), family="math500", level=level, meta=meta)


def _convert_contest(row: Row, id: str) -> Problem:
    """AMC and AIME: the answers are integers, which some editions store as 27.0."""
    gold = row.get("answer")
    answer = str(int(gold)) if isinstance(gold, float) and gold.is_integer() else text_field(row, "answer")
    return Problem(id, text_field(row, "problem"), answer, family=id.rpartition("-")[0])


def _convert_gpqa(row: Row, id: str) -> Problem:
    """Multiple choice: the options in an order fixed by the row's id; the gold is the right one's letter."""
    columns = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
    random.Random(f"{GPQA_SEED}:{id}").shuffle(columns)
    options = "\n".join(
        f"{letter}. {text_field(row, column).strip()}" for letter, column in zip("ABCD", columns, strict=True)
    )
    prompt = f"{text_field(row, 'Question').strip()}\n\n{options}\n\nAnswer with the letter of the right option."
    return Problem(id, prompt, "ABCD"[columns.index("Correct Answer")], family="gpqa")


def _convert_dapo(row: Row, id: str) -> Problem:
    return Problem(id, text_field(row, "prompt").strip(), text_field(row, "solution").strip(), family="dapo")


def _convert_dapo_raw(row: Row, id: str) -> Problem:
    """The question sits between the data set's own instructions, which are dropped: the prompt suffix is ours."""
    try:
        message, reward_model = row["prompt"][0], row["reward_model"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("fields 'prompt' (a list of messages) and 'reward_model' are needed") from error
    question = text_field(message, "content").strip()
    if question.startswith(_DAPO_PREFIX):
        question = question.partition("\n\n")[2]
    question = question.removesuffix(_DAPO_SUFFIX).strip()
    return Problem(id, question, text_field(reward_model, "ground_truth").strip(), family="dapo")


BENCHMARKS: dict[str, Benchmark] = {
    "gsm8k": Benchmark("openai/gsm8k", "main", "test", _convert_gsm8k),
    "math500": Benchmark("HuggingFaceH4/MATH-500", None, "test", _convert_math500),
    "amc23": Benchmark("knoveleng/AMC-23", None, "train", _convert_contest),
    "aime24": Benchmark("HuggingFaceH4/aime_2024", None, "train", _convert_contest),
    "aime25": Benchmark("yentinglin/aime_2025", None, "train", _convert_contest),
    "gpqa": Benchmark("Idavidrein/gpqa", "gpqa_diamond", "train", _convert_gpqa),
    "dapo": Benchmark("open-r1/DAPO-Math-17k-Processed", "en", "train", _convert_dapo, repeats=True),
    "dapo-raw": Benchmark("BytedTsinghua-SIA/DAPO-Math-17k", None, "train", _convert_dapo_raw, repeats=True),
}
"""The six evaluation sets of the paper and its training set in two editions, by short name."""
