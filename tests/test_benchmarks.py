"""The paper's six benchmarks: their protocol, hand-made rows of every hub schema, and the real files end to end."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_problems import GPQA_ROW, HUB_ROWS
from tiny import save_tiny, tiny_model, tiny_tokenizer

from stepgrpo_lab.cli import main
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.evaluation.benchmarks import (
    CHOICE_SUFFIX,
    COMPLETION_LIMIT,
    MATH_SUFFIX,
    PAPER_SUITE,
    evaluate_suite,
    suite_problems,
    suite_table,
)
from stepgrpo_lab.evaluation.evaluating import EVALUATION_SAMPLING, RAW_ACCURACY
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.problems import write_problems
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.method.records import Outcome, Problem

REAL_FILES = {"gsm8k": "gsm8k_test", "math500": "math500", "amc23": "amc23", "aime24": "aime24"}


def raw_rows(name: str) -> list[dict[str, Any]]:
    """As many rows as the set has, in the hub's own columns, each with a question of its own."""
    row = GPQA_ROW if name == "gpqa" else HUB_ROWS[name][0]
    key = next(column for column in ("Question", "question", "problem") if column in row)
    return [{**row, key: f"{row[key]} ({number})"} for number in range(PAPER_SUITE[name].problems)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that serves hand-made rows; lists what was asked for."""
    names = {"openai/gsm8k": "gsm8k", "HuggingFaceH4/MATH-500": "math500", "knoveleng/AMC-23": "amc23"}
    names |= {"HuggingFaceH4/aime_2024": "aime24", "yentinglin/aime_2025": "aime25", "Idavidrein/gpqa": "gpqa"}
    asked: list[str] = []

    def load_dataset(hub_id: str, config: str | None, split: str) -> list[dict[str, Any]]:
        asked.append(hub_id)
        return raw_rows(names[hub_id])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return asked


def test_the_protocol_is_the_papers_with_more_samples_where_problems_are_few() -> None:
    assert {name: protocol.problems for name, protocol in PAPER_SUITE.items()} == {
        **{"gsm8k": 1319, "math500": 500, "amc23": 40, "aime24": 30, "aime25": 30, "gpqa": 198},
    }
    assert all(protocol.samples >= 16 for protocol in PAPER_SUITE.values() if protocol.problems <= 40)
    assert (EVALUATION_SAMPLING.temperature, EVALUATION_SAMPLING.top_p, EVALUATION_SAMPLING.top_k) == (0.6, 0.95, 20)
    assert COMPLETION_LIMIT == 16384
    assert "\\boxed{}" in MATH_SUFFIX and PAPER_SUITE["gpqa"].suffix == CHOICE_SUFFIX != MATH_SUFFIX


def test_every_set_comes_from_the_hub_whole(hub: list[str]) -> None:
    for name, protocol in PAPER_SUITE.items():
        problems = suite_problems(name)
        assert len(problems) == protocol.problems == len({problem.id for problem in problems})
    assert len(hub) == 6 and len(suite_problems("gpqa", count=3)) == 3


def test_hand_made_golds_of_every_schema_grade_themselves_right_and_others_wrong(hub: list[str]) -> None:
    with Grader() as grader:
        for name in PAPER_SUITE:
            golds = [problem.answer for problem in suite_problems(name, count=8)]
            others = ["E" if gold in "ABCD" else f"1+{gold}" for gold in golds]
            assert all(grader.grade(golds, golds)) and not any(grader.grade(others, golds)), name


def test_a_folder_comes_before_the_hub_and_a_part_of_a_set_is_refused(hub: list[str], tmp_path: Path) -> None:
    write_problems(tmp_path / "aime24.jsonl", [Problem(f"a{n}", f"{n}?", "1") for n in range(30)])
    assert suite_problems("aime24", tmp_path)[0].id == "a0" and hub == []
    write_problems(tmp_path / "aime24.jsonl", [Problem("a", "?", "1")])
    with pytest.raises(ValueError, match=r"aime24\.jsonl has 1 problems, but aime24 has 30"):
        suite_problems("aime24", tmp_path)
    assert len(suite_problems("aime24", tmp_path, require_all=False)) == 1
    with pytest.raises(ValueError, match=r"'aime23'.*gsm8k"):
        suite_problems("aime23")
    with pytest.raises(ValueError, match="unknown benchmark 'aime23'"):
        evaluate_suite(None, None, {"aime23": []})


def test_all_six_are_measured_end_to_end_with_their_samples_and_suffixes(
    hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[str] = []

    def watched(tokenizer: Any, question: str, suffix: str = "") -> list[int]:
        prompts.append(question + suffix)
        return encode_prompt(tokenizer, question, suffix)

    monkeypatch.setattr("stepgrpo_lab.engines.tokenizers.encode_prompt", watched)
    sets = {name: suite_problems(name, count=1) for name in PAPER_SUITE}
    reports: list[str] = []
    measured = evaluate_suite(
        tiny_model(),
        tiny_tokenizer(),
        sets,
        limit=12,
        keep_texts=1,
        progress=lambda name, done, total: reports.append(f"{name} {done}/{total}"),
    )
    for name, evaluation in measured.items():
        assert len(evaluation.outcomes[0]) == PAPER_SUITE[name].samples
        assert evaluation.settings["temperature"] == 0.6 and evaluation.settings["top_k"] == 20
        assert list(evaluation.texts) == [sets[name][0].id]
    assert reports[-1] == "gpqa 4/4"
    assert [prompt.endswith(PAPER_SUITE[name].suffix) for name, prompt in zip(sets, prompts, strict=True)] == [True] * 6
    assert suite_table(measured).count("\n") == 1 + 6 + 1


def test_the_table_shows_what_math_verify_alone_would_say() -> None:
    noted = Evaluation(["a"], [""], [None], [[Outcome(True, True, 1, 9)]], settings={RAW_ACCURACY: 0.5})
    head, _, row, average = suite_table({"aime24": noted}).splitlines()
    assert head.endswith("| accuracy by math-verify alone |")
    assert row.endswith("| 50.0 % |") and average.endswith("| 50.0 % |")


def evaluation(correct: list[bool], tokens: int) -> Evaluation:
    outcomes = [[Outcome(c, c, 1, tokens, close="natural")] for c in correct]
    return Evaluation([str(n) for n in range(len(correct))], [""] * len(correct), [None] * len(correct), outcomes)


def test_the_average_counts_every_set_once() -> None:
    before = {"gsm8k": evaluation([True] * 8, 200), "aime24": evaluation([False, False], 1000)}
    after = {"gsm8k": evaluation([True] * 8, 100), "aime24": evaluation([True, False], 500)}
    last = suite_table(after, before).splitlines()[-1]
    assert last == "| average |  | 75.0 % | 300 |  |  | +25.0 points | 50 % |"
    assert "| gsm8k | 8 x 1 | 100.0 [100.0, 100.0] % |" in suite_table(after)
    with pytest.raises(ValueError, match="before and after"):
        suite_table(after, {"gsm8k": before["gsm8k"]})
    with pytest.raises(ValueError, match="at least one benchmark"):
        suite_table({})


def test_real_benchmarks_run_end_to_end_with_a_random_model(real_data: Path, tmp_path: Path) -> None:
    for name, file in REAL_FILES.items():
        (tmp_path / f"{name}.jsonl").write_bytes((real_data / "benchmarks" / f"{file}.jsonl").read_bytes())
    sets = {name: suite_problems(name, tmp_path) for name in REAL_FILES}
    assert {name: len(problems) for name, problems in sets.items()} == {
        name: PAPER_SUITE[name].problems for name in REAL_FILES
    }
    few = {name: sorted(problems, key=lambda problem: len(problem.prompt))[:2] for name, problems in sets.items()}
    measured = evaluate_suite(tiny_model(), tiny_tokenizer(), few, samples=2, limit=16, keep_texts=2)
    for name, result in measured.items():
        assert [len(samples) for samples in result.outcomes] == [2, 2]
        assert all(1 <= sample.tokens <= 16 for samples in result.outcomes for sample in samples)
        assert set(result.texts) == {problem.id for problem in few[name]}
    assert "| average |" in suite_table(measured, measured)


def test_the_command_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_problems(tmp_path / "aime24.jsonl", [Problem(f"a{n}", f"{n}?", "1") for n in range(30)])
    model = save_tiny(tmp_path / "model")
    options = ["--folder", str(tmp_path), "--count", "2", "--samples", "3", "--limit", "10", "--dtype", "float32"]
    assert main(["benchmark", str(model), "--set", "aime24", *options]) == 0
    assert "| aime24 | 2 x 3 | 0.0 [0.0, 0.0] % | " in capsys.readouterr().out
    assert main(["benchmark", str(model), "--set", "aime23"]) == 2
    assert "unknown benchmark 'aime23'" in capsys.readouterr().err

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to the hub")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=unreachable))
    assert main(["benchmark", str(model), "--set", "aime24"]) != 0
    assert "no route to the hub; check the connection" in capsys.readouterr().err


def test_qwen3s_template_asks_in_thinking_mode(qwen3_tokenizer: Any) -> None:
    prompt = qwen3_tokenizer.decode(encode_prompt(qwen3_tokenizer, "1+1?", MATH_SUFFIX))
    assert "put your final answer within \\boxed{}." in prompt
    assert prompt.endswith("<|im_start|>assistant\n")  # an empty think block would switch thinking off
