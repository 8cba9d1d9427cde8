"""Labels every step of a *sampled* completion: needed, verifying, redundant or malformed.

For real models an LLM judge has to guess these labels; here the problems are generated, so the labels are exact.

A step is *malformed* when it is not a legal move on this problem: an operation that is not next in the chain, a number
that was not given. A wrong result is no malformation: it is a legal move that slipped. Up to and including the step
that first completes a right derivation, every legal step is *needed*. The first complete pass (or sum) that confirms it
afterwards is *verifying*; all other steps after that are *redundant*.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_lab.overthinker.tasks import OPERATIONS_PER_STEP, apply_operation
from stepgrpo_lab.records import Problem, StepLabel
from stepgrpo_lab.steps import MarkerSegmenter

_EQUATION = re.compile(r"(\d)([-+*])(\d)=(\d)")
_TRY = re.compile(r"(\d+)\+(\d+)=(\d+) (yes|no)")
_OPENING = re.compile(r"^\s*(?:<think>)?\s*(?:Wait|Alternatively)?\s*")


@dataclass
class _Move:
    """What one step did: whether it was legal, ended a derivation, and whether that derivation is right."""

    legal: bool
    completes: bool = False
    right: bool = False


def _chain_moves(problem: Problem, bodies: Sequence[str]) -> list[_Move]:
    start, operations = problem.meta["start"], problem.meta["operations"]
    moves, position, value, sound = [], 0, start, True
    for body in bodies:
        equations = _EQUATION.findall(body)
        legal = 0 < len(equations) <= OPERATIONS_PER_STEP and body == " ".join(
            "{}{}{}={}".format(*e) for e in equations
        )
        place, current, still_sound = position, value, sound
        for left, symbol, operand, result in equations if legal else ():
            expected = operations[place] if place < len(operations) else None
            if [symbol, int(operand)] != list(expected or ()) or int(left) != current:
                legal = False
                break
            still_sound = still_sound and apply_operation(current, symbol, int(operand)) == int(result)
            current, place = int(result), place + 1
        if not legal:
            moves.append(_Move(False))
            position, value, sound = 0, start, True  # a broken pass can only be taken up from its start
            continue
        position, value, sound = place, current, still_sound
        completes = position == len(operations)
        moves.append(_Move(True, completes, completes and str(value) == problem.answer))
        if completes:
            position, value, sound = 0, start, True
    return moves


def _pair_moves(problem: Problem, bodies: Sequence[str]) -> list[_Move]:
    numbers, target = problem.meta["numbers"], problem.meta["target"]
    moves = []
    for body in bodies:
        match = _TRY.fullmatch(body)
        first, second, total = (int(match[i]) for i in (1, 2, 3)) if match else (0, 0, 0)
        legal = (
            match is not None
            and first != second
            and {first, second} <= set(numbers)
            and (match[4] == "yes") == (total == target)
        )
        found = legal and total == target
        moves.append(_Move(legal, found, found and first + second == target))
    return moves


_MOVES = {"chain": _chain_moves, "pair": _pair_moves}


def label_steps(problem: Problem, text: str) -> list[StepLabel]:
    """Label each semantic step of a completion with what it was good for.

    Args:
        problem: An Overthinker problem.
        text: The completion, decoded with special tokens kept.

    Returns:
        One label for each step, as many as ``MarkerSegmenter("paper").count(text)``.

    Raises:
        ValueError: The problem is of a family without a verifier.

    Example:
        >>> problem = Problem("p", "", "48", "pair", meta={"numbers": [23, 48, 31], "target": 71})
        >>> label_steps(problem, "<think>\\n23+48=71 yes Wait 23+48=71 yes Wait 23+48=71 yes\\n</think>")
        ['needed', 'verifying', 'redundant']
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
    if problem.family == "pair":
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
