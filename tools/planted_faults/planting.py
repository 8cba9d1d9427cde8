"""Plant a fault in a copy of a checkout, and run the tests that should catch it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGE, TESTS = "stepgrpo_lab", "tests"
ALL_PASSED, SOME_FAILED = 0, 1
"""Exit codes of pytest."""

TIMEOUT = 600
"""Seconds; a fault that makes the tests hang is caught too."""


class OutOfDateError(Exception):
    """A fault that no longer fits the code, or that names a test that is gone."""


@dataclass(frozen=True)
class Fault:
    """One mistake that somebody could make.

    Attributes:
        name: Short and unique, for ``--only``.
        breaks: What goes wrong, in words.
        edits: Pairs (text, replacement). Each text occurs in exactly one place of the package, whatever its file.
        tests: Names of test functions, or of whole test files, that should catch it, wherever they are.
        otherwise: The same fault in another wording of the code, tried where ``edits`` do not fit.
    """

    name: str
    breaks: str
    edits: Sequence[tuple[str, str]]
    tests: Sequence[str]
    otherwise: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Verdict:
    """What became of one fault.

    Attributes:
        fault: Its name.
        outcome: "caught", "SURVIVED" or "out of date".
        detail: The test that failed first, or why the fault is out of date.
        file: Where it was planted, relative to the checkout.
        seconds: How long the tests ran.
    """

    fault: str
    outcome: str
    detail: str = ""
    file: str = ""
    seconds: float = 0.0


def copy_checkout(root: Path, target: Path) -> None:
    """Copy what git tracks in a checkout, as it is on the disk; of a folder without git, everything."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if not (root / ".git").exists():
        shutil.copytree(root, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".venv*"))
        return
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)


def find_text(root: Path, text: str) -> Path:
    """The one file of the package that holds the text, exactly once.

    Raises:
        OutOfDateError: The text occurs nowhere, or more than once.
    """
    counts = {path: path.read_text(encoding="utf-8").count(text) for path in sorted((root / PACKAGE).rglob("*.py"))}
    found = [path for path, count in counts.items() if count]
    if sum(counts.values()) != 1:
        raise OutOfDateError(f"{text!r} occurs {sum(counts.values())} times in the package, not once")
    return found[0]


def find_tests(root: Path, names: Sequence[str]) -> list[str]:
    """Arguments for pytest: each named file, or each named function in whatever file defines it.

    Raises:
        OutOfDateError: None of them is there.
    """
    files = sorted((root / TESTS).rglob("test_*.py"))
    selected = []
    for name in names:
        if name.endswith(".py"):
            found = [str(path.relative_to(root)) for path in files if path.name == name]
        else:
            holders = [path for path in files if f"\ndef {name}(" in path.read_text(encoding="utf-8")]
            found = [f"{path.relative_to(root)}::{name}" for path in holders]
        selected += found
    if not selected:
        raise OutOfDateError(f"no test is called {' or '.join(names)}")
    return selected


def find_places(root: Path, fault: Fault) -> list[tuple[Path, str, str]]:
    """File, text and replacement of each edit, in one wording of the code or the other.

    Raises:
        OutOfDateError: Neither fits.
    """
    try:
        return [(find_text(root, text), text, replacement) for text, replacement in fault.edits]
    except OutOfDateError:
        if not fault.otherwise:
            raise
    return [(find_text(root, text), text, replacement) for text, replacement in fault.otherwise]


@contextmanager
def planted(root: Path, fault: Fault) -> Iterator[Path]:
    """The file with the fault in it; afterwards every file is as before.

    Raises:
        OutOfDateError: A text of the fault does not occur exactly once.
    """
    places = find_places(root, fault)
    originals = {path: path.read_text(encoding="utf-8") for path, _, _ in places}
    try:
        for path, text, replacement in places:
            path.write_text(path.read_text(encoding="utf-8").replace(text, replacement), encoding="utf-8")
        yield places[0][0]
    finally:
        for path, original in originals.items():
            path.write_text(original, encoding="utf-8")


def run_tests(root: Path, selected: list[str]) -> tuple[int, str]:
    """Run tests in a copy, up to the first that fails; returns pytest's exit code and what it printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", *selected]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",  # bytecode of the same second and size would hide a fault
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return SOME_FAILED, f"FAILED after {TIMEOUT} s without an end"
    return done.returncode, done.stdout + done.stderr


def try_fault(root: Path, fault: Fault) -> Verdict:
    """Plant one fault in a copy whose tests pass, and say what its tests make of it."""
    started = time.monotonic()
    try:
        selected = find_tests(root, fault.tests)
        with planted(root, fault) as path:
            code, output = run_tests(root, selected)
    except OutOfDateError as error:
        return Verdict(fault.name, "out of date", str(error))
    seconds = round(time.monotonic() - started, 1)
    file = str(path.relative_to(root))
    if code == ALL_PASSED:
        return Verdict(fault.name, "SURVIVED", f"passed: {', '.join(selected)}", file, seconds)
    failures = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return Verdict(fault.name, "caught", failures[0].partition(" - ")[0] if failures else output[-200:], file, seconds)
