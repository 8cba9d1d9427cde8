"""The course's drawings: one SVG file for each mechanism, in ``stepgrpo_lab/course/drawings``.

A drawing brings its own light background, so it reads the same in a light and in a dark theme, and refers to nothing
outside itself, so it shows offline, on Colab and on GitHub.
"""

from __future__ import annotations

import html
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "drawings"


@dataclass(frozen=True)
class Drawing:
    """A drawing that a notebook shows.

    Attributes:
        name: Name of its file, without the suffix.
        alt: What it shows, in words: read out by a screen reader, and shown where a picture cannot be.
    """

    name: str
    alt: str

    @property
    def svg(self) -> str:
        """The file's text with :attr:`alt` in it as the description."""
        text = (FOLDER / f"{self.name}.svg").read_text(encoding="utf-8")
        title, end, rest = text.partition("</title>")
        return f"{title}{end}<desc>{html.escape(self.alt)}</desc>{rest}"

    def __repr__(self) -> str:
        return f"[drawing: {self.alt}]"

    def _repr_mimebundle_(
        self, include: Container[str] | None = None, exclude: Container[str] | None = None
    ) -> dict[str, str]:
        """The picture, and its words for front ends that show no pictures; IPython asks for all, so both are given."""
        return {"image/svg+xml": self.svg, "text/plain": repr(self)}


def drawing(name: str, alt: str) -> Drawing:
    """A drawing of the course, for the last line of a cell.

    Args:
        name: Name of its file, without the suffix: "rollout".
        alt: What it shows, in words.

    Raises:
        ValueError: There is no such drawing, or nothing in words.

    Example:
        >>> drawing("rollout", "A rollout drawn as a railway line with a switch at each marker.")
        [drawing: A rollout drawn as a railway line with a switch at each marker.]
    """
    if not alt.strip():
        raise ValueError(f"the drawing {name!r} has no alt text: say in words what it shows")
    if not (FOLDER / f"{name}.svg").is_file():
        known = sorted(path.stem for path in FOLDER.glob("*.svg"))
        raise ValueError(f"there is no drawing {name!r}; there are {', '.join(known) or 'none'}")
    return Drawing(name, alt)
