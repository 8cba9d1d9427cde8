"""Traces that overthink by construction: the thoughts the Overthinker is first trained on.

A trace works the problem out step by step, reaches the answer, and then keeps re-checking it. Operations slip now and
then, so that the first re-check is worth something. The final answer is always the true one: taken from the trace
itself, it would teach the model to be certain of whatever it had written (confidence 1.000, right or wrong).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.overthinker.tasks import CANDIDATES, OPERATIONS_PER_STEP, apply_operation

RECHECK = " Wait "
"""Opens a step that goes on with a chain or goes over work again."""

SWITCH = " Alternatively "
"""Opens a step that tries another candidate."""

# Steps end without a full stop: a full stop and the line break before ``</think>`` would be one token, and a forced
# close could then not be the very tokens of a natural one.


@dataclass(frozen=True)
class TraceStyle:
    """How much the traces slip and overthink.

    Attributes:
        slip_rate: Probability that one written operation has a wrong result.
        rechecks: Weights of 0, 1, 2, ... re-checks after the answer was reached.
        max_operations: No further re-check once a chain trace holds this many operations.
        max_tries: No further re-check once a search trace holds this many tries.
    """

    slip_rate: float = 0.03
    rechecks: tuple[int, ...] = (3, 7, 20, 40, 30)
    max_operations: int = 22
    max_tries: int = 14


def _draw_rechecks(rng: random.Random, style: TraceStyle) -> int:
    return rng.choices(range(len(style.rechecks)), style.rechecks)[0]


def _equations(
    start: int, operations: Iterable[Sequence[Any]], rng: random.Random, style: TraceStyle
) -> tuple[list[str], int]:
    """One walk through a chain, with slips; returns its equations and the result."""
    value, equations = start, []
    for symbol, operand in operations:
        result = apply_operation(value, symbol, operand)
        if rng.random() < style.slip_rate:
            result = (result + rng.randrange(1, 10)) % 10
        equations.append(f"{value}{symbol}{operand}={result}")
        value = result
    return equations, value


def chain_thoughts(problem: Problem, rng: random.Random, style: TraceStyle) -> str:
    """Thoughts for a chain: a first pass, then whole passes again; a disagreement asks for one more."""
    start, operations = problem.meta["start"], problem.meta["operations"]

    def walk() -> tuple[list[str], int]:
        equations, value = _equations(start, operations, rng, style)
        places = range(0, len(equations), OPERATIONS_PER_STEP)
        return [" ".join(equations[place : place + OPERATIONS_PER_STEP]) for place in places], value

    steps, first = walk()
    results = [first]
    rechecks = _draw_rechecks(rng, style)
    while (rechecks > 0 or len(set(results[-2:])) > 1) and (len(results) + 1) * len(operations) <= style.max_operations:
        again, result = walk()
        steps += again
        results.append(result)
        rechecks -= 1
    return RECHECK.join(steps)


def search_thoughts(problem: Problem, rng: random.Random, style: TraceStyle) -> str:
    """Thoughts for a search: candidates in order until one fits, then the same again and the remaining ones."""
    candidates = problem.meta["candidates"]

    def attempt(index: int) -> tuple[str, bool]:
        start, operations = candidates[index]
        equations, value = _equations(start, operations, rng, style)
        found = value == 0
        return f"{CANDIDATES[index]} {' '.join(equations)} {'yes' if found else 'no'}", found

    text, tries, place, found = "", 0, 0, False
    while not found and tries < style.max_tries:
        step, found = attempt(place % len(candidates))
        text += step if not text else SWITCH + step
        tries += 1
        place += 1
    winner = (place - 1) % len(candidates)
    # Overthinking: every re-check works the winner out once more, or looks at one candidate that was not needed.
    for _ in range(2 * _draw_rechecks(rng, style)):
        if tries >= style.max_tries:
            break
        if rng.random() < 0.5:
            text += RECHECK + attempt(winner)[0]
        else:
            text += SWITCH + attempt(place % len(candidates))[0]
            place += 1
        tries += 1
    return text


def write_thoughts(problem: Problem, rng: random.Random, style: TraceStyle | None = None) -> str:
    """The thoughts of one overthinking trace, without the think tags.

    Example:
        >>> meta = {"start": 7, "operations": [["+", 5], ["*", 3], ["-", 4]]}
        >>> once = TraceStyle(slip_rate=0, rechecks=(1,))
        >>> write_thoughts(Problem("p", "", "2", "chain", meta=meta), random.Random(0), once)
        '7+5=2 2*3=6 Wait 6-4=2'
    """
    writer = {"chain": chain_thoughts, "search": search_thoughts}[problem.family]
    return writer(problem, rng, style or TraceStyle())


def format_completion(thoughts: str, answer: str) -> str:
    """Thoughts and answer in Qwen3's format, without the end-of-sequence token."""
    return f"<think>\n{thoughts}\n</think>\n\n\\boxed{{{answer}}}"
