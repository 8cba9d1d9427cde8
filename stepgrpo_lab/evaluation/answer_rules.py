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

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise

from stepgrpo_lab.evaluation.answer_text import (
    CHANGING_WORDS,
    brackets,
    join_thousands,
    normal_form,
    split_top,
    split_unit,
    units_differ,
)
from stepgrpo_lab.evaluation.answer_values import (
    Node,
    Unread,
    arithmetic,
    cleared,
    equal_values,
    is_polynomial,
    letters,
    points,
    read,
)

_JOINT = re.compile(
    r"\s*[,;]?\s*(?:\\text\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|,|;|\\cup(?![A-Za-z]))\s*"
)
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx|sim|cong|to|mid)(?![A-Za-z])|[=<>:]")
_COMPARISON = re.compile(r"\s*(<|>|\\le(?![A-Za-z])|\\ge(?![A-Za-z]))\s*")
_LETTER = r"(?:[A-Za-z]|\\(?!pi\b|infty\b)[a-z]+)"
_NAME = re.compile(
    r"(?:\\frac\{d[a-z]?\}\{d[a-z]\}|\|[A-Z]+\||[A-Z]+|[A-Za-z]"
    r"|\\(?!pi\b|infty\b|frac|sqrt)[A-Za-z]+\s*(?:\{[^{}]*\})?(?:\s*[A-Z]+)?)"
    r"(?:_(?:\{[A-Za-z0-9, ]+\}|[A-Za-z0-9]))?'*(?:\^\{-1\})?(?:\([^()=]*\))?"
)
_CHOICE = re.compile(
    r"(?:the )?(?:correct )?(?:(?:option|choice|answer)(?: is)?:? )?[(\[]?\s*([A-J])\s*(?:[)\].:](.*))?",
    re.IGNORECASE | re.DOTALL,
)
_SEVERAL = re.compile(r"[-+^_=*!'/]|\s*(?:[,/&]|(?:or|and)\b|\(?[A-J]\)?\W*$)", re.IGNORECASE)
_WORDS = re.compile(r"\\text\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]{3,}")
_BOMB = re.compile(
    r"\^\s*\{?[^{}^]*\^\s*\{?[^{}^]*\^"  # a tower
    r"|\^\s*\{?\s*-?\d{4,}|\d{4,}\s*\}?\s*!|[)}]\s*!|!\s*!"  # huge powers and factorials
    r"|\\binom.{0,40}?(?:\d{5}|\^)|\\(?:sum|prod|int|lim)(?![a-z]).{0,60}?(?:\d{4}|\d\s*\^|!)",
    re.DOTALL,
)
_EMPTY = re.compile(r"(?:[?.\s$_-]|\\l?dots(?![a-z])|\\text\{[\s?.]*\}|\\q?quad(?![a-z]))*")
_UNSOUND = (  # what math-verify misreads in an answer, unless the gold has it too
    re.compile(r"(?<![\d.])\d[\d.]*\s+[\d.]*\d"),  # numbers side by side: it adds them up
    re.compile(r"[A-Za-z\d}]\s*(?:'|\^\s*\{?\\prime)"),  # a prime, as minutes and derivatives have: it drops it
    re.compile(r"\\ldots"),
)


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
        verdict = _by_rules(wanted, given)
    except RecursionError:
        return False
    return False if verdict is None and _beyond_math_verify(wanted, given) else verdict


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
    plain = not is_empty(text) and len(text) <= 200 and not re.search(r"\\(?:ne|le|ge)(?![a-z])|[=<>]", text)
    return plain and bool(_choices(text, text) or _words(text, text) or _readable(shape(text)))


def _readable(found: Shape) -> bool:
    return all(map(_readable, found.items)) if found.items else _values(found.text, found.text) is True


def for_math_verify(text: str) -> str:
    r"""An undecided answer as math-verify is to see it: without its unit, and with no letter that it misreads.

    It takes an ``I`` left of an equals sign for the imaginary unit.
    """
    text = normal_form(text)
    value, _ = (text, None) if _RELATION.search(text) or text.endswith("%") else split_unit(text)
    return re.sub(r"(?<![A-Za-z\\])I(?![A-Za-z])", r"\\Upsilon ", value)


def _by_rules(gold: str, answer: str) -> bool | None:
    for rule in (_choices, _hedges, _words):
        if (verdict := rule(gold, answer)) is not None:
            return verdict
    return _shapes(shape(gold), shape(answer))


def _well_formed(text: str) -> bool:
    """Whether a gold says anything: its braces close, and it does not divide by a plain zero."""
    balanced = text.count("{") == text.count("}")
    return balanced and re.search(r"(?:/|\\frac\s*(?:\{[^{}]*\}|\d))\{?0(?:\}|(?![\d.]))", text) is None


def _compact(text: str) -> str:
    """Without the spaces that mean nothing: one between two numbers may."""
    return re.sub(r"(?<!\d)\s+|\s+(?![\d.])", "", text)


# ---- what math-verify must not see -----------------------------------------------------------------------------------


def _beyond_math_verify(gold: str, answer: str) -> bool:
    if _explosive(answer) and not _explosive(gold):
        return True
    return _other_letters(gold, answer) or any(sign.search(answer) and not sign.search(gold) for sign in _UNSOUND)


def _other_letters(gold: str, answer: str) -> bool:
    """Whether two formulas speak of other letters: in functions that it does not know, math-verify overlooks them."""
    if _RELATION.search(gold + answer) or re.search(r"\\(?:int|sum|prod|lim)(?![a-z])", gold + answer):
        return False
    found = [set(re.findall(r"[A-Za-z]", _WORDS.sub(" ", text))) for text in (gold, answer)]
    return all(found) and found[0] != found[1]


def _explosive(text: str) -> bool:
    """Whether computer algebra could run for ever on it: towers of powers, huge exponents, sums and nestings."""
    depths = accumulate(1 if bracket in "([{" else -1 for bracket in re.findall(r"[][(){}]", text))
    return (
        max(depths, default=0) > 30
        or len(re.findall(r"[-+*/^]|\\cdot|\\times", text)) > 200
        or _BOMB.search(text) is not None
    )


# ---- rules on words --------------------------------------------------------------------------------------------------


def _changing(text: str) -> set[str]:
    return {word.lower() for word in re.findall(r"(?<!\\)\b[A-Za-z]+", text)} & CHANGING_WORDS


def _hedges(gold: str, answer: str) -> bool | None:
    """Words beside the answer that change it, and that the gold does not have."""
    extra = _changing(answer) - _changing(gold)
    if extra - {"and", "or"} and re.search(r"\d|\\?[a-z]", re.sub(r"\\text\{[^{}]*\}", "", answer)):
        return False
    listed = not any("\\text" in part for part in split_top(answer, _JOINT))
    return False if extra & {"and", "or"} and not listed and "\\text" not in gold else None


def _untexted(text: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).strip()


def _choices(gold: str, answer: str) -> bool | None:
    """A gold that is one letter asks for this letter."""
    wanted = re.fullmatch(r"[(\[]?([A-J])[)\]]?\s*\.?", _untexted(gold))
    given = _CHOICE.fullmatch(_untexted(answer))
    if not wanted or not given:
        return False if wanted and _plain_words(answer) else None
    return given[1].upper() == wanted[1] and not _SEVERAL.match(given[2] or "")


def _plain_words(text: str) -> str | None:
    """The words of an answer that is text and no formula, in one spelling; None for anything else."""
    words = _untexted(text)
    if not re.fullmatch(r"[A-Za-z0-9 .,'’\"()-]*[A-Za-z]{2}[A-Za-z0-9 .,'’\"()-]*", words) or re.match(
        r"[-(]?\d", words
    ):
        return None
    if "\\text" not in text and not re.search(r"[A-Za-z]{4}|\byes\b|\bno\b", words, re.IGNORECASE):
        return None
    plain = [word.rstrip("s") for word in re.findall(r"[a-z0-9]+", words.lower()) if word not in ("a", "an", "the")]
    return " ".join(plain).replace("dne", "doe not exist")


def _words(gold: str, answer: str) -> bool | None:
    """Answers in words."""
    wanted, given = _plain_words(gold), _plain_words(answer)
    return wanted == given if wanted and given else None


# ---- shapes: brackets, lists, names and numbers ----------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    r"""An answer taken apart.

    Attributes:
        kind: "one", "list" (no brackets), "set" or "tuple" (intervals, ratios and matrices too).
        text: Of one item, its text.
        items: The parts of the others.
        ends: The brackets of a tuple; of a list, how it is joined.
        name: What stands left of the equals sign or is compared, such as ``x``.
        unit: The unit behind it.
        wrong: Whether it contradicts itself: ``\frac13=0.5``.
    """

    kind: str
    text: str = ""
    items: tuple[Shape, ...] = ()
    ends: str = ""
    name: str = ""
    unit: str | None = None
    wrong: bool = False


@lru_cache(maxsize=8192)
def shape(text: str) -> Shape:
    """Take an answer in its normal form apart."""
    text = _unlabelled(text.strip())
    if matrix := re.fullmatch(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", text, re.DOTALL):
        return _matrix(matrix[1])
    pieces = split_top(text, _JOINT)
    if len(pieces) > 1:
        parts = [shape(piece) for piece in pieces if piece.strip()]
        if "\\cup" in text and not all(part.kind in ("tuple", "set") for part in parts):
            return Shape("one", text)
        if "\\cup" in text and all(part.kind == "set" for part in parts):
            return Shape("set", items=_distinct(item for part in parts for item in part.items))
        return Shape("list", items=_flat(parts), ends="and" if "and" in text else "")
    enclosed = brackets(text)
    if enclosed and (_JOINT.search(enclosed[1]) or enclosed[0] == "\\{"):
        opening, inner, closing = enclosed
        items = [shape(part) for part in split_top(inner, re.compile(r"\s*[,;]\s*"))]
        if opening == "\\{":
            return Shape("set", items=_distinct(_flat(items)))
        return Shape("tuple", items=tuple(items), ends=opening + closing) if len(items) > 1 else shape(inner)
    return _signs(text) or _inequality(text) or _equation(text) or _measured(text)


def _unlabelled(text: str) -> str:
    """Without words before the answer that announce it, such as *Total:*, and without a point's letter."""
    label = re.match(r"\\text\{([A-Za-z ]*)(?:(?::|=| is|\btotal of)\s*\}\s*|\s*\}\s*(?=\\?\$))", text)
    if label and not _changing(label[1]):
        text = text[label.end() :]
    return re.sub(r"^[A-BD-Z](?=\([^()]*,[^()]*\)$)", "", text)


def _distinct(items: Iterable[Shape]) -> tuple[Shape, ...]:
    return tuple(dict.fromkeys(items))


def _flat(items: Iterable[Shape]) -> tuple[Shape, ...]:
    return tuple(part for item in items for part in (item.items if item.kind == "list" else [item]))


def _matrix(inner: str) -> Shape:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", inner) if row.strip()]
    if "&" not in inner:
        return Shape("tuple", items=tuple(map(shape, rows)), ends="()")
    cells = [Shape("tuple", items=tuple(map(shape, row.split("&"))), ends="row") for row in rows]
    return Shape("tuple", items=tuple(cells), ends="matrix")


def _signs(text: str) -> Shape | None:
    r"""``\pm`` as two items."""
    if not re.search(r"\\(?:pm|mp)(?![A-Za-z])", text):
        return None
    upper = re.sub(r"\\pm(?![A-Za-z])", "+", re.sub(r"\\mp(?![A-Za-z])", "-", text))
    lower = re.sub(r"\\pm(?![A-Za-z])", "-", re.sub(r"\\mp(?![A-Za-z])", "+", text))
    return Shape("list", items=(shape(upper), shape(lower)))


def _inequality(text: str) -> Shape | None:
    r"""An inequality in one variable as its interval; ``x \in A`` as A."""
    if member := re.fullmatch(rf"({_LETTER})\s*\\in(?![A-Za-z])\s*(.*)", text):
        return replace(shape(member[2]), name=member[1])
    text = re.sub(rf"^\|({_LETTER})\|\s*(<|\\le(?![A-Za-z]))\s*(.+)$", r"-(\3)\2 \1\2 \3", text)
    sides = _COMPARISON.split(text)
    if len(sides) not in (3, 5):
        return None
    if ">" in sides[1] or "\\ge" in sides[1]:
        sides = [{">": "<", "\\ge": "\\le", "<": ">", "\\le": "\\ge"}.get(side, side) for side in sides[::-1]]
    if sides[1] not in ("<", "\\le") or sides[-2] not in ("<", "\\le"):
        return None
    if len(sides) == 3:
        sides = [*sides, "<", "\\infty"] if re.fullmatch(_LETTER, sides[2].strip()) else ["-\\infty", "<", *sides]
    low, opening, name, closing, high = sides
    if not re.fullmatch(_LETTER, name.strip()):
        return None
    ends = ("(" if opening == "<" else "[") + (")" if closing == "<" else "]")
    return Shape("tuple", items=(shape(low), shape(high)), ends=ends, name=name.strip())


def _equation(text: str) -> Shape | None:
    """``x=5`` as a named item, a chain as its last side, an equation as itself."""
    sides = [side.strip() for side in split_top(text, re.compile("="))]
    if len(sides) < 2 or not all(sides):
        return None
    name = ""
    if _NAME.fullmatch(sides[0]) and sides[0] not in ("i", "e"):
        name, *sides = sides
    elif len(sides) == 2 and _NAME.fullmatch(sides[1]):
        sides, name = sides[:1], sides[1]
    name = _compact(name)
    if len(sides) == 1:
        inner = shape(sides[0])
        named = tuple(replace(item, name=item.name or name) for item in inner.items)
        return replace(inner, name="", items=named) if inner.kind == "list" else replace(inner, name=name)
    closed = [_closed(a) and _closed(b) for a, b in pairwise(sides)]
    verdicts = [
        _shapes(shape(a), shape(b)) if both else None for both, (a, b) in zip(closed, pairwise(sides), strict=True)
    ]
    if name or all(verdicts) or False in verdicts:
        return replace(shape(sides[-1]), name=name, wrong=False in verdicts)
    return Shape("one", text)


def _measured(text: str) -> Shape:
    """A number with its unit, a ratio or a time of day."""
    value, unit = split_unit(text)
    parts = split_top(text, re.compile(r"\s*:\s*"))
    if len(parts) > 1 and all(map(_closed, parts)):
        if re.fullmatch(r"\d{1,2}:\d\d", value):
            return Shape("tuple", items=tuple(map(shape, parts)), ends=":")
        ratios = [shape(f"\\frac{{{part}}}{{{parts[0]}}}") for part in parts]  # each part over the first
        return Shape("tuple", ratios[1].text if len(parts) == 2 else "", items=tuple(ratios), ends=":")
    return Shape("one", value, unit=unit)


def _closed(text: str) -> bool:
    node = _node(split_unit(text)[0])
    return node is not None and not letters(node)


def _node(text: str) -> Node | None:
    try:
        return read(text)
    except Unread:
        return None


# ---- comparison ------------------------------------------------------------------------------------------------------


def _shapes(gold: Shape, answer: Shape) -> bool | None:
    kinds = {gold.kind, answer.kind}
    if gold.wrong or answer.wrong or kinds == {"set", "tuple"} or units_differ(gold.unit, answer.unit):
        return False
    if kinds == {"one"}:
        return _ones(gold, answer)
    if _names_differ(gold.name, answer.name):
        return False
    if "one" in kinds:
        return _one_against_several(gold, answer)
    if gold.ends != answer.ends and (kinds == {"tuple"} or ":" in (gold.ends, answer.ends)):
        return False
    if len(gold.items) != len(answer.items):
        return False if _plain_items(gold) and _plain_items(answer) else None
    if "tuple" in kinds:
        if len(kinds) > 1 and "[" in gold.ends + answer.ends:
            return None
        return _all([_shapes(a, b) for a, b in zip(gold.items, answer.items, strict=True)])
    if "and" in (gold.ends, answer.ends) and any(
        each.kind == "tuple" and each.name for each in gold.items + answer.items
    ):
        return None  # x>1 and x<2 is no union
    if len({each.name for each in gold.items if each.name}) > 1 and not all(each.name for each in answer.items):
        return None
    return _matched(gold.items, answer.items)


def _plain_items(found: Shape) -> bool:
    return all(_plain_items(item) if item.items else _node(item.text) is not None for item in found.items)


def _one_against_several(gold: Shape, answer: Shape) -> bool | None:
    """One number is never several; anything else may be a name for them."""
    several, one = (answer, gold) if gold.kind == "one" else (gold, answer)
    if several.kind == "set" and len(several.items) == 1 and "\\emptyset" not in several.items[0].text:
        return _shapes(several.items[0], one)
    if several.ends == ":" and several.text:
        return _values(f"1/({several.text})", one.text)
    if _RELATION.search(one.text) or _node(one.text) is None or (several.kind != "tuple" and not _plain_items(several)):
        return None
    return False


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    return False if False in verdicts else None if None in verdicts else True


def _matched(gold: Sequence[Shape], answer: Sequence[Shape]) -> bool | None:
    """Whether the items of both sides pair off, in any order."""
    left, unsure = list(answer), False
    for wanted in gold:
        verdicts = [_shapes(wanted, given) for given in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            unsure = True
        else:
            return False
    return None if unsure else True


def _names_differ(gold: str, answer: str) -> bool:
    """Two single letters, or one name with two indices or arguments; whether ``f(x)`` is ``y`` is another's to say."""
    a, b = (re.sub("[{}]", "", _compact(name)) for name in (gold, answer))
    simple = re.compile(r"\\?[A-Za-z]+(?:_\w+)?")
    return bool(a and b) and a != b and (bool(simple.fullmatch(a) and simple.fullmatch(b)) or a[0] == b[0])


def _ones(gold: Shape, answer: Shape) -> bool | None:
    """Two numbers, expressions or equations."""
    differ, related = _names_differ(gold.name, answer.name), _RELATION.search(gold.text + answer.text) is not None
    solved = answer.name in _letters(gold) and gold.name in _letters(answer)
    sides = [_sides(each) for each in (gold, answer)]
    if differ and not solved:
        return None if related else False
    if (differ or related) and all(sides):
        return _equations(*sides)
    if related:
        bounded = re.search(r"<|>|\\(?:le|ge|ne|approx)(?![a-z])", answer.text)
        return False if bounded and not gold.name and _closed(gold.text) else None
    return None if gold.name and answer.name and gold.name != answer.name else _numbers(gold, answer)


def _letters(found: Shape) -> frozenset[str]:
    node = _node(found.text)
    return letters(node) if node else frozenset()


def _sides(found: Shape) -> list[str]:
    """The sides of an equation."""
    sides = [found.name, found.text] if found.name else split_top(found.text, re.compile("="))
    return sides if len(sides) == 2 else []


def _numbers(gold: Shape, answer: Shape) -> bool | None:
    """Two items without relations: their values, of which one may be in percent."""
    wanted, given = join_thousands(gold.text), join_thousands(answer.text)
    verdict = True if _compact(_untexted(wanted)) == _compact(_untexted(given)) else _values(wanted, given)
    units = {gold.unit, answer.unit}
    if "percent" in units and len(units) > 1:
        if verdict is False:
            scaled = (f"({wanted})/100", given) if gold.unit == "percent" else (wanted, f"({given})/100")
            return _values(*scaled)
        return False if re.fullmatch(r"0?\.\d+", given) else verdict  # 0.5% is not 0.5
    return False if "degree" in units and len(units) > 1 and "\\pi" in wanted else verdict


def _values(gold: str, answer: str) -> bool | None:
    signs = [_compact(text).lstrip("+") for text in (gold, answer)]
    if "\\infty" in gold + answer:
        return signs[0] == signs[1] if set(signs) & {"\\infty", "-\\infty"} else None
    try:
        return equal_values(read(gold), read(answer))
    except Unread:
        return None


def _equations(gold: Sequence[str], answer: Sequence[str]) -> bool | None:
    """Equal if left minus right of one is a multiple of the other's."""
    try:
        differences = [cleared(("-", read(left), read(right)))[0] for left, right in (gold, answer)]
        names = letters(differences[0])
        if names != letters(differences[1]):
            return False
        numbers = arithmetic()
        values = [[numbers.value(each, point) for point in points(names)] for each in differences]
        ratios = [numbers.value(("/", ("number", a), ("number", b)), {}) for a, b in zip(*values, strict=True)]
    except Unread:
        return None
    if all(numbers.same(ratios[0], ratio) for ratio in ratios[1:]) and ratios[0] != 0:
        return True
    return False if all(map(is_polynomial, differences)) or len(names) == 1 else None
