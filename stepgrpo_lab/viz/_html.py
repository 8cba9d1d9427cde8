"""HTML: one self-contained page of text, tables and figures that loads nothing, and untrusted text made safe.

The page's template lies in ``page/``; Jinja2 fills it and escapes whatever is not marked as HTML. Tables, which widgets
show too, are made without it, because a browser does not have it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template
    from plotly.graph_objects import Figure


def render_page(
    *,
    kicker: str,
    heading: str,
    lead: str,
    caveat: str,
    sections: str,
    figures: Mapping[str, Figure],
    picture: str = "",
) -> str:
    """A whole page. Its content security policy allows no script but its own two and no network request at all.

    Args:
        kicker, heading, lead, caveat: Plain text: what kind of page, its title, the result, what to keep in mind.
        sections: HTML, made with :func:`section`.
        figures: Figures by the name of their place (``data-figure``).
        picture: An SVG that shows the result without scripts; may be empty.
    """
    from plotly.offline import get_plotlyjs

    # A browser hashes a script after turning its line ends into "\n".
    library, starter = get_plotlyjs().replace("\r\n", "\n"), _package_text("figures.js")
    drawn = json.dumps({name: json.loads(figure.to_json()) for name, figure in figures.items()})
    return _template("page.html").render(
        policy=_content_security_policy(library, starter),
        style=_package_text("style.css"),
        kicker=kicker,
        heading=heading,
        lead=lead,
        caveat=caveat,
        picture=picture,
        sections=sections,
        figures=drawn.replace("<", "\\u003c"),  # "<" would let a record end its script element
        library=library,
        starter=starter,
    )


def section(name: str, title: str, body: str) -> str:
    """A section of the page: its anchor, its title, and a body of HTML."""
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>\n{body}\n</section>'


def note(text: str) -> str:
    """A remark in place of something that is left out."""
    return f'<p class="note">{text}</p>'


def figure(name: str, caption: str) -> str:
    """The place of a figure, with its caption in HTML."""
    return (
        f'<figure><div class="plot" role="img" aria-labelledby="{name}-caption" data-figure="{name}"></div>'
        f'<figcaption id="{name}-caption">{caption}</figcaption></figure>'
    )


def table(
    caption: str,
    head: Iterable[str],
    rows: Iterable[Iterable[str]],
    *,
    chosen: int | None = None,
    small_bounds: bool = False,
) -> str:
    """A table of plain text, which is escaped; the first cell of each row is its heading.

    Args:
        caption: What the table shows.
        head: Headings of the columns.
        rows: Cells of each row.
        chosen: Index of a row to mark.
        small_bounds: Put what stands in brackets, such as the bounds of an interval, in small print.

    Example:
        >>> "&lt;b&gt;" in table("Answers", ["", "answer"], [["1", "<b>"]])
        True
    """

    def cells(row: Iterable[str]) -> str:
        shown = [visible_text(each) for each in row]
        if small_bounds:
            shown = [each.replace("[", "<small>[").replace("]", "]</small>") for each in shown]
        return "".join(
            [f'<th scope="row">{each}</th>' for each in shown[:1]] + [f"<td>{each}</td>" for each in shown[1:]]
        )

    title = visible_text(caption)
    columns = "".join(f'<th scope="col">{visible_text(each)}</th>' for each in head)
    marked = ' class="chosen" aria-current="true"'
    body = "".join(f"<tr{marked if place == chosen else ''}>{cells(row)}</tr>\n" for place, row in enumerate(rows))
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{title}"><table><caption>{title}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


@cache
def _template(name: str) -> Template:
    from jinja2 import Environment

    return Environment(autoescape=True).from_string(_package_text(name))


def _package_text(name: str) -> str:
    return files("stepgrpo_lab").joinpath("viz", "page", name).read_text(encoding="utf-8")


def _content_security_policy(*scripts: str) -> str:
    """Nothing may be loaded; only these scripts, named by their hashes, may run."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def visible_text(text: str) -> str:
    """Escape untrusted text and make the characters visible that would hide or reorder it.

    Control and format characters (bidirectional overrides, zero-width characters), lone surrogates and exotic line ends
    become a label with their code point; line breaks and tabs stay.

    Example:
        >>> visible_text("<b>")
        '&lt;b&gt;'
    """
    return "".join(_labelled(sign) if _is_hidden(sign) else escape(sign) for sign in text)


def piece_text(piece: str) -> str:
    """A token's text for display: escaped, and a line break or a space that can be seen.

    Example:
        >>> piece_text("<b>"), piece_text(chr(10)), piece_text(" ")
        ('&lt;b&gt;', '⏎', '␣')
    """
    shown = piece.replace("\n", "⏎")
    return visible_text("␣" * len(shown) if shown.isspace() else shown)


def plain_text(text: str) -> str:
    """Untrusted text for places that show it as it is, such as menus: what would hide or reorder it becomes visible.

    Example:
        >>> plain_text("<b>" + chr(0x202E))
        '<b>[U+202E]'
    """
    return "".join(f"[U+{ord(sign):04X}]" if _is_hidden(sign) else sign for sign in text)


def _is_hidden(sign: str) -> bool:
    return sign not in "\n\t" and unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _labelled(sign: str) -> str:
    return f'<span class="control" title="invisible character">U+{ord(sign):04X}</span>'
