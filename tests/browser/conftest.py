"""A JupyterLab server and a browser; without them these tests skip, or fail where they are required."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from browser.jupyter_page import CHROMIUM, Jupyter, Page, chromium

REQUIRE = "STEPGRPO_REQUIRE_BROWSER"


def missing(*packages: str) -> str:
    """What is not here, in words; empty if all is."""
    wanted = {name: find_spec(name) is not None for name in packages}
    wanted["chromium"] = CHROMIUM is not None
    return ", ".join(name for name, found in wanted.items() if not found)


@pytest.fixture(scope="session")
def plain_browser() -> Iterator[Any]:
    """Chromium, for pages that need no server of ours but for files."""
    yield from _opened(missing("playwright"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    yield from _opened(missing("playwright", "jupyterlab", "ipykernel", "anywidget"))


def _opened(lacking: str) -> Iterator[Any]:
    if lacking and os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE} is 1, but there is no {lacking}")
    if lacking:
        pytest.skip(f"no {lacking}: install '.[test,browser]' and chromium")
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def make_server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Jupyter]]:
    """Servers by theme, started when they are first asked for."""
    servers: dict[str, Jupyter] = {}

    def make(theme: str) -> Jupyter:
        if theme not in servers:
            servers[theme] = Jupyter(tmp_path_factory.mktemp("jupyter") / "lab", f"JupyterLab {theme}")
        return servers[theme]

    yield make
    for server in servers.values():
        server.close()


@pytest.fixture
def open_page(browser: Any, make_server: Callable[[str], Jupyter]) -> Iterator[Callable[..., Page]]:
    """Opens a page on the server of a theme; everything is closed afterwards."""
    opened: list[tuple[Any, Jupyter]] = []

    def make(theme: str = "Light") -> Page:
        server = make_server(theme)
        context = browser.new_context(viewport={"width": 1280, "height": 1600}, color_scheme=theme.lower())
        opened.append((context, server))
        return Page(context.new_page(), server)

    yield make
    for context, server in opened:
        context.close()
        server.end_kernels()
