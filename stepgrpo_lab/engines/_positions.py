"""How many positions a model has before its attention changes for every row of a batch."""

from __future__ import annotations

from typing import Any


def position_bound(config: Any) -> tuple[int | None, str]:
    """Most positions that a row may use, and what the configuration calls them; None where it names none.

    LongRoPE (Ding et al., arXiv 2402.13753) has two sets of rotary factors, and transformers takes one of them for a
    whole batch: as soon as one row is longer than the original length, the keys that every other row has cached belong
    to the wrong set. So a model with LongRoPE ends at its original length here.

    Args:
        config: A model's configuration; of one with several parts, the language model's counts.

    Example:
        >>> from types import SimpleNamespace
        >>> rope = {"rope_type": "longrope", "original_max_position_embeddings": 4096}
        >>> text = SimpleNamespace(max_position_embeddings=131072, rope_parameters=rope)
        >>> position_bound(SimpleNamespace(get_text_config=lambda decoder: text))[0]
        4096
    """
    config = config.get_text_config(decoder=True)
    bounds = [(getattr(config, "max_position_embeddings", None), "max_position_embeddings")]
    rope = getattr(config, "rope_parameters", None) or {}
    for one in (rope, *rope.values()):  # one set for all layers, or one for each type of layer
        if isinstance(one, dict) and one.get("rope_type", one.get("type")) == "longrope":
            original = one.get("original_max_position_embeddings", bounds[0][0])
            bounds.append((original, "original_max_position_embeddings; beyond, longrope changes every row of a batch"))
    return min((bound for bound in bounds if bound[0] is not None), default=(None, ""))
