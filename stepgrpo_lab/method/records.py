"""Plain records, one for each station that the data passes.

``Problem`` -> prompt ids -> ``Trajectory`` (with its ``Probe`` records and ``Cost``) -> ``Outcome`` -> group ->
rewards.

Every record is a data class of Python builtins: printable, comparable, and JSON-able through :func:`to_json` and
:func:`from_json`, so each station can be recorded, replayed and tested without the others.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

CloseReason = Literal["natural", "early", "near_budget", "budget"]
"""Why the thoughts ended: the policy closed them itself, a confident probe, a probe near the budget, or the budget."""

FinishReason = Literal["eos", "length"]
"""Why the completion ended: an end-of-sequence token, or the completion limit (then it counts as truncated)."""

StepLabel = Literal["needed", "verifying", "redundant", "malformed", "spoiling"]
"""Whether a semantic step was needed, where the truth is known."""


_repr = reprlib.Repr()
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 4
_repr.maxstring = _repr.maxother = 60


class ShortRepr:
    """For data classes with long lists: a repr of a few lines, in which the lists and texts are cut."""

    def __repr__(self) -> str:
        fields = dataclasses.fields(cast(Any, self))
        parts = [f"{field.name}={_repr.repr(getattr(self, field.name))}" for field in fields if field.repr]
        return f"{type(self).__name__}({', '.join(parts)})"


@dataclass(frozen=True)
class Problem:
    """One problem with its gold answer.

    Attributes:
        id: Unique name of the problem inside its data set.
        prompt: The question as the user writes it (no chat template, no suffix).
        answer: The gold answer, LaTeX or plain text, without ``\\boxed``.
        family: Kind of problem, for tables ("chain", "search", "gsm8k", ...).
        level: Difficulty, larger is harder; None where unknown.
        meta: Whatever a verifier needs to know (JSON-able).
    """

    id: str
    prompt: str
    answer: str
    family: str = ""
    level: int | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """One semantic step of a completion.

    Attributes:
        index: 0 for the text before the first marker.
        marker: The marker that opens the step; None for step 0.
        text: The step's text, its marker included.
        start, end: Character span in the completion's text, ``text == completion[start:end]``.
        token_start, token_end: Half-open token span; None when the step was split from text alone.
    """

    index: int
    marker: str | None
    text: str
    start: int
    end: int
    token_start: int | None = None
    token_end: int | None = None


@dataclass(frozen=True, repr=False)
class Probe(ShortRepr):
    """One trial answer (the PROBE phase), which leaves no trace in the trajectory when it is declined.

    Attributes:
        position: Number of kept completion tokens when the probe began (its place in the trajectory).
        step: How many semantic steps had been finished (1 at the first marker).
        marker: The marker that was held back.
        token_ids: The greedy tokens, the inducing prompt not included.
        probabilities: Top-1 probability of each of them, raw logits at temperature 1.
        text: Decoded ``token_ids``.
        answer: What stands in the box; None if no box was completed.
        closed: Whether the probe ended as its preset asks for (official: ``</think>``; paper: a completed box).
        confidence: Score of the preset's rule (Eq. 2), in [0, 1]; what the exit compares with its threshold.
        joint: Joint probability of the boxed answer and its closing brace, in [0, 1]: the calibrated quantity.
        accepted: Whether the thoughts were closed here.
        opening: How many leading tokens hold nothing of the answer (white space, the brace that opens the box): only
            these may be left out of a score (see :class:`stepgrpo_lab.method.confidence.ExitRule`).
    """

    position: int
    step: int
    marker: str
    token_ids: list[int]
    probabilities: list[float]
    text: str
    answer: str | None
    closed: bool
    confidence: float
    joint: float
    accepted: bool
    opening: int = 0


@dataclass
class Cost:
    """What a rollout fed through the model, in tokens (one token fed = one row of one forward pass).

    Attributes:
        prompt_tokens: Prefill.
        kept_tokens: Length of the finished completion.
        probe_tokens: Tokens fed for probes: inducing prompts and trial answers.
        replayed_tokens: Held-back tokens fed a second time after a declined probe, and kept tokens that were dropped.
        forward_passes: Forward passes of the whole batch; 0 on the record of a single trajectory.
    """

    prompt_tokens: int = 0
    kept_tokens: int = 0
    probe_tokens: int = 0
    replayed_tokens: int = 0
    forward_passes: int = 0

    @property
    def decoded_tokens(self) -> int:
        """Everything but the prompts: the net price of a rollout."""
        return self.kept_tokens + self.probe_tokens + self.replayed_tokens

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclass(repr=False)
class Trajectory(ShortRepr):
    """One finished completion, with all that happened on the way.

    Attributes:
        prompt_ids, completion_ids: Token ids; the completion includes its end-of-sequence token if there is one.
        logprobs: For each completion token its log-probability at the sampling temperature, before top-p and top-k;
            None for a token that was forced (or greedy, when it came from an accepted probe).
        text: The decoded completion, special tokens kept.
        steps: Number of semantic steps, Eq. 3.
        close: Why the thoughts ended; None if they never did.
        finish: Why the completion ended.
        probed: Whether this trajectory was allowed to probe at all.
        probes: Every probe, in order.
        cost: Tokens fed for it.
        dropped: Tokens that had been sampled where an accepted probe then ended the thoughts: the held-back marker and
            its lookahead. With them a trajectory can be replayed (see :mod:`stepgrpo_lab.recordings.replay`).
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float | None]
    text: str
    steps: int
    close: CloseReason | None
    finish: FinishReason
    probed: bool = False
    probes: list[Probe] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    dropped: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Length of the completion in tokens."""
        return len(self.completion_ids)

    @property
    def forced(self) -> list[bool]:
        """For each completion token, whether it was put there instead of sampled."""
        return [logprob is None for logprob in self.logprobs]


@dataclass(frozen=True)
class Outcome:
    """What the reward and the evaluation need to know of one completion.

    Attributes:
        correct: The answer after the close equals the gold answer.
        formatted: A non-empty box follows the first ``</think>`` (the format term of Eq. 5).
        steps: Number of semantic steps, Eq. 3.
        tokens: Completion length in tokens.
        answer: The extracted answer; None if there is none.
        truncated: The completion hit its limit.
        close: Why the thoughts ended; None if they never did.
    """

    correct: bool
    formatted: bool
    steps: int
    tokens: int
    answer: str | None = None
    truncated: bool = False
    close: CloseReason | None = None


Record = TypeVar("Record")


def to_json(record: Any) -> dict[str, Any]:
    """Turn any record into a JSON-able dictionary.

    Example:
        >>> to_json(Problem("p1", "1+1?", "2"))["answer"]
        '2'
    """
    return dataclasses.asdict(record)


LARGEST = 1e18
"""Numbers beyond it are mistakes or traps: nothing that is counted or measured here comes near."""

DEEPEST = 32
"""Levels of nesting in a value whose shape is free."""


def from_json(kind: type[Record], data: Any) -> Record:
    """Rebuild a record of type ``kind`` from :func:`to_json`'s dictionary, checking every field at every depth.

    Args:
        kind: A data class; a ``TypedDict``, whose objects may hold more fields than it names; or any other annotation
            that JSON can fill: ``list[Problem]``, ``dict[str, float]``, ...
        data: What the JSON parser made of it; it may come from a stranger.

    Raises:
        ValueError: A field is missing, unknown or of another type, or a number is not finite or beyond
            :data:`LARGEST`; the message names the field.

    Example:
        >>> from_json(Cost, to_json(Cost(kept_tokens=3))).kept_tokens
        3
        >>> from_json(Cost, {"kept_tokens": "3"})
        Traceback (most recent call last):
        ...
        ValueError: field 'kept_tokens' is '3': it must be a whole number
    """
    try:
        return cast(Record, _checked(kind, data))
    except _Misfit as misfit:
        raise ValueError(misfit.sentence) from None
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


class _Misfit(ValueError):
    """A value that does not fit, and the path to it, which grows while the error leaves the nested calls."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what, self.path = what, ""

    def below(self, step: str) -> _Misfit:
        self.path = step + ("." if self.path and not self.path.startswith("[") else "") + self.path
        return self

    @property
    def sentence(self) -> str:
        return f"field {_shown(self.path)} {self.what}" if self.path else f"the value {self.what}"


def _shown(value: Any) -> str:
    """A stranger's value, short enough for one line."""
    text = repr(value if not isinstance(value, (list, dict)) else type(value)())
    return text if len(text) <= 80 else text[:77] + "..."


def _checked(hint: Any, value: Any) -> Any:
    """``value``, rebuilt as the annotation ``hint`` asks for."""
    origin, arguments = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) or is_typeddict(hint):
        return _checked_record(cast(Any, hint), value)
    if origin in (Union, UnionType):
        return _checked_option(arguments, value)
    if origin is list and isinstance(value, list) and _all_numbers(arguments[0], value):
        return list(value)
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        return origin(_checked_items(hint, value))
    if origin is dict and isinstance(value, dict):
        return {key: _checked_under(str(key), arguments[1], item) for key, item in value.items()}
    if _fits(hint, value):
        return value
    raise _Misfit(f"is {_shown(value)}: it must be {_named(hint)}")


def _checked_under(step: str, hint: Any, value: Any) -> Any:
    try:
        return _checked(hint, value)
    except _Misfit as misfit:
        raise misfit.below(step) from None


def _checked_record(kind: type[Any], value: Any) -> Any:
    if not isinstance(value, dict):
        raise _Misfit(f"is {_shown(value)}: it must be an object with fields")
    hints, needed = _fields(cast(Hashable, kind))
    for name in needed:
        if name not in value:
            raise _Misfit("is missing").below(name)
    for name in value:
        if name not in hints and dataclasses.is_dataclass(kind):
            raise _Misfit("is unknown").below(name)
    values = {key: _checked_under(key, hints.get(key, Any), item) for key, item in value.items()}
    try:
        return kind(**values)
    except ValueError as error:  # a record may check itself
        raise _Misfit(f"cannot be: {error}") from error


def _checked_items(hint: Any, values: Sequence[Any]) -> Iterator[Any]:
    hints = get_args(hint)
    if get_origin(hint) is list or hints[-1] is Ellipsis:
        hints = hints[:1] * len(values)
    if len(hints) != len(values):
        raise _Misfit(f"has {len(values)} items: it must have {len(hints)}")
    for index, (each, value) in enumerate(zip(hints, values, strict=True)):
        try:
            yield _checked(each, value)
        except _Misfit as misfit:
            raise misfit.below(f"[{index}]") from None


def _checked_option(options: Sequence[Any], value: Any) -> Any:
    """The first alternative that fits; where only one is left beside null, its own error."""
    if value is None and NoneType in options:
        return None
    *others, last = [option for option in options if option is not NoneType]
    for option in others:
        try:
            return _checked(option, value)
        except _Misfit:
            continue
    try:
        return _checked(last, value)
    except _Misfit as misfit:
        if not others:
            raise
        raise _Misfit(f"is {_shown(value)}: it must be {' or '.join(map(_named, options))}") from misfit


def _fits(hint: Any, value: Any) -> bool:
    if get_origin(hint) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(hint))
    if hint is float or hint is int:
        return type(value) in (hint, int) and abs(value) <= LARGEST
    return _is_plain(value) if hint is Any else type(value) is hint


def _all_numbers(hint: Any, values: list[Any]) -> bool:
    """Whether a list holds what it should, told at once where that is numbers: recordings hold millions."""
    kinds = _NUMBERS.get(hint)
    if kinds is None or not kinds.issuperset(map(type, values)):
        return False
    return all(map(LARGEST.__ge__, map(abs, (value for value in values if value is not None))))


_NUMBERS: dict[Any, set[type]] = {int: {int}, float: {int, float}, float | None: {int, float, NoneType}}


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value of free shape can be written again and drawn: finite numbers, not nested without end."""
    if isinstance(value, (list, tuple, dict)):
        items = value.values() if isinstance(value, dict) else value
        return depth < DEEPEST and all(_is_plain(item, depth + 1) for item in items)
    return not isinstance(value, (int, float)) or abs(value) <= LARGEST


def _named(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if dataclasses.is_dataclass(hint) or is_typeddict(hint):
        return "an object"
    names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false", NoneType: "null"}
    names |= {list: "a list", tuple: "a list", dict: "an object", Any: "of finite numbers and little depth"}
    return names[get_origin(hint) or hint]


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """Annotations by field, and the fields that must be there."""
    hints = get_type_hints(kind)
    if is_typeddict(kind):
        marked = get_type_hints(kind, include_extras=True)
        optional = {name for name, hint in marked.items() if get_origin(hint) is NotRequired or not kind.__total__}
        return hints, [name for name in hints if name not in optional]
    fields = [field for field in dataclasses.fields(kind) if field.init]
    missing = dataclasses.MISSING
    needed = [each.name for each in fields if each.default is missing and each.default_factory is missing]
    return {each.name: hints[each.name] for each in fields}, needed
