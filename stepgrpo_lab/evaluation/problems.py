"""Problems with gold answers: from a JSON Lines file of your own, or from the benchmarks and training sets on the hub.

Each hub data set has its own columns. Its ``row -> Problem`` conversion is one pure function below, so it is tested on
hand-made rows without any download.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from stepgrpo_lab.engines.files import iterate_lines, parse_json
from stepgrpo_lab.engines.hub import asking_the_hub, first_line
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.names import did_you_mean, shown
from stepgrpo_lab.method.records import Problem, from_json, to_json
from stepgrpo_lab.method.token_text import THINK_CLOSE

Row = Mapping[str, Any]

QUESTION_FIELDS = ("prompt", "problem", "question")
"""The names under which a JSON Lines file may give the question; where a row has several, they say the same."""

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

    A file has one object a line: the question under ``prompt``, ``problem`` or ``question``; ``answer`` (a string or a
    number) or ``final_answer`` (these, or a list); optionally ``id`` (else file name and line number), ``family``,
    ``level`` (an integer, or as MATH writes it, "Level 3"), ``meta``. Other fields are ignored. A row in the columns of
    a set of :data:`BENCHMARKS`, such as GSM8K's own file with its "#### 18", is converted as from the hub.

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
        raise ValueError(
            f"unknown source {shown(str(source))}; give a path that ends in .jsonl, or one of: {', '.join(BENCHMARKS)}"
            + did_you_mean(source, BENCHMARKS)
        )
    return problems[:limit]


def check_problems(problems: Sequence[Problem], grader: Grader) -> list[str]:
    """Report the problems whose gold answer cannot be graded against.

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


MOST_UNUSABLE = 0.1
"""A set with a larger share of golds that cannot be graded is not evaluated: it was read in a wrong way."""


def check_golds_of_a_set(problems: Sequence[Problem], grader: Grader) -> int:
    """Check the golds of a set before a model is measured on it.

    Returns:
        How many cannot be graded against; a warning names the first. They count as wrong for every model.

    Raises:
        ValueError: They are more than a tenth, so that the figure would say nothing of the model.
    """
    lines = check_problems(problems, grader)
    if not lines:
        return 0
    counted = f"{len(lines)} of {len(problems)} gold answers cannot be graded, so no answer to them is right; "
    if len(lines) > MOST_UNUSABLE * len(problems):
        raise ValueError(f"{counted}check the set's columns; the first: {lines[0]}")
    warnings.warn(f"{counted}the first: {lines[0]}", UserWarning, stacklevel=3)
    return len(lines)


def drop_repeats(problems: Iterable[Problem]) -> list[Problem]:
    """Keep the first of the problems that share a prompt (white space aside), and none where their gold answers differ.

    Example:
        >>> rows = [("a", "1+1?", "2"), ("b", "1+1?", "2"), ("c", "x?", "3"), ("d", "x?", "4")]
        >>> [problem.id for problem in drop_repeats(Problem(*row) for row in rows)]
        ['a']
    """
    same_prompt: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        same_prompt[" ".join(problem.prompt.split())].append(problem)
    return [same[0] for same in same_prompt.values() if len({problem.answer for problem in same}) == 1]


# ---- JSON Lines files: read row by row, each bad row named with its remedy -------------------------------------------


def iterate_problems(path: str | Path) -> Iterator[Problem]:
    """The problems of a JSON Lines file, one after the other: what is not kept takes no memory but its id.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A row is bad; the message names file, row, field and remedy. Or there are no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give the path of a .jsonl file")
    row_of_id: dict[str, int] = {}
    for number, line in enumerate(iterate_lines(path, sys.maxsize), start=1):
        try:
            text = _decoded(line, number)
            if not text.strip():
                continue
            problem = _parse_line(text, f"{path.stem}-{number}")
            first = row_of_id.setdefault(problem.id, number)
            if first != number:
                raise ValueError(f"field 'id' is {problem.id!r}, as in row {first}; make it unique")
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from error
        yield problem
    if not row_of_id:
        raise ValueError(f"{path}: holds no problems; write one JSON object a line")


def write_problems(path: str | Path, problems: Iterable[Problem]) -> None:
    """Write problems as JSON Lines that :func:`stepgrpo_lab.load_problems` reads back unchanged."""
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(to_json(problem), ensure_ascii=False) + "\n" for problem in problems)


def _decoded(line: bytes, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error.reason}); save the file as UTF-8") from error


def _parse_line(line: str, default_id: str) -> Problem:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise ValueError(f"{error}; write one object a line") from error
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, not an object; write {{...}} with the problem's fields")
    raw = _raw_converter(row)
    if raw is not None:
        return raw(row, default_id)
    return Problem(
        id=_text_field(row, "id") if "id" in row else default_id,
        prompt=_question(row),
        answer=_gold(row),
        family=_optional_field(row, "family", str, ""),
        level=_level(row),
        meta=_optional_field(row, "meta", dict, {}),
    )


def _question(row: Row) -> str:
    """The question, under whichever name: public AIME and AMC files give it twice."""
    found = [name for name in QUESTION_FIELDS if name in row]
    texts = {" ".join(str(row[name]).split()) for name in found}
    if len(texts) != 1:
        named = " and ".join(found) or "none"
        differing = ", and they differ" if found else ""
        raise ValueError(f"needs exactly one of the fields {', '.join(QUESTION_FIELDS)}, but has {named}{differing}")
    return _text_field(row, found[0])


def _gold(row: Row) -> str:
    """The gold answer; OlympiadBench lists it under ``final_answer``, with dollar signs."""
    listed = row.get("final_answer")
    if "answer" in row or listed is None:
        return _text_field(row, "answer")
    parts = listed if isinstance(listed, list) and listed else [listed]
    return ", ".join(_text_field({"final_answer": part}, "final_answer").strip().strip("$") for part in parts)


def _level(row: Row) -> int | None:
    """The level; MATH writes "Level 3", and "Level ?" where it has none."""
    level = row.get("level")
    if isinstance(level, str) and (found := re.fullmatch(r"Level (\d+|\?)", level)):
        return None if found[1] == "?" else int(found[1])
    return _optional_field(row, "level", int, None)


def _text_field(row: Row, field: str) -> str:
    """A field that must hold text; a number is written out, 27.0 as 27."""
    if field not in row:
        raise ValueError(f"field {field!r} is missing; add it")
    value = row[field]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} is a {type(value).__name__}, not text; put it in quotes")
    if not value.strip():
        raise ValueError(f"field {field!r} is empty; fill it in or delete the row")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"field {field!r} holds half a surrogate pair, which no tokenizer can read; write it as UTF-8")
    return value


def _optional_field(row: Row, field: str, kind: type, default: Any) -> Any:
    """A field that may be missing or null, but must be of its kind otherwise."""
    value = row.get(field)
    if value is None:
        return default
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"field {field!r} is a {type(value).__name__}; make it a {kind.__name__} or leave it out")
    try:
        return from_json(kind if kind is not dict else dict[str, Any], value)
    except ValueError as error:
        raise ValueError(f"field {field!r}: {error}; correct it or leave it out") from error


# ---- data sets on the hub --------------------------------------------------------------------------------------------


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
    with asking_the_hub() as silent:
        try:
            rows: Iterable[Row] = load_dataset(hub_id, benchmark.config, split=split)
        except Exception as error:
            remedy = f"if https://huggingface.co/datasets/{hub_id} is gated, accept its terms there"
            raise OSError(
                f"cannot load {hub_id} (split {split}): {first_line(error)}; check the connection"
                f"{f' ({silent})' if silent else ''}; {remedy} and log in with: hf auth login"
            ) from error
    return rows


def _raw_converter(row: Row) -> Callable[[Row, str], Problem] | None:
    """The converter of the set whose own columns a file's row has; None for a row in the package's format."""
    if "####" in str(row.get("answer", "")) and "question" in row:
        return _convert_gsm8k
    if {"Question", "Correct Answer"} <= row.keys():
        return _convert_gpqa
    if isinstance(row.get("prompt"), list) and "reward_model" in row:
        return _convert_dapo_raw
    if "answer" not in row and "final_answer" not in row and isinstance(row.get("solution"), str):
        return _convert_math if "\\boxed" in row["solution"] else _convert_dapo if "prompt" in row else None
    return None


def _convert_math(row: Row, id: str) -> Problem:
    """MATH as published: the answer is the last box of the solution."""
    gold = extract_boxed(THINK_CLOSE + _text_field(row, "solution"))
    if gold is None:
        raise ValueError("field 'solution' has no boxed answer")
    meta = {"subject": row["type"]} if isinstance(row.get("type"), str) else {}
    return Problem(id, _question(row), gold, family="math", level=_level(row), meta=meta)


def _convert_gsm8k(row: Row, id: str) -> Problem:
    _, mark, gold = _text_field(row, "answer").rpartition("####")
    if not mark:
        raise ValueError("field 'answer' has no '####' before its final answer")
    return Problem(id, _text_field(row, "question"), gold.strip().replace(",", ""), family="gsm8k")


def _convert_math500(row: Row, id: str) -> Problem:
    level, meta = _level(row), {"subject": _text_field(row, "subject")}
    return Problem(
        id, _text_field(row, "problem"), _text_field(row, "answer"), family="math500", level=level, meta=meta
    )


def _convert_contest(row: Row, id: str) -> Problem:
    """AMC and AIME: the answers are integers, which some editions store as 27.0."""
    gold = row.get("answer")
    if isinstance(gold, float) and not gold.is_integer():
        raise ValueError(f"field 'answer' is a float, {gold}, but these contests ask for integers")
    return Problem(id, _text_field(row, "problem"), _text_field(row, "answer"), family=id.rpartition("-")[0])


def _convert_gpqa(row: Row, id: str) -> Problem:
    """Multiple choice: the options in an order fixed by the row's id; the gold is the right one's letter."""
    columns = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]
    random.Random(f"{GPQA_SEED}:{id}").shuffle(columns)
    options = "\n".join(
        f"{letter}. {_text_field(row, column).strip()}" for letter, column in zip("ABCD", columns, strict=True)
    )
    prompt = f"{_text_field(row, 'Question').strip()}\n\n{options}\n\nAnswer with the letter of the right option."
    return Problem(id, prompt, "ABCD"[columns.index("Correct Answer")], family="gpqa")


def _convert_dapo(row: Row, id: str) -> Problem:
    return Problem(id, _text_field(row, "prompt").strip(), _text_field(row, "solution").strip(), family="dapo")


def _convert_dapo_raw(row: Row, id: str) -> Problem:
    """The question sits between the data set's own instructions, which are dropped: the prompt suffix is ours."""
    try:
        message, reward_model = row["prompt"][0], row["reward_model"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError("fields 'prompt' (a list of messages) and 'reward_model' are needed") from error
    question = _text_field(message, "content").strip()
    if question.startswith(_DAPO_PREFIX):
        question = question.partition("\n\n")[2]
    question = question.removesuffix(_DAPO_SUFFIX).strip()
    return Problem(id, question, _text_field(reward_model, "ground_truth").strip(), family="dapo")


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
