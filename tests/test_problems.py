"""Reading problems: own files, hand-made rows of each hub schema, and errors that name what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.problems import (
    BENCHMARKS,
    check_golds_of_a_set,
    check_problems,
    convert_rows,
    drop_repeats,
    find_benchmark,
    load_problems,
    write_problems,
)
from stepgrpo_lab.method.records import Problem

DAPO_PROMPT = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\n{}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)


def dapo_row(question: str, gold: str) -> dict[str, Any]:
    message = {"role": "user", "content": DAPO_PROMPT.format(question)}
    return {"prompt": [message], "reward_model": {"ground_truth": gold, "style": "rule"}, "ability": "MATH"}


GPQA_ROW = {
    "Question": "Which one?\n",
    "Correct Answer": "right",
    "Incorrect Answer 1": "wrong 1",
    "Incorrect Answer 2": "wrong 2\n",
    "Incorrect Answer 3": "wrong 3",
}

HUB_ROWS: dict[str, tuple[dict[str, Any], Problem]] = {
    "gsm8k": (
        {"question": "How many?", "answer": "2*700=<<2*700=1400>>1400\n#### 1,400"},
        Problem("gsm8k-0", "How many?", "1400", "gsm8k"),
    ),
    "math500": (
        {"problem": "Find $x$.", "solution": "...", "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 3},
        Problem("math500-0", "Find $x$.", "\\frac{1}{2}", "math500", 3, {"subject": "Algebra"}),
    ),
    "amc23": ({"problem": "Find $x$.", "answer": 27.0}, Problem("amc23-0", "Find $x$.", "27", "amc23")),
    "aime24": ({"id": 60, "problem": "Find $x$.", "answer": "025"}, Problem("aime24-0", "Find $x$.", "025", "aime24")),
    "aime25": ({"problem": "Find $x$.", "answer": 70}, Problem("aime25-0", "Find $x$.", "70", "aime25")),
    "dapo": ({"prompt": "Find $x$.", "solution": "34"}, Problem("dapo-0", "Find $x$.", "34", "dapo")),
    "dapo-raw": (
        dapo_row("Find $x$.\n\nIt is odd.", "34"),
        Problem("dapo-raw-0", "Find $x$.\n\nIt is odd.", "34", "dapo"),
    ),
}


def write_lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_problems_survive_writing_and_reading(tmp_path: Path) -> None:
    problems = [
        Problem("a", "What is\u2028 1+1? é", "2", "sums", 1, {"terms": [1, 1], "rate": 0.1}),
        Problem("b", "x?", "\\frac{1}{2}"),
    ]
    write_problems(tmp_path / "set.jsonl", problems)
    assert load_problems(tmp_path / "set.jsonl") == problems
    assert load_problems(str(tmp_path / "set.jsonl"), limit=1) == problems[:1]


@pytest.mark.parametrize("field", ["prompt", "problem", "question"])
def test_a_minimal_row_gets_the_defaults(tmp_path: Path, field: str) -> None:
    path = write_lines(tmp_path / "mine.jsonl", "", {field: "1+1?", "answer": 2, "source": "me"})
    assert load_problems(path) == [Problem("mine-2", "1+1?", "2")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "x?"', "not valid JSON"),
        ("[1]", "a list, not an object"),
        ({"answer": "1"}, "exactly one of the fields prompt, problem, question, but has none"),
        ({"prompt": "x?", "question": "y?", "answer": "1"}, "but has prompt and question, and they differ"),
        ({"prompt": "x?"}, "field 'answer' is missing; add it"),
        ('{"prompt": "x?", "answer": 1e999}', "field 'answer' is a float, not text; put it in quotes"),
        ({"prompt": "x?", "answer": [0.5]}, "field 'answer' is a list, not text; put it in quotes"),
        ({"prompt": "x?", "answer": True}, "field 'answer' is a bool, not text"),
        ({"prompt": " ", "answer": "1"}, "field 'prompt' is empty"),
        ({"prompt": "x?", "answer": "1", "level": "hard"}, "field 'level' is a str; make it a int or leave it out"),
        ({"prompt": "x?", "answer": "1", "meta": []}, "field 'meta' is a list"),
        ({"prompt": "x?", "answer": "1", "id": "first"}, "field 'id' is 'first', as in row 1; make it unique"),
    ],
)
def test_a_bad_row_is_named_with_file_row_field_and_remedy(tmp_path: Path, row: Any, message: str) -> None:
    path = write_lines(tmp_path / "mine.jsonl", {"id": "first", "prompt": "1+1?", "answer": "2"}, row)
    with pytest.raises(ValueError) as caught:
        load_problems(path)
    assert str(caught.value).startswith(f"{path}, row 2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"problem": "x?", "question": " x? ", "answer": 27.0}, Problem("set-1", "x?", "27")),
        ({"problem": "x?", "answer": 0.5, "level": "Level 3"}, Problem("set-1", "x?", "0.5", level=3)),
        ({"problem": "x?", "answer": "1", "level": "Level ?"}, Problem("set-1", "x?", "1")),
        ({"question": "x?", "final_answer": ["$2$", "$\\frac{1}{2}$"]}, Problem("set-1", "x?", "2, \\frac{1}{2}")),
        (
            {"problem": "x?", "level": "Level 5", "type": "Algebra", "solution": "So $x=\\boxed{\\frac12}$."},
            Problem("set-1", "x?", "\\frac12", "math", 5, {"subject": "Algebra"}),
        ),
        (HUB_ROWS["gsm8k"][0], Problem("set-1", "How many?", "1400", "gsm8k")),
        (HUB_ROWS["dapo-raw"][0], Problem("set-1", "Find $x$.\n\nIt is odd.", "34", "dapo")),
        (HUB_ROWS["dapo"][0], Problem("set-1", "Find $x$.", "34", "dapo")),
    ],
)
def test_a_public_file_loads_in_its_own_columns(tmp_path: Path, row: dict[str, Any], expected: Problem) -> None:
    assert load_problems(write_lines(tmp_path / "set.jsonl", row)) == [expected]


def test_a_raw_gpqa_file_becomes_multiple_choice(tmp_path: Path) -> None:
    (problem,) = load_problems(write_lines(tmp_path / "gpqa.jsonl", GPQA_ROW))
    assert problem.answer in "ABCD" and f"{problem.answer}. right" in problem.prompt


def test_a_set_whose_golds_cannot_be_graded_is_named_and_a_few_are_counted() -> None:
    good = [Problem(str(n), "x?", str(n)) for n in range(30)]
    bad = [Problem(f"bad{n}", "x?", "\\frac{") for n in range(30)]
    with Grader() as grader:
        assert check_golds_of_a_set(good, grader) == 0
        with pytest.warns(UserWarning, match="1 of 31 gold answers cannot be graded"):
            assert check_golds_of_a_set(good + bad[:1], grader) == 1
        with pytest.raises(ValueError, match=r"30 of 60 gold answers cannot be graded.*columns.*'bad0'"):
            check_golds_of_a_set(good + bad, grader)


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'math'.*gsm8k"):
        load_problems("math")
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file"):
        load_problems(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="holds no problems"):
        load_problems(write_lines(tmp_path / "empty.jsonl", ""))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9"}')
    with pytest.raises(ValueError, match=r"latin\.jsonl, row 1: not UTF-8 text"):
        load_problems(tmp_path / "latin.jsonl")
    with pytest.raises(ValueError, match="limit is 0"):
        load_problems("gsm8k", limit=0)
    with pytest.raises(ValueError, match="does not apply to the file"):
        load_problems(tmp_path / "empty.jsonl", split="train")


@pytest.mark.parametrize("name", HUB_ROWS)
def test_each_hub_schema_becomes_a_problem(name: str) -> None:
    row, expected = HUB_ROWS[name]
    assert convert_rows([row], name, BENCHMARKS[name]) == [expected]


def test_every_benchmark_has_a_row_here() -> None:
    assert {*HUB_ROWS, "gpqa"} == set(BENCHMARKS)


def test_gpqa_options_are_shuffled_reproducibly_and_the_gold_is_the_right_ones_letter() -> None:
    problems = convert_rows([GPQA_ROW] * 40, "gpqa", BENCHMARKS["gpqa"])
    assert problems == convert_rows([GPQA_ROW] * 40, "gpqa", BENCHMARKS["gpqa"])
    assert {problem.answer for problem in problems} == set("ABCD")
    for problem in problems:
        assert f"\n{problem.answer}. right\n" in problem.prompt
        assert all(f". wrong {number}\n" in problem.prompt for number in (1, 2, 3))


def test_repeated_prompts_are_dropped_and_contradictory_ones_not_trusted() -> None:
    rows = [dapo_row("p", "1"), dapo_row("q", "2"), dapo_row("p", "1"), dapo_row("r", "3"), dapo_row("r", "4")]
    kept = convert_rows(rows, "dapo-raw", BENCHMARKS["dapo-raw"])
    assert [(problem.id, problem.prompt) for problem in kept] == [("dapo-raw-0", "p"), ("dapo-raw-1", "q")]
    assert drop_repeats(kept) == kept


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("gsm8k", {"question": "x?", "answer": "no mark"}, "openai/gsm8k, row 0: field 'answer' has no '####'"),
        ("math500", {"problem": "x?", "level": 1, "subject": "s"}, "MATH-500, row 0: field 'answer' is missing"),
        ("amc23", {"problem": "x?", "answer": 0.5}, "row 0: field 'answer' is a float"),
        ("gpqa", {"Question": "x?"}, "Idavidrein/gpqa, row 0: field "),
        ("dapo", {"prompt": None, "solution": "1"}, "row 0: field 'prompt' is a NoneType"),
        ("dapo-raw", {"prompt": []}, "row 0: fields 'prompt' .* are needed"),
    ],
)
def test_a_changed_hub_schema_is_named(name: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert_rows([row], name, BENCHMARKS[name])


@pytest.mark.parametrize("source", ["gsm8k", "openai/gsm8k"])
def test_a_hub_set_is_loaded_by_name_or_id_with_its_config_and_split(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    asked = []

    def load_dataset(hub_id: str, config: str | None, split: str) -> list[dict[str, Any]]:
        asked.append((hub_id, config, split))
        return [HUB_ROWS["gsm8k"][0]] * 3

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert [problem.id for problem in load_problems(source, limit=2)] == ["gsm8k-0", "gsm8k-1"]
    load_problems(source, split="train")
    assert asked == [("openai/gsm8k", "main", "test"), ("openai/gsm8k", "main", "train")]


def test_a_hub_failure_names_the_set_and_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(hub_id: str, config: str | None, split: str) -> None:
        raise ConnectionError("gated\nsecond line")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(OSError, match=r"Idavidrein/gpqa.*gated.*hf auth login"):
        load_problems("gpqa")


def test_find_benchmark_knows_only_the_registry() -> None:
    assert find_benchmark("HuggingFaceH4/MATH-500") == ("math500", BENCHMARKS["math500"])
    assert find_benchmark("HuggingFaceH4/MATH") is None


def test_unusable_golds_are_reported() -> None:
    problems = [Problem("good", "x?", "\\sqrt{2}"), Problem("bad", "x?", "\\frac{"), Problem("letter", "x?", "D")]
    with Grader() as grader:
        reports = check_problems(problems, grader)
    assert len(reports) == 1
    assert reports[0].startswith("problem 'bad': gold answer '\\\\frac{' is unusable: math-verify cannot parse")


def test_the_real_files_load(real_data: Path) -> None:
    sizes = {path.stem: len(load_problems(path)) for path in (real_data / "benchmarks").glob("*.jsonl")}
    assert sizes == {"aime24": 30, "amc23": 40, "gsm8k_test": 1319, "math500": 500}
