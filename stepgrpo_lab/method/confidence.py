"""How sure the policy is of its trial answer (Eq. 2), from the top-1 probabilities of the greedy tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence


def _geometric(probabilities: Sequence[float]) -> float:
    if min(probabilities) == 0.0:
        return 0.0
    return math.exp(math.fsum(map(math.log, probabilities)) / len(probabilities))


def _arithmetic(probabilities: Sequence[float]) -> float:
    return math.fsum(probabilities) / len(probabilities)


_RULES: dict[str, Callable[[Sequence[float]], float]] = {
    "geometric": _geometric,
    "arithmetic": _arithmetic,
    "minimum": min,
    "joint": math.prod,
}

RULES = tuple(_RULES)
"""Names of the rules: geometric mean (= exp of the mean log-probability), arithmetic mean, smallest, product."""


def confidence(probabilities: Sequence[float], rule: str = "geometric", skip_first: int = 0) -> float:
    """Score a trial answer in [0, 1].

    The two means are normalised by length, so sure tokens around an answer (braces, newline, ``</think>``) lift an
    unsure answer: a joint probability of 0.80 scores 0.928 over 3 tokens and 0.956 over 5. That is the published exit
    score; to ask how often answers are right, use the ``joint`` rule on the tokens of :func:`boxed_answer_span`.

    Args:
        probabilities: Top-1 probability of each greedy token, raw logits at temperature 1.
        rule: One of :data:`RULES`.
        skip_first: Leave out that many tokens at the start (the public code leaves out one, the opening brace).

    Returns:
        The score; 0.0 when no token is left, for then nothing vouches for the answer.

    Raises:
        ValueError: Unknown rule, negative ``skip_first``, or a probability outside [0, 1].

    Example:
        >>> round(confidence([0.99, 0.9, 0.8, 0.999], skip_first=1), 6)
        0.895982
    """
    if rule not in _RULES:
        raise ValueError(f"unknown confidence rule {rule!r}: choose one of {', '.join(RULES)}")
    if skip_first < 0:
        raise ValueError(f"skip_first is {skip_first}: it counts tokens, so use 0 or more")
    for place, probability in enumerate(probabilities):
        if not 0.0 <= probability <= 1.0:  # also refuses NaN
            raise ValueError(
                f"probabilities[{place}] is {probability}: pass probabilities in [0, 1], not logits or logs"
            )
    counted = probabilities[skip_first:]
    return float(_RULES[rule](counted)) if len(counted) else 0.0


def boxed_answer_span(pieces: Sequence[str], opened: bool) -> tuple[int, int] | None:
    r"""Which greedy tokens spell the boxed answer and its closing brace.

    The joint confidence of the answer is the product of these tokens' probabilities. A token that holds the opening
    brace and more (``{4``) belongs to the answer, a bare ``{`` does not. Braces are balanced; ``\{`` and ``\}`` are
    characters of the answer.

    Args:
        pieces: Text of each greedy token.
        opened: Whether the inducing prompt already ended in ``\boxed{``; otherwise the first ``{`` opens the box.

    Returns:
        A half-open span of token places, or None when the box is never closed.

    Example:
        >>> boxed_answer_span(["{", "\\frac", "{1}{", "2", "}}", "\n"], opened=False)
        (1, 5)
    """
    depth, start, escaped = int(opened), 0, False
    for place, piece in enumerate(pieces):
        for offset, char in enumerate(piece):
            if escaped or char == "\\":
                escaped = not escaped
            elif char == "{":
                if depth == 0:
                    start = place if piece[offset + 1 :].strip() else place + 1
                depth += 1
            elif char == "}" and depth > 0:
                depth -= 1
                if depth == 0:
                    return start, place + 1
    return None
