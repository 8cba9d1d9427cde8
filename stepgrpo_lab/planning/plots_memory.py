"""Figure of memory plans: what lies on a GPU at each moment of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from stepgrpo_lab.planning.hardware import GIB
from stepgrpo_lab.planning.plan import MemoryPlan
from stepgrpo_lab.viz.html import visible_text
from stepgrpo_lab.viz.style import HATCHES, INK, PALETTE, styled

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
    from plotly.graph_objects import Bar, Figure

    if not plans:
        raise ValueError("plans is empty; pass at least one")
    bars = [
        (visible_text(name), phase, plan.setup.gpu.memory, kinds)
        for name, plan in plans.items()
        for phase, kinds in memory_by_kind(plan).items()
    ]
    figure = Figure(
        [
            Bar(
                x=[[name for name, *_ in bars], [phase for _, phase, *_ in bars]],
                y=[100 * kinds[kind] / capacity for *_, capacity, kinds in bars],
                customdata=[kinds[kind] / GIB for *_, kinds in bars],
                name=kind,
                marker={
                    "color": PALETTE[number],
                    "pattern": {"shape": HATCHES[number], "fgcolor": INK, "fillmode": "overlay"},
                },
                hovertemplate="%{customdata:.1f} GiB, %{y:.0f} %",
            )
            for number, kind in enumerate(KINDS)
        ]
    )
    figure.add_hline(y=100, line={"color": INK, "width": 2, "dash": "dash"})
    figure.update_layout(
        barmode="stack",
        bargap=0.15,
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    figure.update_yaxes(title_text="% of the GPU's memory", rangemode="tozero")
    return styled(figure, height=460)
