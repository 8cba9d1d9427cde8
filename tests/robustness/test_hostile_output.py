"""What a model writes is text and nothing else: no crash, no hang, no code, no tag, no escape sequence."""

from __future__ import annotations

import json
import time
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from test_widgets_rollout import group_of, probe

from stepgrpo_lab.cli._output import result_lines, rollout_lines
from stepgrpo_lab.evaluation import answer_rules
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.records import Outcome, Probe, Problem, Trajectory
from stepgrpo_lab.run.report import SHOWN_CHARACTERS, summary_markdown, write_report
from stepgrpo_lab.widgets import GroupExplorer, StepInspector
from tools.campaigns.fuzzing import (
    ANSWERS,
    BAIT,
    HIDDEN,
    HOSTILE,
    PAPER,
    PLAYS,
    TOKENS,
    VOCABULARY,
    campaign,
    check_grading,
    check_machine,
    check_segmentation,
    check_text,
)

PROPERTY = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
TIMEOUT = 1.5
EVERYTHING = "".join(BAIT)
TEN_MEGABYTES = 10_000_000


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(timeout=TIMEOUT) as shared:
        shared.grade(["x"], ["y"])  # so that its process is up
        yield shared


# ---- properties; minutes of them: ``python -m tools.campaigns fuzz`` -------------------------------------------------


@PROPERTY
@given(TOKENS)
def test_segmentation_holds(tokens: list[int]) -> None:
    check_segmentation(tokens)


@PROPERTY
@given(HOSTILE)
@example(EVERYTHING)
def test_text_holds(text: str) -> None:
    check_text(text)


@settings(PROPERTY, max_examples=150)
@given(PLAYS)
def test_the_machine_holds(play: Any) -> None:
    check_machine(play)


@settings(PROPERTY, max_examples=12)
@given(ANSWERS)
@example("")
@example("\ud800")
def test_grading_holds(grader: Grader, answer: str) -> None:
    check_grading(grader, answer)


def test_a_campaign_counts_what_it_tries_and_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.campaigns.fuzzing.check_grading", lambda grader, answer: None)
    monkeypatch.setattr("tools.campaigns.fuzzing.check_machine", lambda play: 1 / (play.limit < 20))
    found = campaign(0.01, first_seed=0, examples=60)
    assert found["seeds"] == 1 and found["examples"]["text"] == 60
    assert [failure["property"] for failure in found["failures"]] == ["machine"]
    assert "ZeroDivisionError" in found["failures"][0]["error"]


# ---- ten megabytes, deep nesting, bait -------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["Wait ", "\\boxed{", "{", "a", "</think", "\\", "\u0301", "$", "Wait</think>"])
def test_ten_megabytes_are_segmented_and_searched(unit: str) -> None:
    text = unit * (TEN_MEGABYTES // len(unit)) + "</think>\\boxed{7}"
    expected = 1 + (text.index("</think>") // len(unit) if unit == "Wait " else unit == "Wait</think>")
    assert PAPER.count(text) == expected
    assert extract_boxed(text) == "7"


BOMBS = [
    "9^{9^{9^{9}}}",
    "10^{10^{10}}!",
    "\\binom{10^{9}}{5 \\cdot 10^{8}}",
    "(x+1)^{99999}-(x-1)^{99999}",
    "\\sum_{k=1}^{10^{12}} k^{k}",
    "\\sqrt{" * 150 + "2" + "}" * 150,
    "\\frac{1}{" * 150 + "2" + "}" * 150,
    "{" * 900 + "1" + "}" * 900,
    "(" * 900 + "1" + ")" * 900,
    "-" * 1900 + "1",
    "+".join(["x"] * 900),
]


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_bombs_are_wrong_in_time_and_grading_goes_on(grader: Grader, bomb: str) -> None:
    started = time.monotonic()
    text = f"<think>x</think>\\boxed{{{bomb}}}"
    assert grader.grade([extract_boxed(text)], ["\\pi"]) == [False]
    assert time.monotonic() - started < TIMEOUT + 30  # its time, and starting another worker on a busy machine
    assert grader.grade(["\\frac{\\pi}{1}"], ["\\pi"]) == [True]


# ---- pages and terminals ---------------------------------------------------------------------------------------------


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


def run_folder(folder: Path, text: str) -> Path:
    seen = {"text": text, "tokens": 80, "steps": 2, "correct": False}
    row = {"problem": {"id": text[:500], "prompt": text[:500]}, "gold": text[:500], "before": seen, "after": seen}
    (folder / "completions.jsonl").write_text(json.dumps(row) + "\n")
    outcomes = [[Outcome(True, True, 2, 80)], [Outcome(False, True, 2, 80)]]
    record = Evaluation(["a", "b"], [EVERYTHING[:200]] * 2, [None] * 2, outcomes, settings={"markers": "paper"})
    for name in ("evaluation_before.json", "evaluation_after.json"):
        (folder / name).write_text(json.dumps(record.to_dict()))
    return folder


def test_the_report_of_hostile_completions_is_text(tmp_path: Path) -> None:
    page = write_report(run_folder(tmp_path, EVERYTHING)).read_text(encoding="utf-8")
    found = Elements(page)
    assert not found.tags & {"img", "iframe", "object", "embed", "link", "base", "form", "i"}
    assert not found.handlers
    body = page[page.index("<article") : page.rindex("</article>")]
    assert not {sign for sign in body if sign not in "\n\t" and unicodedata.category(sign) in HIDDEN}
    assert "<img" not in summary_markdown(tmp_path)


def test_endless_completions_do_not_fill_the_report(tmp_path: Path) -> None:
    for unit in ("Wait ", "\u202e", "<b>"):
        long = run_folder(tmp_path, unit * (TEN_MEGABYTES // len(unit)))
        size = write_report(long).stat().st_size
        assert size < 30_000_000 and "more characters stand in completions.jsonl" in (long / "report.html").read_text()
    run_folder(tmp_path, "a" * SHOWN_CHARACTERS)
    assert "more characters stand" not in write_report(tmp_path).read_text()


def hostile_trajectory() -> Trajectory:
    ids = [token for token in VOCABULARY.table if token not in VOCABULARY.eos_ids]
    text = VOCABULARY.decode(ids)
    trial = Probe(5, 1, "\x1b[2J", [1], [0.9], "\x1b]0;t\x07\u202e", "\x1b[31m<b>", True, 0.9, 0.9, True)
    return Trajectory([1], ids, [-0.1] * len(ids), text, 2, "natural", "length", True, [trial])


def test_no_escape_sequence_reaches_the_terminal() -> None:
    problem = Problem("\x1b", "\x1b[2J\u202eq", "\x9b31m")
    lines = list(rollout_lines(problem, hostile_trajectory(), VOCABULARY, True))
    record = Evaluation(["a", "b"], ["\x1b[2J", "\u202e"], [None] * 2, [[Outcome(True, True, 2, 80)]] * 2)
    lines += result_lines(record.summary())
    shown = "\n".join(lines)
    assert "\\x1b[2J" in shown and "\\u202e" in shown
    assert not {sign for sign in shown if sign not in "\n\t" and unicodedata.category(sign) in HIDDEN}


@pytest.mark.parametrize("make", [StepInspector, GroupExplorer])
def test_widgets_show_hostile_completions_as_text(make: Any) -> None:
    import dataclasses

    group = group_of([probe(2, "Wait", [0.9], answer=EVERYTHING), probe(3, "Wait", [0.99], answer=EVERYTHING)])
    member = group.members[0]
    trajectory = dataclasses.replace(member.trajectory, text=f"{EVERYTHING} Wait, {EVERYTHING}</think>")
    evil = dataclasses.replace(member, trajectory=trajectory)
    problem = dataclasses.replace(group.problem, id=EVERYTHING, prompt=EVERYTHING)
    widget = make([dataclasses.replace(group, members=[evil, evil], model=EVERYTHING, problem=problem)])
    found = Elements(widget.static_html() + widget.view.body.value + widget.view.readout.value)
    assert not found.tags & {"img", "script"} and not found.handlers
    labels = "".join(label for control in widget.view.controls for label in getattr(control, "_options_labels", ()))
    hidden = {sign for sign in labels if sign not in "\n\t" and unicodedata.category(sign) in HIDDEN}
    assert "<img" in labels and not hidden


def test_a_worker_that_was_killed_leaves_no_process_behind(grader: Grader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_rules, "_explosive", lambda text: False)  # which would refuse it unsent
    assert grader.grade(["1+f(x)"], ["f(x)+1"]) == [True]
    process = grader._idle.queue[0].process
    assert process is not None
    assert grader.verdicts(["\\sqrt{2}+9^{9^{9^{9}}}"], ["3"]) == ["timeout"]
    assert process.returncode is not None  # killed, and waited for
    assert grader.grade(["2+f(x)"], ["f(x)+2"]) == [True]
