"""From logits to tokens, for all rows of a batch at once and without a random number generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stepgrpo_lab.method.sampling import Sampling


def choose_likeliest(logits: torch.Tensor) -> tuple[list[int], list[float]]:
    """The likeliest token of each row and its log-probability at temperature 1.

    Args:
        logits: [rows, vocabulary], float32.
    """
    best = logits.max(dim=-1)
    return best.indices.tolist(), (best.values - logits.logsumexp(dim=-1)).tolist()


def choose_sampled(logits: torch.Tensor, numbers: Sequence[float], sampling: Sampling) -> tuple[list[int], list[float]]:
    """Draw one token per row by the inverse of its cumulative distribution, in the order of the vocabulary.

    Args:
        logits: [rows, vocabulary], float32.
        numbers: One uniform number in [0, 1) per row.
        sampling: At temperature 0 the likeliest token is taken and scored at temperature 1.

    Returns:
        Token ids, and their log-probabilities at the sampling temperature before top-k and top-p.
    """
    if sampling.temperature == 0:
        return choose_likeliest(logits)
    logprobs = (logits / sampling.temperature).log_softmax(dim=-1)
    weights = _keep_likeliest(logprobs.double().exp(), sampling)
    cumulative = weights.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Rounding must not push a number near 1 up to the total: no token, or an impossible one, would lie there.
    targets = torch.tensor(numbers, dtype=torch.float64, device=logits.device)[:, None] * total
    targets = torch.minimum(targets, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, targets, right=True).clamp_(max=logits.shape[-1] - 1)
    return tokens[:, 0].tolist(), logprobs.gather(-1, tokens)[:, 0].tolist()


def _keep_likeliest(weights: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Zero the weights outside the top k and outside the nucleus; ties at the border are kept, whatever their order."""
    ordered = None
    if 0 < sampling.top_k < weights.shape[-1]:
        ordered = weights.topk(sampling.top_k, dim=-1).values
        weights = weights * (weights >= ordered[:, -1:])
    if sampling.top_p < 1:
        if ordered is None:
            ordered = weights.sort(dim=-1, descending=True).values
        before = ordered.cumsum(dim=-1) - ordered
        inside = before < sampling.top_p * ordered.sum(dim=-1, keepdim=True)
        border = ordered.masked_fill(~inside, torch.inf).amin(dim=-1, keepdim=True)
        weights = weights * (weights >= border)
    return weights
