"""What lies on one GPU, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_lab.planning.formulas import (
    head_bytes,
    kv_bytes,
    layer_activations,
    nf4_bytes,
    optimizer_bytes,
    sampling_bytes,
)
from stepgrpo_lab.planning.hardware import GIB
from stepgrpo_lab.planning.setup import PROBE_TOKENS, Setup

PHASES = {
    "evaluation": "evaluation before training",
    "rollout": "rollout",
    "update": "forward and backward",
    "step": "optimiser step",
    "server": "rollout, on the engine's own GPU",
}
"""The moments that are planned for, and how they are called."""

CONTEXT = int(0.6 * GIB)
"""What CUDA, its libraries' kernels and their work spaces take of a GPU before the first tensor."""

FRAGMENTATION = 0.05
"""Share of what is allocated that the allocator holds beyond it: an assumption, to be replaced by a measurement."""


@dataclass(frozen=True)
class Component:
    """One kind of memory.

    Attributes:
        name: What it is.
        bytes: How much of it one GPU holds.
        phases: When, among :data:`PHASES`.
    """

    name: str
    bytes: int
    phases: tuple[str, ...]


_ALWAYS = ("rollout", "update", "step")


def components(setup: Setup) -> list[Component]:
    """Everything on one GPU; what takes nothing is left out."""
    found = [*_model(setup), *_evaluation(setup), *_training_state(setup), *_rollout(setup), *_update(setup)]
    found = [component for component in found if component.bytes and component.phases]
    phases = [phase for phase in PHASES if any(phase in component.phases for component in found)]
    found.append(Component("CUDA context and libraries", CONTEXT, tuple(phases)))
    for phase in phases:
        held = sum(component.bytes for component in found if phase in component.phases)
        found.append(Component("fragmentation", int(FRAGMENTATION * held), (phase,)))
    return found


def phase_bytes(found: Sequence[Component]) -> dict[str, int]:
    """Bytes on a GPU at each moment at which there are any."""
    sums = {phase: sum(part.bytes for part in found if phase in part.phases) for phase in PHASES}
    return {phase: total for phase, total in sums.items() if total}


def _model(setup: Setup) -> list[Component]:
    dimensions, width = setup.dimensions, setup.weights
    if not setup.quantised:
        name = "fp32 master weights" if width > setup.compute and not setup.adapter else "weights"
        whole = width * dimensions.parameters
        # The reference model of the KL term stays on the GPU; TRL shards it as one unit, gathered whole when used.
        reference = whole // setup.shards if setup.reference else 0
        gathered = 2 * dimensions.parameters if setup.reference and setup.sharded else 0
        return [
            Component(name, whole, ("evaluation",) if setup.sharded else ("evaluation", *_ALWAYS)),
            Component(f"{name}, in shards", whole // setup.shards * setup.sharded, _ALWAYS),
            Component("reference model", reference, _ALWAYS),
            Component("reference model, gathered", gathered, ("update",)),
        ]
    weights, constants = nf4_bytes(list(dimensions.linear_shapes.values()) * dimensions.layers)
    others = dimensions.parameters - dimensions.layers * dimensions.layer_linear
    largest = max(outputs * inputs for outputs, inputs in dimensions.linear_shapes.values())
    return [
        Component("weights in 4 bits", weights, ("evaluation", *_ALWAYS)),
        Component("quantisation constants", constants, ("evaluation", *_ALWAYS)),
        Component("weights that are not quantised", width * others, ("evaluation", *_ALWAYS)),
        Component("one 4-bit matrix, unpacked", 2 * largest, ("evaluation", "rollout", "update")),
    ]


def _decoding(setup: Setup, rows: int, prompts: int, phase: str) -> list[Component]:
    dimensions, compute = setup.dimensions, setup.compute
    context = setup.context + PROBE_TOKENS
    per_token = layer_activations(dimensions, compute, compute)
    return [
        Component("KV cache", kv_bytes(dimensions, rows, context, compute), (phase,)),
        Component("logits of a decoding step", sampling_bytes(dimensions, rows, compute), (phase,)),
        Component("activations of the prompts", prompts * setup.prompt * per_token, (phase,)),
    ]


def _evaluation(setup: Setup) -> list[Component]:
    """Whoever samples the rollouts samples the evaluations too."""
    if setup.engine == "vllm-server":
        return []
    copied = _copied(setup) if setup.engine == "lockstep" and setup.weights > setup.compute else 0
    return [
        *_decoding(setup, setup.evaluation_rows, setup.evaluation_rows, "evaluation"),
        Component(_COPIES, copied, ("evaluation",)),
    ]


_COPIES = "16-bit copies by autocast"


def _copied(setup: Setup) -> int:
    """What autocast keeps in 16 bits until it ends: every matrix, the LM head included."""
    return 2 * (setup.dimensions.layers * setup.dimensions.layer_linear + setup.dimensions.embedding)


def _training_state(setup: Setup) -> list[Component]:
    embeddings, others = setup.trained
    trained = sum(embeddings) + sum(others)
    width = 4 if setup.adapter else setup.weights  # adapters are kept in fp32
    state = 0 if setup.optimizer.paged else optimizer_bytes(setup.optimizer, embeddings, others)
    # DistributedDataParallel reduces gradients in buckets, a second copy of them.
    gradients = width * trained * (2 if setup.gpus > 1 and not setup.sharded else 1)
    return [
        Component("adapter (fp32)", 4 * sum(setup.adapter), _ALWAYS),
        Component("gradients", gradients // setup.shards, ("update", "step")),
        Component("optimiser states", state // setup.shards, _ALWAYS),
        Component("optimiser work space", width * trained // setup.shards if setup.optimizer.foreach else 0, ("step",)),
    ]


def _rollout(setup: Setup) -> list[Component]:
    parameters = setup.dimensions.parameters
    own_weights = "the engine's own weights"
    if setup.engine == "vllm-server":
        found = _decoding(setup, setup.rollout_rows, setup.prompts_at_once, "server")
        return [*found, Component(own_weights, 2 * parameters, ("server",))]
    found = _decoding(setup, setup.rollout_rows, setup.prompts_at_once, "rollout")
    if setup.engine == "vllm":
        return [*found, Component(own_weights, 2 * parameters, ("evaluation", "rollout"))]
    return [
        *found,
        Component("weights gathered for the rollout", 2 * parameters * setup.sharded, ("rollout",)),
        Component(_COPIES, _copied(setup) * setup.casts, ("rollout",)),
    ]


def _update(setup: Setup) -> list[Component]:
    dimensions, compute = setup.dimensions, setup.compute
    tokens = setup.rows * setup.context
    layer = tokens * layer_activations(dimensions, compute, setup.residual)
    kept = tokens * dimensions.hidden * setup.residual * dimensions.layers
    # Rows are padded to the longest of the rollout, so attention needs a mask: boolean, and once in 16 bits.
    mask = setup.rows * setup.context**2 * (1 + compute)
    # In flight: this layer and the next whole, the layer's gradients, and embedding and head, which stay gathered.
    flying = 2 * 2 * dimensions.layer + 4 * dimensions.layer + 2 * (dimensions.embedding + dimensions.untied_head)
    return [
        Component(_COPIES, _copied(setup) * setup.casts, ("update",)),
        Component("checkpoints (one a layer)", kept * setup.checkpointing, ("update",)),
        Component(
            "activations of one layer, recomputed" if setup.checkpointing else "activations",
            layer if setup.checkpointing else layer * dimensions.layers,
            ("update",),
        ),
        Component("attention mask", mask, ("update",)),
        Component("logits and LM head", head_bytes(dimensions, tokens, compute, trains=not setup.adapter), ("update",)),
        Component("layers gathered from the shards", flying * setup.sharded, ("update",)),
    ]
