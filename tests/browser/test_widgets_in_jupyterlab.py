"""Every widget in JupyterLab: a key moves figure and read-out, nothing leaves the machine, both themes are legible.

Beside each widget stands a copy whose state nobody listens to. The same key must move its control and nothing else:
so each test is seen to fail without the connection that it is about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from browser.jupyter_page import Page

CONNECTED = "from stepgrpo_lab.widgets import {name}\nwidget = {name}({state})\nwidget"
DISCONNECTED = "alone = {name}({state})\nalone.view\nalone.unobserve_all()\nalone"


@dataclass(frozen=True)
class Case:
    """One widget, and how a keyboard moves it.

    Attributes:
        name: Its class.
        state: Arguments, as code.
        control: Label of the control.
        kind: Selector of what takes the focus in it.
        key: The key.
        figure: Which figure must change.
        says: What the read-out says then.
    """

    name: str
    state: str
    control: str
    kind: str
    key: str
    figure: int = 0
    says: str = ""


CASES = [
    Case("StepInspector", "threshold=0.5", "threshold", "[role=slider]", "ArrowRight", says="> 0.51"),
    Case("StepInspector", "", "confidence rule", "select", "ArrowDown", says="arithmetic"),
    Case("RolloutPlayer", "frame=5", "forward pass", "[role=slider]", "ArrowRight", says="Pass 6 of"),
    Case("RolloutPlayer", "frame=5", "forward ▶", "button", "Enter", says="Pass 6 of"),
    Case("GroupExplorer", "", "all methods: step_alpha", "[role=slider]", "ArrowLeft", says="Step-GRPO likes"),
    Case("GroupExplorer", "", "method", "select", "ArrowDown", figure=1, says="GRPO"),
    Case("LossExplorer", "", "advantage", "[role=slider]", "ArrowLeft", says="ratio 1.000"),
    Case("LossExplorer", "token=4", "forced tokens train", "input[type=checkbox]", "Space", figure=1, says="masked"),
    Case("TradeoffExplorer", "", "problems", "select", "ArrowDown", says="Problems: "),
    Case("StudyExplorer", "", "problems", "select", "ArrowDown", says="Study headline, chain."),
]


def control_of(page: Page, view: Any, case: Case) -> Any:
    if case.kind == "button":
        return view.get_by_role("button", name=case.control, exact=True)
    labelled = view.locator(".jupyter-widgets").filter(has_text=case.control)
    return labelled.filter(has=page.page.locator(case.kind)).last.locator(case.kind).first


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}-{case.control}")
def test_a_key_moves_figure_and_readout(case: Case, open_page: Callable[..., Page]) -> None:
    page = open_page()
    cells = [CONNECTED, DISCONNECTED]
    page.run(f"{case.name}-{CASES.index(case)}", [cell.format(name=case.name, state=case.state) for cell in cells])

    view = page.view(0)
    figure, words = page.figure(view, case.figure), page.words(view)
    assert figure
    page.press(control_of(page, view, case), case.key)
    assert page.changes(lambda: page.words(view), words), "the read-out did not change"
    assert page.changes(lambda: page.figure(view, case.figure), figure), "the figure did not change"
    assert case.says in page.words(view)

    alone = page.view(1)
    figure, words = page.figure(alone, case.figure), page.words(alone)
    control = control_of(page, alone, case)
    before = page.state(control)
    page.press(control, case.key)
    if case.kind != "button":
        assert page.changes(lambda: page.state(control), before), "the key did not reach the control"
    assert not page.changes(lambda: page.words(alone), words, seconds=1.5)
    assert not page.changes(lambda: page.figure(alone, case.figure), figure, seconds=0.5)
    assert page.outside == []


SHOW = """
from stepgrpo_lab.widgets import LiveDashboard
dashboard = LiveDashboard(rows=[{"step": 0, "tokens": 9}])
dashboard
"""
TRAINING = """
import time
dashboard.stoppable, dashboard.max_steps = True, 3000
for step in range(1, 3001):
    dashboard.add({"step": step, "accuracy": step % 7 / 7, "tokens": 90 + step % 5, "exits/early": step % 3 / 3})
    if {heeds} and dashboard.stop_requested:
        break
    time.sleep(0.25)
    if step == {steps}:
        break
dashboard.finished = True
"""


def test_the_dashboard_moves_and_its_button_stops_a_running_cell(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.run("dashboard", [SHOW, TRAINING.replace("{heeds}", "True").replace("{steps}", "3000")])
    view = page.view(0)
    words = page.words(view)
    assert page.changes(lambda: page.words(view), words), "the read-out does not follow training"
    figure = page.figure(view)
    assert page.changes(lambda: page.figure(view), figure), "the figure does not follow training"
    stop = view.get_by_role("button", name="Stop training")
    page.press(stop, "Enter")
    assert page.changes(lambda: str("Finished." in page.words(view)), "False"), "the click did not reach the kernel"
    assert "Step 3000 " not in page.words(view)
    assert page.outside == []


def test_a_loop_that_ignores_the_button_goes_on(open_page: Callable[..., Page]) -> None:
    """The other test of the dashboard can fail: there it is the button that ends the loop."""
    page = open_page()
    page.run("ignored", [SHOW, TRAINING.replace("{heeds}", "False").replace("{steps}", "60")])
    view = page.view(0)
    page.press(view.get_by_role("button", name="Stop training"), "Enter")
    assert page.changes(lambda: str("Stopping" in page.words(view)), "False")
    assert not page.changes(lambda: str("Finished." in page.words(view)), "False", seconds=2)


def test_a_list_keeps_the_keys_that_the_notebook_wants(open_page: Callable[..., Page]) -> None:
    """M would turn the cell into text; in the list it chooses what begins with an m."""
    page = open_page()
    page.run("keys", ["from stepgrpo_lab.widgets import StepInspector\nStepInspector()"])
    view = page.view(0)
    menu = control_of(page, view, Case("StepInspector", "", "confidence rule", "select", ""))
    page.press(menu, "m")
    assert page.changes(lambda: str("minimum >" in page.words(view)), "False")
    assert page.page.locator(".jp-MarkdownCell").count() == 0
    menu.evaluate("node => node.removeAttribute('data-lm-suppress-shortcuts')")
    page.press(menu, "m")
    assert page.changes(lambda: str(page.page.locator(".jp-MarkdownCell").count()), "0"), "the notebook heeds no keys"


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_text_stands_out_in_both_themes(theme: str, open_page: Callable[..., Page]) -> None:
    page = open_page(theme)
    page.run("themes", ["from stepgrpo_lab.widgets import *\nStepInspector(threshold=0.9)", "RolloutPlayer(frame=20)"])
    for index, parts in enumerate(
        ([".readout", ".step", ".chip", "td", ".widget-label", ".xtick text"], [".readout", ".cell"])
    ):
        view = page.view(index)
        for part in parts:
            assert page.contrast(view.locator(part).first) >= 4.5, f"{part} in the {theme} theme"
    assert page.is_dark() is (theme == "Dark")


def test_model_output_cannot_add_elements(open_page: Callable[..., Page]) -> None:
    evil = "<img src=x onerror=document.title=1>"
    code = (
        "import dataclasses\nfrom stepgrpo_lab.recordings import load_recordings\n"
        "from stepgrpo_lab.widgets import GroupExplorer\n"
        f"group, evil = load_recordings()[0], {evil!r}\n"
        "problem = dataclasses.replace(group.problem, prompt=evil, answer=evil)\n"
        "GroupExplorer([dataclasses.replace(group, problem=problem, model=evil)])"
    )
    page = open_page()
    page.run("escaping", [code])
    view = page.view(0)
    assert evil in view.text_content()
    assert view.locator("img").count() == 0
    assert page.page.locator("img[src=x]").count() == 0


def test_requests_that_leave_the_machine_are_seen(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.page.goto(page.server.write("none", []))
    page.page.evaluate("fetch('http://stepgrpo.invalid/x').catch(() => 0)")
    assert page.outside == ["http://stepgrpo.invalid/x"]
