"""Where a sampled token's randomness comes from: one uniform number per sample and position, by a stateless hash.

No generator has a state that a batch, a rank or a probe could advance. A completion therefore depends on its model,
prompt and :class:`SampleKey` only, and resuming a run needs nothing but the rollout's index.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

_MASK = (1 << 64) - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn from the model's distribution.

    Attributes:
        temperature: Divides the logits; 0 takes the likeliest token.
        top_p: Keep the smallest set of tokens whose probabilities sum to at least this; 1 keeps all.
        top_k: Keep the ``top_k`` likeliest tokens; 0 keeps all. Applied before ``top_p``.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> Sampling(temperature=0.6, top_p=0.95, top_k=20).top_k
        20
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}: give a finite number >= 0 (0 is greedy).")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p is {self.top_p}: give a number in (0, 1] (1 keeps every token).")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k!r}: give a whole number >= 0 (0 keeps every token).")


@dataclass(frozen=True)
class SampleKey:
    """The name of one sample's random numbers.

    Attributes:
        seed: The run's seed.
        split: What the sample is for ("train", "eval", ...), so that the two never share noise.
        rollout: Index of the rollout (generation batch) in the run.
        sample: Index of the completion in the whole rollout, over all ranks.
    """

    seed: int
    split: str
    rollout: int
    sample: int


def _mix(state: int) -> int:
    """The output function of splitmix64: 64 bits in, 64 well-mixed bits out."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


@lru_cache(maxsize=4096)
def _stream(key: SampleKey) -> int:
    """The 64-bit start of the key's splitmix64 sequence."""
    state = int.from_bytes(hashlib.blake2b(key.split.encode(), digest_size=8).digest(), "big")
    for part in (key.seed, key.rollout, key.sample):
        state = _mix((state + _GOLDEN_GAMMA + _mix(part & _MASK)) & _MASK)
    return state


def uniform(key: SampleKey, position: int) -> float:
    """The uniform number in [0, 1) that draws the token at ``position`` of the sample named ``key``.

    It is element ``position`` of a splitmix64 sequence (Steele, Lea and Flood, "Fast splittable pseudorandom number
    generators", OOPSLA 2014) that starts at a hash of the key; its upper 53 bits fill the float's mantissa.

    Example:
        >>> key = SampleKey(seed=0, split="train", rollout=3, sample=17)
        >>> uniform(key, 5) == uniform(key, 5), uniform(key, 5) == uniform(key, 6)
        (True, False)
    """
    return (_bits(key, position) >> 11) * 2.0**-53


def request_seed(key: SampleKey, position: int) -> int:
    """Seed in [0, 2**63) for an engine that draws from ``position`` on with a generator of its own.

    Example:
        >>> key = SampleKey(seed=0, split="train", rollout=3, sample=17)
        >>> request_seed(key, 5) == request_seed(key, 5), request_seed(key, 5) == request_seed(key, 6)
        (True, False)
    """
    return _bits(key, position) >> 1


def _bits(key: SampleKey, position: int) -> int:
    return _mix((_stream(key) + (position + 1) * _GOLDEN_GAMMA) & _MASK)
