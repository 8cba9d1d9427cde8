"""The library's own source on show in a notebook: the very lines that run."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Source:
    """Source of a function or class.

    Attributes:
        name: Its dotted name.
        code: Its lines.
    """

    name: str
    code: str

    def __repr__(self) -> str:
        return f"# {self.name}\n{self.code}"

    def _repr_markdown_(self) -> str:
        # Front ends colour it to their own theme. No fence in the code can end this one: it is longer.
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", self.code)), default=0))
        return f"{fence}python\n{self!r}\n{fence}"


def source_of(thing: Callable[..., Any] | type, *, docstring: bool = False) -> Source:
    """The source of a function, method or class, by default without its docstring.

    Raises:
        TypeError: It was not written in Python.

    Example:
        >>> from stepgrpo_lab import group_advantages
        >>> "def group_advantages" in source_of(group_advantages).code
        True
    """
    try:
        code = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError) as error:
        raise TypeError(f"{thing!r} has no source to show: give a function or class of the library") from error
    if not docstring:
        code = _without_docstrings(code)
    return Source(f"{thing.__module__}.{thing.__qualname__}", code.rstrip())


def _without_docstrings(code: str) -> str:
    """Cut docstrings out of the lines and leave everything else, comments too, as it was written."""
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not ast.get_docstring(node):
            continue
        first = node.body[0]
        if len(node.body) > 1:
            lines[first.lineno - 1 : first.end_lineno] = [""] * ((first.end_lineno or 0) - first.lineno + 1)
    kept: list[str] = []
    for line in lines:
        if line.strip() or (kept and kept[-1].strip() and not kept[-1].rstrip().endswith(":")):
            kept.append(line)
    return "\n".join(kept)
