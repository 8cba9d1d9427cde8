"""Word problems with exact truth: stories of two to six operations, and traces that solve them in plain English.

A story counts something: it opens with a number, or with two that are multiplied, and then events add, take away,
multiply or share. A *quick* derivation takes several operations in one equation (``12+7*2=26``) and errs where a
model's mental arithmetic ends; a *careful* one names every event and writes one operation an equation. "Alternatively"
opens a third way: what is added and taken away in a row is counted together first. As in Overthinker 2, one step is
one derivation, and the natural answer follows the last of them.

A split is decided by a problem's numbers and operations alone, so no calculation of one split is ever in another,
whatever the story. The split "held_out" also tells stories of kinds that training never does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import reduce
from itertools import groupby
from math import prod
from typing import Any

from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.overthinker._scenarios import HELD_OUT, PEOPLE, SCENARIOS, Event
from stepgrpo_lab.overthinker.equations import calculate, operations
from stepgrpo_lab.overthinker.tasks import Laboratory

OPERATIONS = {1: (2,), 2: (3, 4), 3: (5, 6)}
"""How many operations a story of each tier takes."""

LARGEST = 150
"""No true result on the way is larger, or smaller than 1."""

RANGES = {"+": (2, 30), "-": (2, 30), "*": (2, 4), "/": (2, 5), "each": (2, 9), "groups": (2, 6), "start": (5, 40)}
"""The numbers of a story, by what they do; "groups" of "each" so many are multiplied."""

OPENED_BY_PRODUCT = 0.4

# ---- problems --------------------------------------------------------------------------------------------------------


def _draw(rng: random.Random, kind: str) -> int:
    return rng.randint(*RANGES[kind])


def _pair(rng: random.Random) -> list[int]:
    return [_draw(rng, "groups"), _draw(rng, "each")]


def _outline(rng: random.Random, count: int) -> tuple[list[int], list[list[Any]]]:
    """Numbers of an opening, and events as ``[operation, numbers...]``; no event's operation occurs twice."""
    opening = _pair(rng) if rng.random() < OPENED_BY_PRODUCT else [_draw(rng, "start")]
    left = count - len(opening) + 1
    events: list[list[Any]] = []
    kinds = ["+", "-", "*", "/", "+*", "-*"]
    rng.shuffle(kinds)
    for kind in kinds:
        if len(kind) <= left:
            events.append([kind, *(_pair(rng) if len(kind) == 2 else [_draw(rng, kind)])])
            left -= len(kind)
    return (opening, events) if not left else _outline(rng, count)


def _joined(value: str, event: Sequence[Any]) -> str:
    """The expression of a count after an event."""
    kind, numbers = event[0], "*".join(map(str, event[1:]))
    if kind in "*/" and any(sign in value for sign in "+-"):
        value = f"({value})"
    return f"{value}{kind[0]}{numbers}"


def _expression(opening: Sequence[int], events: Sequence[Sequence[Any]]) -> str:
    """The count at the end, written out."""
    return reduce(_joined, events, "*".join(map(str, opening)))


def _fits(opening: Sequence[int], events: Sequence[Sequence[Any]]) -> bool:
    """Whether all numbers differ, and every count is whole and neither too small nor too large."""
    numbers = [*opening, *(number for event in events for number in event[1:])]
    if len(set(numbers)) < len(numbers):
        return False
    count = prod(opening)
    for kind, *operands in events:
        by = prod(operands)
        if kind == "/" and count % by:
            return False
        count = {"+": count + by, "-": count - by, "*": count * by, "/": count // by}[kind[0]]
        if not 1 <= count <= LARGEST:
            return False
    return True


def _sentences(scenario: str, rng: random.Random, opening: Sequence[int], events: Sequence[Sequence[Any]]) -> str:
    story = SCENARIOS[scenario]
    name, pronoun = rng.choice(PEOPLE)
    words = {"name": name, "He": pronoun, "things": rng.choice(story.things)}
    lines = [(story.opening[len(opening) - 1], opening)]
    lines += [(_event(scenario, event[0]).sentence, event[1:]) for event in events]
    written = [line.format(**words, **dict(zip("nm", numbers, strict=False))) for line, numbers in lines]
    return " ".join([*written, story.question.format(**words)])


def _event(scenario: str, operation: str) -> Event:
    return next(event for event in SCENARIOS[scenario].events if event.operation == operation)


def make_story(rng: random.Random, level: int) -> Problem:
    """Draw a word problem of a tier; level 4 and above have two more operations each.

    Example:
        >>> make_story(random.Random(1), 1).prompt
        'Mia owns 29 marbles. She gives 5 to each of 4 friends. How many marbles does Mia own in the end?'
    """
    counts = OPERATIONS.get(level, (2 * level,))
    while True:
        opening, events = _outline(rng, rng.choice(counts))
        if _fits(opening, events):
            break
    expression = _expression(opening, events)
    new = WORD_PROBLEMS.split_by(expression) == "held_out"
    scenario = rng.choice([name for name in SCENARIOS if (name in HELD_OUT) == new])
    return Problem(
        id=f"story-{scenario}-{expression}",
        prompt=_sentences(scenario, rng, opening, events),
        answer=str(calculate(expression)),
        family="story",
        level=level,
        meta={"expression": expression, "opening": opening, "events": events, "scenario": scenario},
    )


WORD_PROBLEMS = Laboratory(
    name="word-problems",
    families={"story": make_story},
    family_weights={"story": 1},
    level_weights={"story": {1: 30, 2: 40, 3: 30}},
    shares={"train": 70, "validation": 5, "test": 10, "gates": 5, "held_out": 10},
    size=20_000,
    content=lambda problem: problem.meta["expression"],
)
"""The laboratory of word problems."""

# ---- traces ----------------------------------------------------------------------------------------------------------

SLIPS = {1: 0.01, 2: 0.08}
"""Probability that a trace's equation of one, of more operations has a wrong result: disagreements must be seen."""

RECHECKS = (24, 36, 24, 12, 4)
"""Weights of 0, 1, 2, ... re-checks after the first derivation."""

QUICK_FIRST = 0.85
"""How often the first derivation is quick."""

LEAP = 2
"""Operations that a quick derivation takes in one equation, or more where the last event is a product."""

QUICK_WORDS = ("Quickly:", "At a glance:", "In short:")
CAREFUL_WORDS = ("step by step.", "let me go through it slowly.", "one thing at a time.")
TOGETHER_WORDS = ("count the changes together:", "take the changes as one:")


class _Writer:
    """Writes equations, some of which slip, and goes on from what it wrote."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.value = 0

    def equation(self, expression: str) -> str:
        """The expression with a result."""
        # After a slip there may be too little to take away, or a number that cannot be shared.
        self.value = max(0, int(calculate(expression)))
        if self.rng.random() < SLIPS[min(operations(expression), 2)]:
            self.value = max(0, self.value + self.rng.choice((-10, -2, -1, 1, 2, 10)))
        return f"{expression}={self.value}"


def _careful(problem: Problem, write: _Writer) -> str:
    opening, events, scenario = (problem.meta[key] for key in ("opening", "events", "scenario"))
    start = "*".join(map(str, opening))
    parts = [f"Start: {write.equation(start)}." if len(opening) > 1 else f"Start: {start}."]
    value = write.value if len(opening) > 1 else opening[0]
    for kind, *numbers in events:
        work = ""
        number = numbers[0]
        if len(numbers) > 1:
            work = write.equation("*".join(map(str, numbers))) + ", "
            number = write.value
        parts.append(f"{_event(scenario, kind).phrase}: {work}{write.equation(f'{value}{kind[0]}{number}')}.")
        value = write.value
    return " ".join(parts)


def _leaps(start: str, events: Sequence[Sequence[Any]], write: _Writer) -> str:
    """Equations of at least :data:`LEAP` operations, as far as they go."""
    value, written = start, []
    for place, event in enumerate(events):
        value = _joined(value, event)
        if operations(value) >= LEAP or place == len(events) - 1:
            written.append(write.equation(value))
            value = str(write.value)
    return ", ".join(written) + "."


def _quick(problem: Problem, write: _Writer) -> str:
    return _leaps("*".join(map(str, problem.meta["opening"])), problem.meta["events"], write)


def _in_a_row(problem: Problem) -> tuple[int, int] | None:
    """Where two events in a row add and take away a number; None where none do."""
    kinds = [event[0] in "+-" for event in problem.meta["events"]]
    start = 0
    for additive, run in groupby(kinds):
        size = len(list(run))
        if additive and size > 1:
            return start, start + 2
        start += size
    return None


def _together(problem: Problem, write: _Writer) -> str:
    """What one event adds and the next takes away is worked out first."""
    opening, events = problem.meta["opening"], problem.meta["events"]
    first, end = _in_a_row(problem) or (0, 0)
    pair = {kind: number for kind, number in events[first:end]}
    gain = pair["+"] > pair["-"]
    change = write.equation(f"{max(pair.values())}-{min(pair.values())}")
    merged = [*events[:first], ["+" if gain else "-", write.value], *events[end:]]
    return f"{change}, {_leaps('*'.join(map(str, opening)), merged, write)}"


def _derivation(problem: Problem, rng: random.Random, number: int) -> tuple[str, int]:
    """Derivation ``number`` of a trace with the word that opens it, and the count that it ends at."""
    write = _Writer(rng)
    draw = rng.random()
    if number == 0:
        quick = draw < QUICK_FIRST
        opener = rng.choice(QUICK_WORDS) if quick else "Step by step."
        text = f"{opener} {(_quick if quick else _careful)(problem, write)}"
    elif draw < 0.3 and _in_a_row(problem):
        text = f" Alternatively, {rng.choice(TOGETHER_WORDS)} {_together(problem, write)}"
    elif draw < (0.85 if number == 1 else 0.7):
        text = f" Wait, {rng.choice(CAREFUL_WORDS)} {_careful(problem, write)}"
    else:
        text = f" Wait, again: {_quick(problem, write)}"
    return text, write.value


def write_story_trace(problem: Problem, rng: random.Random) -> tuple[str, str]:
    """The thoughts of one trace, without the think tags, and the answer that follows from the last derivation.

    Example:
        >>> write_story_trace(make_story(random.Random(1), 1), random.Random(11))
        ('At a glance: 29-4*5=9. Wait, again: 29-4*5=9.', '9')
    """
    planned = rng.choices(range(len(RECHECKS)), RECHECKS)[0]
    text, result = _derivation(problem, rng, 0)
    results = [result]
    while len(results) < len(RECHECKS) and (
        len(results) <= planned or (len(set(results[-2:])) > 1 and rng.random() < 0.5)
    ):
        again, result = _derivation(problem, rng, len(results))
        text += again
        results.append(result)
    return text, str(results[-1])
