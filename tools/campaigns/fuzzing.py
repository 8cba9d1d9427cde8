"""Completions as bad as they come, and what must hold of them; for tests of seconds and for campaigns of minutes."""

from __future__ import annotations

import math
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from stepgrpo_lab.cli._output import printable
from stepgrpo_lab.evaluation.grading import Grader, compare_numbers
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import PRESETS, TrajectoryMachine, rollout_settings
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.viz._html import visible_text

BAIT = [
    *(
        "Wait",
        "Alternatively",
        "Waiting",
        " Wait",
        ".Wait",
        "\n\nWait,",
        "Wait" * 50,
        "wait",
        "\u0301",
        "é",
        "等",
        "🤔",
    ),
    *("<think>", "</think>", "</", "think>", "<|im_end|>", "</think" * 3),
    *("\\boxed{", "\\boxed", "\\boxed{}", "}", "{", "{" * 400, "}" * 400, "\\{", "\\}", "\\", "\\\\", "$", "$$"),
    *("9^{9^{9^{9}}}", "\\frac{1}{0}", "\\frac{", "10^{10^{10}}", "1" * 5000, "(" * 500, "a+" * 300, "\\sqrt{" * 60),
    *("\\binom{10^9}{5}", "factorial(99999)", "(x+1)^{9999}", "\\int_0^1 x^x dx", "1e999999", "-" * 300, "٣", "0x1F"),
    *("__import__('os').system('true')", "().__class__.__mro__", "open('x','w')", "\\input{|true}", "\\write18{true}"),
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</pre><b>", "&lt;", "javascript:alert(1)", "]]>"),
    *("\x1b[2J", "\x1b]0;t\x07", "\r", "\x00", "\x08", "\x7f", "\x9b31m", "\u2028", "\u2029", "\ud800", "\udfff"),
    *("\u202e", "\u2066", "\u200b", "\u200d", "\ufeff", "\u00ad", "\U000e0041", "\u3164"),
    *(
        "(a+)+$",
        "a" * 300 + "!",
        " " * 300,
        "\t",
        "\n",
        "7",
        "-7",
        "1/2",
        "0.5",
        ",",
        "1,234",
        "x",
        "=",
        "\\text{",
        "%",
    ),
]
HOSTILE = st.lists(st.sampled_from(BAIT) | st.text(max_size=6), max_size=14).map("".join)
ANSWERS = st.lists(st.sampled_from(BAIT) | st.text(max_size=4), max_size=5).map("".join)

PIECES = [
    *(piece.encode("utf-8", "surrogatepass") for piece in BAIT if len(piece) <= 30),
    *(b"\xff", b"\xc3", b"\xf0\x9f", b"Wait\xc3", b"x Wait</think>", b"Wait. Wait", b"12 Wait", b""),
    *(bytes([byte]) for byte in range(256)),
]
VOCABULARY = TokenText.from_pieces(PIECES, eos_ids=[PIECES.index(b"<|im_end|>")])
TOKENS = st.lists(st.integers(0, len(PIECES) + 3), max_size=40)
PAPER = MarkerSegmenter("paper")
HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def check_segmentation(token_ids: Sequence[int]) -> None:
    """Text, ids and stream count the same steps, and the steps partition the thoughts."""
    text = VOCABULARY.decode(token_ids)
    scanner = PAPER.scanner(VOCABULARY)
    for token in token_ids:
        scanner.push(token)
    steps = PAPER.split_ids(token_ids, VOCABULARY)
    assert PAPER.count(text) == len(steps) == scanner.finish()
    assert "".join(step.text for step in steps) == text.split("</think>")[0]
    assert all(left.end == right.start and left.token_end == right.token_start for left, right in pairwise(steps))


def check_text(text: str) -> None:
    """Nothing in a text breaks the segmenter, the extraction, the report's escaping or the terminal's."""
    steps = PAPER.split(text)
    assert "".join(step.text for step in steps) == text.split("</think>")[0]
    answer = extract_boxed(text)
    assert answer is None or (answer == answer.strip() != "" and answer in text and "</think>" in text)
    shown = re.sub(r'<span class="control" title="invisible character">|</span>', "", visible_text(text))
    assert not set(shown) & set("<>\"'")
    for safe in (shown, printable(text)):
        assert not [sign for sign in safe if sign not in "\n\t" and unicodedata.category(sign) in HIDDEN]


@dataclass(frozen=True)
class Play:
    """Everything that decides one run of the trajectory machine."""

    tokens: Sequence[int]
    probabilities: Sequence[float]
    preset: str
    limit: int
    threshold: float
    budget: float
    probed: bool


PLAYS = st.builds(
    Play,
    tokens=st.lists(st.integers(0, len(PIECES) + 3), min_size=1, max_size=60),
    probabilities=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    preset=st.sampled_from(sorted(PRESETS)),
    limit=st.integers(1, 80),
    threshold=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    budget=st.floats(0.01, 1.0),
    probed=st.booleans(),
)


def check_machine(play: Play) -> None:
    """However the tokens fall, the machine ends within its limit and leaves a trajectory that adds up."""
    chosen = rollout_settings(play.preset, exit_threshold=play.threshold, think_budget=play.budget)
    machine = TrajectoryMachine(VOCABULARY, play.limit, chosen, play.probed)
    drawn = fed = 0
    while True:
        if machine.choice is not None:
            token, likely = play.tokens[drawn % len(play.tokens)], play.probabilities[drawn % len(play.probabilities)]
            sampled = machine.choice == "sample"
            machine.observe(token, -1.0 if sampled else None, likely)
            drawn += 1
        if machine.done:
            break
        token, place = machine.feed()
        assert 0 <= place < machine.reach
        fed += 1
        assert fed < 100 * (play.limit + 60), "it runs on and on"
    check_trajectory(machine.trajectory([1]), play, chosen.max_probes)


def check_trajectory(row: Trajectory, play: Play, max_probes: int) -> None:
    """What must hold of every finished completion."""
    assert 1 <= row.tokens == len(row.logprobs) == row.cost.kept_tokens <= play.limit
    assert row.text == VOCABULARY.decode(row.completion_ids)
    assert row.steps == PAPER.count(row.text) if play.preset == "paper" else row.steps >= 1
    assert not any(token in VOCABULARY.eos_ids for token in row.completion_ids[:-1])
    assert (row.finish == "eos") == (row.completion_ids[-1] in VOCABULARY.eos_ids)
    assert len(row.probes) <= max_probes and (play.probed or not row.probes)
    assert sum(probe.accepted for probe in row.probes) <= 1
    assert all(0 <= probe.confidence <= 1 and 0 <= probe.joint <= 1 for probe in row.probes)
    assert any(row.forced) <= (row.close in ("early", "near_budget", "budget"))
    assert row.cost.decoded_tokens >= row.tokens


GOLDS = ("7", "\\frac{1}{2}", "x+1", "\\text{Evelyn}")


def check_grading(grader: Grader, answer: str) -> None:
    """Any text gets a verdict, against any gold, and an answer that holds nothing is wrong."""
    verdicts = grader.grade([answer] * len(GOLDS), GOLDS)
    assert all(type(verdict) is bool for verdict in verdicts)
    assert sum(verdicts) <= 1, "one answer cannot equal golds that differ"
    assert compare_numbers(answer, answer) in (True, None)
    if not answer.strip(" .$"):
        assert not any(verdicts)


@dataclass
class Tally:
    """What a campaign has seen of one property."""

    examples: int = 0
    longest: float = 0.0


def campaign(seconds: float, first_seed: int, examples: int = 200) -> dict[str, Any]:
    """Try properties in turn, with ever new seeds, until the time is up.

    Returns:
        Examples and the slowest one (seconds) by property, and the failures, each as hypothesis shrank it.
    """
    timeout = 2.0
    with Grader(timeout=timeout) as grader:
        properties: dict[str, tuple[Any, Callable[[Any], None], int]] = {
            "segmentation": (TOKENS, check_segmentation, examples),
            "text": (HOSTILE, check_text, examples),
            "machine": (PLAYS, check_machine, examples),
            "grading": (ANSWERS, lambda answer: check_grading(grader, answer), max(1, examples // 10)),
        }
        tallies = {name: Tally() for name in properties}
        failures, end, number = [], time.monotonic() + seconds, first_seed
        while time.monotonic() < end:
            for name, (strategy, check, count) in properties.items():
                try:
                    _timed(strategy, check, count, number, tallies[name])
                except Exception as error:
                    failures.append(
                        {"property": name, "seed": number, "error": f"{type(error).__name__}: {error}"[:2000]}
                    )
            number += 1
    return {
        "seeds": number - first_seed,
        "examples": {name: tally.examples for name, tally in tallies.items()},
        "slowest_seconds": {name: math.ceil(1000 * tally.longest) / 1000 for name, tally in tallies.items()},
        "grading_timeout": timeout,
        "failures": failures,
    }


def _timed(strategy: Any, check: Callable[[Any], None], count: int, number: int, tally: Tally) -> None:
    @seed(number)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def run(example: Any) -> None:
        started = time.monotonic()
        check(example)
        tally.examples += 1
        tally.longest = max(tally.longest, time.monotonic() - started)

    run()
