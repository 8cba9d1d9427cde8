"""The web site: what its pages are made of and, where one was built (``STEPGRPO_SITE``), that it holds together."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import nbformat
import pytest

import stepgrpo_lab
from stepgrpo_lab.authoring.notebooks.building import find_lessons, notebook_path
from stepgrpo_lab.recipes import recipe_names
from stepgrpo_lab.site import build_site
from stepgrpo_lab.site._commands import run_command
from stepgrpo_lab.site._markdown import Links, section
from stepgrpo_lab.site._notebooks import book_notebook
from stepgrpo_lab.site._pages import cited_papers, write_pages
from stepgrpo_lab.site.checking import check_pages

ROOT = Path(__file__).parents[1]
LESSONS = find_lessons(ROOT)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The book's sources, as Sphinx would get them."""
    folder = tmp_path_factory.mktemp("book")
    for path in (ROOT / "docs").rglob("*.md"):
        (folder / path.relative_to(ROOT / "docs")).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(ROOT / "docs")).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    write_pages(ROOT, folder, frozenset({"lite"}))
    return folder


def test_every_public_name_has_its_place_in_the_reference(book: Path) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (book / "api").glob("*.md"))
    documented = set(re.findall(r"^\.\. auto\w+:: stepgrpo_lab\.[\w.]*?(\w+)$", text, re.MULTILINE))
    assert documented == set(stepgrpo_lab.__all__) - {"__version__"}


def test_every_recipe_and_every_record_is_shown(book: Path) -> None:
    recipes = (book / "_generated" / "recipes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## (.+)$", recipes, re.MULTILINE)) == set(recipe_names())
    records = {path.name for path in (ROOT / "data" / "results").rglob("*.md")} - {"README.md"}
    assert {path.name for path in (book / "results").glob("*.md")} == records


def test_all_papers_that_the_sources_name_are_indexed() -> None:
    cited = cited_papers(ROOT)
    named = {
        number
        for path in (ROOT / "stepgrpo_lab").rglob("*.py")
        for number in re.findall(r"arXiv (\d{4}\.\d{5})", path.read_text(encoding="utf-8"))
    }
    assert "2604.16890" in named <= set(cited)
    assert all((ROOT / path).exists() for places in cited.values() for path, _ in places)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)
def test_a_notebook_s_page_has_its_solutions_folded_and_its_pictures_described(lesson, tmp_path: Path) -> None:
    path = tmp_path / "course" / f"{lesson.name}.ipynb"
    book_notebook(ROOT, lesson, path, Links(ROOT, lesson.repository), [("here", "here.html")])
    page = nbformat.read(path, as_version=4)
    solved = nbformat.read(notebook_path(ROOT, lesson, solved=True), as_version=4)
    solutions = [cell.source for cell in solved.cells if "exercise" in cell.metadata.get("tags", [])]
    folded = [cell.source for cell in page.cells if cell.metadata.get("tags") == ["hide-input"]]
    assert folded == solutions != []
    for cell in page.cells:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
            assert len(cell.metadata["mystnb"]["image"]["alt"]) > 20


def test_links_lead_to_the_book_s_pages_or_to_the_repository() -> None:
    links = Links(ROOT, "https://example.org/lab", {"notebooks/01_a.ipynb": "course/01_a.ipynb"})
    text = "[a](01_a.ipynb#x) [b](../README.md) [c](https://example.org) [d](#here) [e](../stepgrpo_lab/method)"
    assert re.findall(r"\((.*?)\)", links.rewrite(text, "notebooks/02_b.ipynb", "course/02_b.ipynb")) == [
        "01_a.ipynb#x",
        "https://example.org/lab/blob/main/README.md",
        "https://example.org",
        "#here",
        "https://example.org/lab/tree/main/stepgrpo_lab/method",
    ]


def test_a_section_ends_where_the_next_of_its_level_begins() -> None:
    assert section("## A\n\none\n\n### B\n\ntwo\n\n## C\n\nthree\n", "A") == "one\n\n### B\n\ntwo"
    with pytest.raises(ValueError, match="D"):
        section("## A\n", "D")


def test_a_broken_page_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.html").write_text('<p id="here">x</p><img src="../a.png" alt="a">')
    (tmp_path / "a.png").write_bytes(b"")
    good = '<a href="sub/b.html#here">1</a><a href="https://example.org/x">2</a>'
    (tmp_path / "index.html").write_text(good)
    assert check_pages(tmp_path) == []
    bad = (
        '<a href="sub/b.html#there">1</a><a href="c.html">2</a><img src="sub/b.html"><script src="//x.org/y"></script>'
    )
    (tmp_path / "index.html").write_text(bad)
    assert len(check_pages(tmp_path)) == 4


def test_what_cannot_be_built_is_said_in_one_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no part 'bok'"):
        build_site(ROOT, tmp_path, ["bok"], cache=tmp_path)
    with pytest.raises(ValueError, match="no checkout"):
        build_site(tmp_path, tmp_path / "out", ["book"], cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="not installed"):
        run_command(["no-such-program-anywhere"], tmp_path)


# ---- a site that was built -------------------------------------------------------------------------------------------


@pytest.fixture
def site() -> Path:
    folder = os.environ.get("STEPGRPO_SITE")
    if not folder:
        pytest.skip("STEPGRPO_SITE does not name a folder that `stepgrpo site` has built: see .ci/run site")
    return Path(folder)


def test_the_built_site_has_no_broken_link_and_no_picture_without_a_text(site: Path) -> None:
    assert check_pages(site) == []
    assert {path.stem for path in (site / "course").glob("*.html")} == {lesson.name for lesson in LESSONS}
    assert (site / "search.html").exists()


def test_the_reference_shows_arguments_and_examples(site: Path) -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    assert 'id="stepgrpo_lab.method.confidence.ExitRule"' in pages
    assert pages.count("Parameters") > 30 and pages.count("&gt;&gt;&gt;") > 30


def test_the_course_in_the_browser_holds_no_package_that_it_cannot_serve(site: Path) -> None:
    pyodide = site / "lite" / "static" / "pyodide"
    packages = json.loads((pyodide / "pyodide-lock.json").read_text(encoding="utf-8"))["packages"]
    assert "stepgrpo-lab" in packages
    assert all((pyodide / package["file_name"]).exists() for package in packages.values())
