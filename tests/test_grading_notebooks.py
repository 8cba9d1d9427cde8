"""Grading submissions: points by the original's checks, whatever the submission does."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from stepgrpo_lab.authoring.notebooks.grading import Row, grade_folder, read_originals, table
from stepgrpo_lab.cli import main

KEPT = "import math\n\ndef kept_share(before, after):\n    return 100 * math.fsum(after) / sum(before)"
FIRST = """def first_confident(confidences, threshold):
    return next((i for i, c in enumerate(confidences) if c > threshold), None)"""
NOT_STRICT = FIRST.replace("c > threshold", "c >= threshold")
STUB = "def first_confident(confidences, threshold):\n    return ...  # your code here"


def cell(source: str, *tags: str, kind: str = "code", **metadata: Any) -> dict[str, Any]:
    return {"cell_type": kind, "source": source, "metadata": {"tags": list(tags), **metadata}, "outputs": []}


def notebook(*cells: dict[str, Any]) -> str:
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


ORIGINAL = (
    cell("from stepgrpo_lab.course import checks"),
    cell("### Exercise 00.1 · The exit rule (●●○)", kind="markdown"),
    cell(STUB, "exercise"),
    cell("result = checks.first_confident(first_confident)\nfirst_confident = result.solution\nresult", "check"),
    cell("### Exercise 00.2 · Tokens kept (●○○)", kind="markdown"),
    cell("def kept_share(before, after):\n    return ...", "exercise"),
    cell("checks.kept_share(kept_share)", "check", nbgrader={"points": 4}),
)


@pytest.fixture
def course(tmp_path: Path) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "00_tour.ipynb").write_text(notebook(*ORIGINAL))
    return folder


def graded(course: Path, *cells: dict[str, Any] | str, **limits: Any) -> Row:
    """The row of one submission, made of these cells."""
    folder = course.parent / "submissions"
    folder.mkdir()
    made = [cell(part, "exercise") if isinstance(part, str) else part for part in cells]
    (folder / "00_tour.ipynb").write_text(notebook(*made))
    [row] = grade_folder(folder, course, **limits)
    return row


def test_originals_say_what_is_asked_and_what_it_is_worth(course: Path) -> None:
    [original] = read_originals(course)
    assert [(exercise.number, exercise.names, exercise.points) for exercise in original.exercises] == [
        ("00.1", ("first_confident",), 2),
        ("00.2", ("kept_share",), 4),
    ]


def test_right_answers_earn_all_points_and_a_stub_none(course: Path) -> None:
    row = graded(course, "print('hello')", FIRST, KEPT)
    assert row.earned == {"00.1": 2, "00.2": 4} and row.out_of == 6 and row.notes == []


def test_a_stub_earns_nothing_and_a_nearly_right_answer_some(course: Path) -> None:
    row = graded(course, NOT_STRICT, "def kept_share(before, after):\n    return None")
    assert 0 < row.earned["00.1"] < 2 and row.earned["00.2"] == 0
    assert "greater than the threshold" in row.notes[0]


@pytest.mark.parametrize("constant", ["None", "0", "len(c)", "c"])
def test_an_answer_without_a_thought_earns_nothing(course: Path, constant: str) -> None:
    row = graded(course, f"def first_confident(c, t):\n    return {constant}", "def kept_share(b, a):\n    return 50.0")
    assert row.earned == {"00.1": 0, "00.2": 0}


@pytest.mark.parametrize(
    "cells",
    [
        (STUB, KEPT),  # the check cells are deleted
        (STUB, KEPT, cell("checks.first_confident(lambda c, t: None)", "check")),
        (STUB, KEPT, cell("class checks:\n    first_confident = staticmethod(lambda f: 'solved')")),
        (KEPT,),  # the exercise is deleted
        ("def first_confident(:\n", KEPT),
    ],
)
def test_a_deleted_or_weakened_check_earns_nothing_more(course: Path, cells: tuple[Any, ...]) -> None:
    row = graded(course, *cells)
    assert row.earned == {"00.1": 0, "00.2": 4} and len(row.notes) == 1


@pytest.mark.parametrize(
    "tampering",
    [
        "def first_confident(c, t):\n    from stepgrpo_lab.course.checks import _result\n"
        "    _result.same = lambda *a, **k: True\n    _result._Outcome.same = lambda *a: True",
        "def first_confident(c, t):\n    from stepgrpo_lab.course.checks import tour\n    tour.agree = print",
    ],
)
def test_code_that_rewrites_the_checks_earns_nothing(course: Path, tampering: str) -> None:
    assert graded(course, tampering).earned["00.1"] == 0


@pytest.mark.parametrize(
    "body",
    [
        "import os; os._exit(0)",
        "import sys; sys.exit()",
        "import ctypes; ctypes.string_at(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "return bytearray(10**13)",
        "return first_confident(c, t)",
        "import os; os.write(1, b'x' * 10**6); os.close(1); print('{\"share\": 1}'); return 1",
        "raise BaseException('no')",
        "open('large', 'wb').truncate(10**12)",
    ],
)
def test_what_one_exercise_does_costs_the_others_nothing(course: Path, body: str) -> None:
    row = graded(course, f"def first_confident(c, t):\n    {body}", KEPT)
    assert row.earned == {"00.1": 0, "00.2": 4}
    assert [note.partition(" ")[0] for note in row.notes] == ["00.1"]


def test_a_submission_that_sleeps_is_ended(course: Path) -> None:
    row = graded(course, "import time\ndef first_confident(c, t):\n    time.sleep(10**6)", seconds=3)
    assert row.earned["00.1"] == 0 and any("took too long" in note for note in row.notes)


def test_helpers_constants_and_imports_of_any_cell_count_and_nothing_else_is_run(course: Path) -> None:
    helper = cell("from math import fsum as total\nHUNDRED = 100\nraise SystemExit")
    row = graded(
        course, helper, "open('/no/such/file')\ndef kept_share(b, a):\n    return HUNDRED * total(a) / total(b)"
    )
    assert row.earned["00.2"] == 4


def test_a_folder_of_many_students_is_graded_in_spite_of_broken_files(
    course: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "handed in"
    for name, text in {
        "ann/00_tour.ipynb": notebook(cell(FIRST, "exercise"), cell(KEPT)),
        "bob/00_tour (1).ipynb": "not JSON",
        "=cmd|calc/00_tour.ipynb": json.dumps([1, 2]),
        "dan/99_unknown.ipynb": notebook(),
        "eve/.ipynb_checkpoints/00_tour-checkpoint.ipynb": notebook(),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    output = tmp_path / "grades.csv"
    assert main(["grade", str(folder), "--course", str(course), "--output", str(output)]) == 0
    assert "runs the code" in capsys.readouterr().err
    rows = {row["notebook"]: row for row in csv.DictReader(output.read_text().splitlines())}
    assert rows["ann/00_tour.ipynb"]["points"] == rows["ann/00_tour.ipynb"]["out_of"] == "6"
    assert rows["bob/00_tour (1).ipynb"]["points"] == "0" and "no notebook" in rows["bob/00_tour (1).ipynb"]["notes"]
    assert rows["'=cmd|calc/00_tour.ipynb"]["00.1"] == "0"
    assert rows["dan/99_unknown.ipynb"]["points"] == "" and len(rows) == 4


def test_a_table_holds_no_formulas_and_no_control_characters() -> None:
    text = table([Row("a.ipynb", "00_tour", {"00.1": 0.5}, 1, ["=1+1\x1b[2J", "a\nb"])])
    assert "'=1+1" in text and "\x1b" not in text and len(text.splitlines()) == 2


@pytest.mark.parametrize("arguments", [["nowhere"], [".", "--course", "nowhere"], [".", "--course", "."]])
def test_what_is_missing_is_named_in_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["grade", *arguments]) == 2
    assert capsys.readouterr().err.count("error") == 1
