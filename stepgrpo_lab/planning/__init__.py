"""What a recipe needs of a machine: memory by component, whether it fits, and what limits growth past one node."""

from __future__ import annotations

from stepgrpo_lab.planning._memory import GPUS, Gpu
from stepgrpo_lab.planning.plan import Change, MemoryPlan, plan_memory

__all__ = ["GPUS", "Change", "Gpu", "MemoryPlan", "plan_memory"]
