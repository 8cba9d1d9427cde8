"""Reads derivations written as equations over whole numbers, in any order and of any width.

An equation takes up numbers of the problem, or results written before, each of them once; its result joins what can be
taken up. A derivation is *legal* if one number is left at the end, and if that number is what was asked for: the same
expression of the problem's numbers, whatever results were written on the way. So ``12+7=20`` is a legal move that
slipped, ``12-7=5`` is no move on a problem that adds, and ``7+12=19`` is as good as ``12+7=19``.

Whether two expressions are the same is decided by working both out with large primes in place of the numbers.
"""

from __future__ import annotations

import ast
import itertools
import operator
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

MOST_DIGITS, MOST_CHARACTERS = 6, 80
"""Longest number, and longest side of an equation, that is read."""

EQUATION = re.compile(
    rf"([(\d][\d\s+*/()-]{{0,{MOST_CHARACTERS}}}?)\s*=\s*(\d{{1,{MOST_DIGITS}}})(?!\d|[.,]\d|\s*[-+*/=])"
)
"""An expression, and the result that was written for it."""

PRIMES = tuple(map(Fraction, (10007, 20011, 30011, 40009, 50021, 60013, 70001, 80021, 90001, 100003, 110017, 120011)))
"""What stands for a problem's numbers: too large for two expressions to agree by chance."""

_ACTS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

Known = tuple[tuple[int, Fraction], ...]
"""What an equation may take up: numbers as they are written, each with what it stands for."""

Value = TypeVar("Value")


def _parse(text: str) -> ast.expr | None:
    """The tree of an expression of whole numbers; None if it is none."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return tree if isinstance(tree, ast.BinOp) and all(_plain(node) for node in ast.walk(tree)) else None


def _plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int) and not isinstance(node.value, bool)
    return isinstance(node, (ast.BinOp, *_ACTS))


def _numbers(node: ast.expr) -> list[int]:
    """The numbers of a tree, from left to right."""
    if isinstance(node, ast.BinOp):
        return _numbers(node.left) + _numbers(node.right)
    return [node.value]  # type: ignore[attr-defined]  # a constant: _plain has seen to it


def _value(node: ast.expr, numbers: Iterator[Fraction]) -> Fraction:
    """The value of a tree with other numbers in the places of its own, from left to right."""
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, numbers), _value(node.right, numbers)
        return _ACTS[type(node.op)](left, right)
    return next(numbers)


def calculate(text: str) -> Fraction:
    """The value of an expression.

    Raises:
        ValueError: It is no expression of whole numbers, or divides by zero.

    Example:
        >>> calculate("(12+7)*2-30/5")
        Fraction(32, 1)
    """
    tree = _parse(text)
    if tree is None:
        raise ValueError(f"{text!r} is no expression of whole numbers")
    try:
        return _value(tree, map(Fraction, _numbers(tree)))
    except ZeroDivisionError as error:
        raise ValueError(f"{text!r} divides by zero") from error


def operations(text: str) -> int:
    """How many operations an expression takes at once.

    Example:
        >>> operations("12+3*4")
        2
    """
    return len(re.findall(r"[-+*/]", text))


def _bindings(numbers: Sequence[int], known: Known) -> Iterator[tuple[int, ...]]:
    """Every way to take the written numbers from what is known: a place of ``known`` for each, all different."""
    places = [[place for place, (written, _) in enumerate(known) if written == number] for number in numbers]
    for chosen in itertools.product(*places):
        if len(set(chosen)) == len(chosen):
            yield chosen


def _after(known: Known, tree: ast.expr, result: int) -> Iterator[Known]:
    """What may be known after one equation."""
    for chosen in _bindings(_numbers(tree), known):
        symbol = _value(tree, (known[place][1] for place in chosen))
        rest = [each for place, each in enumerate(known) if place not in chosen]
        yield tuple(sorted([*rest, (result, symbol)]))


def derived_result(text: str, expression: str) -> int | None:
    """The result of a derivation as it was written; None if the text holds no legal derivation.

    Args:
        text: Any words around equations.
        expression: What is to be worked out, over numbers that all differ.

    Example:
        >>> derived_result("Found: 12+7=20. Doubled: 20*2=40.", "(12+7)*2")
        40
        >>> derived_result("12*2=24", "(12+7)*2") is None
        True
    """
    asked = _parse(expression)
    if asked is None:
        raise ValueError(f"{expression!r} is no expression of whole numbers")
    given = _numbers(asked)
    symbols = dict(zip(given, PRIMES, strict=False))
    states: set[Known] = {tuple(sorted(symbols.items()))}
    result = None
    for left, written in EQUATION.findall(text):
        tree, result = _parse(left), int(written)
        states = set() if tree is None else {after for state in states for after in _after(state, tree, result)}
        if not states:
            return None
    target = _value(asked, iter(PRIMES))
    return result if any(len(state) == 1 and state[0][1] == target for state in states) else None
