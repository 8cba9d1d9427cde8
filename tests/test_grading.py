"""Extraction and grading: what counts as the answer, what equals the gold, and what an answer must never do."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.engines.signals import TO_STOP
from stepgrpo_lab.evaluation import _grading_worker as grading_worker
from stepgrpo_lab.evaluation import answer_rules, grading
from stepgrpo_lab.evaluation._grading_worker import Question, WorkerProcess, gold_error, judge
from stepgrpo_lab.evaluation.grading import Grader, compare_numbers
from stepgrpo_lab.method.boxes import extract_boxed

ENDLESS = "9^{9^{9^{9}}}"
"""math-verify would evaluate it in C code, without end."""

HARD = "f(x)+1"
"""No rule knows what f is, so that math-verify is asked."""


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(timeout=20) as shared:
        yield shared


NOTHING = [
    *(
        "?",
        "??",
        "...",
        "…",
        "\\ldots",
        "\\dots",
        "\\text{}",
        "\\text{ }",
        "\\text{ ? }",
        "\\mathrm{}",
        "\\textbf{...}",
    ),
    *("\\,", "\\quad", "()", "[ ]", "\\left(\\right)", "\\_\\_\\_", "___", "\\boxed{}", "$ $", ".", "？", "\\square"),
]
SHORT = [
    "0",
    "-",
    ">",
    "x",
    "\\{\\}",
    "\\emptyset",
    "\\infty",
    "\\text{A}",
    "\\%",
    "(1,2)",
    "?7",
    "1, 2, \\ldots",
    "\\leftarrow",
]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think> \\boxed{7}", "7"),
        ("<think>\\boxed{1}</think> none", None),
        ("\\boxed{7}", None),
        ("<think>3 + 4 = 7, so the answer is \\boxed{7}", None),
        ("<think></think>\\boxed{1} or \\boxed{2}", "1, 2"),
        ("</think>The integers are \\boxed{-2} and \\boxed{1}.", "-2, 1"),
        ("</think>$\\boxed{-2}$, and $\\boxed{1}$.", "-2, 1"),
        ("</think>\\(\\boxed{3}\\), \\(\\boxed{5}\\), and \\(\\boxed{7}\\)", "3, 5, 7"),
        ("</think>\\[\\boxed{x=1} \\quad\\text{or}\\quad \\boxed{x=2}\\]", "x=1, x=2"),
        ("</think>\\boxed{4} and \\boxed{4}", "4"),
        ("</think>\\boxed{4}. Checking: \\boxed{4}", "4"),
        ("</think>\\boxed{4}, no, wait: \\boxed{5}", "5"),
        ("</think>Part one is \\boxed{4} and part two is \\boxed{5}", "5"),
        ("</think>\\boxed{4} \\boxed{5}", "5"),
        ("</think>\\boxed{4}\n\n\\boxed{5}", "5"),
        ("</think>\\boxed{9}. So \\boxed{1}, \\boxed{2}", "1, 2"),
        ("</think>\\boxed{1} or \\boxed{?}", "1"),
        ("</think>\\boxed{...}", None),
        ("</think>\\boxed{\\text{}}", None),
        ("</think>\\boxed{\\ldots}", None),
        ("</think>\\boxed{ ? }", None),
        ("</think>\\boxed{\\text{none}}", "\\text{none}"),
        ("<think></think>\\boxed{1} or \\boxed{}", "1"),
        ("<think></think>\\boxed{1} or \\boxed{ {} }", "1"),
        ("<think></think>\\boxed{1} or \\boxed{2", "1"),
        ("<think></think>\\boxed{1} or \\boxed2", "1"),
        ("<think></think>\\boxed{x \\boxed{2}}", "2"),
        ("<think></think>\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("<think></think>\\boxed {\n 7 }", "7"),
        ("<think></think>\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("<think></think>\\boxed{\\left\\{1 \\right.}", "\\left\\{1 \\right."),
        ("<think></think>{{ } } } {\\boxed{7}", "7"),
        ("<think></think>\\boxed{1</think>\\boxed{2}", "2"),
        ("<think></think>\\\\\\boxed{2}", "2"),
        ("</think>\\boxed{1}</think>", "1"),
        ("", None),
        *((f"</think>\\boxed{{{nothing}}}", None) for nothing in NOTHING),
        *((f"</think>\\boxed{{7}} or \\boxed{{{nothing}}}", "7") for nothing in NOTHING),
        *((f"</think>\\boxed{{{short}}}", short) for short in SHORT),
        ("</think>" + "\\boxed{" * 100 + "}" * 100, None),
        ("</think>\\boxed{" + "? " * 1000 + "}", None),
    ],
)
def test_extract_boxed(text: str, answer: str | None) -> None:
    assert extract_boxed(text) == answer


@given(st.text(alphabet="ab{}\\ ", max_size=30), st.lists(st.sampled_from(["7", "\\frac{1}{2}", "{a}{b}"]), min_size=1))
def test_the_last_box_is_found_whatever_unboxed_text_precedes_it(noise: str, answers: list[str]) -> None:
    boxes = " so ".join(f"\\boxed{{{answer}}}" for answer in answers)
    assert extract_boxed(f"<think>{noise}</think>{noise.replace(chr(92), '')} {boxes}") == answers[-1]


@pytest.mark.parametrize(
    "unit", ["{", "}", "\\boxed{}", "\\boxed{1},", "\\boxed{?", "?{", "\\boxed{{", "\\boxed", "\\boxed   ", "x", "\\"]
)
def test_extraction_takes_linear_time_on_hostile_text(unit: str) -> None:
    text = "</think>" + unit * (1_000_000 // len(unit)) + " \\boxed{7}"
    started = time.perf_counter()
    assert (extract_boxed(text) or "").endswith("7")
    assert time.perf_counter() - started < 10  # quadratic time would be many minutes


def test_ten_megabytes_of_open_boxes_are_no_problem() -> None:
    assert extract_boxed("</think>" + "\\boxed{" * 1_400_000 + "7}") == "7"


NUMBER_PAIRS = [
    ("1234", "1,234"),
    ("1,234", "1234"),
    ("1,234", "234,1"),
    ("1,234", "1.234"),
    ("1,234.50", "1234.5"),
    ("100,000,000", "100000000"),
    ("1000", "1,00,0"),
    ("01,234", "1234"),
    ("0,123", "123"),
    ("2", "2.0"),
    ("2", "3"),
    ("-5", "5"),
    ("5", "+5"),
    ("007", "7"),
    ("-0", "0"),
    ("0", "0.0"),
    (".5", "0.50"),
    ("0.5", "\\frac{1}{2}"),
    ("1/2", "0.5"),
    ("1/2", "2/4"),
    ("1/2", "2/1"),
    ("\\frac{-1}{2}", "-\\dfrac{1}{2}"),
    ("\\frac{4}{2}", "2"),
    ("-\\frac{-1}{2}", "\\frac{1}{2}"),
    ("\\tfrac{1}{-2}", "-1/2"),
    ("\\frac{1}{3}", "0.333333"),
    ("\\frac{1}{3}", "0.33333"),
    ("\\frac{1}{3}", "0.33"),
    ("0.333333", "0.3333334"),
    ("5", "5.0000001"),
    ("5", "5.00001"),
    ("0.000001", "0.0000018"),
    ("123456789012345678", "123456789012345679"),
    ("123456789012345678901234567890", "123456789012345678901234567890"),
    ("18", "$18$"),
    ("9", "0.09"),
    ("9", "900"),
    ("0.25", "25"),
]


@pytest.mark.parametrize(("gold", "answer"), NUMBER_PAIRS)
def test_the_exact_fast_path_agrees_with_math_verify(grader: Grader, gold: str, answer: str) -> None:
    expected = judge(gold, answer)
    assert compare_numbers(gold, answer) in (expected, None)
    assert grader.grade([answer], [gold]) == [expected]


def test_the_fast_path_decides_what_it_is_meant_to_decide() -> None:
    left_to_math_verify = [pair for pair in NUMBER_PAIRS if compare_numbers(*pair) is None]
    assert left_to_math_verify == [
        ("1,234", "234,1"),
        ("1000", "1,00,0"),
        ("01,234", "1234"),
        ("0,123", "123"),
    ]


@pytest.mark.parametrize(
    "text", ["", ".", "1/0", "\\frac{1}{0}", "1e3", "--5", "٣", "1_000", "nan", "inf", "5%", "0x10"]
)
def test_what_only_looks_like_a_number_is_left_to_math_verify(text: str) -> None:
    assert compare_numbers("5", text) is None


@given(st.fractions(max_denominator=10**6), st.integers(1, 50))
def test_fractions_are_compared_exactly(value: object, factor: int) -> None:
    top, bottom = value.as_integer_ratio()  # type: ignore[attr-defined]
    assert compare_numbers(f"{top}/{bottom}", f"\\frac{{{top * factor}}}{{{bottom * factor}}}") is True
    assert compare_numbers(f"{top}/{bottom}", str(top + bottom)) is (value == top + bottom)


def test_the_fast_path_is_fast() -> None:
    pairs = [(f"{n},{n % 900 + 100}", f"\\frac{{{n}}}{{7}}") for n in range(1, 1000)] * 10
    started = time.perf_counter()
    with Grader() as grader:
        grader.grade([answer for _, answer in pairs], [gold for gold, _ in pairs])
    assert len(pairs) / (time.perf_counter() - started) > 10_000


@pytest.mark.parametrize(
    ("gold", "answer", "correct"),
    [
        ("x^2+2x+1", "(x+1)^2", True),
        ("x^2+2x+1", "(x-1)^2", False),
        ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt 2}", True),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3, \\pi/2)", True),
        ("(3, \\pi)", "(\\pi, 3)", False),
        ("90^\\circ", "90", True),
        ("\\text{Evelyn}", "Evelyn", True),
        ("B", "\\text{(B)}", True),
        ("B", "C", False),
        ("5", "x = 5", True),
        ("18", "\\$18", True),
        ("7", "7.", True),
        ("\\pi", "$\\pi$.", True),
        ("3", "5 or 3", False),
        ("3", "5$ and $3", False),
        ("3", "5} \\boxed{3", False),
        ("3", "", False),
        ("3", "\\frac{", False),
        ("3", None, False),
    ],
)
def test_math_verify_decides_the_rest(grader: Grader, gold: str, answer: str | None, correct: bool) -> None:
    assert grader.grade([answer], [gold]) == [correct]


@pytest.mark.parametrize("gold", ["9", "0.5", "\\frac{3}{4}", "\\sqrt{2}", "\\frac{\\pi}{3}", "3x"])
def test_a_hundredfold_and_a_hundredth_are_wrong(grader: Grader, gold: str) -> None:
    answers = [gold, f"\\frac{{{gold}}}{{100}}", f"100 \\cdot {gold}", f"0.01 \\cdot {gold}"]
    assert grader.grade(answers, [gold] * 4) == [True, False, False, False]


def test_gold_and_answer_are_not_swapped(grader: Grader) -> None:
    """math-verify is not symmetric: an answer may name its variable, but a gold equation asks for an equation."""
    assert grader.grade(["2x+z=1", "1"], ["1", "2x+z=1"]) == [True, False]


def test_only_the_latex_parser_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import math_verify

    configs: list[str] = []

    def parse(text: str, extraction_config: list[object], **timeouts: object) -> list[object]:
        configs.extend(type(config).__name__ for config in extraction_config)
        assert timeouts == {"parsing_timeout": None}
        return [text]

    monkeypatch.setattr(math_verify, "parse", parse)
    assert judge("1", "1") is True
    assert configs == ["LatexExtractionConfig"] * 2


@pytest.mark.parametrize(
    "attack",
    [
        "__import__('os').system('touch {}')",
        "().__class__.__base__.__subclasses__()",
        "\\text{{__import__('os').system('touch {}')}}",
        "open('{}', 'w')",
        "eval(\"open('{}', 'w')\")",
        "\\operatorname{{open}}('{}', 'w')",
        "\\input{{|touch {}}}",
    ],
)
def test_an_answer_is_never_run(grader: Grader, tmp_path: Path, attack: str) -> None:
    target = tmp_path / "evidence"
    code = attack.format(target) if "{}" in attack else attack
    assert grader.grade([code, f"1 + {code}"], ["1", "1"]) == [False, False]
    grader.check_golds([code])
    assert not target.exists()


def test_an_endless_answer_is_killed_counted_and_remembered(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_rules, "_explosive", lambda text: False)  # which would refuse it unsent
    with Grader(timeout=1) as grader:
        assert grader.grade(["1+f(x)"], [HARD]) == [True]
        process = grader._idle.queue[0].process
        assert grader.verdicts([ENDLESS], ["3"]) == ["timeout"]
        assert process is not None and process.returncode == -signal.SIGPROF
        assert grader.grade(["f(x)+f(y)", "f(x)"], ["f(y)+f(x)", "f(2x)"]) == [True, False]
        process = grader._idle.queue[0].process
        assert grader.verdicts([ENDLESS], ["3"]) == ["timeout"] and grader.grade([ENDLESS], ["3"]) == [False]
        assert grader._idle.queue[0].process is process  # it was not asked again
        assert grader.timeouts == 1 and caplog.text.count("no verdict on") == 1
        (error,) = grader.check_golds(["\\sqrt{2}+" + ENDLESS])
        assert error is not None and "more than 1 s" in error


def test_bombs_are_refused_before_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerProcess, "ask", lambda self, question: pytest.fail("was asked"))
    bombs = [
        ENDLESS,
        "(x+1)^{99999}",
        "10^{10^{10}}!",
        "\\sum_{k=1}^{10^{12}} k^{k}",
        "\\sqrt{" * 150 + "2" + "}" * 150,
    ]
    with Grader() as grader:
        assert grader.grade(bombs, ["4"] * len(bombs)) == [False] * len(bombs)


def test_a_suspended_worker_makes_no_right_answer_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A throttled container or a suspended laptop uses no CPU time; the worker goes on where it stood."""
    with Grader(timeout=0.5) as grader:
        assert grader.grade(["f(x)"], ["f(x)+1"]) == [False]
        process = grader._idle.queue[0].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        threading.Timer(1.5, process.send_signal, [signal.SIGCONT]).start()
        assert grader.verdicts(["f(2)+f(x)"], ["f(x)+f(2)"]) == ["right"]
        assert grader._idle.queue[0].process is process


def test_a_worker_that_stands_still_is_replaced_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with Grader(timeout=3) as grader:
        assert grader.grade(["f(x)"], ["f(x)+1"]) == [False]
        monkeypatch.setattr(grading_worker, "WALL_FACTOR", 1)
        process = grader._idle.queue[0].process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        assert grader.verdicts(["f(3)+f(x)"], ["f(x)+f(3)"]) == ["right"]
        assert grader._idle.queue[0].process is not process and grader.timeouts == 0


def test_another_worker_is_warm_when_one_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading_worker, "SPARE_AFTER_SECONDS", 0.01)
    worker = WorkerProcess(timeout=1.5)
    try:
        assert worker.ask(Question("3", ENDLESS))["timeout"]
        assert worker._spare is not None
        spare = worker._spare.result().process
        assert worker.ask(Question("2", "\\sqrt{4}"))["correct"] and worker.process is spare
    finally:
        worker.stop()


def test_a_worker_that_dies_is_replaced() -> None:
    worker = WorkerProcess(timeout=20)
    try:
        assert worker.ask(Question("2", "\\sqrt{4}"))["correct"]
        process = worker.process
        assert process is not None
        process.kill()
        process.wait()
        assert worker.ask(Question("2", "\\sqrt{4}"))["correct"]
        assert worker.process is not process
    finally:
        worker.stop()


def test_too_long_answers_are_wrong_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorkerProcess, "ask", lambda self, question: pytest.fail("was asked"))
    with Grader() as grader:
        assert grader.grade(["+" * 3000, "1" * 5000], ["2", "1" * 5000]) == [False, False]


def test_no_question_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(self: WorkerProcess, question: Question) -> dict[str, object]:
        asked.append((question.gold, question.answer))
        return {"correct": question.answer == "f(2x)", "error": None}

    monkeypatch.setattr(WorkerProcess, "ask", ask)
    with Grader() as grader:
        assert grader.grade(["f(2x)", "f(3x)", " f(2x) ", "3"], ["f(x)", "f(x)", "f(x)", "3"]) == [
            True,
            False,
            True,
            True,
        ]
        assert grader.grade(["f(3x)"], ["f(x)"]) == [False]
    assert asked == [("f(x)", "f(2x)"), ("f(x)", "f(3x)")]


def test_several_threads_share_a_pool_of_two_workers() -> None:
    wrong_verdicts = []

    def grade_some(grader: Grader, seed: int) -> None:
        numbers = [random.Random(seed).randint(1, 99) for _ in range(8)]
        answers = [f"\\sqrt{{{n * n}}}" if place % 2 else f"\\sqrt{{{n * n + 1}}}" for place, n in enumerate(numbers)]
        verdicts = grader.grade(answers, [str(n) for n in numbers])
        if verdicts != [False, True] * 4:
            wrong_verdicts.append(verdicts)

    with Grader(workers=2, timeout=20) as grader:
        threads = [threading.Thread(target=grade_some, args=(grader, seed)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(not thread.is_alive() for thread in threads) and wrong_verdicts == []


def test_it_works_in_a_script_without_a_main_guard(tmp_path: Path) -> None:
    """Started from a folder whose random.py would break any library that imported it."""
    (tmp_path / "random.py").write_text("raise RuntimeError('the wrong random')")
    folder = tmp_path / "scripts"
    folder.mkdir()
    script = folder / "grade.py"
    script.write_text(
        "print('top level runs once')\n"
        "from stepgrpo_lab.evaluation.grading import Grader\n"
        "print(Grader(workers=2, timeout=30).grade(['\\\\sqrt{4}', '\\\\sqrt{5}'], ['2', '2']))\n"
    )
    root = str(Path(grading.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["top level runs once", "[True, False]"], done.stderr
    assert done.returncode == 0 and done.stderr == ""


def test_it_works_under_a_running_event_loop_and_from_its_threads() -> None:
    import asyncio

    async def both(grader: Grader) -> list[list[bool]]:
        here = grader.grade(["1+f(x)"], ["f(x)+1"])
        return [here, await asyncio.to_thread(grader.grade, ["2+f(x)"], ["f(x)+2"])]

    with Grader(timeout=20) as grader:
        assert asyncio.run(both(grader)) == [[True], [True]]


def test_an_interrupt_leaves_no_late_reply_for_the_next_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the stop button of a notebook does."""
    with Grader(timeout=20) as grader:
        assert grader.grade(["1+f(x)"], ["f(x)+1"]) == [True]
        worker = grader._idle.queue[0]
        process = worker.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)  # so that it cannot answer first
        timer = threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            grader.grade(["3+f(x)"], ["f(x)+4"])
        assert process.returncode is not None
        assert grader.grade(["2+f(x)"], ["f(x)+2"]) == [True]


def grade_in_a_process(pair: tuple[str, str]) -> list[bool]:
    with Grader(timeout=20) as grader:
        return grader.grade([pair[0]], [pair[1]])


def test_it_works_in_a_spawned_process() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(grade_in_a_process, ("1+f(x)", "f(x)+1")).result(timeout=120) == [True]


def test_workers_end_with_the_grader() -> None:
    grader = Grader(timeout=20)
    assert grader.grade(["1+f(x)"], ["f(x)+1"]) == [True]
    process = grader._idle.queue[0].process
    assert process is not None and process.poll() is None
    grader.close()
    grader.close()
    assert process.returncode is not None
    assert grader.grade(["2"], ["2"]) == [True]
    with pytest.raises(RuntimeError, match="closed"):
        grader.grade(["f(x)"], ["f(x)+1"])


def test_workers_end_with_a_forgotten_grader() -> None:
    grader = Grader(timeout=20)
    assert grader.grade(["1+f(x)"], ["f(x)+1"]) == [True]
    process = grader._idle.queue[0].process
    assert process is not None
    del grader
    gc.collect()
    assert process.returncode is not None


def test_a_pickled_grader_carries_its_settings_only(grader: Grader) -> None:
    with pickle.loads(pickle.dumps(Grader(workers=3, timeout=7))) as copy:
        assert (copy.workers, copy.timeout) == (3, 7)


def test_a_worker_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with (
        Grader() as grader,
        pytest.raises(RuntimeError, match="cannot start"),
    ):
        grader.grade(["f(x)"], ["f(x)+1"])


def test_the_worker_keeps_stdout_for_its_protocol(tmp_path: Path) -> None:
    """A library that prints must not break the protocol; a missing math-verify must be reported."""
    (tmp_path / "math_verify.py").write_text("print('noise')\nraise ImportError('no antlr4')")
    done = subprocess.run(
        [sys.executable, grading_worker.__file__, "9"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        input="",
        timeout=60,
    )
    assert "no antlr4" in json.loads(done.stdout)["error"]
    assert "noise" in done.stderr


def test_a_group_parses_its_gold_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    monkeypatch.setattr(grading_worker, "_parse", lambda latex: parsed.append(latex) or [latex.strip()])
    monkeypatch.setattr(grading_worker, "_verify", lambda gold, answer: gold == answer)
    gold = "asked in this test alone"
    answers = [gold, f" {gold}", "another", gold, "another"]
    assert [judge(gold, answer) for answer in answers] == [True, True, False, True, False]
    assert parsed == [gold, *answers]


def test_bad_arguments_are_refused(grader: Grader) -> None:
    with pytest.raises(ValueError, match="2 answers but 1 golds"):
        grader.grade(["1", "2"], ["1"])
    with pytest.raises(ValueError, match="workers is 0"):
        Grader(workers=0)
    with pytest.raises(ValueError, match="timeout is 0"):
        Grader(timeout=0)


def test_golds_are_checked(grader: Grader) -> None:
    errors = grader.check_golds(["12", "\\frac{1}{2}", "x+1", "\\text{Evelyn}", "B", "\\frac{", " ", "1/0"])
    assert errors[:5] == [None] * 5
    assert errors[5] == "math-verify cannot parse it as LaTeX"
    assert errors[6] == "it is empty"
    assert errors[7] == "it does not equal itself"
    assert gold_error("x") is None


@pytest.mark.parametrize(("name", "rows"), [("math500", 500), ("aime24", 30), ("amc23", 40), ("gsm8k_test", 1319)])
def test_every_real_gold_grades_itself_right_and_a_perturbed_one_wrong(
    real_data: Path, grader: Grader, name: str, rows: int
) -> None:
    lines = (real_data / "benchmarks" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:rows]
    golds = [json.loads(line)["answer"] for line in lines]
    assert len(golds) == rows
    perturbed = [f"1+{gold}" for gold in golds]
    assert [error for error in grader.check_golds(golds) if error] == []
    assert [gold for gold, right in zip(golds, grader.grade(golds, golds), strict=True) if not right] == []
    assert [gold for gold, right in zip(golds, grader.grade(perturbed, golds), strict=True) if right] == []


# ---- workers that the system kills -----------------------------------------------------------------------------------

STARTS = """import os, pathlib, signal
starts = pathlib.Path({starts!r})
with starts.open("a") as file:
    file.write("x")
if len(starts.read_text()) in {killed}:
    os.kill(os.getpid(), signal.SIGKILL)
"""


has_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.fixture
def killed_at_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Kills workers while they start, counted from 1; returns the file whose length counts them."""

    def kill(*starts: int) -> Path:
        path = tmp_path / "starts"
        (tmp_path / "sitecustomize.py").write_text(STARTS.format(starts=str(path), killed=starts))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
        return path

    return kill


@has_signals
def test_a_worker_that_is_killed_while_it_starts_is_started_once_more(killed_at_start: Callable[..., Path]) -> None:
    starts = killed_at_start(1)
    with Grader(timeout=60) as grader:
        assert grader.grade(["2+f(z)"], ["f(z)+2"]) == [True]
    assert starts.read_text() == "xx"


@has_signals
def test_workers_that_cannot_live_are_named(killed_at_start: Callable[..., Path]) -> None:
    killed_at_start(1, 2, 3)
    with Grader(timeout=60) as grader, pytest.raises(RuntimeError, match="cannot start"):
        grader.grade(["2+f(z)"], ["f(z)+2"])


@has_signals
def test_a_question_whose_worker_is_killed_is_asked_once_more(killed_at_start: Callable[..., Path]) -> None:
    starts = killed_at_start()
    with Grader(timeout=60) as grader:
        assert grader.grade(["1+f(z)"], ["f(z)+1"]) == [True]
        worker = grader._idle.queue[0]
        exchange = worker._exchange

        def killed_in_the_middle(question: Any) -> Any:
            worker._exchange = exchange
            os.kill(worker.process.pid, signal.SIGSTOP)  # so that it cannot answer first
            threading.Timer(0.3, worker.process.kill).start()
            return exchange(question)

        worker._exchange = killed_in_the_middle
        assert grader.grade(["2+f(z)"], ["f(z)+2"]) == [True]
    assert starts.read_text() == "xx"


@has_signals
@pytest.mark.parametrize("number", TO_STOP)
def test_a_signal_to_the_whole_group_leaves_the_worker(number: int) -> None:
    with Grader(timeout=60) as grader:
        grader.grade(["1+f(z)"], ["f(z)+1"])
        process = grader._idle.queue[0].process
        assert process is not None
        process.send_signal(number)
        assert grader.grade(["2+f(z)"], ["f(z)+2"]) == [True] and grader._idle.queue[0].process is process
