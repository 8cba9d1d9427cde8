"""What 16 bits make of a number, and of a small update to it."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable

ROUNDED_TYPES = ("float32", "bfloat16", "float16")


def round_to(value: float, dtype: str) -> float:
    """The nearest number that a type can hold, ties to the even one; infinity beyond its range.

    Raises:
        ValueError: Unknown type.

    Example:
        >>> round_to(0.02, "bfloat16"), round_to(70_000, "float16")
        (0.02001953125, inf)
    """
    if dtype not in ROUNDED_TYPES:
        raise ValueError(f"unknown dtype {dtype!r}: use one of {', '.join(ROUNDED_TYPES)}")
    single = _packed(value, "<f")  # arithmetic on 16-bit numbers is done in fp32 and rounded afterwards
    if dtype == "float16":
        return _packed(single, "<e")
    if dtype == "float32" or not math.isfinite(single):
        return single
    # bfloat16 is the upper half of a float32: add half of what is cut off, less one where that keeps it even.
    (bits,) = struct.unpack("<I", struct.pack("<f", single))
    bits += 0x7FFF + (bits >> 16 & 1)
    return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0])


def _packed(value: float, code: str) -> float:
    try:
        return float(struct.unpack(code, struct.pack(code, float(value)))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def unchanged_share(weights: Iterable[float], update: float, dtype: str) -> float:
    """Share of the weights that an update leaves as they were, each kept in ``dtype`` before and after it.

    Args:
        weights: Their values.
        update: What is subtracted from each; AdamW's is about as large as the learning rate.
        dtype: "float32", "bfloat16" or "float16".

    Raises:
        ValueError: Unknown type, or no weight.

    Example:
        >>> unchanged_share([0.02, 0.0001], 1e-6, "bfloat16")
        0.5
    """
    held = [round_to(weight, dtype) for weight in weights]
    if not held:
        raise ValueError("weights is empty; pass at least one weight")
    return sum(round_to(weight - update, dtype) == weight for weight in held) / len(held)
