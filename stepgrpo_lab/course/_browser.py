"""Notebooks in a browser (Pyodide): a cell that needs torch is skipped with a line, and so are those that build on it.

A cell that raises stops "Run All". So every cell is compiled inside a ``try`` that passes over what a browser lacks,
and over nothing else: any other error looks as ever.
"""

from __future__ import annotations

import ast
import sys
from types import ModuleType
from typing import Any

ABSENT = frozenset(
    (
        *("accelerate", "bitsandbytes", "datasets", "jinja2", "math_verify", "mpmath", "numpy", "pandas", "peft"),
        *("safetensors", "tokenizers", "torch", "transformers", "trl", "vllm", "yaml"),
    )
)
"""What the package requires, or its figures ask for, and a browser does not have."""

_CELL = """
try:
    ...
except (ModuleNotFoundError, NameError) as __error:
    if not __skipped(__error, {names}):
        raise
    for __name in {values}:
        globals().pop(__name, None)
"""


def in_browser() -> bool:
    """Whether this Python is Pyodide."""
    return sys.platform == "emscripten"


def make_ready(shell: Any) -> None:
    """Prepare an IPython shell for a machine without torch and NumPy; a second call changes nothing.

    Args:
        shell: What ``get_ipython()`` returns; None outside a notebook, where there is nothing to prepare.
    """
    if shell is None or any(isinstance(transformer, SkipAbsent) for transformer in shell.ast_transformers):
        return
    transformer = SkipAbsent()
    shell.ast_transformers.append(transformer)
    helpers = {"__skipped": transformer.skipped, "__shown": lambda value: sys.displayhook(value)}
    shell.push(helpers, interactive=False)
    _satisfy_plotly()


def _satisfy_plotly() -> None:
    """Plotly shows figures in a notebook only beside nbformat, of which it reads the version and uses nothing."""
    try:
        import nbformat  # noqa: F401
    except ModuleNotFoundError:
        stand_in = ModuleType("nbformat")
        stand_in.__dict__["__version__"] = "5.10"
        sys.modules["nbformat"] = stand_in


class SkipAbsent(ast.NodeTransformer):
    """Compiles a cell so that it is skipped where it needs what is absent, or a name that a skipped cell would define.

    Example:
        >>> transformer = SkipAbsent()
        >>> error = ModuleNotFoundError("No module named 'torch'", name="torch")
        >>> transformer.skipped(error, ["loss"])
        Skipped: this cell needs torch, which is not here. It runs on Colab and wherever torch is installed.
        True
        >>> transformer.skipped(NameError("name 'loss' is not defined", name="loss"), [])
        Skipped: this cell builds on one that was skipped.
        True
        >>> transformer.skipped(NameError("name 'los' is not defined", name="los"), [])
        False
    """

    def __init__(self) -> None:
        self.lost: set[str] = set()

    def visit_Module(self, cell: ast.Module) -> ast.Module:
        """The cell inside a ``try``; its last expression is shown as before."""
        if not cell.body or any(isinstance(part, ast.ImportFrom) and part.module == "__future__" for part in cell.body):
            return cell
        *body, last = cell.body
        if isinstance(last, ast.Expr):
            shown = ast.Call(ast.Name("__shown", ast.Load()), [last.value], [])
            last = ast.copy_location(ast.Expr(ast.copy_location(shown, last)), last)
        values, others = _bound(cell)
        wrapped = ast.parse(_CELL.format(names=sorted(values | others), values=sorted(values)))
        attempt = wrapped.body[0]
        assert isinstance(attempt, ast.Try)
        attempt.body = [*body, last]
        return ast.fix_missing_locations(wrapped)

    def skipped(self, error: ModuleNotFoundError | NameError, names: list[str]) -> bool:
        """Whether an error means that the cell is to be skipped; if so, say it.

        Args:
            error: What the cell raised.
            names: What it would have defined.
        """
        package = (error.name or "").partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and package in ABSENT:
            why = f"needs {package}, which is not here. It runs on Colab and wherever {package} is installed."
        elif isinstance(error, NameError) and error.name in self.lost:
            why = "builds on one that was skipped."
        else:
            return False
        self.lost.update(names)
        print(f"Skipped: this cell {why}")
        return True


def _bound(cell: ast.Module) -> tuple[set[str], set[str]]:
    """The names that a cell binds: those of values, which a skipped cell leaves half made, and all others."""
    values, others = set(), set()
    for node in ast.walk(cell):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            values.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            others.add(node.name)
        elif isinstance(node, ast.alias):
            others.add((node.asname or node.name).partition(".")[0])
    return values, others
