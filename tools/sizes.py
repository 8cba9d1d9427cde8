"""``python -m tools.sizes [FOLDER ...]``: how large the code is, folder by folder, as a Markdown table.

Code lines are those with a token that is no comment and no part of a docstring.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Sizes:
    """What a folder's modules add up to; lengths of functions in lines of code, docstrings left out."""

    modules: int = 0
    lines: int = 0
    code: int = 0
    functions: list[int] = field(default_factory=list)
    documented: list[bool] = field(default_factory=list)

    def add(self, source: str) -> None:
        """Count one module."""
        tree = ast.parse(source)
        nodes = list(ast.walk(tree))
        functions = [node for node in nodes if isinstance(node, Function)]
        self.modules += 1
        self.lines += source.count("\n")
        code = code_lines(source, nodes)
        self.code += len(code)
        self.functions += [len(code.intersection(span(node))) for node in functions]
        self.documented += [ast.get_docstring(node) is not None for node in public_functions(tree)]

    def row(self, name: str) -> str:
        """One line of the table."""
        lengths = sorted(self.functions) or [0]
        ninth = lengths[int(0.9 * (len(lengths) - 1))]
        share = f"{sum(self.documented) / len(self.documented):.0%}" if self.documented else "-"
        numbers = f"{self.modules} | {self.lines:,} | {self.code:,} | {len(self.functions):,}"
        return f"| {name} | {numbers} | {statistics.median(lengths):g} | {ninth} | {lengths[-1]} | {share} |"


def code_lines(source: str, nodes: Sequence[ast.AST]) -> set[int]:
    """Numbers of the lines that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in nodes:  # docstrings, and the strings below constants that document them
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(span(node))
    return lines


def span(node: ast.stmt) -> range:
    """Numbers of a statement's lines."""
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def public_functions(tree: ast.Module) -> list[Function]:
    """Functions of the module and methods of its public classes whose names do not begin with an underscore."""
    classes = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    found = [node for body in (tree.body, *classes) for node in body if isinstance(node, Function)]
    return [node for node in found if not node.name.startswith("_")]


def measure(folder: Path) -> dict[str, Sizes]:
    """The sizes of each folder below, one level deep, and of all of it."""
    sizes = {str(folder): Sizes()}
    for path in sorted(folder.rglob("*.py")):
        below = path.relative_to(folder).parts[:-1]
        names = {str(folder), str(folder / below[0]) if below else f"{folder}/*.py"}
        for name in names:
            sizes.setdefault(name, Sizes()).add(path.read_text(encoding="utf-8"))
    return sizes


def main() -> None:
    """Measure folders, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.sizes", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("stepgrpo_lab"), Path("tests"), Path("tools")])
    print("| folder | modules | lines | code lines | functions | median | p90 | longest | documented |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for folder in parser.parse_args().folders:
        for name, sizes in measure(folder).items():
            print(sizes.row(name))


if __name__ == "__main__":
    main()
