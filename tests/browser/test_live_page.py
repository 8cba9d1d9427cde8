"""The live page in Chromium, from a plain file server: it thinks, obeys keys, fits a phone, asks nobody else."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from browser.jupyter_page import CONTRAST, SECONDS, leaves_the_machine
from stepgrpo_lab.site.live import write_live

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


FAINT = f"""() => [...document.querySelectorAll("body *")]
  .filter(node => node.checkVisibility() && !node.disabled)
  .filter(node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim()))
  .map(node => [({CONTRAST})(node), node.outerHTML.slice(0, 80)]).filter(([ratio]) => ratio < 4.5)"""
"""The texts whose contrast with what lies behind them is too low."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A plain file server that writes no log."""

    def log_message(self, format: str, *arguments: Any) -> None:
        return


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served from a folder below the server's root."""
    root = tmp_path_factory.mktemp("server")
    write_live(root / "some folder" / "live", {"untrained": "overthinker-2", "trained": "overthinker"})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/some%20folder/live/"
    server.shutdown()
    server.server_close()


class Live:
    """The open page.

    Attributes:
        page: Playwright's page.
        outside: Addresses of requests that would have left the machine.
        errors: What went wrong in the page's scripts.
    """

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.outside, self.errors = page, list[str](), list[str]()
        page.on(
            "request", lambda request: self.outside.append(request.url) if leaves_the_machine(request.url) else None
        )
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.goto(address)
        self.until("() => document.querySelectorAll('.column').length === 2")
        page.select_option("#speed", label="full")

    def until(self, condition: str) -> None:
        self.page.wait_for_function(condition, timeout=SECONDS * 1000)

    def until_done(self) -> None:
        self.until("() => [...document.querySelectorAll('.phase')].every(node => node.textContent === 'done')")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def leave_controls(self) -> None:
        """Take the focus off the controls, which keep their own keys."""
        self.page.evaluate("document.activeElement.blur()")

    def tokens(self) -> list[str]:
        """Each column's tokens of this run, of plain decoding."""
        return [text.split(" ")[0] for text in self.page.locator(".count").all_text_contents()]

    def seen(self) -> list[str]:
        return list(self.page.locator(".thoughts").all_text_contents())


@pytest.fixture
def open_live(plain_browser: Any, address: str) -> Iterator[Callable[..., Live]]:
    contexts = []

    def make(viewport: dict[str, int] = DESKTOP, **options: Any) -> Live:
        context = plain_browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        return Live(context.new_page(), address)

    yield make
    for context in contexts:
        context.close()


def test_both_models_think_and_nothing_leaves_the_machine(open_live: Callable[..., Live]) -> None:
    live = open_live()
    live.until_done()
    assert all(int(count) > 10 for count in live.tokens())
    assert all("boxed" in text for text in live.seen())
    assert live.page.locator(".column .probe").count() > 0
    assert live.page.locator(".column").first.locator(".end .is-right, .end .is-wrong").count() == 1
    assert (live.outside, live.errors) == ([], [])


def test_probes_that_may_not_exit_leave_plain_decoding_and_the_page_says_so(open_live: Callable[..., Live]) -> None:
    live = open_live(reduced_motion="reduce")
    live.press("x")
    live.until_done()
    own_1, plain_1, own_2, plain_2 = live.tokens()
    assert (own_1, own_2) == (plain_1, plain_2)
    assert "Identical" in (live.page.locator(".column").first.locator(".saved").text_content() or "")
    assert live.page.locator(".probe.accepted, .dropped, .close.forced").count() == 0


def test_a_step_back_and_forward_shows_the_same_again(open_live: Callable[..., Live]) -> None:
    live = open_live(reduced_motion="reduce")  # which also keeps it from running by itself
    live.leave_controls()
    assert live.seen() == ["", ""]
    shown = []
    for _ in range(24):
        live.press("ArrowRight")
        shown.append(live.seen())
    assert len({tuple(each) for each in shown}) > 20
    for place in range(22, 12, -1):
        live.press("ArrowLeft")
        assert live.seen() == shown[place]
    live.press("Home")
    assert live.seen() == ["", ""]


def test_the_keyboard_is_enough(open_live: Callable[..., Live]) -> None:
    live = open_live(reduced_motion="reduce")
    live.leave_controls()
    problem = live.page.input_value("#typed")
    live.press("n")
    assert live.page.input_value("#typed") != problem
    live.until_done()
    live.press("Home", "r")
    live.until_done()
    live.press("p")
    assert live.page.is_checked("input[value=paper]")
    live.page.focus("#threshold")
    before = live.page.input_value("#threshold")
    live.press("ArrowLeft")
    assert float(live.page.input_value("#threshold")) < float(before)
    live.leave_controls()
    visited = set()
    for _ in range(30):
        live.press("Tab")
        visited.add(live.page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {
        "theme",
        "picked",
        "another",
        "typed",
        "rule",
        "watching",
        "threshold",
        "temperature",
        "seed",
        "run",
    } <= visited


def test_a_typed_problem_is_read_and_anything_else_still_runs(open_live: Callable[..., Live]) -> None:
    live = open_live(reduced_motion="reduce")
    live.page.fill("#typed", "Start at 1: +1 +1. Which digit, mod 10?")
    assert (live.page.text_content("#gold b"), live.page.is_enabled("#run")) == ("3", True)
    live.page.fill("#typed", "What is <b>2+2</b>?")
    assert live.page.locator("#gold b").count() == 0
    live.page.press("#typed", "Enter")
    live.until_done()
    assert live.page.locator(".end .is-right, .end .is-wrong").count() == 0
    live.page.fill("#typed", "")
    assert live.page.is_disabled("#run")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read_and_nothing_scrolls_sideways(
    open_live: Callable[..., Live], viewport: dict[str, int], theme: str
) -> None:
    live = open_live(viewport, color_scheme=theme, reduced_motion="reduce")
    live.press("r")
    live.until_done()
    live.page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
    faint = live.page.evaluate(FAINT)
    assert faint == []
    assert live.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert live.page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light dark"
    background = "getComputedStyle(document.documentElement).backgroundColor"
    before = live.page.evaluate(background)
    live.page.click("#theme")
    assert live.page.evaluate(background) != before
