"""Pages that already stand in the repository, taken over into the book: their links must lead somewhere there too."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


@dataclass(frozen=True)
class Links:
    """Rewrites relative links of pages of the repository.

    Attributes:
        root: The checkout.
        repository: Its address on the web, for files that the book does not hold.
        pages: File of the repository -> page of the book, both relative; images count as pages.
    """

    root: Path
    repository: str
    pages: Mapping[str, str] = field(default_factory=dict)

    def rewrite(self, text: str, origin: str, page: str) -> str:
        """A page's text with its links as they must be in the book.

        Args:
            text: Markdown.
            origin: Where it stands in the repository.
            page: Where it will stand in the book.

        Example:
            >>> links = Links(Path("."), "https://example.org/lab", {"docs/glossary.md": "glossary.md"})
            >>> links.rewrite("[word](../docs/glossary.md#step)", "notebooks/01.ipynb", "course/01.ipynb")
            '[word](../glossary.md#step)'
            >>> links.rewrite("[code](conftest.py)", "notebooks/01.ipynb", "course/01.ipynb")
            '[code](https://example.org/lab/blob/main/notebooks/conftest.py)'
        """

        def found(match: re.Match[str]) -> str:
            target, anchor = match[1], match[2] or ""
            path = os.path.normpath(PurePosixPath(origin).parent / target).replace(os.sep, "/")
            if path in self.pages:
                near = os.path.relpath(self.pages[path], PurePosixPath(page).parent).replace(os.sep, "/")
                return near + anchor
            kind = "tree" if (self.root / path).is_dir() else "blob"
            return f"{self.repository}/{kind}/main/{path}{anchor}"

        return _LINK.sub(found, text)


def section(text: str, heading: str) -> str:
    """A section of a Markdown page, without its heading, up to the next one of its level.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> section("# A\\n\\n## B\\n\\ntext\\n\\n## C\\n", "B")
        'text'
    """
    found = re.search(rf"^(#+) {re.escape(heading)}$\n(.*?)(?=^\1 |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"the page has no section {heading!r}")
    return found[2].strip()
