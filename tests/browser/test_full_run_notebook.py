"""Notebook 10 in JupyterLab, tested size: all of it runs, the dashboard follows, nothing leaves the machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser.jupyter_page import SECONDS, Jupyter, Page, wait_until

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "solutions" / "10_full_run.ipynb"
LONGEST = 8 * SECONDS
"""How long the whole notebook may take; two busy cores are slow."""


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Page]:
    server = Jupyter(tmp_path / "lab", STEPGRPO_FAST="1", HF_HUB_OFFLINE="1")
    context = browser.new_context(viewport={"width": 1280, "height": 1600})
    yield Page(context.new_page(), server)
    context.close()
    server.end_kernels()
    server.close()


def without_outputs(notebook: dict[str, Any]) -> dict[str, Any]:
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    return notebook


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_full_run_runs_in_a_browser(page: Page) -> None:
    notebook = without_outputs(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    badge = notebook["cells"].pop(0)  # the title: its badge is a picture that only Colab's server has
    assert "colab-badge.svg" in "".join(badge["source"])
    page.run_notebook("full-run", notebook)

    views = page.page.locator(".stepgrpo-view")
    view = views.filter(has_text=re.compile(r"Waiting for the first step|Step \d+ of \d+")).first
    view.wait_for(timeout=LONGEST * 1000)

    def trained() -> bool:
        words = page.words(view)  # training ends twice: it is stopped after step 1 and resumed
        return words.startswith("Step 2 of 2: ") and "Finished." in words

    wait_until(trained, "the end of the training", LONGEST)
    assert page.figure(view), "the dashboard draws nothing"

    cells: list[dict[str, Any]] = []

    def all_executed() -> bool:
        page.save()
        try:
            cells[:] = code_cells(page.server.read("full-run"))
        except json.JSONDecodeError:  # it is being written just now
            return False
        return all(cell["execution_count"] for cell in cells)

    wait_until(all_executed, "the last cell", LONGEST)
    assert len(cells) == len(code_cells(notebook))
    errors = [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert errors == []
    shown = json.dumps(cells)
    assert "finished: False" in shown and "finished: True" in shown  # stopped half way, and resumed
    assert "not solved yet" not in shown
    assert page.outside == []
