"""The book: Sphinx with MyST-NB and autodoc, from ``docs/``, the notebooks and the library itself.

Sphinx, because autodoc renders the public interface from its docstrings with cross-references, and MyST-NB shows stored
notebooks without running them: one tool for both. Everything is served from the site, MathJax too.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

from stepgrpo_lab._imports import require
from stepgrpo_lab.site._commands import EXTRA, Say, fetch_from_npm, run_command

MATHJAX = "3.2.2"
_MATHJAX_FILES = ("package/es5/tex-mml-chtml.js", "package/es5/output/chtml/fonts/woff-v2/")


def build_book(root: Path, folder: Path, parts: frozenset[str], *, cache: Path, say: Say) -> None:
    """Build the book.

    Args:
        root: Folder of a checkout.
        folder: Where to build it; other parts that lie there stay.
        parts: What else of the site is built ("live", "lite"), and may be linked.
        cache: Where its sources are put together.
        say: Receives what is being done, and what Sphinx warns of.

    Raises:
        ImportError: Sphinx or MyST-NB is not installed.
        ValueError: A page cannot be built; the message ends with what Sphinx said.
    """
    packages = ("sphinx", "myst_nb", "furo", "sphinx_copybutton", "sphinx_design", "nbformat", "jupytext")
    require("building the book", *packages, install=EXTRA)
    from stepgrpo_lab.site._pages import write_pages

    source = cache / "book"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(root / "docs", source)
    say("writing the pages that the library makes")
    write_pages(root, source, parts)
    _provide_mathjax(cache, source / "_static" / "mathjax")
    say("building the book")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-d", str(cache / "doctrees")]
    for part in sorted(parts):
        command += ["-t", part]
    warnings = run_command([*command, str(source), str(folder)], root, PYTHONPATH=str(root), OMP_NUM_THREADS="1")
    for line in warnings.splitlines():
        say(line)


def _provide_mathjax(cache: Path, folder: Path) -> None:
    """MathJax's one file and its fonts, from npm."""
    with tarfile.open(fetch_from_npm("mathjax", MATHJAX, cache)) as packed:
        for member in packed:
            if member.isfile() and member.name.startswith(_MATHJAX_FILES):
                path = folder / Path(member.name).relative_to("package/es5")
                path.parent.mkdir(parents=True, exist_ok=True)
                content = packed.extractfile(member)
                assert content is not None
                path.write_bytes(content.read())
