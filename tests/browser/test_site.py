"""The built site in Chromium: notebooks by Run All, every widget moved, the search; no request to the outside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser.jupyter_page import Jupyter, Page, wait_until
from browser.serving import served
from browser.test_widgets_in_jupyterlab import CASES, CONNECTED, Case, control_of
from stepgrpo_lab.site.lite import browser_notebooks

ROOT = Path(__file__).parents[2]
SECONDS = 900
"""How long to wait for a notebook: Python in a browser is a few times slower, and so are two busy cores."""

MOVED = {case.name: case for case in reversed(CASES)}
STATE = """() => {
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(node => node.textContent);
    const idle = document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status === 'idle';
    return {running: prompts.filter(text => text.includes('*')).length,
            ran: prompts.filter(text => /\\d/.test(text)).length, idle};
}"""
TROUBLE = """() => [...document.querySelectorAll('.jp-OutputArea-output')]
    .filter(node => node.querySelector('[data-mime-type$="stderr"], [data-mime-type$="jupyter.error"]')
                    || /Traceback/.test(node.textContent))
    .map(node => node.textContent)"""


class LitePage(Page):
    """A notebook of the course in the browser."""

    def __init__(self, page: Any, address: str) -> None:
        super().__init__(page, None)  # type: ignore[arg-type]
        self.address = address
        page.set_default_timeout(SECONDS * 1000)

    def run_all(self, name: str) -> None:
        """Open a notebook, wait for the kernel, and run every cell."""
        self.page.goto(f"{self.address}/lite/lab/index.html?path={name}.ipynb", wait_until="domcontentloaded")
        self.page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
        wait_until(lambda: self.page.evaluate(STATE)["idle"], "the kernel", SECONDS)
        self.page.wait_for_timeout(3000)  # it says "idle" a moment before it listens
        self.page.locator("li.lm-MenuBar-item, .lm-MenuBar-item").filter(has_text="Run").first.click()
        self.page.locator('[data-command="runmenu:run-all"]').click()
        wait_until(self._is_done, f"{name} to run", SECONDS)

    def _is_done(self) -> bool:
        state = self.page.evaluate(STATE)
        return state["ran"] > 0 and not state["running"] and state["idle"]


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("over")


@pytest.fixture(scope="module")
def address(over: Path) -> Iterator[str]:
    folder = os.environ.get("STEPGRPO_SITE")
    if not folder:
        pytest.skip("STEPGRPO_SITE does not name a folder that `stepgrpo site` has built: see .ci/run site")
    lay_over(
        Path(folder), over, "widgets", [CONNECTED.format(name=name, state=case.state) for name, case in MOVED.items()]
    )
    with served(Path(folder), over) as found:
        yield found


def lay_over(site: Path, over: Path, name: str, cells: list[str]) -> None:
    """Add a notebook to those that the site lists, without touching the site."""
    listing = json.loads((site / "lite" / "api" / "contents" / "all.json").read_text(encoding="utf-8"))
    entry = next(item for item in listing["content"] if item["type"] == "notebook")
    listing["content"].append({**entry, "name": f"{name}.ipynb", "path": f"{name}.ipynb"})
    notebook = Jupyter._notebook(cells)
    notebook["metadata"]["language_info"] = {"name": "python"}  # by which the kernel is found without a question
    for path, content in (
        (over / "lite" / "api" / "contents" / "all.json", listing),
        (over / "lite" / "files" / f"{name}.ipynb", notebook),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def lite(plain_browser: Any, address: str) -> Iterator[LitePage]:
    context = plain_browser.new_context(viewport={"width": 1280, "height": 1600})
    yield LitePage(context.new_page(), address)
    context.close()


@pytest.mark.parametrize("notebook", browser_notebooks(ROOT, solved=False), ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end(notebook: Path, lite: LitePage) -> None:
    lite.run_all(notebook.stem)
    code = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert lite.page.evaluate(STATE)["ran"] == len(code)
    assert lite.page.evaluate(TROUBLE) == []
    assert lite.outside == []


def test_every_widget_starts_and_moves(lite: LitePage) -> None:
    lite.run_all("widgets")
    for place, case in enumerate(MOVED.values()):
        moves(lite, place, case)
    assert lite.page.evaluate(TROUBLE) == []
    assert lite.outside == []


def moves(lite: LitePage, place: int, case: Case) -> None:
    view = lite.view(place)
    view.scroll_into_view_if_needed()
    figure, words = lite.figure(view, case.figure), lite.words(view)
    lite.press(control_of(lite, view, case), case.key)
    assert lite.changes(lambda: lite.words(view), words, SECONDS), f"{case.name}: the read-out did not change"
    assert lite.changes(lambda: lite.figure(view, case.figure), figure, SECONDS), f"{case.name}: the figure did not"


def test_the_book_s_search_finds_a_word_of_the_glossary(plain_browser: Any, address: str) -> None:
    context = plain_browser.new_context(viewport={"width": 390, "height": 844})
    page = Page(context.new_page(), None)  # type: ignore[arg-type]
    page.page.goto(f"{address}/search.html?q=backtracking")
    page.page.locator("#search-results li a").first.wait_for(timeout=SECONDS * 1000)
    found = page.page.locator("#search-results li a").evaluate_all("nodes => nodes.map(node => node.href)")
    assert any("glossary.html" in link for link in found)
    assert page.outside == []
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_landing_page_holds_the_live_model(width: int, plain_browser: Any, address: str) -> None:
    context = plain_browser.new_context(viewport={"width": width, "height": 844})
    page = Page(context.new_page(), None)  # type: ignore[arg-type]
    page.page.goto(f"{address}/index.html")
    page.page.locator("iframe").scroll_into_view_if_needed()
    live = page.page.frame_locator("iframe")
    live.locator(".thoughts li").first.wait_for(timeout=SECONDS * 1000)
    assert live.locator(".column").count() == 2
    assert live.locator("html").evaluate("node => node.scrollWidth - node.clientWidth") <= 0
    assert page.outside == []
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_of_the_book_is_wider_than_the_window(width: int, plain_browser: Any, address: str) -> None:
    context = plain_browser.new_context(viewport={"width": width, "height": 844})
    page = Page(context.new_page(), None)  # type: ignore[arg-type]
    folder = Path(os.environ["STEPGRPO_SITE"])
    names = ["index", "course", "recipes", "results", "papers", "method", "api/index", "course/06_step_aware_reward"]
    for name in names:
        assert (folder / f"{name}.html").exists()
        page.page.goto(f"{address}/{name}.html", wait_until="load")
        over = page.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert over <= 0, f"{name} is {over} pixels wider than the window"
    assert page.outside == []
    context.close()
