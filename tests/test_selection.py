"""Pass rates: measured, kept in a file, and used to select."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_model, tiny_tokenizer

from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.selection import (
    PassRate,
    append_pass_rates,
    measure_pass_rates,
    read_pass_rates,
    select_by_pass_rate,
)
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.overthinker import load_overthinker, overthinker_problems


def test_rates_are_of_right_answers() -> None:
    model, tokenizer = load_overthinker()
    problems = overthinker_problems("train", 3)
    wrong = [Problem(f"wrong-{problem.id}", problem.prompt, "123456789") for problem in problems]
    with Grader() as grader:
        rates = measure_pass_rates(model, tokenizer, [*problems, *wrong], grader, samples=2, limit=256)
    assert [(rate.correct, rate.samples) for rate in rates[:3]] == [(2, 2)] * 3
    assert {rate.correct for rate in rates[3:]} == {0}


def test_what_is_known_is_skipped_and_changes_nothing() -> None:
    problems = overthinker_problems("train", 6)
    batches: list[list[PassRate]] = []

    def measured(known: list[str], rows: int) -> list[PassRate]:
        with Grader() as grader:
            return measure_pass_rates(
                tiny_model(), tiny_tokenizer(), problems, grader, samples=2, limit=8, rows=rows, known=known,
                on_batch=batches.append,
            )  # fmt: skip

    whole = measured([], 64)
    assert [rate.id for rate in whole] == [problem.id for problem in problems]
    batches.clear()
    assert measured([problems[0].id, problems[3].id], 1) == [whole[number] for number in (1, 2, 4, 5)]
    assert [len(batch) for batch in batches] == [2, 2]
    with pytest.raises(ValueError, match="samples is 0"), Grader() as grader:
        measure_pass_rates(tiny_model(), tiny_tokenizer(), problems, grader, samples=0, limit=8)


@given(
    correct=st.lists(st.integers(0, 8), min_size=1, max_size=20),
    bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_the_kept_ones_lie_between_the_bounds(correct: list[int], bounds: list[float]) -> None:
    problems = [Problem(str(number), f"{number}?", "1", meta={"kept": True}) for number in range(len(correct))]
    rates = {str(number): PassRate(str(number), count, 8) for number, count in enumerate(correct)}
    least, most = bounds
    expected = [str(number) for number, count in enumerate(correct) if least <= count / 8 <= most]
    if not expected:
        with pytest.raises(ValueError, match="no problem has a pass rate from"):
            select_by_pass_rate(problems, rates, least=least, most=most)
        return
    kept = select_by_pass_rate(problems, rates, least=least, most=most)
    assert [problem.id for problem in kept] == expected
    assert all(problem.meta == {"kept": True, "pass_rate": rates[problem.id].rate} for problem in kept)


def test_problems_without_a_rate_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"no pass rate.*'a'"):
        select_by_pass_rate([Problem("a", "?", "1")], {})


def test_files_grow_and_heal(tmp_path: Path) -> None:
    path = tmp_path / "rates.jsonl"
    first, second = PassRate("a", 1, 8), PassRate("b", 8, 8)
    append_pass_rates(path, [first])
    append_pass_rates(path, [second])
    assert read_pass_rates(path) == {"a": first, "b": second}
    path.write_bytes(path.read_bytes()[:-5])
    assert read_pass_rates(path) == {"a": first}
    append_pass_rates(path, [second])
    assert read_pass_rates(path) == {"a": first, "b": second}


@pytest.mark.parametrize("row", ["[]", "{", '{"id": "a"}', '{"id": "a", "correct": 9, "samples": 8}'])
def test_bad_rows_are_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "rates.jsonl").write_text(row + "\n")
    with pytest.raises(ValueError, match=r"rates\.jsonl, row 1: .*delete the row"):
        read_pass_rates(tmp_path / "rates.jsonl")
