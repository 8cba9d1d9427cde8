"""Completions full of HTML and script, in the widgets and in a report, in the real browser: all of it is text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from browser.jupyter_page import SECONDS, Page

EVIL = (
    "<script>window.hit=1</script><img src=x onerror=window.hit=1><svg onload=window.hit=1></pre></textarea>"
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe><a href=javascript:window.hit=1>x</a>\u202e\u200b\x1b[2J "
)
"""Completions, questions and trial answers of the groups below."""

WIDGETS = """
import dataclasses
from stepgrpo_lab.widgets import StepInspector, RolloutPlayer, GroupExplorer
evil = {evil!r}

def spoilt(group):
    def member(entry):
        probes = [dataclasses.replace(probe, text=evil) for probe in entry.trajectory.probes]
        text = evil + entry.trajectory.text.replace("Wait", evil + "Wait")
        return dataclasses.replace(entry, trajectory=dataclasses.replace(entry.trajectory, text=text, probes=probes))
    problem = dataclasses.replace(group.problem, id=evil, prompt=evil, answer=evil)
    return dataclasses.replace(group, members=list(map(member, group.members)), problem=problem, model=evil)

def spoilt_tokens(group):  # small words alone, so that the rollout's decisions stay what they were
    table = dict(group.token_text.table)
    for token, piece in table.items():
        word = piece.strip()
        if word.isalpha() and word.islower() and word not in b"Wait Alternatively":
            table[token] = evil.encode()
    problem = dataclasses.replace(group.problem, id=evil, prompt=evil, answer=evil)
    texts = dataclasses.replace(group.token_text, table=table)
    return dataclasses.replace(group, token_text=texts, problem=problem, model=evil)
"""
SHOWN = (
    "StepInspector([spoilt(StepInspector().groups[0])])",
    "RolloutPlayer([spoilt_tokens(RolloutPlayer().groups[0])], frame=20)",
    "GroupExplorer([spoilt_tokens(GroupExplorer().groups[0])])",
)


def nothing_was_executed(page: Page, places: Any) -> None:
    assert page.page.evaluate("window.hit") is None
    assert places.locator("img, iframe, script, svg[onload], textarea").count() == 0
    assert places.locator("a[href^=javascript]").count() == 0


def test_hostile_completions_are_text_in_every_widget(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.run("hostile", [WIDGETS.replace("{evil!r}", repr(EVIL)), *SHOWN])
    for index in range(3):
        view = page.view(index)
        assert "<script>window.hit=1</script>" in (view.text_content() or "")
        nothing_was_executed(page, view.locator(".stepgrpo"))
        assert "\u202e" not in (view.text_content() or "") and "\x1b" not in (view.text_content() or "")
    assert page.outside == []


def test_hostile_completions_are_text_in_the_report(open_page: Callable[..., Page], tmp_path: Path) -> None:
    from robustness.test_hostile_output import run_folder

    from stepgrpo_lab.run.report import write_report

    page = open_page()
    dialogs: list[str] = []
    page.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    report = write_report(run_folder(tmp_path, EVIL + " Wait, " + EVIL + "</think>"))
    page.page.goto(report.as_uri(), wait_until="domcontentloaded", timeout=SECONDS * 1000)
    page.page.locator("article").first.wait_for(timeout=SECONDS * 1000)
    assert "<script>window.hit=1</script>" in (page.page.locator("article").first.text_content() or "")
    nothing_was_executed(page, page.page.locator("article"))
    assert dialogs == []
    assert [address for address in page.outside if not address.startswith("file:")] == []


def test_the_browser_does_execute_what_is_not_escaped(open_page: Callable[..., Page]) -> None:
    """The tests above can fail."""
    page = open_page()
    page.page.set_content(EVIL)
    page.page.wait_for_function("window.hit === 1")


def test_the_server_listens_on_the_loopback_interface_alone(open_page: Callable[..., Page]) -> None:
    port = f"{open_page().server.port:04X}"
    rows = [line.split() for name in ("tcp", "tcp6") for line in _table(name)]
    listening = {row[1].partition(":")[0] for row in rows if row[1].endswith(f":{port}") and row[3] == "0A"}
    assert listening == {"0100007F"}  # 127.0.0.1


def _table(name: str) -> list[str]:
    path = Path("/proc/net") / name
    return path.read_text().splitlines()[1:] if path.exists() else []
