"""JupyterLab and Chromium for tests: start a server, open a notebook, run it, and watch every request."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
SECONDS = 90
"""How long to wait for anything; two busy cores are slow."""

QUIET = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/extensionmanager-extension:plugin": {"enabled": False},
    # Every cell stays on the page, so that it can be looked at wherever the page stands.
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}


CONTRAST = """node => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = rgb => rgb.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const withAlpha = rgb => rgb.length > 3 ? rgb : [...rgb, 1];
  const layers = [];
  for (let part = node; part; part = part.parentElement)
    layers.push(withAlpha(parse(getComputedStyle(part).backgroundColor)));
  let behind = [255, 255, 255];
  for (const layer of layers.reverse()) behind = over(layer, behind);
  let opacity = 1;
  for (let part = node; part; part = part.parentElement) opacity *= Number(getComputedStyle(part).opacity);
  const ink = withAlpha(parse(getComputedStyle(node)[node instanceof SVGElement ? 'fill' : 'color']));
  const front = over([...ink.slice(0, 3), ink[3] * opacity], behind);
  const [low, high] = [luminance(front), luminance(behind)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""


class Jupyter:
    """A JupyterLab server in a folder of its own, which talks to nobody.

    Args:
        folder: Where its notebooks, settings and log lie.
        theme: "JupyterLab Light" or "JupyterLab Dark".
        variables: More environment variables, for the kernels.
    """

    def __init__(self, folder: Path, theme: str = "JupyterLab Light", **variables: str) -> None:
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir(parents=True)
        settings = folder / "settings"
        settings.mkdir()
        overrides = {**QUIET, "@jupyterlab/apputils-extension:themes": {"theme": theme}}
        (settings / "overrides.json").write_text(json.dumps(overrides))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        own = {name: str(folder / name) for name in ("config", "data", "runtime", "ipython")}
        environment = {
            **os.environ,
            "JUPYTER_CONFIG_DIR": own["config"],
            "JUPYTER_DATA_DIR": own["data"],
            "JUPYTER_RUNTIME_DIR": own["runtime"],
            "IPYTHONDIR": own["ipython"],
            "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            "JUPYTERLAB_SETTINGS_DIR": str(folder / "user-settings"),
            "PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]),
            **variables,
        }
        self.log = (folder / "server.log").open("w")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
                f"--ServerApp.port={self.port}",
                "--ServerApp.port_retries=0",
                f"--IdentityProvider.token={self.token}",
                f"--ServerApp.root_dir={self.notebooks}",
                f"--LabApp.app_settings_dir={settings}",
            ],
            env=environment,
            stdout=self.log,
            stderr=self.log,
        )
        wait_until(self._is_up, "the server to answer", alive=lambda: self.process.poll() is None)

    def _is_up(self) -> bool:
        try:
            return "version" in self.ask("")
        except OSError:
            return False

    def ask(self, path: str, method: str = "GET") -> Any:
        """A request of the server's REST interface."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{path}",
            headers={"Authorization": f"token {self.token}"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or "null")

    def write(self, name: str, cells: list[str]) -> str:
        """Write a notebook of code cells; returns its address in JupyterLab."""
        return self.put(name, self._notebook(cells))

    def put(self, name: str, notebook: dict[str, Any]) -> str:
        """Write a whole notebook; returns its address in JupyterLab."""
        (self.notebooks / f"{name}.ipynb").write_text(json.dumps(notebook))
        return f"http://127.0.0.1:{self.port}/lab/workspaces/{name}/tree/{name}.ipynb?token={self.token}"

    def read(self, name: str) -> dict[str, Any]:
        """A notebook as it was saved last."""
        return dict(json.loads((self.notebooks / f"{name}.ipynb").read_text()))

    @staticmethod
    def _notebook(cells: list[str]) -> dict[str, Any]:
        return {
            "cells": [
                {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "source": source, "outputs": []}
                | {"execution_count": None}
                for number, source in enumerate(cells)
            ],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }

    def kernel_is_idle(self, name: str) -> bool:
        """Whether the notebook's kernel runs, is idle and has the page connected."""
        for session in self.ask("sessions"):
            if session["path"] == f"{name}.ipynb":
                kernel = session["kernel"]
                return kernel["execution_state"] == "idle" and kernel["connections"] >= 1
        return False

    def end_kernels(self) -> None:
        """Stop every kernel, so that the next notebook has the machine to itself."""
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")

    def close(self) -> None:
        """Stop the server and its kernels."""
        self.process.terminate()
        self.process.wait(timeout=30)
        self.log.close()


def wait_until(
    holds: Callable[[], bool], what: str, seconds: float = SECONDS, alive: Callable[[], bool] = lambda: True
) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: It did not come about in time.
    """
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end or not alive():
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.2)


def leaves_the_machine(address: str) -> bool:
    """Whether a request goes anywhere but to this machine."""
    parts = urlsplit(address)
    return parts.scheme not in ("data", "blob") and parts.hostname not in ("127.0.0.1", "localhost")


class Page:
    """A notebook in the browser.

    Attributes:
        page: Playwright's page.
        outside: Addresses of all requests that would have left the machine.
    """

    def __init__(self, page: Any, server: Jupyter) -> None:
        self.page = page
        self.server = server
        self.outside: list[str] = []
        page.context.on("request", self._requested)
        page.on("websocket", self._requested)

    def _requested(self, request: Any) -> None:
        if leaves_the_machine(request.url):
            self.outside.append(request.url)

    def run(self, name: str, cells: list[str]) -> None:
        """Open a notebook with these cells and run them all."""
        self._run_all(name, self.server.write(name, cells))

    def run_notebook(self, name: str, notebook: dict[str, Any]) -> None:
        """Open a whole notebook and run all its cells."""
        self._run_all(name, self.server.put(name, notebook))

    def save(self) -> None:
        """Save the notebook, as the keys for it do."""
        self.page.locator(".jp-NotebookPanel").press("Control+s")

    def _run_all(self, name: str, address: str) -> None:
        self.page.goto(address, wait_until="domcontentloaded")
        wait_until(lambda: self.server.kernel_is_idle(name), "the kernel")
        self.page.locator(".jp-NotebookPanel").wait_for()
        self.page.locator("li.lm-MenuBar-item, .lm-MenuBar-item").filter(has_text="Run").first.click()
        self.page.locator('[data-command="runmenu:run-all"]').click()

    def view(self, index: int = 0) -> Any:
        """The index-th widget on the page, once it is drawn."""
        view = self.page.locator(".stepgrpo-view").nth(index)
        view.wait_for(timeout=SECONDS * 1000)
        return view

    def figure(self, view: Any, index: int = 0) -> str:
        """What a figure draws: the shapes of its SVG."""
        plot = view.locator(".js-plotly-plot").nth(index)
        plot.locator(".main-svg").first.wait_for(timeout=SECONDS * 1000)
        return plot.evaluate(
            """node => [...node.querySelectorAll('.cartesianlayer :is(path, image, text)')]
                .map(part => [part.getAttribute('d'), part.getAttribute('transform'), part.getAttribute('style'),
                              part.getAttribute('href'), part.textContent].join()).join(';')"""
        )

    def words(self, view: Any) -> str:
        """What the read-out says."""
        return view.locator(".readout").first.text_content() or ""

    def state(self, control: Any) -> str:
        """Where a slider, a list or a check box stands."""
        return str(control.evaluate("node => node.getAttribute('aria-valuetext') ?? node.checked + ':' + node.value"))

    def contrast(self, part: Any) -> float:
        """Contrast ratio of a text with what lies behind it (WCAG 2.1), from 1 to 21."""
        return float(part.evaluate(CONTRAST))

    def is_dark(self) -> bool:
        """Whether JupyterLab shows its dark theme."""
        return self.page.evaluate("document.body.dataset.jpThemeLight") == "false"

    def press(self, control: Any, *keys: str) -> None:
        """Put the focus on a control as a keyboard would, and press keys."""
        control.focus()
        for key in keys:
            control.press(key)

    def changes(self, look: Callable[[], str], before: str, seconds: float = SECONDS) -> bool:
        """Whether what can be seen becomes another in time."""
        try:
            wait_until(lambda: look() != before, "a change", seconds)
        except TimeoutError:
            return False
        return True


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's browser; Playwright's own is not downloaded."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()
