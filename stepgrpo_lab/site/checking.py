"""What a built book must keep: its links lead somewhere, its pictures are described, and it asks no other server."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

OTHERS = ("live", "lite")
"""Folders of the site with pages of their own, which are tried in a browser instead."""

_LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src"}


class _Page(HTMLParser):
    """What one page defines and asks for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.undescribed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element."""
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if values.get(name))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "shortcut icon") and values.get("href"):
            self.loaded.append(values["href"])
        if values.get(_LOADED.get(tag, "")):
            self.loaded.append(values[_LOADED[tag]])
        if tag == "img" and not values.get("alt", "").strip():
            self.undescribed.append(values.get("src", "")[:80])


def check_pages(folder: Path) -> list[str]:
    """Findings on a built book: broken links and anchors, pictures without a text, things from other servers.

    Args:
        folder: Where the site was built.

    Example:
        >>> from tempfile import mkdtemp
        >>> site = Path(mkdtemp())
        >>> _ = (site / "index.html").write_text('<h1 id="top">A</h1> <a href="#top">1</a> <a href="b.html">2</a>')
        >>> check_pages(site)
        ['index.html: the link to b.html leads nowhere']
    """
    paths = [path for path in sorted(folder.rglob("*.html")) if path.relative_to(folder).parts[0] not in OTHERS]
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in paths}
    return [f"{path.relative_to(folder)}: {finding}" for path in paths for finding in _findings(path.resolve(), pages)]


def _findings(path: Path, pages: dict[Path, _Page]) -> Iterator[str]:
    page = pages[path]
    for address in page.loaded:
        parts = urlsplit(address)
        if parts.scheme == "data":
            continue
        if parts.scheme or parts.netloc:
            yield f"asks another server for {address}"
        elif not (path.parent / unquote(parts.path)).exists():
            yield f"{address} is not there"
    for address in dict.fromkeys(page.links):
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.exists():
            yield f"the link to {address} leads nowhere"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"the link to {address} names an anchor that is not there"
    for address in page.undescribed:
        yield f"the picture {address} has no text"
