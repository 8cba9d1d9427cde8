"""Problems and traces of Overthinker 2, whose quick derivations leap and whose careful ones do not.

The operations of a problem come in groups. A *quick* derivation takes a whole group in one equation (``7+7*7=8``): the
network has to compose two operations in one pass, and where it errs that is its own limit. A *careful* derivation
writes one operation an equation (``7+7=4 4*7=8``). So a re-check helps because it is another method, not a second throw
of the same dice, and training by reward cannot sharpen the need for it away.

* ``chain``: one step is one derivation of the whole chain, and the answer follows the *last* of them.
* ``search``: one step tries one candidate; a winner that fails its re-check sends the search on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.overthinker.tasks import CANDIDATES, Laboratory, draw_operations, work_out, write_operations
from stepgrpo_lab.overthinker.traces import RECHECK, SWITCH

Group = list[Any]
"""Operations, each ``[symbol, operand]``, that a quick derivation takes in one leap."""

WIDTHS = {1: (1, 1, 1), 2: (2, 1), 3: (2, 1, 1), 4: (2, 2), 5: (2, 2, 1), 6: (2, 2, 2), 7: (2, 2, 2, 2)}
"""How many operations each group of a chain has, by level; level 7 is harder than all training."""

TRIED = {1: 3, 2: 4, 3: 5, 4: 6}
"""How many candidates a search has, by level; level 4 is harder than all training."""

LEAP = 2
"""Operations of every candidate of a search, which are one group."""


def make_chain(rng: random.Random, level: int) -> Problem:
    """Draw a chain in groups; the widths of a level come in any order.

    Example:
        >>> make_chain(random.Random(0), 2).prompt
        'Start at 6: +5*7 -5. Which digit, mod 10?'
    """
    widths = list(WIDTHS[level])
    rng.shuffle(widths)
    start = rng.randrange(10)
    groups = [draw_operations(rng, width) for width in widths]
    shown = " ".join(map(write_operations, groups))
    return Problem(
        id=f"leaps-{start}{shown}",
        prompt=f"Start at {start}: {shown}. Which digit, mod 10?",
        answer=str(work_out(start, [operation for group in groups for operation in group])),
        family="chain",
        level=level,
        meta={"start": start, "groups": groups},
    )


def make_search(rng: random.Random, level: int) -> Problem:
    """Draw a search among candidates of one group each; exactly one gives 0."""
    while True:
        candidates = [(rng.randrange(10), draw_operations(rng, LEAP)) for _ in range(TRIED[level])]
        results = [work_out(start, group) for start, group in candidates]
        if results.count(0) == 1:
            break
    listed = [f"{start}{write_operations(group)}" for start, group in candidates]
    shown = ", ".join(f"{name} {text}" for name, text in zip(CANDIDATES, listed, strict=False))
    return Problem(
        id=f"leaps-{shown}",
        prompt=f"Which gives 0, mod 10: {shown}?",
        answer=CANDIDATES[results.index(0)],
        family="search",
        level=level,
        meta={"candidates": [[start, [group]] for start, group in candidates]},
    )


OVERTHINKER_2 = Laboratory(
    name="overthinker-2",
    families={"chain": make_chain, "search": make_search},
    family_weights={"chain": 65, "search": 35},
    level_weights={"chain": {1: 10, 2: 20, 3: 20, 4: 20, 5: 16, 6: 14}, "search": {1: 30, 2: 35, 3: 35}},
    shares={"train": 80, "validation": 5, "test": 10, "gates": 5},
    size=80_000,
)
"""The laboratory of Overthinker 2: its difficulty varies inside the training mix."""

# ---- traces ----------------------------------------------------------------------------------------------------------

SLIPS = {1: 0.005, 2: 0.06}
"""Probability that a trace's equation of one, of two operations has a wrong result: disagreements must be seen."""

RECHECKS = (10, 24, 26, 18, 10, 6, 3, 2, 1)
"""Weights of 0, 1, 2, ... re-checks after the answer was reached; the last ones run into the limit."""

MOST_RECHECKS = len(RECHECKS) - 1
CAREFUL_FIRST, CAREFUL_LATER = 0.8, 0.55
"""How often the first re-check is careful, and every later one: a later quick one can unsettle a right result."""


def walk(start: int, groups: Sequence[Group], rng: random.Random, *, careful: bool) -> tuple[str, int]:
    """One derivation with its slips: the equations, and the digit it ends at."""
    value, equations = start, []
    for group in groups:
        for part in [[operation] for operation in group] if careful else [group]:
            result = work_out(value, part)
            if rng.random() < SLIPS[len(part)]:
                result = (result + rng.choice((1, 9))) % 10
            equations.append(f"{value}{write_operations(part)}={result}")
            value = result
    return " ".join(equations), value


def _rechecks(rng: random.Random) -> int:
    return rng.choices(range(len(RECHECKS)), RECHECKS)[0]


def _careful(rng: random.Random, recheck: int) -> bool:
    return rng.random() < (CAREFUL_LATER if recheck else CAREFUL_FIRST)


def _chain_thoughts(problem: Problem, rng: random.Random) -> tuple[str, str]:
    start, groups = problem.meta["start"], problem.meta["groups"]
    text, value = walk(start, groups, rng, careful=False)
    planned, results = _rechecks(rng), [value]
    while len(results) <= MOST_RECHECKS and (
        len(results) <= planned or (len(set(results[-2:])) > 1 and rng.random() < 0.5)
    ):
        again, value = walk(start, groups, rng, careful=_careful(rng, len(results) - 1))
        text += RECHECK + again
        results.append(value)
    return text, str(value)


def _search_thoughts(problem: Problem, rng: random.Random) -> tuple[str, str]:
    candidates = problem.meta["candidates"]
    count = len(candidates)

    def attempt(index: int, careful: bool) -> tuple[str, bool]:
        start, groups = candidates[index % count]
        equations, value = walk(start, groups, rng, careful=careful)
        return f"{CANDIDATES[index % count]} {equations} {'yes' if value == 0 else 'no'}", value == 0

    text, place, winner = "", 0, None
    while winner is None and place < 2 * count:  # a quick round, then a careful one
        step, found = attempt(place, place >= count)
        text += SWITCH * bool(text) + step
        winner = place if found else None
        place += 1
    winner = rng.randrange(count) if winner is None else winner
    for recheck in range(int(1.5 * _rechecks(rng))):
        if rng.random() < 0.55:
            step, found = attempt(winner, _careful(rng, recheck))
            text += RECHECK + step
            place = place if found else winner + 1  # a winner that fails sends the search on
        else:
            step, found = attempt(place, rng.random() < 0.3)
            text += SWITCH + step
            winner = place if found else winner
            place += 1
    return text, CANDIDATES[winner % count]


def write_trace(problem: Problem, rng: random.Random) -> tuple[str, str]:
    """The thoughts of one trace, without the think tags, and the answer that follows from them.

    Example:
        >>> problem = Problem("p", "", "8", "chain", meta={"start": 7, "groups": [[["+", 7], ["*", 7]]]})
        >>> write_trace(problem, random.Random(4))
        ('7+7*7=8 Wait 7+7=4 4*7=8', '8')
    """
    return {"chain": _chain_thoughts, "search": _search_thoughts}[problem.family](problem, rng)


def drill_equations(rng: random.Random, single: float = 0.0) -> Iterator[tuple[str, str]]:
    """Endless equations as (left side with its equals sign, result): leaps, and a share of single operations."""
    while True:
        start, group = rng.randrange(10), draw_operations(rng, 1 if rng.random() < single else LEAP)
        yield f"{start}{write_operations(group)}=", str(work_out(start, group))
