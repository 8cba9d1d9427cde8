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
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal, TypeVar, cast

from stepgrpo_lab.engines.hub import EMBEDDED
from stepgrpo_lab.method.names import did_you_mean, listed, shown
from stepgrpo_lab.method.records import Problem

Split = Literal["train", "validation", "test", "gates", "held_out"]

OPERATIONS_PER_STEP = 2
"""How many chain operations one semantic step works out."""

OPERATIONS_PER_CANDIDATE = 2
"""Length of the chains that a search chooses from; each is worked out in one semantic step."""

CANDIDATES = "ABCDEFGHIJ"
"""Names of a search's candidates, which are its answers."""

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


def work_out(start: int, operations: Iterable[Sequence[Any]]) -> int:
    """The digit that a chain ends at.

    Example:
        >>> work_out(7, [("+", 5), ("*", 3)])
        6
    """
    for symbol, operand in operations:
        start = apply_operation(start, symbol, operand)
    return start


def draw_operations(rng: random.Random, count: int) -> list[Any]:
    """``count`` operations ``[symbol, operand]``."""
    operations = []
    for _ in range(count):
        symbol = rng.choice("+-*")
        operations.append([symbol, rng.choice(_FACTORS if symbol == "*" else _ADDENDS)])
    return operations


def write_operations(operations: Iterable[Sequence[Any]], separator: str = "") -> str:
    """The operations as a problem shows them.

    Example:
        >>> write_operations([["+", 5], ["*", 3]])
        '+5*3'
    """
    return separator.join(f"{symbol}{operand}" for symbol, operand in operations)


def make_chain(rng: random.Random, level: int) -> Problem:
    """Draw a chain problem; ``level`` 1, 2, 3 has 4, 5, 6 operations (each further level one more)."""
    start, operations = rng.randrange(10), draw_operations(rng, level + 3)
    return Problem(
        id=f"chain-{start}{write_operations(operations)}",
        prompt=f"Start at {start}: {write_operations(operations, ' ')}. Which digit, mod 10?",
        answer=str(work_out(start, operations)),
        family="chain",
        level=level,
        meta={"start": start, "operations": operations},
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
        chains = [(rng.randrange(10), draw_operations(rng, OPERATIONS_PER_CANDIDATE)) for _ in range(count)]
        results = [work_out(start, operations) for start, operations in chains]
        if results.count(0) == 1:
            break
    names = CANDIDATES[:count]
    listed = [f"{start}{write_operations(operations)}" for start, operations in chains]
    shown = ", ".join(f"{name} {text}" for name, text in zip(names, listed, strict=True))
    return Problem(
        id=f"search-{'-'.join(text.replace('-', 'm') for text in listed)}",
        prompt=f"Which gives 0, mod 10: {shown}?",
        answer=names[results.index(0)],
        family="search",
        level=level,
        meta={"candidates": [[start, operations] for start, operations in chains]},
    )


@dataclass(frozen=True)
class Laboratory:
    """One generated world of problems: its families, their levels, and how its problems fall into splits.

    Attributes:
        name: Also the name of the embedded model that was trained in it.
        families: Family -> draws a problem of a level.
        family_weights: How often each family is drawn.
        level_weights: Family -> level -> how often the level is drawn. The level above the last can be drawn by name:
            it is harder than all training.
        shares: Split -> its share of all problems, in percent.
        size: So many problems may be asked for, all splits together.
        content: What of a problem decides its split.
    """

    name: str
    families: Mapping[str, Callable[[random.Random, int], Problem]]
    family_weights: Mapping[str, int]
    level_weights: Mapping[str, Mapping[int, int]]
    shares: Mapping[str, int]
    size: int
    content: Callable[[Problem], str] = attrgetter("id")

    def split_of(self, problem: Problem) -> Split:
        """The split a problem belongs to, decided by its content alone."""
        return self.split_by(self.content(problem))

    def split_by(self, content: str) -> Split:
        """The split of the problems with this content."""
        bucket = int.from_bytes(hashlib.sha256(content.encode()).digest()[:4], "big") % 100
        ends = itertools.accumulate(self.shares.values())
        return cast(Split, next(name for name, end in zip(self.shares, ends, strict=True) if bucket < end))

    def check(self, split: str, family: str | None = None) -> None:
        """Refuse names that it does not have.

        Raises:
            ValueError: Unknown split or family.
        """
        for kind, name, known in (("split", split, self.shares), ("family", family, self.families)):
            if name is not None and name not in known:
                raise ValueError(f"unknown {kind} {name!r}: use one of {', '.join(known)}{did_you_mean(name, known)}")

    def most(self, split: str) -> int:
        """How many different problems of a split may be asked for: as many as can be drawn in half a minute.

        Every family and level has several times as many, so that a draw always ends.

        Example:
            >>> OVERTHINKER.most("train"), OVERTHINKER.most("test")
            (360000, 20000)
        """
        return self.size * self.shares[split] // 100

    def draw(self, split: str, seed: int = 0, family: str | None = None, level: int | None = None) -> Iterator[Problem]:
        """Endless seeded stream of problems of one split (repetitions are possible).

        Raises:
            ValueError: Unknown split or family.
        """
        self.check(split, family)
        rng = random.Random(f"{split}-{seed}")
        while True:
            name = family or _pick(rng, self.family_weights)
            problem = self.families[name](rng, level or _pick(rng, self.level_weights[name]))
            if self.split_of(problem) == split:
                yield problem


Name = TypeVar("Name")


def _pick(rng: random.Random, weights: Mapping[Name, int]) -> Name:
    names = tuple(weights)
    even = len(set(weights.values())) == 1
    return rng.choice(names) if even else rng.choices(names, tuple(weights.values()))[0]


OVERTHINKER = Laboratory(
    name="overthinker",
    families={"chain": make_chain, "search": make_search},
    family_weights={"chain": 1, "search": 1},
    level_weights={"chain": {1: 1, 2: 1, 3: 1}, "search": {1: 1, 2: 1}},
    shares={"train": 90, "validation": 5, "test": 5},
    size=400_000,
)
"""The laboratory of the first Overthinker."""

LABORATORIES = ("overthinker", "overthinker-2", "word-problems")
"""Names of the laboratories; the embedded model of each, where it has one, has its name."""


def laboratory_of(model: str) -> str:
    """Name of the laboratory that an embedded model belongs to.

    Raises:
        ValueError: There is no embedded model of that name.

    Example:
        >>> laboratory_of("overthinker-2-step-grpo")
        'overthinker-2'
    """
    if model not in EMBEDDED:
        raise ValueError(
            f"no embedded model {shown(model)}: use one of {listed(EMBEDDED)}{did_you_mean(model, EMBEDDED)}"
        )
    return max((name for name in LABORATORIES if model.startswith(name)), key=len)


def find_laboratory(name: str = "overthinker") -> Laboratory:
    """A laboratory by its name.

    Raises:
        ValueError: There is none of that name.

    Example:
        >>> list(find_laboratory("overthinker-2").shares)
        ['train', 'validation', 'test', 'gates']
    """
    from stepgrpo_lab.overthinker.leaps import OVERTHINKER_2  # they build on this module
    from stepgrpo_lab.overthinker.stories import WORD_PROBLEMS

    for known in (OVERTHINKER, OVERTHINKER_2, WORD_PROBLEMS):
        if known.name == name:
            return known
    raise ValueError(
        f"unknown laboratory {name!r}: use one of {', '.join(LABORATORIES)}{did_you_mean(name, LABORATORIES)}"
    )


def overthinker_problems(
    split: Split,
    count: int,
    *,
    seed: int = 0,
    family: str | None = None,
    level: int | None = None,
    laboratory: str = "overthinker",
) -> list[Problem]:
    """Draw ``count`` different problems of a split.

    Args:
        split: "train", "validation" or "test"; in "overthinker-2" and "word-problems" also "gates", and in the latter
            "held_out". No problem is in two of them.
        count: How many.
        seed: Another seed, another draw; the same seed always gives the same list, longer counts extend it.
        family, level: Restrict to one family or one level (the level above the trained ones gives harder problems).
        laboratory: "overthinker", "overthinker-2" or "word-problems".

    Raises:
        ValueError: Unknown laboratory, split or family, or more problems than :meth:`Laboratory.most`.

    Example:
        >>> [p.prompt for p in overthinker_problems("test", 1, family="search")]
        ['Which gives 0, mod 10: A 7-8-9, B 8-3-9, C 7-3+3, D 0+2*9?']
    """
    home = find_laboratory(laboratory)
    home.check(split, family)
    if count > home.most(split):
        raise ValueError(f"count is {count}: the split {split!r} gives at most {home.most(split)} problems")
    found: dict[str, Problem] = {}
    for problem in home.draw(split, seed, family, level):
        if len(found) >= count:
            break
        found.setdefault(problem.id, problem)
    return list(found.values())
