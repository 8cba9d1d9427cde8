"""Checks of notebook 02: the right solution, common mistakes and the stub."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stepgrpo_lab import MarkerSegmenter, TokenText
from stepgrpo_lab.course import checks

Markers = Sequence[str]


def by_library(text: str, markers: Markers) -> int:
    return MarkerSegmenter(markers).count(text)


def thoughts_of(text: str) -> str:
    return text.partition("</think>")[0]


def by_letters(text: str, markers: Markers) -> int:
    return 1 + sum(thoughts_of(text).count(marker) for marker in markers)


def by_spaces(text: str, markers: Markers) -> int:
    return 1 + sum(word.strip(".,") in markers for word in thoughts_of(text).split())


def lower_case(text: str, markers: Markers) -> int:
    small = {marker.lower() for marker in markers}
    return 1 + sum(word.lower() in small for word in re.findall(r"\w+", thoughts_of(text)))


def everywhere(text: str, markers: Markers) -> int:
    return 1 + sum(word in markers for word in re.findall(r"\w+", text))


def non_empty(text: str, markers: Markers) -> int:
    return sum(bool(step.text) for step in MarkerSegmenter(markers).split(text))


def by_spans(pieces: list[str], start: int, end: int) -> list[int]:
    spans = TokenText.from_pieces(pieces).spans(range(len(pieces)))
    return [place for place, (first, last) in enumerate(spans) if first < end and last > start]


def inclusive(pieces: list[str], start: int, end: int) -> list[int]:
    return by_spans(pieces, start, end + 1)


def whole_tokens(pieces: list[str], start: int, end: int) -> list[int]:
    spans = TokenText.from_pieces(pieces).spans(range(len(pieces)))
    return [place for place, (first, last) in enumerate(spans) if start <= first and last <= end]


def renamed(text: str) -> str:
    return re.sub("Wait|Alternatively", "Hmm", text)


def raising(*arguments: Any) -> None:
    raise KeyError("oh")


@pytest.mark.parametrize(
    ("check", "solution"),
    [
        (checks.count_steps, by_library),
        (checks.covering_tokens, by_spans),
        (checks.avoid_markers, renamed),
        (checks.avoid_markers, lambda text: re.sub(" (Wait|Alternatively)", "", text)),
    ],
)
def test_right_solutions_are_green(check: Callable[..., checks.CheckResult], solution: Callable[..., Any]) -> None:
    assert check(solution).passed, check(solution).message


@pytest.mark.parametrize(
    ("check", "solution", "message"),
    [
        (checks.count_steps, lambda *_: None, "gives nothing yet; write the body (expected 1)"),
        (checks.count_steps, lambda t, m: by_library(t, m) - 1, "the text before the first one is a step too"),
        (checks.count_steps, by_letters, "only standalone words count"),
        (checks.count_steps, by_spaces, "a marker ends where its letters end, also at a bracket"),
        (checks.count_steps, lower_case, "markers are case-sensitive"),
        (checks.count_steps, everywhere, "look only at the text before the first </think>"),
        (checks.count_steps, non_empty, "step 0 is then empty"),
        (checks.count_steps, lambda t, m: by_library(t, "paper"), "use the markers you are given"),
        (checks.count_steps, raising, "your code raised KeyError"),
        (checks.covering_tokens, lambda *_: None, "gives nothing yet; write the body (expected [1, 2])"),
        (checks.covering_tokens, inclusive, "the end is excluded"),
        (checks.covering_tokens, whole_tokens, "token 1 starts before the marker but holds its first letters"),
        (checks.covering_tokens, lambda p, s, e: [1, 2], "covering_tokens(['12', ' Wa', 'it', ',', ' so'], 7, 8)"),
        (checks.covering_tokens, raising, "your code raised KeyError"),
        (checks.avoid_markers, lambda text: None, "gives nothing yet"),
        (checks.avoid_markers, lambda text: text, "gives 3; expected 1"),
        (checks.avoid_markers, lambda text: text.replace("Wait", "Hmm"), "gives 2; expected 1"),
        (checks.avoid_markers, lambda text: renamed(text).replace("</think>", ""), "keep </think>"),
        (checks.avoid_markers, lambda text: thoughts_of(text).partition(" W")[0] + "</think>", "gives 2; expected 1"),
        (checks.avoid_markers, lambda text: "<think>" + "</think>", "the work must stay"),
        (checks.avoid_markers, lambda text: "</think>" + text, "the work must stay"),
        (checks.avoid_markers, raising, "your code raised KeyError"),
    ],
)
def test_mistakes_are_red_and_told(
    check: Callable[..., checks.CheckResult], solution: Callable[..., Any], message: str
) -> None:
    result = check(solution)
    assert not result.passed
    assert message in result.message, result.message


def test_importing_the_checks_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    program = "import sys, stepgrpo_lab.course.checks; print(*{name.partition('.')[0] for name in sys.modules})"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "plotly"} & set(told.split())
