"""What the command line prints: a status line, tables, one trajectory in words."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.method.token_text import TokenText


def printable(text: str) -> str:
    r"""Make text that a model or a file wrote safe for a terminal: control characters become visible escapes.

    Line breaks and tabs stay. Characters that reorder text or cannot be seen are escaped too.

    Example:
        >>> printable("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else _escaped(char)
        for char in text
    )


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", errors="surrogatepass").decode("ascii")


class StatusLine:
    """One line that is rewritten on a terminal; plain lines elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self._shown = False

    def __call__(self, line: str) -> None:
        line = printable(line)
        if not self.live:
            print(line, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print("\r\x1b[K" + line[:width], end="", flush=True)
        self._shown = True

    def end(self) -> None:
        """Leave the last line standing."""
        if self._shown:
            print(flush=True)
            self._shown = False


def bar(done: int, total: int, width: int = 24) -> str:
    """A progress bar.

    Example:
        >>> bar(3, 4, width=8)
        '[######..]'
    """
    filled = width * done // max(1, total)
    return f"[{'#' * filled}{'.' * (width - filled)}]"


def result_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """An evaluation's summary as lines of text, intervals in brackets."""
    yield f"{summary['problems']} problems, {summary['samples']} completion(s) each; 95 % intervals over problems"
    for name, factor, unit in (
        ("accuracy", 100, "%"),
        ("tokens", 1, "tokens"),
        ("steps", 1, "steps"),
        ("truncated", 100, "% truncated"),
        ("closed", 100, "% closed"),
    ):
        yield f"  {name:<10} {summary[name] * factor} {unit}"
    for family, figures in summary["families"].items():
        if len(summary["families"]) > 1:
            yield f"  {printable(family) or 'other'}: {figures['accuracy'] * 100} %, {figures['tokens']} tokens"
    if summary["calibration"] is not None:
        calibration = summary["calibration"]
        yield f"  probes     {calibration.count} trial answers, calibration error {calibration.ece:.3f}"


def rollout_lines(
    problem: Problem, trajectory: Trajectory, token_text: TokenText, correct: bool | None
) -> Iterator[str]:
    """One trajectory, phase by phase, for reading; ``correct`` is None where no gold answer is known."""
    yield f"PROBLEM  {printable(problem.prompt)}" + (
        f"   (gold answer: {printable(problem.answer)})" if problem.answer else ""
    )
    start, close = 0, _close_start(trajectory, token_text)
    for number, probe in enumerate(trajectory.probes, start=1):
        yield from _said("THINK", token_text.decode(trajectory.completion_ids[start : probe.position]))
        start = probe.position
        answer = "no answer" if probe.answer is None else f"answer {printable(probe.answer)}"
        verdict = "accepted: thoughts end here" if probe.accepted else "declined: it leaves no trace"
        yield (
            f"PROBE {number}  at token {probe.position}, before {_quoted(probe.marker)}: {_quoted(probe.text)}, "
            f"{answer}, confidence {probe.confidence:.3f} (joint {probe.joint:.3f}) - {verdict}"
        )
    yield from _said("THINK", token_text.decode(trajectory.completion_ids[start:close]))
    if trajectory.close is not None:
        yield f"CLOSE    {trajectory.close}"
        yield from _said("ANSWER", token_text.decode(trajectory.completion_ids[close:]))
    cost, forced = trajectory.cost, sum(trajectory.forced)
    verdict = {None: "", True: ", right", False: ", wrong"}[correct]
    yield (
        f"{trajectory.steps} steps, {trajectory.tokens} tokens kept ({forced} of them forced), "
        f"{cost.probe_tokens} for probes, {cost.replayed_tokens} replayed; ended by {trajectory.finish}{verdict}"
    )


def _said(phase: str, text: str) -> Iterator[str]:
    if text:
        yield f"{phase:<8} {_quoted(text)}"


def _quoted(text: str) -> str:
    return '"' + printable(text).replace("\n", "\\n") + '"'


def _close_start(trajectory: Trajectory, token_text: TokenText) -> int:
    """Index of the first token of the close: the forced run, or the token that completes ``</think>``."""
    if trajectory.close is None:
        return trajectory.tokens
    if any(trajectory.forced):
        return trajectory.forced.index(True)
    for index in range(trajectory.tokens):
        if "</think>" in token_text.decode(trajectory.completion_ids[: index + 1]):
            return index
    return trajectory.tokens
