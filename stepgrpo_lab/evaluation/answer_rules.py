r"""What is decided without math-verify: the policy of grading, as three-valued rules.

:func:`decide` says right, wrong, or None for what it does not wholly understand, which then goes to math-verify. The
policy, for gold and answer:

=====================  ================================================================================================
percent                ``33\%``, ``33`` and ``0.33`` are the same; ``33\%`` and ``3.3\%`` are not
decimals               exact: ``0.333333`` is not ``\frac13``, ``3.14`` is not ``\pi``, ``0.5`` is ``\frac12``
order                  a list without brackets and a set have none, a tuple has; a tuple is no set
repeats                count in a list: ``1,1,2`` is not ``1,2``
intervals              equal the inequalities that say the same, ``(0,2)`` and ``0<x<2``; their ends must match
units                  may be left off; two known units must be the same and are not converted; a bare single letter is
                       a variable, not a unit
names                  ``x=5`` is ``5``; ``x=5`` is not ``y=5``
chains                 ``a=b=c`` counts as ``c`` if all its closed sides are equal, and is wrong if they are not
equations              equal if one is a multiple of the other; by their solutions only if they change sign
bases                  a base may be left off; two bases must be the same and are not converted
text                   words are compared without case; a hedge (``33 or 34``, ``not 5``) is wrong
choices                the letter counts, with or without brackets and the text of the choice
=====================  ================================================================================================
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

from stepgrpo_lab.evaluation.answer_text import (
    CHANGING_WORDS,
    brackets,
    join_thousands,
    known_unit,
    normal_form,
    split_top,
    split_unit,
)
from stepgrpo_lab.evaluation.answer_values import Unread, arithmetic, equal_values, is_polynomial, letters, points, read

_JOINT = re.compile(
    r"\s*[,;]?\s*(?:\\text\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|,|;|\\cup(?![A-Za-z]))\s*"
)
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|sim|cong|to|mid)(?![A-Za-z])|[=<>:]")
_COMPARISON = re.compile(r"\s*(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))\s*")
_NAME = re.compile(
    r"(?:\\(?!pi\b|infty\b|frac|sqrt)[A-Za-z]+\s*(?:\{[^{}]*\})?(?:\s*[A-Z]+)?|[A-Z]+|[A-Za-z]|\|[A-Z]+\|)"
    r"(?:_(?:\{[A-Za-z0-9, ]+\}|[A-Za-z0-9]))?'*(?:\^\{-1\})?(?:\([^()=]*\))?"
)
_CHOICE = re.compile(
    r"(?:\\text\{)?\s*(?:(?:option|choice|answer)\s+)?(?:[(\[]\s*([A-Ja-j])\s*[)\]]|([A-J])(?=\s*[).:}]|\s*$)|([a-j])(?=[.)}]?$))(.*)",
    re.IGNORECASE | re.DOTALL,
)
_BASE = re.compile(
    r"(?:\\text\{\s*)?([0-9A-Fa-f]+)\s*\}?\s*_\s*(?:\{\s*)?(?:\\text\{\s*)?(?:base\s*)?\(?(\d+|[a-z]+)\)?[}\s]*"
)
_TIME = re.compile(r"(\d{1,2})(?::(\d{2}))?\s*(?:\\text\{)?\s*([apAP]\.?\s*[mM]\.?)?\s*\}?")
_WORDS = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]{3,}")
_BOMB = re.compile(
    r"\^\s*\{?[^{}^]*\^\s*\{?[^{}^]*\^"  # a tower
    r"|\^\s*\{?\s*-?\d{4,}|\d{4,}\s*\}?\s*!|[)}]\s*!|!\s*!"  # huge powers and factorials
    r"|\\binom.{0,40}?(?:\d{5}|\^)|\\(?:sum|prod|int|lim)(?![a-z]).{0,60}?(?:\d{4}|\d\s*\^|!)",
    re.DOTALL,
)
_MODULUS = re.compile(r"(.+?)\s*\(?\s*\\(?:pmod|bmod|mod)\s*\{?\s*(\w+)\s*\}?\s*\)?")
_SYNONYMS = {"empty set": "no solution", "there i no solution": "no solution", "dne": "doe not exist"}
_COLUMN = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)
_EMPTY = re.compile(r"(?:[?.\s$_-]|\\l?dots(?![a-z])|\\text\{[\s?.]*\}|\\q?quad(?![a-z]))*")
_NUMERALS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_NUMERALS |= {"eleven": 11, "twelve": 12, "sixteen": 16}


@lru_cache(maxsize=16_384)
def decide(gold: str, answer: str) -> bool | None:
    r"""Whether the answer equals the gold; None where math-verify has to say.

    Example:
        >>> decide("10000", "10\\,000"), decide("5", "5t"), decide("2i\\sqrt3", "2\\sqrt3i")
        (True, False, True)
    """
    wanted, given = normal_form(gold), normal_form(answer)
    if is_empty(given):
        return False
    if _compact(wanted) == _compact(given):
        return _well_formed(wanted)
    try:
        verdict = next(filter(_is_verdict, (rule(wanted, given) for rule in _RULES)), None)
    except RecursionError:
        return False
    unlike = any(refused(given) and not refused(wanted) for refused in (_side_by_side, _primed, _open, _explosive))
    return False if verdict is None and (unlike or _other_letters(wanted, given)) else verdict


def is_empty(text: str) -> bool:
    r"""Whether an answer says nothing: only space, question marks, dots, an empty ``\text{}``.

    Example:
        >>> is_empty("?"), is_empty("\\text{}"), is_empty("...")
        (True, True, True)
    """
    return _EMPTY.fullmatch(text) is not None


def understood(gold: str) -> bool:
    """Whether every answer that is spelled out can be graded against this gold without math-verify."""
    text = normal_form(gold)
    if is_empty(text) or len(text) > 200:
        return False
    if _choice(text) or _TIME.fullmatch(text) or _BASE.fullmatch(text) or (_plain_words(text) and len(text) < 60):
        return True
    return not _RELATION.search(text) and _readable(shape(text))


def _readable(found: Shape) -> bool:
    """Whether all the items have values."""
    if found.items:
        return all(map(_readable, found.items))
    value = split_unit(found.text)[0]
    return _is_infinite(value) or _values(value, value) is True


def _node_of(text: str) -> object:
    try:
        return read(split_unit(text)[0])
    except Unread:
        return None


def for_math_verify(text: str) -> str:
    r"""An undecided answer as math-verify is to see it: without its unit, and with no letter that it misreads.

    It takes an ``I`` left of an equals sign for the imaginary unit.
    """
    text = normal_form(text)
    value, _ = (text, None) if _RELATION.search(text) or text.endswith("%") else split_unit(text)
    return re.sub(r"(?<![A-Za-z\\])I(?![A-Za-z])", r"\\Upsilon ", value)


def _well_formed(text: str) -> bool:
    """Whether a gold says anything: its braces close, and it does not divide by a plain zero."""
    balanced = text.count("{") == text.count("}")
    return balanced and re.search(r"(?:/|\\frac(?:\{[^{}]*\}|\d))\{?0(?:\}|(?![\d.]))", text) is None


def _is_verdict(verdict: bool | None) -> bool:
    return verdict is not None


def _side_by_side(text: str) -> bool:
    """Whether two numbers stand beside each other: math-verify adds them up."""
    return re.search(r"(?<![\d.])\d[\d.]*\s+[\d.]*\d", text) is not None


def _primed(text: str) -> bool:
    """Whether something has a prime, as minutes and derivatives do: math-verify drops it."""
    return re.search(r"[A-Za-z\d}]\s*(?:'|\^\s*\{?\\prime)", text) is not None


def _open(text: str) -> bool:
    """Whether it goes on with dots."""
    return "\\ldots" in text


def _other_letters(gold: str, answer: str) -> bool:
    """Whether two formulas speak of other letters: in functions that it does not know, math-verify overlooks them."""
    if _RELATION.search(gold + answer) or re.search(r"\\(?:int|sum|prod|lim)(?![a-z])", gold + answer):
        return False
    found = [set(re.findall(r"[A-Za-z]", _WORDS.sub(" ", text))) for text in (gold, answer)]
    return all(found) and found[0] != found[1]


def _explosive(text: str) -> bool:
    """Whether computer algebra could run for ever on it: towers of powers, huge exponents, sums and nestings."""
    depth = max(
        sum(1 if c in "({[" else -1 for c in text[:place] if c in "(){}[]") for place in range(0, len(text) + 1, 40)
    )
    return depth > 30 or len(re.findall(r"[-+*/^]|\\cdot|\\times", text)) > 200 or _BOMB.search(text) is not None


def _compact(text: str) -> str:
    """Without the spaces that mean nothing: one between two numbers may."""
    return re.sub(r"(?<!\d)\s+|\s+(?![\d.])", "", text)


# ---- rules on the text as a whole ------------------------------------------------------------------------------------


def _hedges(gold: str, answer: str) -> bool | None:
    """Words beside the answer that change it, and that the gold does not have."""

    def changing(text: str) -> set[str]:
        words = re.findall(r"[A-Za-z]+", re.sub(r"\\(?!text)[A-Za-z]+", " ", text).replace("\\text", " "))
        return {word.lower() for word in words} & CHANGING_WORDS

    extra = changing(answer) - changing(gold) - {"and", "or"}
    joined = changing(answer) & {"and", "or"}
    listed = all(not re.search(r"\\text", part) for part in split_top(answer, _JOINT))
    if extra and re.search(r"\d|\\[a-z]|[a-z]", re.sub(r"\\text\{[^{}]*\}", "", answer)):
        return False
    return (
        False
        if joined and not listed and not re.search(r"\\text\{[^{}]*(?:and|or)", gold) and "\\text" not in gold
        else None
    )


def _choice(text: str) -> str | None:
    found = _CHOICE.fullmatch(text)
    if not found:
        return None
    rest = found[4].strip("}.:) ").strip()
    if re.match(r"(?:or|and|,|/|\\text\{\s*(?:or|and|,))", rest, re.IGNORECASE) or rest[:1] in tuple("+-^_=*!'"):
        return "several"
    return (found[1] or found[2] or found[3]).upper()


def _choices(gold: str, answer: str) -> bool | None:
    """A gold that is one letter asks for this letter."""
    if not re.fullmatch(r"(?:\\text\{)?\s*[(\[]?[A-J][)\]]?\s*\.?\}?", gold):
        return None
    given = _choice(answer)
    if given is None or given == "several":
        return False if given or _plain_words(answer) else None
    return given == _choice(gold)


def _times(gold: str, answer: str) -> bool | None:
    """A time of day; which half of the day may be left off."""
    wanted, given = _TIME.fullmatch(gold), _TIME.fullmatch(answer)
    if not wanted or not (wanted[2] or wanted[3]):
        return None
    if not given or not (given[2] or given[3] or wanted[3]):
        return False if wanted[3] else None
    halves = {re.sub(r"[^apm]", "", half.lower()) for half in (wanted[3], given[3]) if half}
    return (int(wanted[1]), wanted[2] or "00") == (int(given[1]), given[2] or "00") and len(halves) < 2


def _moduli(gold: str, answer: str) -> bool | None:
    """Residues: the modulus may be left off, but two must be the same."""
    wanted, given = _MODULUS.fullmatch(gold), _MODULUS.fullmatch(answer)
    if not wanted or (given and wanted[2] != given[2]):
        return False if wanted and given else None
    sides = [found[1] if found else text for found, text in ((wanted, gold), (given, answer))]
    return decide(*(re.sub(r"\\equiv(?![a-z])", "=", side) for side in sides))


def _bases(gold: str, answer: str) -> bool | None:
    """Numerals with a base."""
    wanted, given = _BASE.fullmatch(gold), _BASE.fullmatch(answer)
    if not (wanted or (given and re.fullmatch(r"\d+", gold))):
        return None
    digits = [found[1] if found else text for found, text in ((wanted, gold), (given, answer))]
    bases = {_NUMERALS.get(found[2], found[2]) for found in (wanted, given) if found}
    return digits[0].upper() == digits[1].upper() and len({str(base) for base in bases}) < 2


def _plain_words(text: str) -> str | None:
    """The words of an answer that is text and no formula, in one spelling; None for anything else."""
    if _compact(text) == "\\emptyset":
        return "no solution"
    words = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    if not re.fullmatch(r"[A-Za-z0-9 .,'’\"()-]*", words) or not re.search(r"[A-Za-z]{2}", words):
        return None
    if (
        "\\text" not in text
        and not re.search(r"[A-Za-z]{4}", words)
        and not re.fullmatch(r"\s*(?:yes|no)\s*", words, re.IGNORECASE)
    ):
        return None
    if re.match(r"\s*[-(]?\d", words):
        return None
    plain = " ".join(word.rstrip("s") for word in re.findall(r"[a-z0-9]+", words.lower()))
    return _SYNONYMS.get(plain, plain)


def _words(gold: str, answer: str) -> bool | None:
    """Answers in words."""
    wanted = _plain_words(gold)
    given = _plain_words(answer)
    if wanted and given:
        return wanted == given
    return None


# ---- shapes: brackets, lists, names and numbers ----------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    r"""An answer taken apart.

    Attributes:
        kind: "one", "list" (no brackets), "set", "tuple", or "union" of intervals.
        text: Of one item, its text.
        items: The parts of the others.
        ends: The brackets of a tuple.
        name: What stands left of the equals sign or is compared, such as ``x``.
        wrong: Whether it contradicts itself: ``\frac13=0.5``.
    """

    kind: str
    text: str = ""
    items: tuple[Shape, ...] = field(default=())
    ends: str = ""
    name: str = ""
    wrong: bool = False


@lru_cache(maxsize=8192)
def shape(text: str) -> Shape:
    """Take an answer in its normal form apart."""
    text = re.sub(r"^\\text\{[A-Za-z ]*(?::|=| is)\s*\}", "", text.strip()).strip()
    if column := _COLUMN.fullmatch(text):
        return _matrix(column[1])
    joints = [found for found in _JOINT.finditer(text)]
    parts = split_top(text, _JOINT)
    if len(parts) > 1:
        items = [shape(part) for part in parts if part and part.strip()]
        union = any("\\cup" in found[0] for found in joints)
        if union and not all(item.kind in ("tuple", "set") for item in items):
            return Shape("one", text)
        return Shape("list", items=tuple(_flat(items)), ends="and" if "and" in text else "")
    enclosed = brackets(text)
    if enclosed and (_JOINT.search(enclosed[1]) or enclosed[0] == "\\{"):
        opening, inner, closing = enclosed
        items = [shape(part) for part in split_top(inner, re.compile(r"\s*[,;]\s*"))]
        if opening == "\\{":
            return Shape("set", items=tuple(_flat(items)))
        return Shape("tuple", items=tuple(items), ends=opening + closing) if len(items) > 1 else shape(inner)
    return _signs(text) or _inequality(text) or _equation(text) or Shape("one", text)


def _flat(items: Sequence[Shape]) -> list[Shape]:
    return [part for item in items for part in (item.items if item.kind == "list" else [item])]


def _matrix(inner: str) -> Shape:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", inner) if row.strip()]
    if any("&" in row for row in rows):
        cells = [Shape("tuple", items=tuple(map(shape, row.split("&"))), ends="row") for row in rows]
        return Shape("tuple", items=tuple(cells), ends="matrix")
    return Shape("tuple", items=tuple(map(shape, rows)), ends="()")


def _signs(text: str) -> Shape | None:
    r"""``\pm`` as two items."""
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text):
        return None

    def signed(first: str, second: str) -> str:
        return re.sub(r"\\mp(?![A-Za-z])", second, re.sub(r"\\pm(?![A-Za-z])", first, text))

    return Shape("list", items=(shape(signed("+", "-")), shape(signed("-", "+"))))


def _inequality(text: str) -> Shape | None:
    r"""An inequality in one variable as its interval; ``x \in A`` as A."""
    member = re.fullmatch(r"([A-Za-z]|\\[a-z]+)\s*\\in(?![A-Za-z])\s*(.*)", text)
    if member:
        inner = shape(member[2])
        return Shape(inner.kind, inner.text, inner.items, inner.ends, member[1])
    pieces = _COMPARISON.split(text)
    if len(pieces) not in (3, 5):
        return None
    sides, signs = pieces[::2], pieces[1::2]
    if all(sign in (">", "\\ge") for sign in signs):
        sides, signs = sides[::-1], ["<" if sign == ">" else "\\le" for sign in signs[::-1]]
    if any(sign in (">", "\\ge") for sign in signs):
        return None
    named = [place for place, side in enumerate(sides) if re.fullmatch(r"[A-Za-z]|\\[a-z]+(?<!\\pi)", side.strip())]
    if len(sides) == 2 and len(named) == 1:
        low, high = (("-\\infty", sides[1]), (sides[0], "\\infty"))[named[0]]
        ends = ("(" if named[0] == 0 or signs[0] == "<" else "[") + (")" if named[0] == 1 or signs[0] == "<" else "]")
    elif len(sides) == 3 and named == [1]:
        low, high = sides[0], sides[2]
        ends = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
    else:
        return None
    return Shape("tuple", items=(shape(low), shape(high)), ends=ends, name=sides[named[0]].strip())


def _equation(text: str) -> Shape | None:
    """``x=5`` as a named item, a chain as its last side, an equation as itself."""
    sides = [side.strip() for side in split_top(text, re.compile("="))]
    if len(sides) < 2 or not all(sides):
        return None
    name = ""
    if _NAME.fullmatch(sides[0]) and not re.fullmatch(r"[ie]", sides[0]):
        name, sides = sides[0], sides[1:]
    elif len(sides) == 2 and _NAME.fullmatch(sides[1]):
        name, sides = sides[1], sides[:1]
    if len(sides) == 1 and name:
        inner = shape(sides[0])
        if inner.name:
            return Shape("one", text)
        if inner.kind == "list":
            return Shape("list", items=tuple(Shape(i.kind, i.text, i.items, i.ends, name) for i in inner.items))
        return Shape(inner.kind, inner.text, inner.items, inner.ends, _compact(name), inner.wrong)
    verdicts = [_numbers(a, b) if _closed(a) and _closed(b) else None for a, b in pairwise(sides)]
    if False in verdicts:
        return Shape("one", sides[-1], name=_compact(name), wrong=True)
    if name or all(verdicts):
        return Shape("one", sides[-1], name=_compact(name))
    return Shape("one", text)


def _closed(text: str) -> bool:
    try:
        return not letters(read(split_unit(text)[0]))
    except Unread:
        return False


# ---- comparison ------------------------------------------------------------------------------------------------------


def _shapes(gold: Shape, answer: Shape) -> bool | None:
    if answer.wrong or gold.wrong:
        return False
    if gold.kind == answer.kind == "one":
        return _named(gold, answer)
    if {gold.kind, answer.kind} == {"set", "tuple"}:
        return False
    if gold.name and answer.name and _names_differ(gold.name, answer.name):
        return False
    if "one" in (gold.kind, answer.kind):
        return _one_against_several(gold, answer)
    if gold.kind == "tuple" and answer.kind == "tuple" and gold.ends != answer.ends:
        return False
    if len(gold.items) != len(answer.items):
        return False if _plain_items(gold) and _plain_items(answer) else None
    if "tuple" in (gold.kind, answer.kind):
        if gold.kind != answer.kind and "[" in (gold.ends + answer.ends):
            return None
        return _all([_shapes(a, b) for a, b in zip(gold.items, answer.items, strict=True)])
    if gold.ends + answer.ends and any(item.kind == "tuple" and item.name for item in answer.items + gold.items):
        return None  # x>1 and x<2 is no union
    names = {item.name for item in gold.items if item.name}
    if len(names) > 1 and not all(item.name for item in answer.items):
        return None
    return _matched(gold.items, answer.items, _shapes)


def _of_shapes(gold: str, answer: str) -> bool | None:
    return _shapes(shape(gold), shape(answer))


_RULES = (_hedges, _choices, _times, _bases, _moduli, _words, _of_shapes)


def _plain_items(found: Shape) -> bool:
    return all(_plain_items(item) if item.items else _node_of(item.text) is not None for item in found.items)


def _one_against_several(gold: Shape, answer: Shape) -> bool | None:
    """One number is never several; anything else may be a name for them."""
    several, one = (answer, gold) if gold.kind == "one" else (gold, answer)
    if len(several.items) == 1 and several.kind == "set" and "\\emptyset" not in several.items[0].text:
        return _shapes(several.items[0], one) if several is gold else _shapes(one, several.items[0])
    if _RELATION.search(one.text) or (not _plain_items(several) and several.kind != "tuple"):
        return None
    return False if _node_of(one.text) is not None else None


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    if False in verdicts:
        return False
    return None if None in verdicts else True


def _matched(
    gold: Sequence[Shape], answer: Sequence[Shape], equal: Callable[[Shape, Shape], bool | None]
) -> bool | None:
    """Whether the items of both sides pair off, in any order."""
    left, unsure = list(answer), False
    for wanted in gold:
        verdicts = [equal(wanted, given) for given in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


def _names_differ(gold: str, answer: str) -> bool:
    """Two single letters, or one name with two indices or arguments; whether ``f(x)`` is ``y`` is another's to say."""
    a, b = _compact(gold).replace("{", "").replace("}", ""), _compact(answer).replace("{", "").replace("}", "")
    simple = re.compile(r"\\?[A-Za-z]+(?:_\w+)?")
    return a != b and ((simple.fullmatch(a) and simple.fullmatch(b)) is not None or a[:1] == b[:1])


def _named(gold: Shape, answer: Shape) -> bool | None:
    sides = [_sides(item) for item in (gold, answer)]
    if gold.name and answer.name and _names_differ(gold.name, answer.name):
        if answer.name in _letters_of(gold.text) and gold.name in _letters_of(answer.text):
            return _equations(*sides)  # type: ignore[arg-type]
        return None if _RELATION.search(gold.text + answer.text) else False
    equations = [_RELATION.search(item.text) is not None for item in (gold, answer)]
    if any(equations):
        if all(sides):
            return _equations(*sides)  # type: ignore[arg-type]
        closed = not equations[0] and not gold.name and _closed(gold.text)
        return False if closed and re.search(r"<|>|\\(?:le|ge|ne|approx)(?![a-z])", answer.text) else None
    if not _closed_names(gold, answer):
        return None
    return _numbers(gold.text, answer.text)


def _letters_of(text: str) -> frozenset[str]:
    try:
        return letters(read(text))
    except Unread:
        return frozenset()


def _closed_names(gold: Shape, answer: Shape) -> bool:
    """Whether it is the values that count: ``y=2x`` and ``x=y/2`` are one equation under two names."""
    return not (gold.name and answer.name and gold.name != answer.name)


def _sides(found: Shape) -> tuple[str, str] | None:
    if found.name:
        return found.name, found.text
    sides = split_top(found.text, re.compile("="))
    return (sides[0], sides[1]) if len(sides) == 2 else None


def _numbers(gold: str, answer: str) -> bool | None:
    """Two items without relations: their units, then their values."""
    if _unfonted(gold) == _unfonted(answer):
        return True
    if all(re.fullmatch(r"\\text\{\s*[A-Z]\s*\}|[A-Z]", side.strip()) for side in (gold, answer)):
        return False  # one of several choices, or a name
    (wanted, unit), (given, other) = split_unit(join_thousands(gold)), split_unit(join_thousands(answer))
    if unit and other and unit != other and known_unit(unit) and known_unit(other):
        return False
    if "degree" in (unit, other) and unit != other and "\\pi" in wanted + given:
        return False
    verdict = _values(wanted, given)
    if verdict is False and (unit == "percent") != (other == "percent"):
        scaled = (f"({wanted})/100", given) if unit == "percent" else (wanted, f"({given})/100")
        return _values(*scaled)
    if verdict and (unit == "percent") != (other == "percent") and re.fullmatch(r"0?\.\d+", given):
        return False
    return verdict


def _unfonted(text: str) -> str:
    """Without the command around a single letter, such as one of several choices."""
    return _compact(re.sub(r"\\text\{\s*([A-Z])\s*\}", r"\1", text))


def _values(gold: str, answer: str) -> bool | None:
    if "\\infty" in gold + answer:
        return (
            _compact(gold).lstrip("+") == _compact(answer).lstrip("+")
            if _is_infinite(gold) or _is_infinite(answer)
            else None
        )
    try:
        return equal_values(read(gold.strip()), read(answer.strip()))
    except Unread:
        return None


def _is_infinite(text: str) -> bool:
    return re.fullmatch(r"[+-]?\\infty", _compact(text)) is not None


def _equations(gold: tuple[str, str], answer: tuple[str, str]) -> bool | None:
    """Equal if left minus right of one is a multiple of the other's; without a sign change nothing else is compared."""
    try:
        differences = [("-", read(left.strip()), read(right.strip())) for left, right in (gold, answer)]
        names = letters(differences[0]) | letters(differences[1])
        if letters(differences[0]) != letters(differences[1]):
            return False
        numbers = arithmetic()
        values = [[numbers.value(each, point) for point in points(names, numbers)[:3]] for each in differences]
        if any(value == 0 for row in values for value in row):
            return None
        ratios = [a / b for a, b in zip(*values, strict=True)]
        if all(numbers.same(ratios[0], ratio) for ratio in ratios[1:]):
            return True
        if all(map(is_polynomial, differences)):
            return False
        if len(names) > 1:
            return all(_solves(*pair) for pair in (differences, differences[::-1]))
        return None if all(map(_changes_sign, differences)) else False
    except Unread:
        return None


def _solves(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Whether solutions of one equation in several letters, found from a few places, solve the other too."""
    numbers, (name, *_) = arithmetic(), sorted(letters(one), reverse=True)
    found = 0
    for place in points(letters(one), numbers, mixed=6):
        with contextlib.suppress(Unread, ValueError, ZeroDivisionError):
            at = partial(_at, one, place, name)
            root = numbers.mp.findroot(at, (place[name], place[name] + 1), tol=numbers.close**2, maxsteps=60)
            if abs(_at(other, place, name, root)) > numbers.mp.sqrt(numbers.close):
                return False
            found += 1
    return found > 0


def _at(node: tuple[object, ...], place: dict[str, Any], name: str, value: Any) -> Any:
    return arithmetic().value(node, {**place, name: value})


def _changes_sign(difference: tuple[object, ...]) -> bool:
    """Whether an equation in one letter visibly has a real solution."""
    numbers = arithmetic()
    (name,) = letters(difference)
    signs = set()
    for place in range(-200, 201):
        try:
            value = numbers.value(difference, {name: numbers.mp.mpf(place) / 7})
        except Unread:
            continue
        if not isinstance(value, numbers.mp.mpc):
            signs.add(int(numbers.mp.sign(value)))
    return len(signs) > 1
