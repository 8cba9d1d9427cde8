r"""Values of closed numbers and of expressions in letters: a small reader of LaTeX, and exact or 400-digit arithmetic.

The reader takes a closed list of tokens and refuses the rest with :class:`Unread`, so what it does read it understands
wholly. Rational numbers are computed as fractions, everything else with mpmath; letters get fixed values. Two
expressions that agree to 380 digits at several points are equal: no pair of this size agrees by chance.
"""

from __future__ import annotations

import hashlib
import math
import operator
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

MAX_TOKENS = 160
MAX_BITS = 50_000
"""Fractions above this are not computed: ``2^{2^{30}}`` is left alone."""

MAX_ARGUMENT = 10**12
"""Functions are not taken of larger values: reducing such an angle takes long."""

DIGITS = 400


class Unread(Exception):
    """The text, or its value at some point, is beyond the reader."""


Node = tuple[Any, ...]
"""``("number", Fraction)``, ``("letter", name)``, ``("constant", name)`` or ``(operation, node, ...)``."""

_TOKEN = re.compile(r"\s*(\\[A-Za-z]+|\d*\.\d*\\overline\{\d+\}|\d+(?:\.\d+)?|\.\d+|[A-Za-z]|[-+*/^_!|(){}\[\],])\s*")
_LETTERS = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi
omega Gamma Delta Theta Lambda Xi Phi Psi Omega ell hbar"""
_GREEK = frozenset(_LETTERS.split())
_NAMES = "sin cos tan cot sec csc sinh cosh tanh exp ln log lg"
_FUNCTIONS = {name: name for name in _NAMES.split()}
_FUNCTIONS |= {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "cis": "expj"}
_CALLED = frozenset("fFgGPQTS")
"""Letters that are functions where a bracket follows: ``f(x)`` is no product."""

_ENDING = ("\\cdot", "\\times", "\\rfloor", "\\rceil")
_CLOSING = {"(": ")", "{": "}", "[": "]"}
_TWO, _ZERO = ("number", Fraction(2)), ("number", Fraction(0))


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.tokens = _TOKEN.findall(text)
        if len(self.tokens) > MAX_TOKENS or _TOKEN.sub("", text):
            raise Unread(text)
        self.place = 0
        self.bars = 0

    @property
    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        """The next token; without expectations any, otherwise one of these."""
        token = self.next
        if not token or (expected and token not in expected):
            raise Unread(f"{token!r} at token {self.place}")
        self.place += 1
        return token

    def passes(self, *expected: str) -> bool:
        """Whether the next token is one of these, which is then taken."""
        found = self.next in expected
        self.place += found
        return found

    def whole(self) -> Node:
        node = self.sum()
        if self.next:
            raise Unread(self.next)
        return node

    def sum(self) -> Node:
        node = self.product()
        while self.next in ("+", "-"):
            node = (self.take(), node, self.product())
        return node

    def product(self) -> Node:
        node, divided = self.signed(), False
        while True:
            if self.passes("\\cdot", "\\times"):
                node, divided = ("*", node, self.signed()), False
            elif self.passes("/"):
                node, divided = ("/", node, self.signed()), True
            elif self.opens():
                if divided:
                    raise Unread("1/2x has two readings")
                if self.next[0] in "0123456789." and self.tokens[self.place - 1][-1].isdigit():
                    raise Unread("numbers side by side")
                node = ("*", node, self.power())
            else:
                return node

    def signed(self) -> Node:
        if self.passes("+"):
            return self.signed()
        return ("-", _ZERO, self.signed()) if self.passes("-") else self.power()

    def opens(self) -> bool:
        """Whether the next token begins a factor."""
        token = self.next
        if token == "|":
            return self.bars == 0
        return token[:1].isalnum() or (token[:1] in ("(", "{", ".", "\\") and token not in _ENDING)

    def power(self) -> Node:
        node = self.base()
        while self.next in ("^", "!"):
            if self.passes("!"):
                node = ("!", node)
            elif self.take() and self.passes("\\circ"):
                node = ("*", node, ("constant", "degree"))
            else:  # 10^23 and e^(2x) as plain text has them
                node = ("^", node, self.signed() if self.next == "-" else self.base())
        return node

    def argument(self) -> Node:
        """What LaTeX takes as an argument: a group, a command or one character."""
        token = self.next
        if token.isdigit() and len(token) > 1:
            self.tokens[self.place] = token[1:]
            return ("number", Fraction(token[0]))
        return self.base()

    def group(self, opening: str) -> Node:
        self.take(opening)
        bars, self.bars = self.bars, 0
        node = self.sum()
        self.bars = bars
        self.take(_CLOSING[opening])
        return node

    def base(self) -> Node:
        token = self.next
        if token in _CLOSING:
            return self.group(token)
        self.take()
        if token == "|":
            self.bars += 1
            node = self.sum()
            self.bars -= 1
            self.take("|")
            return ("abs", node)
        if token[0].isdigit() or token[0] == ".":
            return self.number(token)
        if token == "C" and re.match(r"\([^()]*,", "".join(self.tokens[self.place :])):
            self.take("(")
            node = ("binomial", self.sum(), self.take(",") and self.sum())
            self.take(")")
            return node
        return self.command(token[1:]) if token[0] == "\\" else self.letter(token)

    def number(self, token: str) -> Node:
        value = _repeating(token) if "\\" in token else Fraction(token)
        if token.isdigit() and self.next == "\\frac":
            before = self.place, self.tokens[:]
            _, top, bottom = self.base()
            if top[0] == bottom[0] == "number":
                if not 0 < top[1] < bottom[1]:
                    raise Unread("a mixed number or a product")
                return ("number", value + top[1] / bottom[1])
            self.place, self.tokens = before
        return ("number", value)

    def letter(self, token: str) -> Node:
        if not token[-1].isalpha() or ((token in _CALLED or token[0] == "\\") and self.next == "("):
            raise Unread(token)
        if self.passes("_"):
            index = [self.take()]
            while index[0] == "{" and index[-1] != "}":
                index.append(self.take())
            return ("letter", f"{token}_{''.join(index).strip('{}')}")
        return ("constant", token) if token in ("i", "e") else ("letter", token)

    def command(self, name: str) -> Node:
        if name == "frac":
            return ("/", self.argument(), self.argument())
        if name == "sqrt":
            degree = self.group("[") if self.next == "[" else _TWO
            return ("root", self.argument(), degree)
        if name == "binom":
            return ("binomial", self.argument(), self.argument())
        if name in ("lfloor", "lceil"):
            node = self.sum()
            self.take(f"\\r{name[1:]}")
            return (name[1:], node)
        if name == "pi":
            return ("constant", "pi")
        if name in _FUNCTIONS:
            return self.function(name)
        if name in _GREEK:
            return self.letter("\\" + name)
        raise Unread(name)

    def function(self, name: str) -> Node:
        base = self.argument() if name == "log" and self.passes("_") else None
        power = self.argument() if self.passes("^") else None
        if power and power[0] == "-":
            raise Unread("an inverse function or a reciprocal")
        node: Node = ("ln" if base else name, self.operand())
        node = ("/", node, ("ln", base)) if base else node
        return ("^", node, power) if power else node

    def operand(self) -> Node:
        """A bracket, or the factors up to the next sign or function."""
        if self.next in ("(", "{"):
            node = self.base()
            if self.next == "^":
                raise Unread("a power of the argument or of the function")
            return node
        if self.next[1:] in _FUNCTIONS:
            return self.base()
        node = self.power()
        while self.opens() and self.next[1:] not in _FUNCTIONS and self.next != "(":
            node = ("*", node, self.power())
        if self.next in ("/", "("):
            raise Unread("where the argument ends")
        return node


def _repeating(token: str) -> Fraction:
    r"""``0.1\overline{36}``."""
    fixed, period = token.removesuffix("}").split("\\overline{")
    places = 10 ** len(fixed.partition(".")[2])
    return Fraction(fixed.strip(".") or "0") + Fraction(int(period), (10 ** len(period) - 1) * places)


@lru_cache(maxsize=8192)
def read(text: str) -> Node:
    """The expression as a tree.

    Raises:
        Unread: It holds something that this reader does not know, or that has two readings.
    """
    try:
        return _Reader(text).whole()
    except RecursionError as error:
        raise Unread(text) from error


def letters(node: Node) -> frozenset[str]:
    """The letters of an expression."""
    if node[0] == "letter":
        return frozenset([node[1]])
    return frozenset().union(*(letters(part) for part in node[1:] if isinstance(part, tuple)))


def is_polynomial(node: Node) -> bool:
    """Whether an expression is a polynomial in its letters."""
    kind, *parts = node
    if kind == "letter" or not letters(node):
        return True
    if kind == "^":
        return is_polynomial(parts[0]) and parts[1][0] == "number" and parts[1][1].denominator == 1
    return kind in ("+", "-", "*") and all(map(is_polynomial, parts))


def cleared(node: Node) -> tuple[Node, Node]:
    """Numerator and denominator of an expression."""
    kind, *parts = node
    if kind not in ("+", "-", "*", "/") or not letters(node):
        return node, ("number", Fraction(1))
    (a, b), (c, d) = map(cleared, parts)
    if kind in ("*", "/"):
        c, d = (c, d) if kind == "*" else (d, c)
        return ("*", a, c), ("*", b, d)
    return (kind, ("*", a, d), ("*", c, b)), ("*", b, d)


# ---- evaluation ------------------------------------------------------------------------------------------------------


class Arithmetic:
    """Fractions where they do, else mpmath. One for each thread: mpmath changes its precision while it computes."""

    def __init__(self) -> None:
        from mpmath.ctx_mp import MPContext

        self.mp = MPContext()
        self.mp.dps = DIGITS
        self.close = self.mp.mpf(10) ** (20 - DIGITS)
        self.real = False
        self.constants = {"pi": +self.mp.pi, "e": +self.mp.e, "i": self.mp.mpc(0, 1), "degree": self.mp.pi / 180}
        self.operations: dict[str, Callable[..., Any]] = {
            "+": operator.add,
            "-": operator.sub,
            "*": operator.mul,
            "/": operator.truediv,
            "abs": abs,
        }
        self.operations |= {"^": self._power, "root": self._root, "!": self._factorial, "binomial": self._binomial}
        self.operations |= {"floor": self._floor, "ceil": lambda a: -self._floor(-a)}

    def value(self, node: Node, point: Mapping[str, Any], real: bool = False) -> Any:
        """The value with each letter at its place in the point; of real steps only if so asked.

        Raises:
            Unread: There is none, or it is beyond what is computed here.
        """
        self.real = real
        try:
            value = self._value(node, point)
        except (ArithmeticError, ValueError, TypeError) as error:
            raise Unread(str(error)) from error
        if not self.mp.isfinite(value):
            raise Unread("not finite")
        return value

    def _value(self, node: Node, point: Mapping[str, Any]) -> Any:
        kind, *parts = node
        if kind == "number":
            return parts[0]
        if kind == "letter":
            return point[parts[0]]
        if kind == "constant":
            return self.constants[parts[0]]
        values = [self._value(part, point) for part in parts]
        if not all(isinstance(value, Fraction) for value in values):
            values = [self.mp.mpmathify(value) for value in values]
        found = self.operations[kind](*values) if kind in self.operations else self._call(kind, *values)
        if self.real and isinstance(found, self.mp.mpc):
            raise Unread("not real")
        if isinstance(found, Fraction) and max(found.numerator, found.denominator, key=abs).bit_length() > 4 * MAX_BITS:
            raise Unread("too large")
        return found

    def _bounded(self, value: Any, limit: int = MAX_ARGUMENT) -> Any:
        if abs(self.mp.mpmathify(value)) > limit:
            raise Unread("too large an argument")
        return value

    def _power(self, a: Any, b: Any) -> Any:
        self._bounded(b)
        if self.mp.isint(b):
            bits = a.numerator.bit_length() + a.denominator.bit_length() - 2 if isinstance(a, Fraction) else 0
            if (a == 0 and b <= 0) or bits * abs(b) > MAX_BITS:
                raise Unread("zero to no positive power, or too large")
            return a ** int(b)
        if not isinstance(a, self.mp.mpc) and a < 0:
            raise Unread("a root of a negative number, or a sign that alternates")
        return self.mp.power(a, b)

    def _root(self, a: Any, degree: Any) -> Any:
        if degree == 2:
            return self.mp.sqrt(a)
        if not self.mp.isint(degree) or not 2 < degree < 1000 or isinstance(a, self.mp.mpc):
            raise Unread("a root")
        if a < 0 and degree % 2 == 0:
            raise Unread("an even root of a negative number")
        return self.mp.root(abs(a), int(degree)) * (-1 if a < 0 else 1)

    def _factorial(self, a: Any) -> Any:
        self._bounded(a, 5000)
        return (
            Fraction(math.factorial(int(a))) if isinstance(a, Fraction) and self.mp.isint(a) else self.mp.gamma(a + 1)
        )

    def _binomial(self, a: Any, b: Any) -> Any:
        self._bounded(a, 5000), self._bounded(b, 5000)
        whole = isinstance(a, Fraction) and isinstance(b, Fraction) and a.denominator == b.denominator == 1
        return Fraction(math.comb(int(a), int(b))) if whole else self.mp.binomial(a, b)

    def _floor(self, a: Any) -> Any:
        """Refused so near to an integer that rounding would decide."""
        if isinstance(a, Fraction):
            return Fraction(math.floor(a))
        if abs(self._bounded(a) - self.mp.nint(a)) < self.close:
            raise Unread("too near to an integer")
        return self.mp.floor(a)

    def _call(self, name: str, a: Any) -> Any:
        self._bounded(a)
        if name == "lg":
            return self._call("ln", a) / self.mp.ln(10)
        found = getattr(self.mp, _FUNCTIONS[name])(a)
        if not self.mp.isfinite(found):
            raise Unread("no logarithm")
        return found

    def same(self, a: Any, b: Any) -> bool:
        """Whether two values are equal."""
        if isinstance(a, Fraction) and isinstance(b, Fraction):
            return a == b
        a, b = self.mp.mpmathify(a), self.mp.mpmathify(b)
        return bool(abs(a - b) <= self.close * max(1, abs(a)))


_OF_THREAD = threading.local()


def arithmetic() -> Arithmetic:
    """This thread's arithmetic."""
    if not hasattr(_OF_THREAD, "kept"):
        _OF_THREAD.kept = Arithmetic()
    return _OF_THREAD.kept


@lru_cache(maxsize=4096)
def _place(name: str, point: int) -> Fraction:
    """Where a letter is at a point, the same in every process: at first 1 to 3, then further out, of either sign."""
    digest = hashlib.sha256(f"{name} {point}".encode()).digest()
    place = 1 + Fraction(int.from_bytes(digest[:8], "big"), 2**63)
    return place if point < 2 else place * 10 ** ((point - 2) // 3) * (1 - 2 * (digest[8] % 2))


def points(names: frozenset[str], count: int = 10) -> Iterator[dict[str, Any]]:
    """Two points with positive letters, then some with mixed signs and of growing size."""
    for point in range(count):
        yield {name: arithmetic().mp.mpmathify(_place(name, point)) for name in names}


def equal_values(gold: Node, answer: Node) -> bool:
    """Whether two expressions have the same value wherever they are real.

    Raises:
        Unread: One of them cannot be computed, or they are equal for positive letters only.
    """
    names = letters(gold) | letters(answer)
    for count, place in enumerate(points(names) if names else [{}]):
        anywhere = count < 2
        try:
            a, b = (arithmetic().value(side, place, real=not anywhere) for side in (gold, answer))
        except Unread:
            if anywhere:
                raise
            continue
        if not arithmetic().same(a, b):
            if anywhere or min(place.values()) > 0:
                return False
            raise Unread("equal for positive letters only")
    return True
