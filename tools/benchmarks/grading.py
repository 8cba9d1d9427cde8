"""Grading: pairs decided a second of CPU time, and what the rules change of math-verify's verdicts."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from stepgrpo_lab.evaluation._grading_worker import judge, parse_in_two_stages
from stepgrpo_lab.evaluation.answer_rules import decide, for_math_verify
from stepgrpo_lab.evaluation.grading import Grader, compare_numbers

from .measuring import Result, Table, figure

PAIRS = Path(__file__).parents[2] / "tests" / "data"
GROUP = 8
Pair = tuple[str, str]


def grading(quick: bool) -> Result:
    """Distinct pairs a second of CPU time, in one warm process that does the rules' work and math-verify's."""
    count = 80 if quick else 1_000
    parse_in_two_stages()
    for pair in _expressions(random.Random(1), 40):  # other pairs: ANTLR and sympy learn as they go
        graded(*pair)
        judge(*pair)
    streams: dict[str, tuple[Callable[[random.Random], list[Pair]], float]] = {
        "plain numbers": (lambda rng: _numbers(rng, 10 * count), 2_000),
        "groups of 8 over benchmark golds": (lambda rng: _groups(rng, count), 500),
        "wholly distinct expressions": (lambda rng: _expressions(rng, count), 300),
    }
    figures = []
    for name, (draw, least) in streams.items():
        rates, left = [], 0
        for seed in range(1 if quick else 3):
            pairs = draw(random.Random(seed))
            rates.append(_rate(graded, pairs))  # first, as what is decided is remembered
            left += sum(_decided(*pair) is None for pair in pairs[:500])
        note = f"{left / len(rates) / min(len(pairs), 500):.1%} of them go to math-verify."
        figures.append(
            figure("grading", f"pairs graded a CPU second, {name}", rates, "a second", least=least, note=note)
        )
    alone = _rate(lambda gold, answer: judge(gold, answer), _expressions(random.Random(9), 40 if quick else 200))
    figures.append(figure("grading", "the same by math-verify alone, wholly distinct expressions", [alone], "a second"))
    return Result(figures, [_agreement(quick)])


def graded(gold: str, answer: str) -> bool:
    """The verdict, as a grader reaches it, without its processes and its memory."""
    verdict = _decided(gold, answer)
    return judge(for_math_verify(gold), for_math_verify(answer)) if verdict is None else verdict


def _decided(gold: str, answer: str) -> bool | None:
    verdict = compare_numbers(gold, answer)
    return decide(gold, answer) if verdict is None else verdict


def _rate(verdict: Callable[[str, str], bool], pairs: list[Pair]) -> float:
    distinct = list(dict.fromkeys(pairs))
    started = time.process_time()
    for pair in distinct:
        verdict(*pair)
    return len(distinct) / (time.process_time() - started)


def _numbers(rng: random.Random, count: int) -> list[Pair]:
    return [(f"\\frac{{{rng.randrange(99)}}}{{7}}", str(rng.randrange(10_000))) for _ in range(count)]


def _labelled() -> list[dict[str, Any]]:
    names = ("grading_pairs", "grading_pairs_frozen")
    return [json.loads(line) for name in names for line in (PAIRS / f"{name}.jsonl").open(encoding="utf-8")]


def _groups(rng: random.Random, count: int) -> list[Pair]:
    """For each benchmark gold a group of answers: some spell it another way, most are wrong by a digit or two."""
    golds = sorted({pair["gold"] for pair in _labelled() if pair["kind"] == "real" and re.search(r"\d", pair["gold"])})
    chosen = rng.choices(golds, k=count // GROUP)
    return [(gold, _varied(rng, gold)) for gold in chosen for _ in range(GROUP)]


def _varied(rng: random.Random, gold: str) -> str:
    answer = gold.replace("\\frac", rng.choice(["\\frac", "\\dfrac", "\\tfrac"])).replace(
        " ", rng.choice([" ", "", "\\,"])
    )
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        place = rng.choice([found.start() for found in re.finditer(r"\d", answer)])
        answer = answer[:place] + str(rng.randrange(1, 10)) + answer[place + 1 :]
    return rng.choice([answer, f"${answer}$", f"{answer}."])


def _expressions(rng: random.Random, count: int) -> list[Pair]:
    """Pairs no side of which comes twice; half of them are equal, and one in ten holds what no rule reads."""
    return [_expression_pair(rng, place) for place in range(count)]


def _expression_pair(rng: random.Random, place: int) -> Pair:
    a, b, c = rng.randrange(2, 99), rng.randrange(2, 99), rng.randrange(2, 999)
    d = c + (0 if place % 2 else 1)
    forms = [
        (f"({a}x+{b})^2+{c}", f"{a * a}x^2+{2 * a * b}x+{b * b + d}"),
        (f"\\frac{{{a}+\\sqrt{{{c}}}}}{{{b}}}", f"\\frac{{{a}}}{{{b}}}+\\frac{{\\sqrt{{{d}}}}}{{{b}}}"),
        (f"{a}\\pi r^2+{c}", f"{d}+{a}r^2\\pi"),
        (f"{a}e^{{{b}t}}-{c}", f"-{d}+{a}e^{{{b}t}}"),
        (f"({a},\\frac{{{b}}}{{{c}}})", f"\\left({a},\\frac{{{2 * b}}}{{{2 * d}}}\\right)"),
        (f"\\sin({a}x)+{c}", f"{d}+\\sin {a}x"),
        (f"{a}x+{b}y={c}", f"y=\\frac{{{d}-{a}x}}{{{b}}}"),
        (f"\\{{{a},\\sqrt{{{b}}},{c}\\}}", f"{d},{a},\\sqrt{{{b}}}"),
        (f"\\log_{{{a}}}{{{c}}}", f"\\frac{{\\ln {d}}}{{\\ln {a}}}"),
        (f"f({a})+{c}", f"{d}+f({a})"),
    ]
    return forms[place // 2 % len(forms)]


def _agreement(quick: bool) -> Table:
    """The labelled pairs under the whole grader and under raw math-verify, and how many verdicts each kind changes."""
    labelled = _labelled()[:: 40 if quick else 1]
    rows, changed = [], Counter[str]()
    golds, answers = [pair["gold"] for pair in labelled], [pair["answer"] for pair in labelled]
    with Grader(timeout=10) as grader:
        verdicts = list(zip(labelled, grader.grade(answers, golds), grader.grade_raw(answers, golds), strict=True))
    for name, chosen in (("this grader", 1), ("raw math-verify", 2)):
        wrong = [
            (verdict[chosen], verdict[0]["right"]) for verdict in verdicts if verdict[chosen] != verdict[0]["right"]
        ]
        accepts = sum(given for given, _ in wrong)
        agree = f"{1 - len(wrong) / len(labelled):.1%}"
        rows.append([name, str(len(labelled)), agree, str(accepts), str(len(wrong) - accepts)])
    changed.update(pair["kind"] for pair, ours, raw in verdicts if ours != raw)
    against = sum(ours != raw and ours != pair["right"] for pair, ours, raw in verdicts)
    rows.append([f"verdicts changed: {_listed(changed.most_common())}; against the label: {against}", "", "", "", ""])
    return Table(
        "Labelled pairs (tests/data), most of them hard",
        ["grader", "pairs", "agree", "false accepts", "false rejects"],
        rows,
    )


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts)
