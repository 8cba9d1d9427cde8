"""Labels every step of a *sampled* completion: needed, verifying, redundant, malformed or spoiling.

For real models an LLM judge has to guess these labels; here the problems are generated, so the labels are exact.

A step is *malformed* when it is not a legal move on this problem: an operation that is not next in the chain, a
candidate that does not exist. A wrong result is no malformation: it is a legal move that slipped. Up to and including
the step that first completes a right derivation, every legal step is *needed*. The first complete pass (or try) that
confirms it afterwards is *verifying*; all other steps after that are *redundant*. Where one step is one derivation
(Overthinker 2, word problems), a wrong derivation after a right one is *spoiling*: the answer may follow it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any, get_args

from stepgrpo_lab.method.records import Problem, StepLabel
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.equations import derived_result
from stepgrpo_lab.overthinker.tasks import CANDIDATES, OPERATIONS_PER_STEP, work_out

LABELS: tuple[StepLabel, ...] = get_args(StepLabel)


def shown_labels(*counts: Mapping[Any, float]) -> tuple[StepLabel, ...]:
    """The labels that a table of such counts shows: "spoiling" only where it occurs.

    Example:
        >>> shown_labels({"needed": 2.0, "redundant": 1.0})
        ('needed', 'verifying', 'redundant', 'malformed')
    """
    return tuple(label for label in LABELS if label != "spoiling" or any(count.get(label) for count in counts))


_EQUATION = re.compile(r"(\d)((?:[-+*]\d)+)=(\d)")
_OPERATION = re.compile(r"([-+*])(\d)")
_TRY = re.compile(r"([A-Z]) (.+) (yes|no)")
_OPENING = re.compile(r"^\s*(?:<think>)?\s*(?:Wait|Alternatively)?\s*")


@dataclass
class _Move:
    """What one step did.

    Attributes:
        legal: Whether it is a move on this problem at all.
        completes: Whether it ends a derivation.
        right: Whether that derivation reaches the answer.
        spoils: Whether it contradicts the answer, so that one who follows the last derivation is led astray.
        answer: The answer that it stands for, if it ends a derivation that gives one.
    """

    legal: bool
    completes: bool = False
    right: bool = False
    spoils: bool = False
    answer: str | None = None


Groups = Sequence[Sequence[Sequence[Any]]]
"""Operations ``[symbol, operand]`` in groups: one equation takes one of them, or a whole group in one leap."""


def _walk(body: str, value: int, groups: Groups) -> tuple[int, int] | None:
    """Follow a step's equations from ``value``; the value reached and how many operations, None if illegal.

    A wrong result is legal: the walk goes on from what was written.
    """
    equations = _EQUATION.findall(body)
    if not equations or body != " ".join("{}{}={}".format(*equation) for equation in equations):
        return None
    place, within, taken = 0, 0, 0
    for left, written, result in equations:
        operations = [[symbol, int(operand)] for symbol, operand in _OPERATION.findall(written)]
        if place == len(groups) or int(left) != value:
            return None
        group = [list(operation) for operation in groups[place]]
        if operations != group[within : within + len(operations)] or len(operations) not in (1, len(group)):
            return None
        value, taken, within = int(result), taken + len(operations), within + len(operations)
        if within == len(group):
            place, within = place + 1, 0
    return value, taken


def _derivation_moves(problem: Problem, bodies: Sequence[str]) -> list[_Move]:
    """Steps that each hold one derivation of a whole chain, quick, careful or mixed."""
    start, groups = problem.meta["start"], problem.meta["groups"]
    moves = []
    for body in bodies:
        walked = _walk(body, start, groups)
        if walked is None or walked[1] != sum(map(len, groups)):
            moves.append(_Move(False))
        else:
            right = str(walked[0]) == problem.answer
            moves.append(_Move(True, True, right, not right, str(walked[0])))
    return moves


def _chain_moves(problem: Problem, bodies: Sequence[str]) -> list[_Move]:
    if "groups" in problem.meta:
        return _derivation_moves(problem, bodies)
    start, operations = problem.meta["start"], [[operation] for operation in problem.meta["operations"]]
    moves, position, value = [], 0, start
    for body in bodies:
        walked = _walk(body, value, operations[position : position + OPERATIONS_PER_STEP])
        if walked is None:
            moves.append(_Move(False))
            position, value = 0, start  # a broken pass can only be taken up from its start
            continue
        value, position = walked[0], position + walked[1]
        completes = position == len(operations)
        moves.append(_Move(True, completes, completes and str(value) == problem.answer))
        if completes:
            position, value = 0, start
    return moves


def _search_moves(problem: Problem, bodies: Sequence[str]) -> list[_Move]:
    candidates = problem.meta["candidates"]
    moves = []
    for body in bodies:
        match = _TRY.fullmatch(body)
        index = CANDIDATES.find(match[1]) if match else -1
        if match is None or not 0 <= index < len(candidates):
            moves.append(_Move(False))
            continue
        start, work = candidates[index]
        leaps = isinstance(work[0][0], list)
        groups = work if leaps else [[operation] for operation in work]
        walked = _walk(match[2], start, groups)
        found, named = match[3] == "yes", match[1] == problem.answer
        if walked is None or walked[1] != sum(map(len, groups)) or found != (walked[0] == 0):
            moves.append(_Move(False))
        else:
            moves.append(_Move(True, found, found and named, leaps and found != named, match[1] if found else None))
    return moves


def _story_moves(problem: Problem, bodies: Sequence[str]) -> list[_Move]:
    """Steps that each hold one derivation of a word problem, in any order and of any width."""
    moves = []
    for body in bodies:
        result = derived_result(body, problem.meta["expression"])
        if result is None:
            moves.append(_Move(False))
        else:
            right = str(result) == problem.answer
            moves.append(_Move(True, True, right, not right, str(result)))
    return moves


_MOVES = {"chain": _chain_moves, "search": _search_moves, "story": _story_moves}


def label_steps(problem: Problem, text: str) -> list[StepLabel]:
    """Label each semantic step of a completion as needed, verifying, redundant, malformed or spoiling.

    Args:
        problem: An Overthinker problem.
        text: The completion, decoded with special tokens kept.

    Returns:
        One label for each step, as many as ``MarkerSegmenter("paper").count(text)``.

    Raises:
        ValueError: The problem is of a family without a verifier.

    Example:
        >>> meta = {"candidates": [[1, [["+", 1]]], [3, [["-", 3]]]]}
        >>> problem = Problem("p", "", "B", "search", meta=meta)
        >>> label_steps(problem, "<think>\\nA 1+1=2 no Alternatively B 3-3=0 yes Wait B 3-3=0 yes\\n</think>")
        ['needed', 'needed', 'verifying']
    """
    moves = _moves(problem, text)
    labels: list[StepLabel] = []
    solved = confirmed = False
    for move in moves:
        if not move.legal:
            labels.append("malformed")
        elif not solved:
            labels.append("needed")
            solved = move.right
        elif move.spoils:
            labels.append("spoiling")
        elif not confirmed and _confirms(problem, moves, len(labels)):
            labels.append("verifying")
            confirmed = move.completes
        else:
            labels.append("redundant")
    return labels


def _moves(problem: Problem, text: str) -> list[_Move]:
    if problem.family not in _MOVES:
        raise ValueError(f"no verifier for family {problem.family!r}: steps can be labelled for {', '.join(_MOVES)}")
    bodies = [_OPENING.sub("", step.text).strip() for step in MarkerSegmenter("paper").split(text)]
    return _MOVES[problem.family](problem, bodies)


def derived_answers(problem: Problem, text: str) -> list[str | None]:
    """The answer that each semantic step of a completion derives; None for a step that derives none.

    Only where one step is one derivation or one try (Overthinker 2).

    Example:
        >>> problem = Problem("p", "", "8", "chain", meta={"start": 7, "groups": [[["+", 7], ["*", 7]]]})
        >>> derived_answers(problem, "<think>\\n7+7*7=6 Wait 7+7=4 4*7=8 Wait 7+7=4")
        ['6', '8', None]
    """
    return [move.answer for move in _moves(problem, text)]


def leaps(text: str) -> list[tuple[int, bool]]:
    """For every equation of a completion: how many operations it takes at once, and whether its result is right.

    Example:
        >>> leaps("<think>\\n7+7*7=6 Wait 7+7=4 4*7=8\\n</think>")
        [(2, False), (1, True), (1, True)]
    """
    found = []
    for left, written, result in _EQUATION.findall(text.partition("</think>")[0]):
        operations = [(symbol, int(operand)) for symbol, operand in _OPERATION.findall(written)]
        found.append((len(operations), work_out(int(left), operations) == int(result)))
    return found


def _confirms(problem: Problem, moves: Sequence[_Move], index: int) -> bool:
    """Whether the legal step at ``index``, after the answer was found, belongs to a pass that reaches it again."""
    if problem.family == "search":
        return moves[index].right
    for move in moves[index:]:
        if not move.legal:
            return False
        if move.completes:
            return move.right
    return False


def oracle_tokens(labels: Sequence[StepLabel], step_tokens: Sequence[int], closing_tokens: int) -> int:
    """Tokens of a completion that stops after its last needed step.

    Args:
        labels: One label for each step.
        step_tokens: Tokens of each step.
        closing_tokens: Tokens of the close and the answer, which stay.

    Example:
        >>> oracle_tokens(["needed", "verifying"], [12, 10], 8)
        20
    """
    last = max((i for i, label in enumerate(labels) if label == "needed"), default=-1)
    return sum(step_tokens[: last + 1]) + closing_tokens


def structure(problems: Sequence[Problem], texts: dict[str, str], token_text: TokenText) -> dict[str, Any]:
    """Steps by true label, and the tokens that an oracle would save which stops after the last needed step.

    Args:
        problems: Overthinker problems.
        texts: Problem id -> completion.
        token_text: Counts tokens.

    Returns:
        For "all" and each family: the mean number of steps of each label, mean ``tokens``, mean ``oracle_tokens`` and
        the share of tokens that the oracle saves.
    """
    counts: dict[str, Counter[str]] = {}
    for problem in problems:
        text = texts[problem.id]
        ids = token_text.encode(text)
        labels = label_steps(problem, text)
        steps = MarkerSegmenter("paper").split_ids(ids, token_text)
        sizes = [(step.token_end or 0) - (step.token_start or 0) for step in steps]
        for name in ("all", problem.family):
            counter = counts.setdefault(name, Counter())
            counter.update(labels)
            counter["completions"] += 1
            counter["tokens"] += len(ids)
            counter["oracle_tokens"] += oracle_tokens(labels, sizes, len(ids) - sum(sizes))
    return {
        name: {
            **{
                key: counter[key] / counter["completions"]
                for key in (*shown_labels(counter), "tokens", "oracle_tokens")
            },
            "oracle_saves": 1 - counter["oracle_tokens"] / counter["tokens"],
        }
        for name, counter in counts.items()
    }


def checking_habits(
    problems: Sequence[Problem], texts: Mapping[str, str], correct: Mapping[str, bool]
) -> dict[str, float]:
    """How a model derives and checks, where one step is one derivation (Overthinker 2).

    A derivation of a chain that repeats the result before it *accepts* it, another result *rejects* it. A model that
    retries until a result is accepted needs ``1 / ((1 - mu) e+ + mu (1 - e-))`` derivations (Yu et al., arXiv
    2510.12157, whose reflections these are in small).

    Args:
        problems: Overthinker 2's.
        texts: Problem id -> completion.
        correct: Problem id -> whether its final answer is right.

    Returns:
        Shares in [0, 1], each left out where nothing counts for it: ``flips`` (a right derivation was written, the
        answer is wrong), ``single`` and ``leap`` (equations of one and of two operations that are right); of chains
        ``mu`` (derivations that are right), ``false_accepts`` (e+) and ``false_rejects`` (e-); then the means
        ``derivations`` and ``expected_derivations``.

    Example:
        >>> chain = Problem("p", "", "8", "chain", meta={"start": 7, "groups": [[["+", 7], ["*", 7]]]})
        >>> habits = checking_habits([chain], {"p": "<think>\\n7+7*7=6 Wait 7+7=4 4*7=8\\n</think>"}, {"p": True})
        >>> habits["mu"], habits["false_accepts"], habits["leap"], habits["derivations"]
        (0.5, 0.0, 0.0, 2.0)
    """
    seen: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        seen.setdefault(name, []).append(value)

    for problem in problems:
        derived = [answer for answer in derived_answers(problem, texts[problem.id]) if answer is not None]
        note("flips", not correct[problem.id] and problem.answer in derived)
        for width, right in leaps(texts[problem.id]):
            note("single" if width == 1 else "leap", right)
        if problem.family == "chain":
            note("derivations", len(derived))
            for answer in derived:
                note("mu", answer == problem.answer)
            for first, second in pairwise(derived):
                right = first == problem.answer
                note("false_rejects" if right else "false_accepts", (first != second) == right)
    means = {name: fmean(values) for name, values in seen.items()}
    accepted = (1 - means.get("mu", 0)) * means.get("false_accepts", 0) + means.get("mu", 0) * (
        1 - means.get("false_rejects", 0)
    )
    return means | ({"expected_derivations": 1 / accepted} if accepted else {})
