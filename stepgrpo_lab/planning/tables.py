"""A memory plan in words and tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from stepgrpo_lab.planning.components import PHASES, Component
from stepgrpo_lab.planning.hardware import GIB
from stepgrpo_lab.planning.plan import MemoryPlan


def gib(count: float) -> str:
    """Bytes in GiB, one decimal; less than that is not nothing.

    Example:
        >>> gib(3.5 * 2**30), gib(1)
        ('3.5', '<0.1')
    """
    return f"{count / GIB:.1f}" if count >= 0.05 * GIB or not count else "<0.1"


def plan_lines(plan: MemoryPlan) -> Iterator[str]:
    """A plan line by line, for a terminal."""
    setup, gpu = plan.setup, plan.setup.gpu
    where = f"{setup.gpus} x {gpu.name}" if setup.gpus > 1 else gpu.name
    yield (
        f"{plan.recipe} on {where}: {setup.dimensions.parameters / 1e9:.2f} billion parameters, prompts of up to "
        f"{setup.prompt} and completions of up to {setup.completion} tokens"
    )
    rows = plan_rows(plan)
    phases = list(plan.phases)
    width = max(len(row[0]) for row in rows)
    yield ""
    yield f"{'GiB on each GPU':<{width}}" + "".join(f"{phase:>12}" for phase in phases)
    for name, *cells in rows:
        yield f"{name:<{width}}" + "".join(f"{cell:>12}" for cell in cells)
    yield ""
    yield "; ".join(f"{phase}: {PHASES[phase]}" for phase in phases if PHASES[phase] != phase)
    yield verdict(plan)
    for change in plan.changes:
        value = change.value if isinstance(change.value, str) else json.dumps(change.value)
        yield f"  --set {change.key}={value}   -> {gib(change.peak)} GiB ({change.cost})"
    yield from plan.notes


def plan_rows(plan: MemoryPlan) -> list[list[str]]:
    """Name and one cell for each moment: of every component, and of the sum."""
    phases = list(plan.phases)
    names = list(dict.fromkeys(part.name for part in plan.components))
    rows = [[name, *(_cell(plan.components, name, phase) for phase in phases)] for name in names]
    return [*rows, ["together", *(gib(plan.phases[phase]) for phase in phases)]]


def _cell(found: Sequence[Component], name: str, phase: str) -> str:
    held = sum(part.bytes for part in found if part.name == name and phase in part.phases)
    return gib(held) if held else ""


def verdict(plan: MemoryPlan) -> str:
    """Whether it fits, in one sentence."""
    capacity = f"the {gib(plan.setup.gpu.memory)} GiB of one {plan.setup.gpu.name}"
    if plan.fits:
        return f"fits: at most {gib(plan.peak)} of {capacity}"
    if plan.changes[-1].peak <= plan.setup.gpu.memory:
        return f"does not fit: {gib(plan.peak)} GiB, more than {capacity}; change"
    return f"does not fit: {gib(plan.peak)} GiB, more than {capacity}, and all of this is not enough"


def recipes_table(plans: Sequence[MemoryPlan]) -> str:
    """One row of Markdown for each recipe: machine, what trains, and memory at each moment."""
    head = ["recipe", "machine", "trains", "rollout", "update", "highest", "of"]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for plan in plans:
        setup = plan.setup
        cells = [
            f"`{plan.recipe}`",
            f"{setup.gpus} x {setup.gpu.name}",
            _trains(plan),
            *(gib(plan.phases[phase]) for phase in ("rollout", "update")),
            gib(plan.peak),
            gib(setup.gpu.memory),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def components_table(plan: MemoryPlan) -> str:
    """A plan's components as a Markdown table, in GiB on each GPU."""
    head = ["GiB on each GPU", *plan.phases]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in plan_rows(plan))])


def _trains(plan: MemoryPlan) -> str:
    if not plan.setup.adapter:
        return "all weights"
    return "adapter on 4 bits" if plan.setup.quantised else "adapter"
