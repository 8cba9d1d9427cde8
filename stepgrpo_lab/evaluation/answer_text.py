r"""Normal forms of boxed answers: one spelling for what LaTeX, Unicode, Markdown and plain text spell in many ways.

Nothing here decides anything. :func:`normal_form` rewrites signs, spaces, fonts and thousands separators; the rest
takes an answer apart into its brackets, its items and the unit behind a number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby

_SPELLINGS = r"""
\frac \dfrac \tfrac \cfrac|\binom \dbinom \tbinom|\cdot \ast \cdotp \bullet · ⋅ ∙ • *|\times × ✕ ⨯|/ \div ÷ ⁄ ∕
\le \leq \leqslant \leqq ≤ ⩽ ≦ <=|\ge \geq \geqslant \geqq ≥ ⩾ ≧ >=|\ne \neq \not= ≠ !=|< \lt|> \gt|= \equiv ≡|- −
\ldots \dots \cdots \dotsc … ...|\{ \lbrace|\} \rbrace|( \langle \lparen ⟨ 〈|) \rangle \rparen ⟩ 〉|[ \lbrack|] \rbrack
\emptyset \varnothing \O ∅ ⌀|^\circ \degree \deg ^{\circ} ° º ˚|\approx ≈|\pm ±|\mp ∓|\cup ∪|\cap ∩|\in ∈|\setminus ∖
\sqrt √|\sqrt[3] ∛|\infty ∞|\angle ∠|\mathbb{R} ℝ|\mathbb{Z} ℤ|\phi \varphi ϕ|\epsilon \varepsilon ϵ|\theta \vartheta
% \%|, 、|i \imath \jmath|\overline \bar"""
"""On the left of each group the sign or command that stands for the others."""
_SPELLED = {
    other: group.split()[0] for group in re.split(r"[|\n]", _SPELLINGS) for other in group.split()[1:]
} | dict.fromkeys((r"\lvert", r"\rvert", r"\vert"), "|")
_SPELLING = re.compile(
    "|".join(re.escape(each) + r"(?![A-Za-z])" * (each[0] == "\\") for each in sorted(_SPELLED)[::-1])
)

_PLAIN = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|cis|sqrt|pi|infty"
"""Words that plain text may write without their backslash, the longest first."""

_FONTS = (
    "text|textbf|textit|textrm|textsf|texttt|textnormal|mbox|mathrm|mathbf|mathit|mathsf|boldsymbol|bm|operatorname"
    "|underline|emph"
)
_FONT = re.compile(rf"\\({_FONTS})\s*\{{([^{{}}]*)\}}")
_REWRITES = [
    (re.compile(pattern), new)
    for pattern, new in [
        (
            r"\\(?:left|right|[bB]igg?[lrm]?|(?:display|text)style|limits|bf|rm|it|[Ll]arge)(?![A-Za-z])(?:\s*\.(?!\d))?",
            "",
        ),
        (r"(?<!\\)\\!|\\boxed(?=\{)", ""),
        (r"\{\s*,\s*\}", ","),
        (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![A-Za-z])|\\thinspace|\\[hp](?:space|hantom)\{[^{}]*\}", " "),
        (r"^([-+]?[\d.]+)[eE]([-+]?\d+)$", r"\1\\times 10^{\2}"),
        (r"\\\{\s*\\\}|(?i:^(?:\\text\{)?\s*(?:there (?:is|are) )?(?:no solutions?|empty set)\s*\}?$)", r"\\emptyset "),
        (r"^\\text\{([A-J](?:\s*(?:,|and)\s*[A-J])+)\}$", r"\1"),
        (r"(?i)^(?:\\text\{)?\s*all real(?: number)?s\s*\}?$", r"\\mathbb{R}"),
        (r"^\s*(?:=|\\approx(?![a-z])|\\sim(?![a-z]))\s*(?=\S)", ""),
        (r"^(.*[\d}])\s*\\approx[^,]*$", r"\1"),
        (r"\\mathbb\s*([A-Z])", r"\\mathbb{\1}"),
        (r"\\mathbb\{R\}\s*-\s*(?=\\\{)", r"\\mathbb{R}\\setminus "),
        (r"\\(sin|cos|tan)\s*\^\s*\{?-1\}?", r"\\arc\1 "),
        (r"\\(begin|end)\{(?:[bB]?matrix|array)\}(?:\{[lcr]+\})?", r"\\\1{pmatrix}"),
        (rf"(?<![A-Za-z\\{{])({_PLAIN})(?![A-Za-z])", r"\\\1 "),
        (r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"\\sqrt\s+(\d+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"(?:\{|^)\s*([^{}]*?)\s*\\choose\s*([^{}]*?)\s*(?:\}|$)", r"\\binom{\1}{\2}"),
        (r"^(?:\{\})?[_^]\{?(\w+)\}?\s*C\s*_\s*\{?(\w+)\}?$|^C_\{?(\d+)\}?\^\{?(\d+)\}?$", r"\\binom{\1\3}{\2\4}"),
        (
            r"(?<!\d)(\d*\.\d{0,9}?)(?:\\(?:overline|dot)\s*\{?(\d+)\}?|\((\d+)\)|((\d)\5\5|(\d{2,9}?)\6)(?:\5|\6)*\s*\\ldots)",
            r"\1\\overline{\2\3\5\6}",
        ),
        (r"^(\d{1,2})(?=\s*(?:\\text\{\s*)?[apAP]\.?[mM]\b)", r"\1:00"),
        (r"(?:(?<=^)|(?<=[^\d.]))(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])", r"\1\\frac{\2}{\3}"),
        (r"[(\[]\s*(\\begin\{pmatrix\}.*\\end\{pmatrix\})\s*[)\]]", r"\1"),
        (r"\s+", " "),
    ]
]
_THOUSANDS = re.compile(r"(?<![\d.,])(?<!\d )[1-9]\d{0,2}(?:(?: ?, ?\d{3})+|(?: \d{3})+)(?![\d])(?! ?,\d)(?! \d)")
_MARKDOWN = re.compile(r"(\*\*|__|`+|\*)(?!\s)([^*`]+?)(?<!\s)\1")
_WRAPPERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMERALS = {word: value for value, word in enumerate(_ONES.split())}
NUMERALS |= {word: 20 + 10 * place for place, word in enumerate(_TENS.split())}
_NUMERAL = re.compile(
    rf"(?:\\text\{{)?\s*(?:({'|'.join(_TENS.split())})\b[ -]?)?(?:({'|'.join(_ONES.split())})\b)?([a-z ]*)\}}?",
    re.IGNORECASE,
)


def normal_form(text: str) -> str:
    r"""One spelling of an answer: signs, spaces, fonts, Markdown, delimiters, numerals and thousands separators.

    Example:
        >>> normal_form("**$\\dfrac12$**."), normal_form("10\\,000"), normal_form("√3\\mathrm{i}"), normal_form("six")
        ('\\frac12', '10000', '\\sqrt{3}i', '6')
    """
    text = _SPELLING.sub(_spelled, _unwrap(_ascii(text)))
    text = _FONT.sub(_font, text)
    text = re.sub(rf"\\(?!text\b)(?:{_FONTS})\s*(?=\{{)", "", text)
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    text = _unwrap(text)
    if (numeral := _NUMERAL.fullmatch(text)) and (numeral[1] or numeral[2]):
        value = sum(NUMERALS[word.lower()] for word in numeral.groups()[:2] if word)
        text = f"{value}\\text{{{numeral[3]}}}" if numeral[3].strip() else str(value)
    return join_thousands(text)


def join_thousands(text: str) -> str:
    """Join groups of three digits that commas or spaces set off; in brackets a comma separates places instead."""

    def joined(found: re.Match[str]) -> str:
        before = text[: found.start()]
        inside = len(re.findall(r"[(\[]|\\\{", before)) > len(re.findall(r"[)\]]|\\\}", before))
        return found[0] if inside and "," in found[0] else re.sub(r"[ ,]", "", found[0])

    return _THOUSANDS.sub(joined, text)


def _spelled(found: re.Match[str]) -> str:
    new = _SPELLED[found[0]]
    return new + " " * (found[0][0] != "\\" and new[-1].isalpha())


def _ascii(text: str) -> str:
    """Signs beyond ASCII as LaTeX; digits of every script as 0-9."""

    def script(character: str) -> str:
        return "" if character in _SPELLED else unicodedata.decomposition(character).partition(" ")[0]

    raised = {"<super>": "^{%s}", "<sub>": "_{%s}"}
    return "".join(raised.get(kind, "%s") % "".join(map(_plain, run)) for kind, run in groupby(text, script))


def _plain(character: str) -> str:
    """A sign beyond ASCII that no table has, by what Unicode says of it."""
    if character < "\x80" or character in _SPELLED:
        return character
    if greek := re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(character, "")):
        name = greek[2].lower().replace("lamda", "lambda")
        return f"\\{name if greek[1] == 'SMALL' else name.title()} "
    match unicodedata.category(character):
        case "Pd":
            return "-"
        case "Nd":
            return str(unicodedata.decimal(character))
        case "Cf":
            return ""
    top, slash, bottom = unicodedata.normalize("NFKC", character).partition("⁄")
    return f"\\frac{{{top}}}{{{bottom}}}" if slash and top and bottom else top + slash + bottom


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
        if text.startswith("{") and _enclosed(text):
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
    found = re.fullmatch(r"(\(|\[|\\\{)(.*?)(\)|\]|\\\})", text.strip(), re.DOTALL)
    if not found or not _enclosed(found[0]) or (found[1] == "\\{") != (found[3] == "\\}"):
        return None
    return found[1], found[2].strip(), found[3]


def _enclosed(text: str) -> bool:
    """Whether the bracket that opens a text closes at its end."""
    return next((place for place, depth in _depths(text) if depth == 0 and text[place] in ")]}"), -1) == len(text) - 1


# ---- units -----------------------------------------------------------------------------------------------------------

_UNITS = """m meter metre|cm centimeter centimetre|mm millimeter millimetre|km kilometer kilometre|in inch inches|
ft foot feet|yd yard|mi mile|g gram|kg kilogram|lb lbs pound|oz ounce|ton tonne|s sec second|min minute|h hr hour|
day|week|month|year yr|L l liter litre|ml milliliter millilitre|gal gallon|dollar USD usd|cent|euro EUR eur|
GBP gbp|yen|yuan|rupee|degree deg|rad radian|mi/h mph|km/h kph kmh|m/s mps|Hz hertz|N newton|J joule|W watt|
V volt|A ampere amp|K kelvin|Pa pascal|C coulomb|mol mole|ohm|unit|percent pct|cup|acre|hectare|bit|byte|eV|
person people|student|am a.m AM A.M|pm p.m PM P.M"""
_UNIT_OF = {name: group.split()[0] for group in _UNITS.replace("\n", "").split("|") for name in group.split()}
_CURRENCY = {"\\$": "dollar", "$": "dollar", "€": "euro", "£": "GBP", "¥": "yen"}

_CHANGING = """or and to mod modulo if not no plus minus times less more fewer than greater least most about around
approximately roughly nearly almost maybe perhaps possibly between over under up below above without unless when where
for all any some but except nor either neither cannot never base choose point squared cubed factorial twice double
score wrong dozen dozens tens hundred hundreds thousand thousands k million millions billion bn trillion half halves
third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths
tenth tenths st nd rd th"""
CHANGING_WORDS = frozenset(_CHANGING.split())
"""Words beside a number that change what the answer says, so that they are never taken for a unit."""

_POWER = r"\s*(?:\^\s*\{?(?P<power>\d)\}?)?$"
_TAIL_TEXT = re.compile(r"\s*\\text\{\s*\(?(?P<words>[A-Za-z][A-Za-z ./^\d]*?)\)?\s*\}" + _POWER)
_TAIL_WORDS = re.compile(
    r"(?<=[\d})!]) ?\(?(?P<words>(?:m/s|ft/s|[ap]\.m\b|[A-Za-z]{2,}\.?)(?:[ /][A-Za-z]+){0,3})\.?\)?" + _POWER
)
_BASE = re.compile(
    r"(?:\\text\{\s*)?\(?(\d+|[0-9A-F]+(?=\W*_\D*1\d\D*$))\)?\s*\}?\s*_\s*\{?\s*(?:\\text\{\s*)?(?:base\s*)?\(?(\d+|[a-z]+)\)?[}\s]*"
)
_MODULUS = re.compile(r"(.+?)\s*\(?\s*\\[pb]?mod\s*\{?\s*(\w+)\s*\}?\s*\)?")


def split_unit(text: str) -> tuple[str, str | None]:
    r"""The value and the unit behind it (or the currency before it) in one spelling; None without one.

    A bare single letter is a variable and stays with the value; in ``\text{}`` it is a unit. The base of a numeral, a
    modulus and the half of a day are units too: they may be left off, and they must not differ.

    Example:
        >>> split_unit("12 cm^2"), split_unit("5\\text{ m}"), split_unit("5m"), split_unit("\\$3")
        (('12', 'cm^2'), ('5', 'm'), ('5m', None), ('3', 'dollar'))
        >>> split_unit("2041_{5}"), split_unit("3 \\pmod{7}")
        (('2041', 'base 5'), ('3', 'mod 7'))
    """
    text = text.strip()
    if numeral := _BASE.fullmatch(text):
        digits = numeral[1] if numeral[1].isdigit() else f"\\text{{{numeral[1]}}}"
        return digits, f"base {NUMERALS.get(numeral[2], numeral[2])}"
    if residue := _MODULUS.fullmatch(text):
        return residue[1], f"mod {residue[2]}"
    for sign, unit in _CURRENCY.items():
        if text.removeprefix("-").startswith(sign):
            return join_thousands(split_unit(text.replace(sign, "", 1))[0]), unit
        if text.endswith(sign):
            return text[: -len(sign)].strip(), unit
    if text.endswith("%"):
        return text[:-1].strip(), "percent"
    if text.endswith("^\\circ") and not re.search(r"\\(?:arc)?(?:sin|cos|tan|cot|sec|csc|cis)", text):
        return text[: -len("^\\circ")].strip(), "degree"
    found = _TAIL_TEXT.search(text) or _TAIL_WORDS.search(text)
    value = text[: found.start()].strip() if found else ""
    if not found or not value:
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


def units_differ(one: str | None, other: str | None) -> bool:
    """Whether both are units that differ from each other, rather than words for what is counted."""
    return one is not None and other is not None and one != other and _known(one) and _known(other)


def _known(unit: str) -> bool:
    parts = re.sub(r"\^\d", "", unit).split("/")
    return unit.startswith(("base ", "mod ")) or unit in _UNIT_OF or all(part in _UNIT_OF for part in parts)


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
