"""The course in the browser: JupyterLite with Pyodide, from packages of npm and PyPI alone.

Nothing that the site serves asks another server for anything. Pyodide's core comes from npm. The wheels that its lock
file names are replaced by those of PyPI in the same versions; binary packages, which PyPI does not have for Pyodide,
leave the lock file. The package itself is there without its requirements before a notebook's first cell.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import stepgrpo_lab
from stepgrpo_lab._imports import require
from stepgrpo_lab.authoring.notebooks.building import find_lessons, notebook_path
from stepgrpo_lab.site._commands import EXTRA, Say, fetch_from_npm, run_command
from stepgrpo_lab.site._markdown import Links
from stepgrpo_lab.site._notebooks import without_badge

IN_BROWSER = ("00", "01", "02", "03", "04", "05", "06", "08")
"""The notebooks that run without torch; where one has cells that need it, these are skipped."""

BOOT = ("micropip", "packaging", "ipython", "jedi", "traitlets", "comm", "typing-extensions", "pure-eval", "narwhals")
"""What the kernel starts with; their requirements stand in Pyodide's lock file."""

OURS = ("anywidget", "comm", "filelock", "ipywidgets", "plotly", "psygnal")
"""What widgets and figures need beyond that."""

PACKAGE = "stepgrpo-lab"
KERNEL = "@jupyterlite/pyodide-kernel-extension:kernel"


def browser_notebooks(root: Path, *, solved: bool = True) -> list[Path]:
    """The notebooks that run in a browser, in order.

    Args:
        root: Folder of a checkout.
        solved: Those with solutions, or those with exercises.

    Raises:
        ValueError: The folder is no checkout.
    """
    lessons = [lesson for lesson in find_lessons(root) if lesson.number in IN_BROWSER]
    return [notebook_path(root, lesson, solved=solved) for lesson in lessons]


def build_lite(root: Path, folder: Path, *, cache: Path, say: Say) -> None:
    """Build the course in the browser.

    Args:
        root: Folder of a checkout.
        folder: Where to build it; what lies there is replaced.
        cache: Keeps what was downloaded for the next time.
        say: Receives what is being done.

    Raises:
        ImportError: JupyterLite is not installed.
        ValueError: npm is missing, or a command failed; the message ends with what it said.
    """
    packages = ("jupyterlite_core", "jupyterlite_pyodide_kernel", "ipywidgets", "anywidget", "nbformat", "hatchling")
    require("building the course for the browser", *packages, install=EXTRA)
    source = cache / "lite"
    shutil.rmtree(source, ignore_errors=True)
    pyodide = source / "static" / "pyodide"
    say("fetching Pyodide from npm")
    _unpack_pyodide(cache, pyodide)
    say("fetching wheels from PyPI")
    _provide_wheels(root, pyodide, cache / "wheels")
    _write_contents(root, source / "contents")
    _write_settings(source)
    say("building JupyterLite")
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "jupyterlite_core", "build", "--apps", "lab", "--no-sourcemaps"]
    places = {"--lite-dir": source, "--output-dir": folder, "--contents": source / "contents"}
    run_command([*command, *(str(part) for pair in places.items() for part in pair)], source)


def _unpack_pyodide(cache: Path, folder: Path) -> None:
    """Pyodide's core, in the version that the installed kernel is made for."""
    version = import_module("jupyterlite_pyodide_kernel.constants").PYODIDE_VERSION
    with tarfile.open(fetch_from_npm("pyodide", version, cache)) as packed:
        for member in packed:
            name = Path(member.name).name
            if member.isfile() and Path(name).suffix in {".mjs", ".wasm", ".zip", ".json"}:
                folder.mkdir(parents=True, exist_ok=True)
                content = packed.extractfile(member)
                assert content is not None
                (folder / name).write_bytes(content.read())


def _provide_wheels(root: Path, pyodide: Path, wheels: Path) -> None:
    """Put every wheel that the kernel and the course need beside Pyodide, and its name into the lock file."""
    path = pyodide / "pyodide-lock.json"
    lock = json.loads(path.read_text(encoding="utf-8"))
    known = lock["packages"]
    pins = dict(_pins(root / "constraints.txt"))
    wanted = sorted({*_with_requirements(BOOT, known), *OURS})
    versions = {name: known[name]["version"] if name in known else pins[name] for name in wanted}
    _download(versions, wheels, lock["info"]["python"])
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    run_command([sys.executable, "-m", "pip", "wheel", *options, str(root)], wheels)
    versions[PACKAGE] = stepgrpo_lab.__version__
    lock["packages"] = {}
    for name, version in versions.items():
        [wheel] = _wheels(wheels, name, version)
        shutil.copy(wheel, pyodide)
        lock["packages"][name] = _entry(name, wheel, known.get(name, {}), wanted if name == PACKAGE else ())
    path.write_text(json.dumps(lock), encoding="utf-8")


def _pins(path: Path) -> Iterator[tuple[str, str]]:
    """Name and version of every line of a constraints file."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") and "==" in line:
            name, _, version = line.partition("==")
            yield name.strip().lower().replace("_", "-"), version.strip()


def _with_requirements(roots: Iterable[str], known: dict[str, Any]) -> list[str]:
    """Names with all that the lock file says they need."""
    found: dict[str, None] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name not in found:
            found[name] = None
            waiting += known.get(name, {}).get("depends", [])
    return sorted(found)


def _download(versions: Mapping[str, str], folder: Path, python: str) -> None:
    """Wheels for any platform, as far as they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [f"{name}=={version}" for name, version in versions.items() if not _wheels(folder, name, version)]
    if missing:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        command += ["--platform", "any", "--python-version", python, "-d", str(folder)]
        run_command([*command, *missing], folder)


def _wheels(folder: Path, name: str, version: str) -> list[Path]:
    """The wheel of a package in a version, if it is there; file names write the name in more than one way."""
    start = f"{name}-{version}-".replace("-", "_").lower()
    return [path for path in folder.glob("*.whl") if path.name.replace("-", "_").lower().startswith(start)]


def _entry(name: str, wheel: Path, known: dict[str, Any], depends: Iterable[str]) -> dict[str, Any]:
    """A package as the lock file describes it."""
    module = name.replace("-", "_")
    return {
        "name": name,
        "version": wheel.name.split("-")[1],
        "file_name": wheel.name,
        "sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "install_dir": "site",
        "package_type": "package",
        "imports": known.get("imports", [module]),
        "depends": known.get("depends") or sorted(depends),
        "unvendored_tests": False,
    }


def _write_contents(root: Path, folder: Path) -> None:
    """The notebooks, without what would ask another server; links to what is not here lead to the repository."""
    import nbformat

    found = {
        path.relative_to(root).as_posix(): path.relative_to(root / "notebooks").as_posix()
        for solved in (False, True)
        for path in browser_notebooks(root, solved=solved)
    }
    links = Links(root, find_lessons(root)[0].repository, found)
    for origin, page in found.items():
        notebook = nbformat.read(root / origin, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = links.rewrite(without_badge(cell.source), origin, page)
        (folder / page).parent.mkdir(parents=True, exist_ok=True)
        (folder / page).write_text(json.dumps(notebook), encoding="utf-8")


def _write_settings(folder: Path) -> None:
    """Load the package before a notebook's first cell, and look nowhere else for packages."""
    kernel = {"disablePyPIFallback": True, "loadPyodideOptions": {"packages": [PACKAGE]}}
    settings = {"appName": "stepgrpo_lab", "litePluginSettings": {KERNEL: kernel}}
    lite = {"jupyter-lite-schema-version": 0, "jupyter-config-data": settings}
    (folder / "jupyter-lite.json").write_text(json.dumps(lite), encoding="utf-8")
    news = {"fetchNews": "false", "checkForUpdates": False}
    overrides = {"@jupyterlab/apputils-extension:notification": news}
    (folder / "overrides.json").write_text(json.dumps(overrides), encoding="utf-8")
