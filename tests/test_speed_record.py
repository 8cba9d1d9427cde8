"""The pages of figures say what the benchmarks recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.benchmarks.measuring import Figure, figure, figures_markdown, read_result, record_markdown

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "data" / "results"
RECORD = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))
FIGURES = [row for entry in RECORD["benchmarks"].values() for row in read_result(entry).figures]


def test_the_page_is_the_record() -> None:
    assert (RESULTS / "speed.md").read_text(encoding="utf-8") == record_markdown(RECORD)


def test_the_page_of_targets_quotes_the_record() -> None:
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert figures_markdown([row for row in FIGURES if row.target]) in page


def test_every_miss_has_its_cause() -> None:
    assert [row.name for row in FIGURES if row.met is False and not row.note] == []


@pytest.mark.parametrize(("value", "met"), [(1.1, True), (1.2, False)])
def test_targets_decide_what_is_missed(value: float, met: bool) -> None:
    row = figure("b", "n", [value, 9.0, 0.0], most=1.15)
    assert (row.value, row.low, row.high, row.met) == (value, 0.0, 9.0, met)
    assert ("missed" in figures_markdown([row])) is not met
    assert Figure("b", "n", value, "x", value, value).met is None
    assert figure("b", "n", [value], least=1.15).met is not met
