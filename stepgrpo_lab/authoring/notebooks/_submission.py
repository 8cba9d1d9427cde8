"""The process in which one submitted notebook is graded: it runs students' code, and is killed when it misbehaves.

``python -m stepgrpo_lab.authoring.notebooks._submission`` reads a job as JSON from its input and answers in JSON lines:
``{"ready": true}``, then for each exercise ``{"begin": number}`` and its result. The check is that of the notebook that
was handed out, never the student's; of the submission only definitions are run, those that the exercise needs.
"""

from __future__ import annotations

import ast
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import IO, Any

MOST_BYTES = 10**8
"""Largest file that a submission may write."""


def plain_python(source: str) -> str:
    """A cell's code without IPython's own lines."""
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE)


def definitions(sources: list[str]) -> Iterator[ast.stmt]:
    """What the cells define, in order: imports, functions, classes and values; cells that do not parse define nothing.

    Example:
        >>> [type(node).__name__ for node in definitions(["import math\\nprint(1)", "x = 2", "def f(:"])]
        ['Import', 'Assign']
    """
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for source in sources:
        try:
            tree = ast.parse(plain_python(source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        yield from (node for node in tree.body if isinstance(node, kinds))


def bound(node: ast.stmt) -> set[str]:
    """The names that a statement binds in its module."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {inner.id for target in targets if target for inner in ast.walk(target) if isinstance(inner, ast.Name)}


def used(node: ast.AST) -> set[str]:
    """The names that a piece of code reads."""
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def needed(statements: list[ast.stmt], names: set[str]) -> list[ast.stmt]:
    """The statements that define some names, and all that these need in their turn; a name's last function counts."""
    last = {node.name: node for node in statements if isinstance(node, ast.FunctionDef)}
    statements = [node for node in statements if not isinstance(node, ast.FunctionDef) or last[node.name] is node]
    wanted, kept = set(names), set[int]()
    while True:
        more = {place for place, node in enumerate(statements) if bound(node) & wanted} - kept
        if not more:
            return [statements[place] for place in sorted(kept)]
        kept |= more
        for place in more:
            wanted |= used(statements[place])


def run(statements: list[ast.stmt], names: dict[str, Any]) -> str:
    """Run statements one by one; those that fail bind nothing. Returns the last error, if there was one."""
    complaint = ""
    for node in statements:
        try:
            exec(compile(ast.Module([node], []), "<submission>", "exec"), names)
        except Exception as error:
            complaint = f"{type(error).__name__}: {error}"
    return complaint


def check(exercise: dict[str, Any], imports: list[ast.stmt], answers: dict[str, Any]) -> Any:
    """The result of an exercise's own check on these answers.

    Raises:
        RuntimeError: The check shows no result.
    """
    from stepgrpo_lab.course.checks import CheckResult

    tree = ast.parse(plain_python(exercise["check"]))
    names: dict[str, Any] = {"__name__": "grading"}
    run(needed(imports, used(tree)), names)
    names.update(answers)
    shown: Any = None
    for node in tree.body:
        code = ast.unparse(node)
        if isinstance(node, ast.Expr):
            value = eval(code, names)
            shown = value if isinstance(value, CheckResult) else shown
        else:
            exec(code, names)
    shown = shown or next((value for value in names.values() if isinstance(value, CheckResult)), None)
    if shown is None:
        raise RuntimeError("the check of the original notebook shows no result")
    return shown


def grade(exercise: dict[str, Any], imports: list[ast.stmt], submitted: list[ast.stmt]) -> dict[str, Any]:
    """One exercise's result: whether it is solved, its share, and a message."""
    found: dict[str, Any] = {"__name__": "submission"}
    complaint = run(needed(submitted, set(exercise["names"])), found)
    missing = [name for name in exercise["names"] if name not in found]
    if missing:
        return {"share": 0.0, "message": complaint or f"{missing[0]} is not defined"}
    result = check(exercise, imports, {name: found[name] for name in exercise["names"]})
    if check(exercise, imports, {name: _nothing for name in exercise["names"]}).passed:
        return {"share": 0.0, "message": "after this code the check passes anything"}
    if result.skipped:
        return {"share": 0.0, "message": result.message}
    return {"share": float(result.share), "message": "" if result.passed else result.message}


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _limit(memory: int) -> None:
    """Bound what the process may take, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, MOST_BYTES), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def main() -> None:
    """Grade the job that stands on the input."""
    job = json.loads(sys.stdin.read())
    answers: IO[str] = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):  # whatever the student's code prints or asks for
        os.dup2(nowhere, stream)
    _limit(job["memory"])
    import stepgrpo_lab.course.checks  # noqa: F401

    def say(**line: Any) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    say(ready=True)
    imports, submitted = (list(definitions(job[name])) for name in ("original", "submission"))
    imports = [node for node in imports if isinstance(node, ast.Import | ast.ImportFrom)]
    for exercise in job["exercises"]:
        say(begin=exercise["number"])
        try:
            result = grade(exercise, imports, submitted)
        except BaseException as error:  # exit() among them
            result = {"share": 0.0, "message": f"{type(error).__name__}: {error}"}
        say(number=exercise["number"], **result)


if __name__ == "__main__":
    main()
