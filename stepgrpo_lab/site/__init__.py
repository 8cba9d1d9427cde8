"""The web site: the book, the course in the browser, and the live page, built into one folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path

from stepgrpo_lab.site._commands import Say
from stepgrpo_lab.site.book import build_book
from stepgrpo_lab.site.checking import check_pages
from stepgrpo_lab.site.lite import build_lite

PARTS = ("book", "live", "lite")
LIVE_MODELS = {"untrained": "overthinker-2", "trained": "overthinker-2-step-grpo"}
"""What the live page shows by default."""


def build_site(
    root: Path,
    output: Path,
    parts: Iterable[str] = PARTS,
    *,
    cache: Path,
    models: Mapping[str, str] = LIVE_MODELS,
    say: Say = lambda line: None,
) -> None:
    """Build the web site: the book in the folder itself, the live page in ``live``, the browser's course in ``lite``.

    Any plain file server can show it, at any address; nothing in it asks another server for anything.

    Args:
        root: Folder of a checkout.
        output: Folder to build in. A part that is built replaces the one that lies there.
        parts: Which parts; the book links those that are built with it or lie there already.
        cache: Keeps downloads and what lies between, for the next time.
        models: Name -> model, for the live page.
        say: Receives a line about what is being done.

    Raises:
        ImportError: A package that builds it is not installed.
        ValueError: There is no such part, the folder is no checkout, a program failed (the message ends with what it
            said), or the book has broken links or pictures without a text (the message lists them).
    """
    chosen = set(parts)
    if unknown := sorted(chosen - set(PARTS)):
        raise ValueError(f"the site has no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    root, output, cache = (path.resolve() for path in (root, output, cache))
    if not (root / "docs" / "conf.py").exists():
        raise ValueError(f"{root} is no checkout of the project: give the folder of pyproject.toml")
    output.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    if "live" in chosen:
        say("writing the live page")
        import_module("stepgrpo_lab.site.live").write_live(output / "live", dict(models))
    if "lite" in chosen:
        build_lite(root, output / "lite", cache=cache, say=say)
    if "book" in chosen:
        there = frozenset(part for part in PARTS[1:] if (output / part / "index.html").exists())
        build_book(root, output, there, cache=cache, say=say)
        if findings := check_pages(output):
            raise ValueError("\n".join(["the book is built, but not right:", *findings]))
