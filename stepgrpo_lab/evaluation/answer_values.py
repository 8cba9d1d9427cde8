r"""Values of closed numbers and of expressions in letters: a small reader of LaTeX, and exact or 80-digit arithmetic.

The reader takes a closed list of tokens and refuses the rest with :class:`Unread`, so what it does read it understands
wholly. Rational numbers are computed as fractions, everything else with mpmath; letters get fixed values. Two
expressions that agree to 60 digits at several points are equal: no pair of this size agrees by chance.
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

MAX_TOKENS = 160
MAX_BITS = 50_000
"""Integers above this are not computed: ``2^{2^{30}}`` is left alone."""

MAX_ARGUMENT = 10**12
"""Functions are not taken of larger values: reducing such an angle takes long."""

DIGITS = 80


class Unread(Exception):
    """The text, or its value at some point, is beyond the reader."""


Node = tuple[Any, ...]
"""``("number", Fraction)``, ``("letter", name)`` or ``(operation, node, ...)``."""

_TOKEN = re.compile(r"\\[A-Za-z]+|\d*\.\d*\\overline\s*\{\d+\}|\d+(?:\.\d+)?|\.\d+|[A-Za-z]|[-+*/^_!|(){}\[\]]| ")
_LETTERS = """alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau
upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Phi Psi Omega ell hbar"""
_GREEK = frozenset(_LETTERS.split())
_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh")
_FUNCTIONS = frozenset((*_TRIGONOMETRIC, "ln", "log", "lg", "exp"))
_CALLED = frozenset("fFgGPQTS")
"""Letters that are functions where a bracket follows: ``f(x)`` is no product."""


class _Reader:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        text = text.replace("\\bar", "\\overline").replace("\\lvert", "|")
        self.tokens: list[str] = []
        place = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if not found or len(self.tokens) > MAX_TOKENS:
                raise Unread(text[place : place + 20])
            self._add(found[0])
            place = found.end()
        self.place = 0
        self.bars = 0

    def _add(self, token: str) -> None:
        """Spaces mean nothing but between two numbers, where nobody knows what they mean."""
        if self.tokens and self.tokens[-1] == " ":
            self.tokens.pop()
            index = self.tokens[-2:-1] == ["_"]
            if self.tokens and self.tokens[-1][-1:].isdigit() and token[0] in "0123456789." and not index:
                raise Unread("numbers side by side")
        if token != " " or self.tokens:
            self.tokens.append(token)

    @property
    def next(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self, *expected: str) -> str:
        token = self.next
        if not token or (expected and token not in expected):
            raise Unread(f"{token!r} at token {self.place}")
        self.place += 1
        return token

    def whole(self) -> Node:
        if self.tokens and self.tokens[-1] == " ":
            self.tokens.pop()
        node = self.sum()
        if self.next:
            raise Unread(self.next)
        return node

    def sum(self) -> Node:
        node = self.product()
        while self.next in ("+", "-"):
            node = ("+" if self.take() == "+" else "-", node, self.product())
        return node

    def product(self) -> Node:
        if self.next in ("+", "-"):
            return self.product() if self.take() == "+" else ("neg", self.product())
        node, divided = self.power(), False
        while self.next:
            if self.next in ("\\cdot", "\\times", "*"):
                self.take()
                node, divided = ("*", node, self.signed()), False
            elif self.next == "/":
                self.take()
                node, divided = ("/", node, self.signed()), True
            elif self.opens():
                if divided:
                    raise Unread("1/2x has two readings")
                node = ("*", node, self.power())
            else:
                break
        return node

    def signed(self) -> Node:
        if self.next == "-":
            self.take()
            return ("neg", self.power())
        return self.power()

    def opens(self) -> bool:
        """Whether the next token begins a factor."""
        token = self.next
        if token == "|":
            return self.bars == 0
        if token in ("\\cdot", "\\times", "\\rfloor", "\\rceil"):
            return False
        return bool(token) and (token[0] in "\\({" or token[0].isalnum() or token[0] == ".")

    def power(self) -> Node:
        node = self.base()
        while self.next in ("^", "!"):
            if self.take() == "!":
                node = ("!", node)
            elif self.next == "\\circ":
                self.take()
                node = ("*", node, ("degree",))
            else:
                node = ("^", node, self.argument())
        return node

    def argument(self) -> Node:
        """What LaTeX takes as an argument: a group, a command or one character."""
        token = self.next
        if token == "{":
            return self.group("{", "}")
        if token == "-":
            raise Unread("a bare sign as an exponent")
        if token[:1].isdigit() and len(token) > 1:
            if not token.isdigit():
                raise Unread(token)
            self.tokens[self.place] = token[1:]
            return ("number", Fraction(token[0]))
        if token == "(":
            raise Unread("a bracket as an exponent")
        return self.base()

    def group(self, opening: str, closing: str) -> Node:
        self.take(opening)
        bars, self.bars = self.bars, 0
        node = self.sum()
        self.bars = bars
        self.take(closing)
        return node

    def base(self) -> Node:
        token = self.next
        if token in ("(", "{", "["):
            return self.group(token, {"(": ")", "{": "}", "[": "]"}[token])
        if token == "|":
            self.take()
            self.bars += 1
            node = self.sum()
            self.bars -= 1
            self.take("|")
            return ("abs", node)
        self.take()
        if token[:1].isdigit() or token[:1] == ".":
            return self.number(token)
        if token.startswith("\\"):
            return self.command(token[1:])
        if token.isalpha():
            return self.letter(token)
        raise Unread(token)

    def number(self, token: str) -> Node:
        value = _repeating(token) if "\\" in token else Fraction(token)
        mixed = self.tokens[self.place : self.place + 7]
        plain = [part for part in mixed[1:] if part not in "{}"][:2]
        if token.isdigit() and mixed[:1] == ["\\frac"] and all(part.isdigit() for part in plain):
            fraction = self.base()
            top, bottom = fraction[1], fraction[2]
            if top[0] != "number" or bottom[0] != "number" or not 0 < top[1] < bottom[1]:
                raise Unread("a mixed number or a product")
            return ("number", value + top[1] / bottom[1])
        return ("number", value)

    def letter(self, token: str) -> Node:
        if (token in _CALLED or token[0] == "\\") and self.next == "(":
            raise Unread(f"the function {token}")
        if self.next == "_":
            self.take()
            if self.next == "{":
                end = self.tokens.index("}", self.place) if "}" in self.tokens[self.place :] else -1
                name = "".join(self.tokens[self.place + 1 : end])
                if end < 0 or not name.isalnum():
                    raise Unread("an index")
                self.place = end + 1
            else:
                name = self.take()
            return ("letter", f"{token}_{name}")
        return ("letter", token) if token not in "ie" else ("constant", token)

    def command(self, name: str) -> Node:
        if name == "frac":
            return ("/", self.argument(), self.argument())
        if name == "sqrt":
            degree = self.group("[", "]") if self.next == "[" else ("number", Fraction(2))
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
        base, power = None, None
        if name == "log" and self.next == "_":
            self.take()
            base = self.argument()
        if self.next == "^":
            self.take()
            power = self.argument()
            if power[0] == "neg":
                raise Unread("an inverse function or a reciprocal")
        node: Node = ("call", name, self.operand(), base)
        return node if power is None else ("^", node, power)

    def operand(self) -> Node:
        """A bracket, or the factors up to the next sign or function."""
        if self.next in ("(", "{"):
            node = self.base()
            if self.next == "^":
                raise Unread("a power of the argument or of the function")
            return node
        if self.next.startswith("\\") and self.next[1:] in _FUNCTIONS:
            return self.base()
        node = self.power()
        while self.opens() and not (self.next.startswith("\\") and self.next[1:] in _FUNCTIONS) and self.next != "(":
            node = ("*", node, self.power())
        if self.next == "/" or self.next == "(":
            raise Unread("where the argument ends")
        return node


def _repeating(token: str) -> Fraction:
    """``0.1\\overline{36}``."""
    fixed, period = re.fullmatch(r"([\d.]*)\\overline\s*\{(\d+)\}", token).groups()  # type: ignore[union-attr]
    whole, _, decimals = fixed.partition(".")
    places = 10 ** len(decimals)
    return Fraction(int((whole or "0") + decimals), places) + Fraction(int(period), (10 ** len(period) - 1) * places)


@lru_cache(maxsize=8192)
def read(text: str) -> Node:
    """The expression as a tree.

    Raises:
        Unread: It holds something that this reader does not know, or that has two readings.
    """
    try:
        return _Reader(text).whole()
    except (ValueError, RecursionError) as error:
        raise Unread(text) from error


def letters(node: Node) -> frozenset[str]:
    """The letters of an expression."""
    if node[0] == "letter":
        return frozenset([node[1]])
    return frozenset().union(*(letters(part) for part in node[1:] if isinstance(part, tuple)))


def _has_corners(node: Node) -> bool:
    """Whether agreement in one place says nothing of another: absolute values, steps, roots."""
    return node[0] in ("abs", "floor", "ceil", "root") or any(
        _has_corners(part) for part in node[1:] if isinstance(part, tuple)
    )


def is_polynomial(node: Node) -> bool:
    """Whether an expression is a polynomial in its letters."""
    kind, *parts = node
    if kind in ("number", "letter", "constant") or not letters(node):
        return True
    if kind == "/":
        return is_polynomial(parts[0]) and not letters(parts[1])
    if kind == "^":
        return is_polynomial(parts[0]) and parts[1][0] == "number" and parts[1][1].denominator == 1
    return kind in ("+", "-", "*", "neg") and all(map(is_polynomial, parts))


# ---- evaluation ------------------------------------------------------------------------------------------------------


def exact(node: Node) -> Fraction:
    """The value of a rational expression.

    Raises:
        Unread: It is not rational by rational steps alone, is too large, or divides by zero.
    """
    kind = node[0]
    if kind == "number":
        return node[1]
    if kind not in _EXACT:
        raise Unread(kind)
    value = _EXACT[kind](*(exact(part) for part in node[1:]))
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 4 * MAX_BITS:
        raise Unread("too large")
    return value


def _ratio(a: Fraction, b: Fraction) -> Fraction:
    if b == 0:
        raise Unread("division by zero")
    return a / b


def _exact_power(a: Fraction, b: Fraction) -> Fraction:
    if b.denominator != 1 or (a == 0 and b <= 0):
        raise Unread("not a rational power")
    if max(a.numerator.bit_length(), a.denominator.bit_length()) * abs(b) > MAX_BITS:
        raise Unread("too large")
    return a ** int(b)


def _factorial(a: Fraction) -> Fraction:
    if a.denominator != 1 or not 0 <= a <= 5000:
        raise Unread("no factorial")
    return Fraction(math.factorial(int(a)))


def _exact_binomial(a: Fraction, b: Fraction) -> Fraction:
    if a.denominator != 1 or b.denominator != 1 or not 0 <= b <= a <= 5000:
        raise Unread("no binomial coefficient")
    return Fraction(math.comb(int(a), int(b)))


def _exact_root(a: Fraction, degree: Fraction) -> Fraction:
    if degree != 2 or a < 0:
        raise Unread("no exact root")
    top, bottom = math.isqrt(a.numerator), math.isqrt(a.denominator)
    if top * top != a.numerator or bottom * bottom != a.denominator:
        raise Unread("no exact root")
    return Fraction(top, bottom)


_EXACT: dict[str, Callable[..., Fraction]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _ratio,
    "^": _exact_power,
    "neg": lambda a: -a,
    "abs": abs,
    "!": _factorial,
    "binomial": _exact_binomial,
    "root": _exact_root,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
}


class Arithmetic:
    """mpmath at a fixed number of digits. One for each thread: mpmath changes its precision while it computes."""

    def __init__(self, digits: int) -> None:
        from mpmath.ctx_mp import MPContext

        self.mp = MPContext()
        self.mp.dps = digits
        self.close = self.mp.mpf(10) ** -(digits - 20)

    def value(self, node: Node, point: Mapping[str, Any]) -> Any:
        """The value with each letter at its place in the point.

        Raises:
            Unread: There is none, or it is beyond what is computed here.
        """
        try:
            value = self._value(node, point)
        except (ZeroDivisionError, OverflowError, ValueError, TypeError) as error:
            raise Unread(str(error)) from error
        if not self.mp.isfinite(value):
            raise Unread("not finite")
        return value

    def _value(self, node: Node, point: Mapping[str, Any]) -> Any:
        mp, kind = self.mp, node[0]
        if kind == "number":
            return mp.mpf(node[1].numerator) / node[1].denominator
        if kind == "letter":
            return point[node[1]]
        if kind == "constant":
            return {"pi": +mp.pi, "e": +mp.e, "i": mp.mpc(0, 1)}[node[1]]
        if kind == "degree":
            return mp.pi / 180
        if kind == "call":
            base = None if node[3] is None else self._value(node[3], point)
            return self._call(node[1], self._bounded(self._value(node[2], point)), base)
        return self._operation(kind, [self._value(part, point) for part in node[1:]])

    def _bounded(self, value: Any) -> Any:
        if abs(value) > MAX_ARGUMENT:
            raise Unread("too large an argument")
        return value

    def _operation(self, kind: str, values: Sequence[Any]) -> Any:
        mp = self.mp
        match kind, *values:
            case "+", a, b:
                return a + b
            case "-", a, b:
                return a - b
            case "*", a, b:
                return a * b
            case "/", a, b:
                return a / b
            case "neg", a:
                return -a
            case "abs", a:
                return abs(a)
            case "^", a, b:
                return self._power(a, b)
            case "root", a, b:
                return self._root(a, b)
            case "!", a:
                return mp.gamma(self._small(a) + 1)
            case "binomial", a, b:
                return mp.binomial(self._small(a), self._small(b))
            case (("floor" | "ceil"), a):
                return self._step(kind, a)
        raise Unread(kind)

    def _small(self, value: Any) -> Any:
        if abs(value) > 5000:
            raise Unread("too large")
        return value

    def _step(self, kind: str, a: Any) -> Any:
        """Floor and ceiling; refused so near to an integer that rounding would decide."""
        if isinstance(a, self.mp.mpc) or abs(self._bounded(a) - self.mp.nint(a)) < self.close:
            raise Unread("too near to an integer")
        return self.mp.floor(a) if kind == "floor" else self.mp.ceil(a)

    def _power(self, a: Any, b: Any) -> Any:
        mp = self.mp
        self._bounded(b)
        if mp.isint(b):
            if a == 0 and b <= 0:
                raise Unread("zero to no positive power")
            return a ** int(b)
        if not isinstance(a, mp.mpc) and a < 0:
            raise Unread("a root of a negative number, or a sign that alternates")
        return mp.power(a, b)

    def _root(self, a: Any, degree: Any) -> Any:
        mp = self.mp
        if degree == 2:
            return mp.sqrt(a)
        if not mp.isint(degree) or not 2 < degree < 1000 or isinstance(a, mp.mpc):
            raise Unread("a root")
        if a < 0:
            if int(degree) % 2 == 0:
                raise Unread("an even root of a negative number")
            return -mp.root(-a, int(degree))
        return mp.root(a, int(degree))

    def _call(self, name: str, a: Any, base: Any) -> Any:
        mp = self.mp
        if name in ("ln", "log", "lg"):
            if a == 0 or base == 1:
                raise Unread("no logarithm")
            if base is None and name == "lg":
                base = mp.mpf(10)
            return mp.ln(a) if base is None else mp.ln(a) / mp.ln(base)
        inverse = {"arcsin": "asin", "arccos": "acos", "arctan": "atan"}
        return getattr(mp, inverse.get(name, name))(a)

    def same(self, a: Any, b: Any) -> bool | None:
        """Whether two values are equal; None where they differ by less than cancellation can explain."""
        difference, size = abs(a - b), max(abs(a), abs(b))
        if difference <= self.close * size:
            return True
        return None if difference <= self.close else False


_OF_THREAD = threading.local()


def arithmetic(digits: int = DIGITS) -> Arithmetic:
    """This thread's arithmetic of so many digits."""
    kept: dict[int, Arithmetic] = _OF_THREAD.__dict__.setdefault("kept", {})
    if digits not in kept:
        kept[digits] = Arithmetic(digits)
    return kept[digits]


@lru_cache(maxsize=4096)
def _place(name: str, point: int) -> tuple[int, int]:
    """A fraction between 1 and 3 for a letter at a point: the same in every process."""
    digest = hashlib.sha256(f"{name} {point}".encode()).digest()
    return 2**63 + int.from_bytes(digest[:8], "big"), 2**63


def points(names: frozenset[str], numbers: Arithmetic, mixed: int = 2) -> list[dict[str, Any]]:
    """Two points with positive letters, then some with mixed signs and of growing size."""
    found = []
    for point in range(2 + mixed):
        place = {}
        for name in sorted(names):
            top, bottom = _place(name, point)
            sign = -1 if point >= 2 and (top + point) % 2 else 1
            place[name] = sign * (1 if point < 2 else 3 ** (point // 3)) * numbers.mp.mpf(top) / bottom
        found.append(place)
    return found


def equal_values(gold: Node, answer: Node) -> bool | None:
    """Whether two expressions have the same value wherever they are real; None where that stays open.

    Raises:
        Unread: One of them cannot be computed.
    """
    names = letters(gold) | letters(answer)
    if not names:
        try:
            return exact(gold) == exact(answer)
        except Unread:
            pass
    verdict = _compare_at_points(gold, answer, names, DIGITS)
    return _compare_at_points(gold, answer, names, 4 * DIGITS) if verdict is None else verdict


def _compare_at_points(gold: Node, answer: Node, names: frozenset[str], digits: int) -> bool | None:
    numbers = arithmetic(digits)
    if not names:
        verdict = numbers.same(numbers.value(gold, {}), numbers.value(answer, {}))
        return True if verdict is None and digits > DIGITS else verdict
    places = points(names, numbers, 24 if _has_corners(gold) or _has_corners(answer) else 2)
    positive, mixed = places[:2], places[2:]
    at_positive = [numbers.same(numbers.value(gold, point), numbers.value(answer, point)) for point in positive]
    if False in at_positive:
        return False
    for point in mixed:
        if not _agree_where_real(numbers, gold, answer, point):
            if all(value > 0 for value in point.values()):
                return False
            raise Unread("equal for positive letters only")
    return None if None in at_positive and digits == DIGITS else True


def _agree_where_real(numbers: Arithmetic, gold: Node, answer: Node, point: Mapping[str, Any]) -> bool:
    try:
        a, b = numbers.value(gold, point), numbers.value(answer, point)
    except Unread:
        return True
    if any(isinstance(value, numbers.mp.mpc) and value.imag != 0 for value in (a, b)):
        return True
    return numbers.same(a, b) is not False
