"""Engines drive trajectory machines with a model. They hold no policy: every decision is the machine's."""

from typing import Literal, get_args

Engine = Literal["lockstep", "vllm", "vllm-server"]
"""Who samples: the trained model itself, a second copy on the same GPU that sleeps during updates, or one elsewhere."""

ENGINES: tuple[Engine, ...] = get_args(Engine)

WIDTH_STEP = 32
"""The lockstep cache rounds attended widths up to this, in tokens: few distinct shapes, masks that GPU kernels take."""
