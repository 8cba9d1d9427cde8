"""One self-contained HTML page: text, tables and figures in one file that loads nothing from the network."""

from __future__ import annotations

import base64
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    return Template(_package_text("page.html")).substitute(
        policy=_content_security_policy(library, starter),
        title=escape(f"{heading}: Step-GRPO report"),
        style=_package_text("style.css"),
        kicker=escape(kicker),
        heading=escape(heading),
        lead=escape(lead),
        caveat=escape(caveat),
        picture=picture and PICTURE.format(picture),
        sections=sections,
        # "<" would let a record end its script element.
        figures=json.dumps({name: json.loads(figure.to_json()) for name, figure in figures.items()}).replace(
            "<", "\\u003c"
        ),
        plotly=library,
        starter=starter,
    )


PICTURE = '<div class="picture" role="region" tabindex="0" aria-label="The result as a picture">{}</div>'


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


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are HTML already; the first cell of each row is its heading."""
    header = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{header}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


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
