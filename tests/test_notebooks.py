"""The course as it is committed: built from its scripts, complete, with red stubs and green solutions."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from stepgrpo_lab.authoring.notebooks.building import Lesson, find_lessons, notebook_path
from stepgrpo_lab.authoring.notebooks.linting import lint_course

ROOT = Path(__file__).parents[1]
LESSONS = find_lessons(ROOT)
LARGEST = 1_500_000
"""Bytes of a committed notebook, pictures and all."""


def outputs_of_checks(lesson: Lesson, *, solved: bool) -> list[str]:
    notebook = nbformat.read(notebook_path(ROOT, lesson, solved=solved), as_version=4)
    checks = [cell for cell in notebook.cells if "check" in cell.metadata.get("tags", [])]
    return [cell.outputs[0].data["text/plain"] for cell in checks]


def test_the_course_is_whole_and_in_order() -> None:
    assert [lesson.number for lesson in LESSONS] == [f"{number:02d}" for number in range(11)]


def test_no_notebook_differs_from_its_script_or_breaks_a_rule() -> None:
    assert lint_course(ROOT) == []


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_stubs_are_red_and_solutions_green(lesson: Lesson) -> None:
    red, green = (outputs_of_checks(lesson, solved=solved) for solved in (False, True))
    numbers = [f"{lesson.number}.{place}" for place in range(1, len(red) + 1)]
    assert [line.split()[:3] for line in red] == [["✘", "Exercise", number] for number in numbers]
    assert [line.split()[:3] for line in green] == [["✔", "Exercise", number] for number in numbers]


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_stored_outputs_hold_no_error_and_stay_small(lesson: Lesson) -> None:
    for solved in (False, True):
        path = notebook_path(ROOT, lesson, solved=solved)
        assert path.stat().st_size < LARGEST
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                assert output.output_type != "error", f"{path.name}: {cell.source}"


def test_the_course_s_page_lists_every_notebook_with_its_minutes_and_hardware() -> None:
    page = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(\d\d) (.+?)\]\((\w+)\.ipynb\) \| (\d+) \| (.+?) \|", page, re.MULTILINE)
    wanted = [
        (lesson.number, lesson.about["title"], lesson.name, str(lesson.about["minutes"]), lesson.about["hardware"])
        for lesson in LESSONS
    ]
    assert rows == wanted


def test_nothing_is_skipped_that_the_inventory_does_not_name() -> None:
    tests = ROOT / "tests"
    inventory = (tests / "SKIPPED.md").read_text(encoding="utf-8")
    skips = re.compile(r"pytest\.(?:skip|importorskip)\(|mark\.skip|mark\.xfail")
    skipping = {
        path.relative_to(tests).as_posix()
        for path in tests.rglob("*.py")
        if path != Path(__file__) and skips.search(path.read_text(encoding="utf-8"))
    }
    for lesson in LESSONS:
        for cell in lesson.source.cells:
            if set(cell.metadata.get("tags", [])) & {"nbval-skip", "nbval-ignore-output", "raises-exception"}:
                skipping.add(f"{lesson.name}.ipynb")
    assert {name for name in skipping if f"`{name}`" not in inventory} == set()
    named = set(re.findall(r"`([\w/]+\.(?:py|ipynb))`", inventory.partition("| --- |")[2]))
    assert named - skipping == set(), "the inventory names what is not skipped any more"
