"""Generated problems whose truth is known: two families, split so that no problem is ever in two splits.

* ``chain``: start at a digit and apply operations modulo 10, one after the other. The work is done two operations at a
  time, so a chain of six needs three steps whatever happens, and a slip on the way spoils the result.
* ``search``: find the one of several short chains that gives 0, candidate by candidate. How many steps that needs
  depends on where it stands. One pass of a small network cannot work all candidates out at once, so no step can be
  guessed away; a search whose candidates are single sums can be done at a glance, and nothing in it is needed.

A problem belongs to a split by the hash of its own content, so splits cannot overlap and need no files.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from stepgrpo_lab.method.names import did_you_mean
from stepgrpo_lab.method.records import Problem

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

OPERATIONS_PER_STEP = 2
"""How many chain operations one semantic step works out."""

OPERATIONS_PER_CANDIDATE = 2
"""Length of the chains that a search chooses from; each is worked out in one semantic step."""

CANDIDATES = "ABCDEFGHIJ"
"""Names of a search's candidates, which are its answers."""

LEVELS = {"chain": (1, 2, 3), "search": (1, 2)}
"""Difficulty levels of each family that problems are drawn from; a higher level is harder than all training."""

# Every operation is a bijection on the digits: each one matters, none can be skipped or guessed.
_ADDENDS = range(1, 10)
_FACTORS = (3, 7, 9)


def apply_operation(value: int, symbol: str, operand: int) -> int:
    """One chain operation modulo 10.

    Example:
        >>> apply_operation(7, "-", 9)
        8
    """
    if symbol == "+":
        return (value + operand) % 10
    if symbol == "-":
        return (value - operand) % 10
    if symbol == "*":
        return (value * operand) % 10
    raise ValueError(f"unknown operation {symbol!r}: use '+', '-' or '*'")


def work_out(start: int, operations: Iterable[tuple[str, int]]) -> int:
    """The digit that a chain ends at.

    Example:
        >>> work_out(7, [("+", 5), ("*", 3)])
        6
    """
    for symbol, operand in operations:
        start = apply_operation(start, symbol, operand)
    return start


def _draw_chain(rng: random.Random, length: int) -> tuple[int, list[tuple[str, int]]]:
    start = rng.randrange(10)
    operations = []
    for _ in range(length):
        symbol = rng.choice("+-*")
        operations.append((symbol, rng.choice(_FACTORS if symbol == "*" else _ADDENDS)))
    return start, operations


def _write_operations(operations: Iterable[tuple[str, int]], separator: str) -> str:
    return separator.join(f"{symbol}{operand}" for symbol, operand in operations)


def make_chain(rng: random.Random, level: int) -> Problem:
    """Draw a chain problem; ``level`` 1, 2, 3 has 4, 5, 6 operations (each further level one more)."""
    start, operations = _draw_chain(rng, level + 3)
    return Problem(
        id=f"chain-{start}{_write_operations(operations, '')}",
        prompt=f"Start at {start}: {_write_operations(operations, ' ')}. Which digit, mod 10?",
        answer=str(work_out(start, operations)),
        family="chain",
        level=level,
        meta={"start": start, "operations": [list(operation) for operation in operations]},
    )


def make_search(rng: random.Random, level: int) -> Problem:
    """Draw a search problem; ``level`` 1, 2 has 4, 5 candidates. Exactly one gives 0.

    Raises:
        ValueError: More candidates than names.
    """
    count = level + 3
    if count > len(CANDIDATES):
        raise ValueError(f"level {level} of search has {count} candidates: the highest level is {len(CANDIDATES) - 3}")
    while True:
        chains = [_draw_chain(rng, OPERATIONS_PER_CANDIDATE) for _ in range(count)]
        results = [work_out(start, operations) for start, operations in chains]
        if results.count(0) == 1:
            break
    names = CANDIDATES[:count]
    listed = [f"{start}{_write_operations(operations, '')}" for start, operations in chains]
    shown = ", ".join(f"{name} {text}" for name, text in zip(names, listed, strict=True))
    return Problem(
        id=f"search-{'-'.join(text.replace('-', 'm') for text in listed)}",
        prompt=f"Which gives 0, mod 10: {shown}?",
        answer=names[results.index(0)],
        family="search",
        level=level,
        meta={"candidates": [[start, [list(operation) for operation in operations]] for start, operations in chains]},
    )


FAMILIES: dict[str, Callable[[random.Random, int], Problem]] = {"chain": make_chain, "search": make_search}


def split_of(problem: Problem) -> Split:
    """The split a problem belongs to, decided by its content alone: 90 % train, 5 % validation, 5 % test."""
    bucket = int.from_bytes(hashlib.sha256(problem.id.encode()).digest()[:4], "big") % 100
    return "train" if bucket < 90 else "validation" if bucket < 95 else "test"


def most_problems(split: str) -> int:
    """How many different problems of a split may be asked for: as many as can be drawn in half a minute.

    Every family and level has several times as many, so that a draw always ends.

    Example:
        >>> most_problems("train"), most_problems("test")
        (360000, 20000)
    """
    return 400_000 * (90 if split == "train" else 5) // 100


def draw_problems(
    split: Split, seed: int = 0, *, family: str | None = None, level: int | None = None
) -> Iterator[Problem]:
    """Endless seeded stream of problems of one split, families and levels mixed evenly (repetitions are possible).

    Raises:
        ValueError: Unknown split or family.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}{did_you_mean(split, SPLITS)}")
    if family is not None and family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: use one of {', '.join(FAMILIES)}{did_you_mean(family, FAMILIES)}")
    rng = random.Random(f"{split}-{seed}")
    while True:
        name = family or rng.choice(tuple(FAMILIES))
        problem = FAMILIES[name](rng, level or rng.choice(LEVELS[name]))
        if split_of(problem) == split:
            yield problem


def overthinker_problems(
    split: Split, count: int, *, seed: int = 0, family: str | None = None, level: int | None = None
) -> list[Problem]:
    """Draw ``count`` different problems of a split.

    Args:
        split: "train", "validation" or "test"; no problem is in two of them.
        count: How many.
        seed: Another seed, another draw; the same seed always gives the same list, longer counts extend it.
        family, level: Restrict to one family or one level (levels above the trained ones give harder problems).

    Raises:
        ValueError: Unknown split or family, or more problems than :func:`most_problems`.

    Example:
        >>> [p.prompt for p in overthinker_problems("test", 1, family="search")]
        ['Which gives 0, mod 10: A 7-8-9, B 8-3-9, C 7-3+3, D 0+2*9?']
    """
    if split in SPLITS and count > most_problems(split):
        raise ValueError(f"count is {count}: the split {split!r} gives at most {most_problems(split)} problems")
    found: dict[str, Problem] = {}
    for problem in draw_problems(split, seed, family=family, level=level):
        if len(found) >= count:
            break
        found.setdefault(problem.id, problem)
    return list(found.values())
