"""Checks of notebook 05: backtracking."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from itertools import accumulate
from typing import Any

from stepgrpo_lab.course.checks._result import Unsolved, agree, draws, exercise, same, torch_exercise


@exercise("05.1", "the same places twice: that is all there is to going back")
def places_of_probe(solution: Callable[[int, int, int], list[int]]) -> None:
    """``places_of_probe(base, prompt, trial)``: every place fed for a declined probe, and then the marker's.

    Example:
        >>> places_of_probe(lambda base, prompt, trial: list(range(base, base + prompt + trial))).passed
        False
    """

    def fed(base: int, prompt: int, trial: int) -> list[int]:
        return [*range(base, base + prompt + trial - 1), base]

    mistakes: dict[str, Callable[..., list[int]]] = {
        "the last token of a trial answer is chosen, but never fed": lambda base, prompt, trial: fed(
            base, prompt, trial + 1
        ),
        "the marker goes back to the place where the probe began": lambda base, prompt, trial: [
            *range(base, base + prompt + trial)
        ],
        "afterwards the marker is fed again, at its old place": lambda *case: fed(*case)[:-1],
        "the probe begins at the marker's own place, because the marker is held back": lambda base, prompt, trial: fed(
            base + 1, prompt, trial
        ),
        "only the marker's return starts from its place; the probe's tokens lie one further": lambda *case: [
            *fed(case[0] + 1, *case[1:])[:-1],
            case[0],
        ],
    }
    cases = [
        (13, 6, 4),
        (0, 1, 1),
        *draws(lambda rng, size: (rng.randint(0, 30), rng.randint(1, 8), rng.randint(1, 6))),
    ]
    agree(solution, fed, cases, "places_of_probe", mistakes=mistakes)


def _probe(rng: random.Random, size: int) -> tuple[int, int, int]:
    return rng.randint(0, 30), rng.randint(1, size), rng.randint(1, 6)


@exercise("05.2", "one comparison hides whatever a probe left behind")
def visible(solution: Callable[[Sequence[int], int], list[list[bool]]]) -> None:
    """``visible(places, width)``: for each row, which cells the token that is fed at its place may attend to.

    Example:
        >>> visible(lambda places, width: [[True] * width for _ in places]).passed
        False
    """

    def mask(places: Sequence[int], width: int) -> list[list[bool]]:
        return [[cell <= place for cell in range(width)] for place in places]

    mistakes: dict[str, Callable[..., list[list[bool]]]] = {
        "a token attends to itself as well": lambda places, width: mask([place - 1 for place in places], width),
        "hide the cells behind a row's own place: they hold what an earlier probe left": lambda places, width: mask(
            [width] * len(places), width
        ),
        "every row has its own place: one row's mask is not the others'": lambda places, width: mask(
            [max(places)] * len(places), width
        ),
        "True means visible": lambda places, width: [[not cell for cell in row] for row in mask(places, width)],
    }
    agree(solution, mask, [([2, 0, 3], 4), ([1], 3), *draws(_rows)], "visible", mistakes=mistakes)


def _rows(rng: random.Random, size: int) -> tuple[list[int], int]:
    width = rng.randint(size, size + 3)
    return [rng.randrange(width) for _ in range(rng.randint(1, 4))], width


@exercise("05.3", "no state, so nothing that a probe or a batch could advance")
def draw(solution: Callable[[float, Sequence[float]], int]) -> None:
    """``draw(number, probabilities)``: the token that a uniform number in [0, 1) picks, in the order of the vocabulary.

    Example:
        >>> draw(lambda number, probabilities: 0).passed
        False
    """

    def token(number: float, probabilities: Sequence[float]) -> int:
        return next(place for place, total in enumerate(accumulate(probabilities)) if total > number)

    def too_early(number: float, probabilities: Sequence[float]) -> int:
        return next(place for place, total in enumerate(accumulate(probabilities)) if total >= number)

    mistakes: dict[str, Callable[..., int]] = {
        "that is the likeliest token; the number has to decide": lambda number, odds: odds.index(max(odds)),
        "the sum has to be greater than the number, not equal to it: token 0 may be impossible": too_early,
        "compare the number with the sum of the probabilities so far, not with each of them": lambda number, odds: next(
            (place for place, odd in enumerate(odds) if odd > number), len(odds) - 1
        ),
    }
    cases = [(0.25, [0.0, 0.25, 0.5, 0.25]), (0.0, [0.0, 1.0]), *draws(_odds)]
    agree(solution, token, cases, "draw", mistakes=mistakes)


def _odds(rng: random.Random, size: int) -> tuple[float, list[float]]:
    """In eighths, whose sums are exact, some of them 0; the number often lies exactly on a sum."""
    cuts = sorted(rng.randint(0, 8) for _ in range(size))
    odds = [(stop - start) / 8 for start, stop in zip([0, *cuts], [*cuts, 8], strict=True)]
    return rng.randrange(16) / 16, odds


# ---- on a real cache -------------------------------------------------------------------------------------------------


def _fed(model: Any, cache: Any, tokens: Sequence[int], position: int) -> Any:
    """Feed tokens from a position on; the logits ``[vocabulary]`` after the last."""
    import torch

    from stepgrpo_lab.engines.cache import cache_argument

    output = model(
        input_ids=torch.tensor([list(tokens)]),
        position_ids=torch.arange(position, position + len(tokens))[None],
        **{cache_argument(model): cache},
        use_cache=True,
    )
    return output.logits[0, -1]


def _gone_back(model: Any, cache: Any, length: int, token: int) -> Any:
    if cache.get_seq_length() > length:
        cache.crop(length - cache.get_seq_length())
    return _fed(model, cache, [token], length)


def _position_too_far(model: Any, cache: Any, length: int, token: int) -> Any:
    further = cache.get_seq_length()
    cache.crop(length - further)
    return _fed(model, cache, [token], further)


def _cut_to(extra: int) -> Callable[..., Any]:
    def wrong(model: Any, cache: Any, length: int, token: int) -> Any:
        cache.crop(length + extra - cache.get_seq_length())
        return _fed(model, cache, [token], length + extra)

    return wrong


_CACHE_MISTAKES: dict[str, Callable[..., Any]] = {
    "the probe's keys and values are still there: cut the cache before you feed": lambda model, cache, length, token: (
        _fed(model, cache, [token], cache.get_seq_length())
    ),
    "the probe's keys and values are still there, although the position is right: cut the cache too": (
        lambda model, cache, length, token: _fed(model, cache, [token], length)
    ),
    "the cache is cut, but the position goes on counting: the token stands at position `length`": _position_too_far,
    "one position too many is left: keep exactly the first `length`": _cut_to(1),
    "one position too few is left: keep exactly the first `length`": _cut_to(-1),
}

LOGIT_TOLERANCE = 2e-3
"""Between logits of one token, computed with a cache of another history: rounding in single precision."""


@cache
def _policy() -> Any:
    from stepgrpo_lab.overthinker import load_overthinker

    with redirect_stderr(StringIO()):  # a check shows its result and no progress of loading
        return load_overthinker()[0]


@torch_exercise(
    "05.4",
    "after a declined probe the model's next logits are those of a completion that was never probed",
    reference=_gone_back,
    needs=("torch", "transformers"),
)
def backtracking_cache(solution: Callable[[Any, Any, int, int], Any]) -> None:
    """``go_back(model, cache, length, token)``: forget a probe, and go on with the marker.

    ``cache`` is a ``DynamicCache`` of transformers that holds the prompt, the thoughts so far and, behind its first
    ``length`` positions, a probe. Cut it back to these ``length`` positions, feed ``token`` at the next one with the
    model, and return the logits [vocabulary] of what comes after it. The cache then holds ``length + 1`` positions.

    Example:
        >>> backtracking_cache(lambda model, cache, length, token: None).passed
        False
    """
    import torch

    with torch.no_grad():
        _check_cache(solution)


def _check_cache(solution: Callable[[Any, Any, int, int], Any]) -> None:
    model, passed, complaint = _policy(), 0, ""
    rows = draws(_probed_context, 8)
    for context, probe, token in rows:
        what = f"go_back(model, cache, {len(context)}, {token}) after a probe of {len(probe)} tokens"
        expected = _outcome(_gone_back, model, context, probe, token)
        actual = _outcome(solution, model, context, probe, token)
        if actual[0] is None or actual[0] is ...:
            raise Unsolved(f"{what} gives nothing yet; write the body (expected logits [{len(expected[0])}])")
        if not _close(actual[0], expected[0]):
            complaint = complaint or f"{what} gives other logits than a model that was never probed" + next(
                (
                    f": {message}"
                    for message, wrong in _CACHE_MISTAKES.items()
                    if _close(actual[0], _outcome(wrong, model, context, probe, token)[0])
                ),
                ". Cut the cache back, then feed the token at position `length`",
            )
        elif actual[1] != expected[1]:
            complaint = complaint or f"{what} leaves {actual[1]} positions in the cache; expected {expected[1]}"
        else:
            passed += 1
    if complaint:
        raise Unsolved(complaint, passed / len(rows))


def _outcome(function: Callable[..., Any], model: Any, context: list[int], probe: list[int], token: int) -> Any:
    """What a function returns and how long it leaves the cache, after this context and probe."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    _fed(model, cache, context + probe, 0)
    return function(model, cache, len(context), token), cache.get_seq_length()


def _close(actual: Any, expected: Any) -> bool:
    values = actual.reshape(-1) if hasattr(actual, "reshape") else actual
    return same(values, expected.tolist(), LOGIT_TOLERANCE)


def _probed_context(rng: random.Random, size: int) -> tuple[list[int], list[int], int]:
    words = _policy().config.vocab_size
    context, probe = ([rng.randrange(words) for _ in range(count)] for count in (4 + 2 * size, rng.randint(3, 9)))
    return context, probe, rng.randrange(words)
