"""A memory plan in words, in tables and in a figure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from stepgrpo_lab.evaluation._tables import markdown_table
from stepgrpo_lab.planning._memory import GIB, PHASES, Component
from stepgrpo_lab.planning.plan import MemoryPlan
from stepgrpo_lab.viz._html import visible_text
from stepgrpo_lab.viz._style import INK, bar_look, new_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

KINDS: dict[str, tuple[str, ...]] = {
    "weights": (
        "weights",
        "weights, in shards",
        "fp32 master weights",
        "fp32 master weights, in shards",
        "weights in 4 bits",
        "quantisation constants",
        "weights that are not quantised",
        "one 4-bit matrix, unpacked",
        "16-bit copies by autocast",
        "reference model",
        "reference model, gathered",
        "weights gathered for the rollout",
        "layers gathered from the shards",
        "the engine's own weights",
    ),
    "KV cache": ("KV cache",),
    "adapter, gradients, optimiser": ("adapter (fp32)", "gradients", "optimiser states", "optimiser work space"),
    "activations": (
        "activations of the prompts",
        "checkpoints (one a layer)",
        "activations of one layer, recomputed",
        "activations",
        "attention mask",
    ),
    "logits": ("logits of a decoding step", "logits and LM head"),
    "CUDA and fragmentation": ("CUDA context and libraries", "fragmentation"),
}
"""Kind -> the components of a plan that are drawn as one colour."""


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
    rows = [
        [
            f"`{plan.recipe}`",
            f"{plan.setup.gpus} x {plan.setup.gpu.name}",
            _trains(plan),
            *(gib(plan.phases[phase]) for phase in ("rollout", "update")),
            gib(plan.peak),
            gib(plan.setup.gpu.memory),
        ]
        for plan in plans
    ]
    return markdown_table(["recipe", "machine", "trains", "rollout", "update", "highest", "of"], rows)


def components_table(plan: MemoryPlan) -> str:
    """A plan's components as a Markdown table, in GiB on each GPU."""
    return markdown_table(["GiB on each GPU", *plan.phases], plan_rows(plan))


def _trains(plan: MemoryPlan) -> str:
    if not plan.setup.adapter:
        return "all weights"
    return "adapter on 4 bits" if plan.setup.quantised else "adapter"


def memory_by_kind(plan: MemoryPlan) -> dict[str, dict[str, int]]:
    """Bytes on a GPU at each moment of a plan, by kind: ``[moment][kind]``, kinds of :data:`KINDS`.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> from stepgrpo_lab.planning import plan_memory
        >>> update = memory_by_kind(plan_memory(load_recipe("qwen3-8b-lora-a100")))["update"]
        >>> max(update, key=update.get)
        'weights'
    """
    return {
        phase: {
            kind: sum(part.bytes for part in plan.components if part.name in names and phase in part.phases)
            for kind, names in KINDS.items()
        }
        for phase in plan.phases
    }


def memory_chart(plans: Mapping[str, MemoryPlan]) -> Figure:
    """Memory by kind at each moment of each plan, as a share of its GPU: what reaches above 100 % does not fit.

    Args:
        plans: Name for the axis -> plan.

    Raises:
        ValueError: There is no plan.
    """
    if not plans:
        raise ValueError("plans is empty; pass at least one")
    bars = [
        (visible_text(name), phase, plan.setup.gpu.memory, kinds)
        for name, plan in plans.items()
        for phase, kinds in memory_by_kind(plan).items()
    ]
    figure = new_figure("", "% of the GPU's memory", height=460)
    for number, kind in enumerate(KINDS):
        figure.add_bar(
            x=[[name for name, *_ in bars], [phase for _, phase, *_ in bars]],
            y=[100 * kinds[kind] / capacity for *_, capacity, kinds in bars],
            customdata=[kinds[kind] / GIB for *_, kinds in bars],
            name=kind,
            marker=bar_look(number),
            hovertemplate="%{customdata:.1f} GiB, %{y:.0f} %",
        )
    figure.add_hline(y=100, line={"color": INK, "width": 2, "dash": "dash"})
    return figure.update_layout(barmode="stack", bargap=0.15, hovermode="x unified", yaxis_rangemode="tozero")
