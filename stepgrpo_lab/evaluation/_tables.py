"""One Markdown table for the whole package."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Plain text cells as a table in GitHub's Markdown; a cell cannot break out of its place.

    Args:
        head: Headings of the columns.
        rows: Cells of each row, as many as headings.

    Returns:
        The table without a line break at its end. Markdown within a cell, such as code in backticks, stays Markdown.

    Example:
        >>> print(markdown_table(["set", "tokens"], [["my|set", "90"]]))
        | set | tokens |
        | --- | --- |
        | my\\|set | 90 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
