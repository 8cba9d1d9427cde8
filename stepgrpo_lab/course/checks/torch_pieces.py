"""Checks of single pieces in torch: a rival's reward for many groups (06), log-probabilities without logits (09)."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.course.checks._result import Unsolved, agree, draws, torch_exercise
from stepgrpo_lab.method.baselines import length_penalty_rewards

if TYPE_CHECKING:
    from torch import Tensor

# ---- a reward for many groups ----------------------------------------------------------------------------------------


def _length_penalty(correct: Any, tokens: Any, strength: float = 0.2) -> Any:
    """The library's rewards of each group, as what the lengths are: a tensor, or lists."""
    is_tensor = hasattr(tokens, "new_tensor")
    rows = zip(*((correct.tolist(), tokens.tolist()) if is_tensor else (correct, tokens)), strict=True)
    found = [length_penalty_rewards(right, lengths, strength=strength) for right, lengths in rows]
    return tokens.double().new_tensor(found) if is_tensor else found


@torch_exercise("06.3", "the mask is in the sum and in the divisor, and no loop was needed", reference=_length_penalty)
def length_penalty(solution: Callable[..., Tensor]) -> None:
    """``length_penalty(correct, tokens, strength=0.2)``: tensors [groups, members] -> rewards [groups, members].

    ``1 - strength * sigmoid((l - mean) / (std + 1e-7))`` for right members, 0 for wrong ones; mean and population
    standard deviation are those of the group's right members.

    Example:
        >>> length_penalty(lambda correct, tokens, strength=0.2: correct.float()).passed
        False
    """

    def by_hand(
        correct: Any,
        tokens: Any,
        strength: float,
        *,
        over: str = "right",
        unbiased: bool = False,
        keeps_wrong: bool = False,
        divisor: str = "right",
    ) -> Any:
        import torch

        right, lengths = correct.double(), tokens.double()
        weight = right if over == "right" else torch.ones_like(right)
        count = weight.sum(1, keepdim=True).clamp(min=1)
        count = count if divisor == "right" else torch.full_like(count, weight.shape[1])
        mean = (weight * lengths).sum(1, keepdim=True) / count
        squares = (weight * (lengths - mean) ** 2).sum(1, keepdim=True)
        std = (squares / (count - 1 if unbiased else count)).sqrt()
        reward = 1 - strength * torch.sigmoid((lengths - mean) / (std + 1e-7))
        return reward if keeps_wrong else right * reward

    mistakes: dict[str, dict[str, Any]] = {
        "mean and deviation are those of the right members alone": {"over": "all"},
        "that divides by the size of the group: divide by the number of right members": {"divisor": "all"},
        "that is the unbiased deviation; the population's divides by the number of right members": {"unbiased": True},
        "a wrong member earns 0": {"keeps_wrong": True},
    }
    wrong: dict[str, Callable[..., Any]] = {message: partial(by_hand, **how) for message, how in mistakes.items()}
    wrong["strength is an argument: use the one that you are given"] = lambda correct, tokens, _: _length_penalty(
        correct, tokens
    )
    agree(solution, _length_penalty, draws(_groups), "length_penalty", mistakes=wrong)


def _groups(rng: random.Random, size: int) -> tuple[Tensor, Tensor, float]:
    """Some groups with one right member, some with none, some with equal lengths."""
    import torch

    members, correct, tokens = rng.randint(2, 5), [], []
    for _ in range(1 + size // 2):
        odds = rng.choice([0.0, 0.4, 0.8, 1.0])
        correct.append([rng.random() < odds for _ in range(members)])
        lengths = [rng.randint(1, 40) for _ in range(members)]
        tokens.append(lengths if rng.random() < 0.8 else lengths[:1] * members)
    return torch.tensor(correct), torch.tensor(tokens), rng.choice([0.1, 0.2, 0.4])


# ---- log-probabilities, a piece of vocabulary at a time --------------------------------------------------------------


def _chunked(hidden: Any, head: Any, targets: Any, chunk: int) -> Any:
    """Piece by piece, with torch's own logarithm of a sum."""
    import torch

    totals = torch.stack([(hidden @ piece.T).logsumexp(-1) for piece in head.split(chunk)])
    return (hidden * head[targets]).sum(-1) - totals.logsumexp(0)


@torch_exercise("09.2", "a maximum and a sum are all that has to be remembered of a vocabulary", reference=_chunked)
def chunked_logprobs(solution: Callable[..., Tensor]) -> None:
    """``chunked_logprobs(hidden, head, targets, chunk)``: log-probabilities [tokens], at most ``chunk`` logits a token.

    ``hidden`` is [tokens, width], ``head`` [vocabulary, width], ``targets`` [tokens].

    Example:
        >>> def whole(hidden, head, targets, chunk):
        ...     return (hidden @ head.T).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        >>> print(chunked_logprobs(whole).message[:52])
        a tensor of shape (2, 26) was made: the logits of al
    """

    def naive(hidden: Any, head: Any, targets: Any, chunk: int) -> Any:
        logits = hidden @ head.T
        return logits.gather(-1, targets[:, None])[:, 0] - logits.exp().sum(-1).log()

    def last_piece_dropped(hidden: Any, head: Any, targets: Any, chunk: int) -> Any:
        logits, whole = hidden @ head.T, len(head) // chunk * chunk
        return logits.gather(-1, targets[:, None])[:, 0] - logits[:, :whole].logsumexp(-1)

    mistakes: dict[str, Callable[..., Any]] = {
        "large logits overflow: subtract a running maximum before exp": naive,
        "the last piece of the vocabulary may be shorter than the others, and counts": last_piece_dropped,
        "that is the logarithm of the sum alone, or its sign is wrong: chosen minus maximum minus log of the sum": (
            lambda *case: -_chunked(*case)
        ),
    }
    cases = draws(_head, 24)
    agree(solution, _chunked, cases, "chunked_logprobs", mistakes=mistakes, show=_as_call)
    for case in cases:
        _refuse_logits(solution, *case)


def _as_call(hidden: Tensor, head: Tensor, targets: Tensor, chunk: int) -> str:
    return f"chunked_logprobs of {len(hidden)} tokens, {len(head)} words, chunk {chunk},"


def _refuse_logits(solution: Callable[..., Any], hidden: Any, head: Any, targets: Any, chunk: int) -> None:
    """Raise where a tensor is made that holds the logits of all words, of one token or of all."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    shapes: set[tuple[int, ...]] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.data_ptr() != head.data_ptr():
                shapes.add(tuple(made.shape))
            return made

    with Watch():
        solution(hidden, head, targets, chunk)
    tokens, words = len(hidden), len(head)
    for shape in shapes & {(tokens, words), (words, tokens), (words,), (1, words), (words, 1)}:
        raise Unsolved(f"a tensor of shape {shape} was made: the logits of all {words} words at once", 0.3)


def _head(rng: random.Random, size: int) -> tuple[Tensor, Tensor, Tensor, int]:
    """Vocabularies that are no multiple of the chunk; logits from small to so large that exp overflows, and exact."""
    import torch

    generator = torch.Generator().manual_seed(rng.randrange(10**6))
    tokens, width, chunk = 1 + size, 3, rng.randint(2, 6)
    words = chunk * rng.randint(2, 5) + rng.randint(1, chunk - 1)
    scale = rng.choice([0.125, 1.0, 8.0])
    hidden = scale * torch.randint(-4, 5, (tokens, width), generator=generator).float()
    head = torch.randint(-3, 4, (words, width), generator=generator).float()
    return hidden, head, torch.randint(words, (tokens,), generator=generator), chunk
