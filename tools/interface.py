"""The public interface as a page, ``docs/interface.md``: every public name with its signature, by subject.

    python -m tools.interface            # write the page and print its fingerprint
    python -m tools.interface --check    # exit 1 where the page is out of date

CHANGELOG.md names the fingerprint, so the interface changes only together with a line that says what changed.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import stepgrpo_lab

PAGE = Path("docs/interface.md")
HEAD = """# The public interface

What `stepgrpo_lab.__all__` holds, by subject; `import stepgrpo_lab as lab` and ask for it by name. Written by
`python -m tools.interface`; the fingerprint at the end also stands in the changelog. A module whose name begins with
`_` is private. Words that are not explained here are in the [glossary](glossary.md).
"""


def page() -> str:
    """The whole page, fingerprint included."""
    parts = [HEAD]
    for subject, homes in stepgrpo_lab._PUBLIC.items():
        rows = [row(module, name) for module, names in homes.items() for name in names]
        parts.append("\n".join([f"## {subject}\n", "| name | what it is |", "| --- | --- |", *sorted(rows)]) + "\n")
    text = "\n".join(parts)
    return f"{text}\nFingerprint: `{hashlib.sha256(text.encode()).hexdigest()[:8]}`\n"


def row(module: str, name: str) -> str:
    """One name: signature and the first sentence of its docstring."""
    value = getattr(stepgrpo_lab, name)
    sentence = (inspect.getdoc(value) or "").split("\n\n")[0].replace("\n", " ") if callable(value) else "A constant."
    sentence = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", sentence).replace("``", "`")
    path = Path("stepgrpo_lab", *module.split("."))
    path = path if path.is_dir() else path.with_suffix(".py")
    cells = [f"`{signature(name, value)}`", f"{sentence} [`{module}`](../{path.as_posix()})"]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def signature(name: str, value: Any) -> str:
    """Parameters and defaults without annotations, which differ by Python version; of TRL's subclasses our own only."""
    if not callable(value) or getattr(value, "_is_protocol", False):
        return name
    parameters = inspect.signature(value).parameters.values()
    if inspect.isclass(value) and not value.__base__.__module__.startswith(("builtins", "stepgrpo_lab")):
        parameters = [parameter for parameter in parameters if parameter.name in inspect.get_annotations(value)]
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    text = str(inspect.Signature(bare))
    return name + re.sub(r" at 0x[0-9a-f]+", "", re.sub(r"<function (\w+)[^>]*>", r"\1", text))


def fingerprint(text: str) -> str:
    """The fingerprint at a page's end."""
    return text.rstrip().rpartition("`")[0].rpartition("`")[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.interface", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page is out of date")
    text = page()
    if parser.parse_args().check:
        return int(PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    print(fingerprint(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
