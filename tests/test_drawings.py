"""The course's drawings: whole, in words too, legible on any page, and harmless beside one another on one page."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from stepgrpo_lab.course import drawing
from stepgrpo_lab.course._drawings import FOLDER

NAMES = sorted(path.stem for path in FOLDER.glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def parsed(name: str) -> ElementTree.Element:
    return ElementTree.fromstring(drawing(name, 'a < b & "c"').svg)


def luminance(colour: str) -> float:
    """Of a colour as #rrggbb (WCAG 2.2)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_says_in_words_what_it_shows(name: str) -> None:
    root = parsed(name)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    title, description = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None and title.text and title.text.strip()
    assert description is not None and description.text == 'a < b & "c"'


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_needs_nothing_and_touches_nothing_outside_itself(name: str) -> None:
    root = parsed(name)
    for element in root.iter():
        assert element.tag.removeprefix(SVG) not in {"script", "style", "foreignObject", "image", "a"}
        for key, value in element.attrib.items():
            assert not key.endswith("href") or value.startswith("#")
            assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", value))
            if key == "id":  # several drawings share a page
                assert value.startswith(f"{name}-")
    assert float(root.get("width", "0")) <= 760 and "max-width:100%" in root.get("style", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_reads_on_a_light_and_on_a_dark_page(name: str) -> None:
    """It covers its whole box with a background of its own, on which every text stands out."""
    root = parsed(name)
    background = root.find(f"{SVG}rect")
    assert background is not None
    width, height = (root.get("viewBox") or "").split()[2:]
    assert (background.get("width"), background.get("height")) == (width, height)
    parents = {child: parent for parent in root.iter() for child in parent}

    def ink(element: ElementTree.Element) -> str:
        return element.get("fill") or ink(parents[element])

    for element in root.iter(f"{SVG}text"):
        on = element.get("data-on") or background.get("fill", "")  # a text on a filled shape names the shape's colour
        for piece in (element, *element.iter(f"{SVG}tspan")):
            assert contrast(ink(piece), on) >= 4.5, "".join(element.itertext())


def test_front_ends_get_the_picture_and_its_words() -> None:
    shown = drawing(NAMES[0], "a line")._repr_mimebundle_()
    assert set(shown) == {"image/svg+xml", "text/plain"} and "a line" in shown["text/plain"]


@pytest.mark.parametrize(("name", "alt", "complaint"), [("no-such", "words", "rollout"), ("rollout", " ", "alt text")])
def test_a_drawing_that_is_missing_or_mute_is_refused(name: str, alt: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        drawing(name, alt)
