r"""Normal forms of boxed answers: one spelling for what LaTeX, Unicode, Markdown and plain text spell in many ways.

Nothing here decides anything. :func:`normal_form` rewrites signs, spaces, fonts and thousands separators; the rest
takes an answer apart into its brackets, its items and the unit behind a number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SIGNS = {
    **dict.fromkeys("−–‒‐‑﹣－—", "-"),
    **dict.fromkeys("×✕⨯", "\\times "),
    **dict.fromkeys("·⋅∙•", "\\cdot "),
    **dict.fromkeys("⁄∕÷", "/"),
    **dict.fromkeys("°º˚", "^\\circ "),
    **dict.fromkeys("≤⩽≦", "\\le "),
    **dict.fromkeys("≥⩾≧", "\\ge "),
    **dict.fromkeys("∅⌀", "\\emptyset "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
    **{"∞": "\\infty ", "≠": "\\ne ", "±": "\\pm ", "∓": "\\mp ", "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in "},
    **{"√": "\\sqrt ", "∛": "\\sqrt[3]", "≈": "\\approx ", "…": "\\ldots ", "∖": "\\setminus ", "∠": "\\angle "},
    **{
        "ℝ": "\\mathbb{R}",
        "ℤ": "\\mathbb{Z}",
        "⟨": "(",
        "⟩": ")",
        "〈": "(",
        "〉": ")",
        "，": ",",
        "、": ",",
        "％": "%",
    },
}
_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lamda mu nu xi pi rho sigma tau upsilon phi chi psi omega"
)
for _name in _GREEK.split():
    _SIGNS[unicodedata.lookup(f"GREEK SMALL LETTER {_name}")] = f"\\{_name.replace('lamda', 'lambda')} "
_SIGNS |= {"ϕ": "\\phi ", "ϵ": "\\epsilon ", "Δ": "\\Delta ", "Ω": "\\Omega ", "Φ": "\\Phi ", "Σ": "\\Sigma "}

_PLAIN = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|pi|infty"
"""Words that plain text may write without their backslash, the longest first."""

_FONTS = (
    "text|textbf|textit|textrm|textsf|texttt|textnormal|mbox|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|operatorname"
    "|underline|emph"
)
_FONT = re.compile(rf"\\({_FONTS})\s*\{{([^{{}}]*)\}}")
_REWRITES: list[tuple[re.Pattern[str], Any]] = [
    (re.compile(pattern), new)
    for pattern, new in [
        (r"\\(?:left|right|[bB]igg?[lrm]?)\s*\.", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits|bf|rm|it|Large|large)(?![A-Za-z])", ""),
        (r"(?<!\\)\\!|\\boxed(?=\{)", ""),
        (r"\{\s*,\s*\}", ","),
        (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|\\thinspace|\\hspace\{[^{}]*\}|\\phantom\{[^{}]*\}", " "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\(?:dbinom|tbinom)(?![A-Za-z])", r"\\binom"),
        (r"\\(?:ast|cdotp|bullet)(?![A-Za-z])|(?<!\*)\*(?!\*)", r"\\cdot "),
        (r"\\div(?![A-Za-z])", "/"),
        (r"\\(?:leq|leqslant|leqq)(?![A-Za-z])|<=", r"\\le "),
        (r"\\(?:geq|geqslant|geqq)(?![A-Za-z])|>=", r"\\ge "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\\neq(?![A-Za-z])|!=|\\not\s*=", r"\\ne "),
        (r"^([-+]?[\d.]+)[eE]([-+]?\d+)$", r"\1\\times 10^{\2}"),
        (r"\\(?:dots|cdots|ldots|dotsc)(?![A-Za-z])|\.\.\.", r"\\ldots "),
        (r"\\[lr]?vert(?![A-Za-z])", "|"),
        (r"\\lbrace|\\rbrace", lambda found: "\\{" if found[0] == "\\lbrace" else "\\}"),
        (r"\\(?:langle|lparen)(?![A-Za-z])", "("),
        (r"\\(?:rangle|rparen)(?![A-Za-z])", ")"),
        (r"\\(?:lbrack)(?![A-Za-z])", "["),
        (r"\\(?:rbrack)(?![A-Za-z])", "]"),
        (r"\\(?:varnothing|O)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset "),
        (r"\\(?:degree|deg)(?![A-Za-z])|\^\s*\{\s*\\circ\s*\}|\^\s*\\circ(?![A-Za-z])", r"^\\circ "),
        (r"^\s*(?:=|\\approx(?![a-z])|\\sim(?![a-z]))\s*(?=\S)", ""),
        (r"\\var(phi|epsilon|theta|rho|sigma)(?![a-z])", r"\\\1"),
        (r"\\text\{\s*([A-J])\s*,\s*([A-J])\s*\}", r"\\text{\1}, \\text{\2}"),
        (r"\\[ij]math(?![A-Za-z])", "i"),
        (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
        (r"\\%", "%"),
        (r"\\tan\s*\^\s*\{?-1\}?", r"\\arctan "),
        (r"\\sin\s*\^\s*\{?-1\}?", r"\\arcsin "),
        (r"\\cos\s*\^\s*\{?-1\}?", r"\\arccos "),
        (r"\\begin\{[bB]matrix\}", r"\\begin{pmatrix}"),
        (r"\\end\{[bB]matrix\}", r"\\end{pmatrix}"),
        (rf"(?<![A-Za-z\\{{])({_PLAIN})(?![A-Za-z])", r"\\\1 "),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s+(\d+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"(?:\{|^)\s*([^{}]*?)\s*\\choose\s*([^{}]*?)\s*(?:\}|$)", r"\\binom{\1}{\2}"),
        (r"(?:(?<=^)|(?<=[^\d.]))(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),
        (r"\s+", " "),
    ]
]
_THOUSANDS = re.compile(r"(?<![\d.,])(?<!\d )[1-9]\d{0,2}(?:(?: ?, ?\d{3})+|(?: \d{3})+)(?![\d])(?! ?,\d)(?! \d)")
_MARKDOWN = re.compile(r"(\*\*|__|`+|\*)(?!\s)([^*`]+?)(?<!\s)\1")
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))


def normal_form(text: str) -> str:
    r"""One spelling of an answer: signs, spaces, fonts, Markdown, delimiters and thousands separators.

    Example:
        >>> normal_form("**$\\dfrac12$**."), normal_form("10\\,000"), normal_form("√3\\mathrm{i}")
        ('\\frac12', '10000', '\\sqrt{3}i')
    """
    text = _unwrap(_ascii(text))
    text = _FONT.sub(_font, text)
    text = re.sub(rf"\\(?!text\b)(?:{_FONTS})\s*(?=\{{)", "", text)
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    text = _unwrap(text)
    return join_thousands(text)


def join_thousands(text: str) -> str:
    """Join groups of three digits that commas or spaces set off; in brackets a comma separates places instead."""

    def joined(found: re.Match[str]) -> str:
        before = text[: found.start()]
        inside = len(re.findall(r"[(\[]|\\\{", before)) > len(re.findall(r"[)\]]|\\\}", before))
        return found[0] if inside and "," in found[0] else re.sub(r"[ ,]", "", found[0])

    return _THOUSANDS.sub(joined, text)


def _ascii(text: str) -> str:
    """Signs beyond ASCII as LaTeX; digits of every script as 0-9."""
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ]+", lambda run: f"^{{{run[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"[₀-₉]+", lambda run: f"_{{{run[0].translate(_SUBSCRIPTS)}}}", text)
    return "".join(character if character < "\x80" else _spelled(character) for character in text)


def _spelled(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    if unicodedata.decimal(character, None) is not None:
        return str(unicodedata.decimal(character))
    plain = unicodedata.normalize("NFKC", character)
    top, slash, bottom = plain.partition("⁄")
    if slash and top and bottom:
        return f"\\frac{{{top}}}{{{bottom}}}"
    return "".join(_SIGNS.get(sign, sign) for sign in plain)


def _unwrap(text: str) -> str:
    """Strip space, Markdown, math delimiters, superfluous braces and the punctuation behind them."""
    before = None
    while text != before:
        before = text
        text = re.sub(r"(?:(?<!\\left)(?<!\\right)(?<!\.)\.|\\\\|\\[,;!: ]|[,;\s])+$", "", text).strip()
        if (marked := _MARKDOWN.fullmatch(text)) and marked[2].strip("_"):
            text = marked[2]
        for opening, closing in _WRAPPERS:
            inner = text[len(opening) : -len(closing)]
            if text.startswith(opening) and text.endswith(closing) and inner and closing not in inner:
                text = inner
        if text.startswith("{") and closing_brace(text, 0) == len(text) - 1:
            text = text[1:-1]
    return text


def _font(found: re.Match[str]) -> str:
    """Words keep one command, ``\\text``; what is no word loses its font."""
    font, content = found[1], found[2]
    word = content.strip()
    if word in _PLAIN.split("|") and font != "text":
        return f"\\{word} "
    if word in ("i", "e") and font in ("text", "textrm", "mathrm", "operatorname"):
        return word
    if "\\" in content or not re.search(r"[A-Za-z]", content):
        return content
    number = re.match(r"\s*([-+]?\d[\d.,]*(?<![.,]))(?=\s)", content)  # \text{7 apples}
    return f"{number[1]}\\text{{{content[number.end() :]}}}" if number else f"\\text{{{content}}}"


# ---- brackets and items ----------------------------------------------------------------------------------------------


def closing_brace(text: str, start: int) -> int:
    """The place of the brace that closes the one at ``start``; -1 if none does."""
    depth = 0
    for place in range(start, len(text)):
        if text[place] in "{}" and (place == 0 or text[place - 1] != "\\"):
            depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return place
    return -1


def _depths(text: str) -> Iterator[tuple[int, int]]:
    """Each place with the number of brackets of any kind that are open before it."""
    depth = 0
    for place, character in enumerate(text):
        if character in ")]}":
            depth -= 1
        yield place, depth
        if character in "([{":
            depth += 1


def split_top(text: str, pattern: re.Pattern[str]) -> list[str]:
    """Split where the pattern matches outside all brackets."""
    outside = {place for place, depth in _depths(text) if depth == 0}
    parts, start = [], 0
    for found in pattern.finditer(text):
        if found.start() in outside and found.start() >= start:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]]


def brackets(text: str) -> tuple[str, str, str] | None:
    r"""The brackets that enclose the whole text, and what is in them; None if none do.

    Example:
        >>> brackets("(1,2]"), brackets("\\{a, b\\}"), brackets("(1)(2)")
        (('(', '1,2', ']'), ('\\{', 'a, b', '\\}'), None)
    """
    text = text.strip()
    for opening in ("(", "[", "\\{"):
        if text.startswith(opening):
            last = [place for place, depth in _depths(text) if depth == 0 and text[place] in ")]}"]
            if not last or last[0] != len(text) - 1:
                return None
            closing = "\\}" if text.endswith("\\}") else text[-1]
            if (opening == "\\{") != (closing == "\\}"):
                return None
            return opening, text[len(opening) : -len(closing)].strip(), closing
    return None


# ---- units -----------------------------------------------------------------------------------------------------------

_UNITS = """m meter metre|cm centimeter centimetre|mm millimeter millimetre|km kilometer kilometre|in inch inches|
ft foot feet|yd yard|mi mile|g gram|kg kilogram|lb lbs pound|oz ounce|ton tonne|s sec second|min minute|h hr hour|
day|week|month|year yr|L l liter litre|ml milliliter millilitre|gal gallon|dollar USD usd|cent|euro EUR eur|
GBP gbp|yen|yuan|rupee|degree deg|rad radian|mi/h mph|km/h kph kmh|m/s mps|Hz hertz|N newton|J joule|W watt|
V volt|A ampere amp|K kelvin|Pa pascal|C coulomb|mol mole|ohm|unit|percent pct|cup|acre|hectare|bit|byte|
person people|student"""
_UNIT_OF = {name: group.split()[0] for group in _UNITS.replace("\n", "").split("|") for name in group.split()}
_CURRENCY = {"\\$": "dollar", "$": "dollar", "€": "euro", "£": "GBP", "¥": "yen"}

_CHANGING = """or and to mod modulo if not no plus minus times less more than greater least most about approximately
around but except nor either neither thousand million billion trillion hundred dozen score half third quarter double
twice squared cubed factorial maybe perhaps between over under up below above without unless when where for all any some
k bn tens hundreds thousands millions dozens base choose cannot never st nd rd th"""
CHANGING_WORDS = frozenset(_CHANGING.split())
"""Words beside a number that change what the answer says, so that they are never taken for a unit."""

_POWER = r"\s*(?:\^\s*\{?(?P<power>\d)\}?)?$"
_TAIL_TEXT = re.compile(r"\s*\\text\{\s*\(?(?P<words>[A-Za-z][A-Za-z ./]*?)\)?\s*\}" + _POWER)
_TAIL_WORDS = re.compile(r"(?<=[\d})!]) ?\(?(?P<words>(?:m/s|ft/s|[A-Za-z]{2,}\.?)(?:[ /][A-Za-z]+){0,3})\)?" + _POWER)


def split_unit(text: str) -> tuple[str, str | None]:
    r"""The value and the unit behind it (or the currency before it) in one spelling; None without one.

    A bare single letter is a variable and stays with the value; in ``\text{}`` it is a unit.

    Example:
        >>> split_unit("12 cm^2"), split_unit("5\\text{ m}"), split_unit("5m"), split_unit("\\$3")
        (('12', 'cm^2'), ('5', 'm'), ('5m', None), ('3', 'dollar'))
    """
    text = text.strip()
    for sign, unit in _CURRENCY.items():
        if text.removeprefix("-").startswith(sign):
            return join_thousands(text.replace(sign, "", 1).strip()), unit
        if text.endswith(sign) and len(text) > len(sign):
            return text[: -len(sign)].strip(), unit
    if text.endswith("%"):
        return text[:-1].strip(), "percent"
    if text.endswith("^\\circ") and not re.search(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc)", text):
        return text[: -len("^\\circ")].strip(), "degree"
    found = _TAIL_TEXT.search(text) or _TAIL_WORDS.search(text)
    value = text[: found.start()].strip() if found else ""
    if not found or not value or re.fullmatch(r"[-+]?\d{1,2}:\d{2}", value):
        return text, None
    words = re.split(r"[ /]+", found["words"])
    if any(word.lower().strip(".") in CHANGING_WORDS for word in words):
        return text, None
    plain = re.fullmatch(r"[-+]?[\d.,]+ .*", text) and len(found["words"]) >= 4
    if found.re is _TAIL_WORDS and not plain and not _is_unit(words[0]):
        return text, None
    return value, unit_name(found["words"], found["power"])


def _is_unit(word: str) -> bool:
    return word.strip(".") in _UNIT_OF or _singular(word) in _UNIT_OF


def known_unit(unit: str) -> bool:
    """Whether a unit is one of those that differ from each other, rather than a word for what is counted."""
    return all(re.sub(r"\^\d", "", part) in _UNIT_OF for part in unit.split("/")) or unit in _UNIT_OF


def unit_name(words: str, power: str | None = None) -> str | None:
    """One name for the spellings of a unit; None for words that say only that there is one."""
    exponent = power or ""
    parts = []
    for word in re.sub(r"\bper\b", "/", words.strip(" .")).replace("/", " / ").split():
        if word.lower() in ("square", "sq", "sq.", "cubic", "cu"):
            exponent = "2" if word.lower().startswith("sq") else "3"
            continue
        name = word.strip(".")
        parts.append(_UNIT_OF.get(name) or _UNIT_OF.get(_singular(name)) or _singular(name))
    name = " ".join(parts).replace(" / ", "/")
    if name in ("unit", ""):
        return None
    return name + (f"^{exponent}" if exponent else "")


def _singular(word: str) -> str:
    word = word.lower()
    return word[:-1] if word.endswith("s") and len(word) > 3 else word
