"""Labels every step of a *sampled* completion: needed, verifying, redundant or malformed.

For real models an LLM judge has to guess these labels; here the problems are generated, so the labels are exact.

A step is *malformed* when it is not a legal move on this problem: an operation that is not next in the chain, a
candidate that does not exist. A wrong result is no malformation: it is a legal move that slipped. Up to and including
the step that first completes a right derivation, every legal step is *needed*. The first complete pass (or try) that
confirms it afterwards is *verifying*; all other steps after that are *redundant*.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from stepgrpo_lab.method.records import Problem, StepLabel
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.tasks import CANDIDATES, OPERATIONS_PER_STEP

LABELS: tuple[StepLabel, ...] = get_args(StepLabel)

_EQUATION = re.compile(r"(\d)([-+*])(\d)=(\d)")
_TRY = re.compile(r"([A-Z]) (.+) (yes|no)")
_OPENING = re.compile(r"^\s*(?:<think>)?\s*(?:Wait|Alternatively)?\s*")


@dataclass
class _Move:
    """What one step did: whether it was legal, ended a derivation, and whether that derivation is right."""

    legal: bool
    completes: bool = False
    right: bool = False


def _walk(body: str, value: int, operations: Sequence[Sequence[Any]]) -> tuple[int, int] | None:
    """Follow a step's equations from ``value``; the value reached and how many operations, None if illegal.

    A wrong result is legal: the walk goes on from what was written.
    """
    equations = _EQUATION.findall(body)
    if not 0 < len(equations) <= len(operations) or body != " ".join("{}{}{}={}".format(*e) for e in equations):
        return None
    for (left, symbol, operand, result), expected in zip(equations, operations, strict=False):
        if [symbol, int(operand)] != list(expected) or int(left) != value:
            return None
        value = int(result)
    return value, len(equations)


def _chain_moves(problem: Problem, bodies: Sequence[str]) -> list[_Move]:
    start, operations = problem.meta["start"], problem.meta["operations"]
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
        start, operations = candidates[index]
        walked = _walk(match[2], start, operations)
        found = match[3] == "yes"
        legal = walked is not None and walked[1] == len(operations) and found == (walked[0] == 0)
        moves.append(_Move(legal, legal and found, legal and found and match[1] == problem.answer))
    return moves


_MOVES = {"chain": _chain_moves, "search": _search_moves}


def label_steps(problem: Problem, text: str) -> list[StepLabel]:
    """Label each semantic step of a completion as needed, verifying, redundant or malformed.

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
    if problem.family not in _MOVES:
        raise ValueError(f"no verifier for family {problem.family!r}: steps can be labelled for {', '.join(_MOVES)}")
    bodies = [_OPENING.sub("", step.text).strip() for step in MarkerSegmenter("paper").split(text)]
    moves = _MOVES[problem.family](problem, bodies)
    labels: list[StepLabel] = []
    solved = confirmed = False
    for move in moves:
        if not move.legal:
            labels.append("malformed")
        elif not solved:
            labels.append("needed")
            solved = move.right
        elif not confirmed and _confirms(problem, moves, len(labels)):
            labels.append("verifying")
            confirmed = move.completes
        else:
            labels.append("redundant")
    return labels


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
            **{key: counter[key] / counter["completions"] for key in (*LABELS, "tokens", "oracle_tokens")},
            "oracle_saves": 1 - counter["oracle_tokens"] / counter["tokens"],
        }
        for name, counter in counts.items()
    }
