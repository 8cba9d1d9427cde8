"""Generated problems whose truth is known: two families, split so that no problem is ever in two splits.

* ``chain``: start at a digit and apply operations modulo 10, one after the other. The work is done two operations at a
  time, so a chain of six needs three steps whatever happens, and a slip on the way spoils the result.
* ``pair``: find the two of several numbers that sum to a target, pair by pair. How many steps that needs depends on
  where the pair stands.

A problem belongs to a split by the hash of its own content, so splits cannot overlap and need no files.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Literal

from stepgrpo_lab.records import Problem

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

OPERATIONS_PER_STEP = 2
"""How many chain operations one semantic step works out."""

LEVELS = {"chain": (1, 2, 3), "pair": (1, 2)}
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


def make_chain(rng: random.Random, level: int) -> Problem:
    """Draw a chain problem; ``level`` 1, 2, 3 has 4, 5, 6 operations (each further level one more)."""
    start = rng.randrange(10)
    operations = []
    for _ in range(level + 3):
        symbol = rng.choice("+-*")
        operations.append((symbol, rng.choice(_FACTORS if symbol == "*" else _ADDENDS)))
    value = start
    for symbol, operand in operations:
        value = apply_operation(value, symbol, operand)
    chain = " ".join(f"{symbol}{operand}" for symbol, operand in operations)
    meta = {"start": start, "operations": [[symbol, operand] for symbol, operand in operations]}
    return Problem(
        id=f"chain-{start}{chain.replace(' ', '')}",
        prompt=f"Start at {start}: {chain}. Which digit, mod 10?",
        answer=str(value),
        family="chain",
        level=level,
        meta=meta,
    )


def make_pair(rng: random.Random, level: int) -> Problem:
    """Draw a pair problem; ``level`` 1, 2 searches 3, 4 numbers. Exactly one pair sums to the target."""
    while True:
        numbers = rng.sample(range(10, 50), level + 2)
        sums = [first + second for first, second in itertools.combinations(numbers, 2)]
        target = rng.choice(sums)
        if sums.count(target) == 1:
            break
    winner = sums.index(target)
    pair = list(itertools.combinations(numbers, 2))[winner]
    listed = " ".join(map(str, numbers))
    return Problem(
        id=f"pair-{listed.replace(' ', '-')}-{target}",
        prompt=f"Which two of {listed} sum to {target}? Give the larger.",
        answer=str(max(pair)),
        family="pair",
        level=level,
        meta={"numbers": numbers, "target": target},
    )


FAMILIES: dict[str, Callable[[random.Random, int], Problem]] = {"chain": make_chain, "pair": make_pair}


def split_of(problem: Problem) -> Split:
    """The split a problem belongs to, decided by its content alone: 90 % train, 5 % validation, 5 % test."""
    bucket = int.from_bytes(hashlib.sha256(problem.id.encode()).digest()[:4], "big") % 100
    return "train" if bucket < 90 else "validation" if bucket < 95 else "test"


def draw_problems(
    split: Split, seed: int = 0, *, family: str | None = None, level: int | None = None
) -> Iterator[Problem]:
    """Endless seeded stream of problems of one split, families and levels mixed evenly (repetitions are possible).

    Raises:
        ValueError: Unknown split or family.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    if family is not None and family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}: use one of {', '.join(FAMILIES)}")
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

    Example:
        >>> [p.prompt for p in overthinker_problems("test", 1, family="pair")]
        ['Which two of 22 25 21 29 sum to 51? Give the larger.']
    """
    found: dict[str, Problem] = {}
    for problem in draw_problems(split, seed, family=family, level=level):
        if len(found) >= count:
            break
        found.setdefault(problem.id, problem)
    return list(found.values())
