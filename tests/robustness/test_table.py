"""The table of README.md names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LINES = (HERE / "README.md").read_text(encoding="utf-8").splitlines()
ROWS = [line for line in LINES if line.startswith("| ") and not line.startswith(("| ---", "| fault |"))]


@cache
def names_of_tests() -> frozenset[str]:
    """The names of all test functions of the repository."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in HERE.parent.rglob("test_*.py"))
    return frozenset(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def is_there(name: str) -> bool:
    """Whether a file, a test, or one that begins so is there."""
    if name.endswith(".py"):
        return any((folder / name).is_file() for folder in (HERE, HERE.parents[1]))
    beginning = name.removesuffix("...")
    return any(test == name or (beginning != name and test.startswith(beginning)) for test in names_of_tests())


@pytest.mark.parametrize("row", ROWS)
def test_what_holds_a_promise_exists(row: str) -> None:
    named = re.findall(r"`((?:[\w./]*/)?test_\w+(?:\.py|\.\.\.)?|tools/[\w./]+\.py)`", row)
    assert named or ".ci/run" in row, "no test is named"
    assert [name for name in named if not is_there(name)] == []
