"""Chat templates: programs that come with a stranger's tokenizer, run within bounds of time, size and reach.

Jinja's sandbox keeps a template from Python's internals, but lets it loop and build text for ever. So here a template's
syntax tree is rewritten before it is compiled: whatever makes a value or repeats something asks a meter, which ends the
rendering once it has made too much or taken too long. What could make much of little in one step (``'a' * 10**9``,
filters that pad) is measured first, or is not there. Real templates render as with transformers, and use a thousandth
of what they may.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, update_wrapper
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

MOST_SOURCE = 32 * 1024
"""Most characters of a template; the longest of the known models has 20,000."""

MOST_WORK, WORK_PER_CHARACTER = 4_000_000, 100
"""What a rendering may make in all, in characters, and what more for each character of the messages."""

MOST_SECONDS, SECONDS_PER_CHARACTER = 0.75, 2e-5
"""Processor time of a rendering. The work is counted, so only a trap comes near."""

ITEM = 8
"""What an item of a list, or a step, counts beside its content."""

MOST_BITS, MOST_POWER, MOST_INDENT = 256, 64, 8
"""Largest integer, exponent, and indentation of JSON."""


class TemplateLimit(ValueError):
    """A template wants more than a chat could need."""


def render_chat(template: str, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any]) -> str:
    """The prompt that a chat template makes of messages.

    Args:
        template: Its source.
        messages: With ``role`` and ``content``.
        variables: What else it sees: special tokens, ``add_generation_prompt``, options.

    Raises:
        ValueError: It does not compile, refuses the messages, or goes on without end; one line.

    Example:
        >>> render_chat("{{ messages[0].content }}!", [{"role": "user", "content": "1+1?"}], {})
        '1+1?!'
        >>> render_chat("{{ 'a' * 10**9 }}", [{"role": "user", "content": "1+1?"}], {})
        Traceback (most recent call last):
        ...
        ValueError: the chat template makes too much text or too many steps of one chat
    """
    plain = [{key: value for key, value in message.items() if value is not None} for message in messages]
    token = None
    try:
        compiled = _compiled(template)
        token = _METER.set(_Meter(sum(len(text) for message in plain for text in message.values())))
        return compiled.render(**{"tools": None, "documents": None, **variables, "messages": plain})
    except TemplateLimit as limit:
        raise ValueError(str(limit)) from None
    except Exception as error:  # Jinja's errors have no base class of ours, and a template may raise its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the chat template refuses the messages ({reason[:200]})") from error
    finally:
        if token is not None:
            _METER.reset(token)


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    if len(source) > MOST_SOURCE:
        raise TemplateLimit(f"the chat template has {len(source)} characters: at most {MOST_SOURCE} are read")
    environment = _Bounded()
    code = environment.compile(_Metering().visit(environment.parse(source)))
    return environment.template_class.from_code(environment, code, environment.make_globals(None))


# ---- the meter -------------------------------------------------------------------------------------------------------


class _Meter:
    """What a rendering of so many characters may still make."""

    def __init__(self, characters: int) -> None:
        self.left: float = MOST_WORK + WORK_PER_CHARACTER * characters
        self.deadline = time.thread_time() + MOST_SECONDS + SECONDS_PER_CHARACTER * characters

    def charge(self, work: float) -> None:
        self.left -= work + ITEM
        if self.left < 0:
            raise TemplateLimit("the chat template makes too much text or too many steps of one chat")
        if time.thread_time() > self.deadline:
            raise TemplateLimit("the chat template takes too long for one chat")

    def made(self, value: Any) -> Any:
        """A value that a template has made, once it is paid for."""
        self.charge(self.weight(value, self.left))
        return value

    def weight(self, value: Any, most: float) -> float:
        """The size of a value with all it holds; no more than about ``most`` is looked at."""
        if isinstance(value, (str, bytes)):
            return len(value)
        if isinstance(value, int) and value.bit_length() > MOST_BITS:
            raise TemplateLimit("the chat template computes with huge numbers")
        if isinstance(value, range):
            return ITEM * len(value)
        if not isinstance(value, (list, tuple, dict)):
            return 1
        total: float = 0
        for item in (part for pair in value.items() for part in pair) if isinstance(value, dict) else value:
            total += ITEM + self.weight(item, most - total)
            if total > most:
                break
        return total


_METER: ContextVar[_Meter] = ContextVar("meter")


def _charge(work: float) -> None:
    _METER.get().charge(work)


@pass_context  # so that Jinja does not compute it while compiling
def _made(context: Any, value: Any) -> Any:
    """The filter that every value passes which a template makes."""
    return _METER.get().made(value)


@pass_context
def _written(context: Any, length: int) -> str:
    """Stands beside literal text, which a loop may write again and again."""
    _charge(length)
    return ""


@pass_context
def _concatenated(context: Any, values: Sequence[Any]) -> str:
    return "".join(str(_METER.get().made(value)) for value in values)


MADE, WRITTEN, CONCATENATED = "<made>", "<written>", "<concatenated>"
"""Names of filters that no template can write."""


class _Metering(NodeTransformer):
    """Puts the filters above around everything that makes a value or repeats something."""

    def generic_visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        node = super().generic_visit(node, *args, **kwargs)
        makes = isinstance(node, (nodes.Compare, nodes.Test, nodes.Dict, nodes.CondExpr))
        makes |= isinstance(node, (nodes.List, nodes.Tuple)) and getattr(node, "ctx", "load") == "load"
        makes |= isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        return _filtered(node, MADE) if makes else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        inner = [self.visit(child) for child in node.nodes]
        return _filtered(nodes.List(inner, lineno=node.lineno), CONCATENATED)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        literal = sum(len(child.data) for child in node.nodes if isinstance(child, nodes.TemplateData))
        inner = [
            child if isinstance(child, nodes.TemplateData) else _filtered(self.visit(child), MADE)
            for child in node.nodes
        ]
        counted = _filtered(nodes.Const(literal, lineno=node.lineno), WRITTEN)
        return nodes.Output([counted, *inner], lineno=node.lineno)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _filtered(node.iter, MADE)
        node.body.insert(0, nodes.ExprStmt(_filtered(nodes.Const(0, lineno=node.lineno), WRITTEN), lineno=node.lineno))
        if node.test is not None:
            node.test = _filtered(node.test, MADE)
        return node


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


# ---- what a template may use -----------------------------------------------------------------------------------------

TEXT_METHODS = (
    "capitalize count endswith find index isalnum isalpha isdecimal isdigit islower isnumeric isspace istitle"
)
TEXT_METHODS += " isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit"
TEXT_METHODS += " rstrip split splitlines startswith strip swapcase title upper"
METHODS: dict[type, set[str]] = {
    str: set(TEXT_METHODS.split()),
    list: {"count", "index"},
    tuple: {"count", "index"},
    dict: {"copy", "get", "items", "keys", "values"},
    LoopContext: {"cycle", "changed"},
    Cycler: {"next", "reset"},
}
"""What may be called of each type: nothing that makes much of little."""

SAFE_FILTERS = "abs attr capitalize count d default dictsort e escape first float forceescape groupby int items last"
SAFE_FILTERS += " length list lower map max min reject rejectattr reverse safe select selectattr sort string title trim"
SAFE_FILTERS += " truncate unique upper wordcount"


def _replaced(text: Any, old: Any, new: Any, count: int | None = -1) -> str:
    """As in Jinja, the result paid for before it is made."""
    text, old, new = str(text), str(old), str(new)
    _charge(len(text) + max(0, len(new) - len(old)) * text.count(old))
    return text.replace(old, new, -1 if count is None else count)


def _joined(values: Iterable[Any], separator: Any = "", attribute: Any = None) -> str:
    separator, parts = str(separator), []
    for value in values:
        parts.append(str(_METER.get().made(value if attribute is None else _item(value, attribute))))
        _charge(len(separator))
    return separator.join(parts)


_REPLACED_METHODS: dict[str | None, Callable[..., str]] = {
    "replace": _replaced,
    "join": lambda separator, values: _joined(values, separator),
}
"""Methods of text that can make much of little, and what stands in for them."""


def _item(value: Any, attribute: Any) -> Any:
    return value[attribute] if isinstance(value, (dict, list)) else ""


def _indented(text: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
    _charge(len(str(text)) + (str(text).count("\n") + 1) * int(width))
    return str(FILTERS["indent"](str(text), int(width), first, blank))


def _rounded(value: Any, precision: int = 0, method: str = "common") -> Any:
    return FILTERS["round"](value, max(0, min(int(precision), MOST_POWER)), method)


def _json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Not Jinja's filter, which escapes for HTML, but transformers'; written in parts, each of which is paid for."""
    if indent is not None and not (isinstance(indent, int) and 0 <= indent <= MOST_INDENT):
        raise TemplateLimit(f"the chat template indents JSON by more than {MOST_INDENT}")
    encoder = json.JSONEncoder(
        ensure_ascii=bool(ensure_ascii), indent=indent, separators=separators, sort_keys=bool(sort_keys)
    )
    return "".join(_METER.get().made(part) for part in encoder.iterencode(value))


def _now(form: str) -> str:
    if len(form) > 100:
        raise TemplateLimit("the chat template asks for a date in more than 100 characters")
    return datetime.now().strftime(form)


def _raise(message: str) -> None:
    raise TemplateError(message)


class _Names(Namespace):
    """A namespace that takes no name of Python's internals."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that a template may set "self"
        for name in dict(*args[1:], **kwargs):
            _Names._check(name)
        Namespace.__init__(args[0], *args[1:], **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _Names._check(name)
        super().__setitem__(name, value)

    @staticmethod
    def _check(name: Any) -> None:
        if str(name).startswith("_"):
            raise TemplateError(f"a namespace cannot hold {str(name)[:40]!r}")


def _dictionary(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(*args, **kwargs)


class _Generation(Extension):
    """``{% generation %}`` marks the assistant's text for a training that this package does not do."""

    tags = {"generation"}  # noqa: RUF012  (so Jinja has it)

    def parse(self, parser: Parser) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Bounded(ImmutableSandboxedEnvironment):
    """Jinja with transformers' settings and names, and nothing that makes much of little."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, loopcontrols])
        known: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in SAFE_FILTERS.split()}
        known |= {"replace": _replaced, "join": _joined, "indent": _indented, "round": _rounded, "tojson": _json}
        known["sum"] = lambda values: sum(values)
        self.filters = {name: _paid(filter_) for name, filter_ in known.items()}
        self.filters |= {MADE: _made, WRITTEN: _written, CONCATENATED: _concatenated}
        self.callables = [_now, _raise, _dictionary, self.globals["range"], _Names, Joiner, Cycler]
        names = ("strftime_now", "raise_exception", "dict", "range", "namespace", "joiner", "cycler")
        self.globals = dict(zip(names, self.callables, strict=True))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        _BEFORE.get(operator, _nothing)(left, right)
        return _METER.get().made(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Any:
        return None

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _charge(0)
        name = _method_of(__obj)
        if name in _REPLACED_METHODS:
            for inner in ("_loop_vars", "_block_vars"):  # what compiled templates pass to every call
                kwargs.pop(inner, None)
            return _METER.get().made(_REPLACED_METHODS[name](__obj.__self__, *args, **kwargs))
        if name is None and __obj not in __self.callables and not isinstance(__obj, (Macro, LoopContext, Joiner)):
            raise TemplateError(f"a chat template cannot call {str(getattr(__obj, '__name__', __obj))[:60]!r}")
        return _METER.get().made(super().call(__context, __obj, *args, **kwargs))


def _method_of(callee: Any) -> str | None:
    """The name of a method that may be called; None for what is no method, or none of these."""
    if not isinstance(callee, (MethodType, BuiltinMethodType)):
        return None
    allowed: set[str] = next((names for kind, names in METHODS.items() if isinstance(callee.__self__, kind)), set())
    return callee.__name__ if callee.__name__ in allowed else None


def _paid(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose results are paid for: a generator's one by one."""

    def paid(*args: Any, **kwargs: Any) -> Any:
        _charge(0)
        result = filter_(*args, **kwargs)
        return _each(result) if isinstance(result, Iterator) else _METER.get().made(result)

    return update_wrapper(paid, filter_)  # with Jinja's marks for what it is passed


def _each(values: Iterator[Any]) -> Iterator[Any]:
    for value in values:
        yield _METER.get().made(value)


def _before_product(left: Any, right: Any) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, (str, bytes, list, tuple)) and isinstance(times, int):
            _charge(_METER.get().weight(value, _METER.get().left) * max(0, times))


def _before_power(left: Any, right: Any) -> None:
    if not (abs(right) <= MOST_POWER and abs(left) <= 2**MOST_POWER):
        raise TemplateLimit("the chat template computes with huge numbers")


def _before_remainder(left: Any, right: Any) -> None:
    if isinstance(left, str):
        raise TemplateError("a chat template cannot format with %: join the parts with ~")


def _nothing(left: Any, right: Any) -> None: ...


_BEFORE = {"*": _before_product, "**": _before_power, "%": _before_remainder}
