"""What lies on one GPU, and when: the GPUs, a recipe's setup on them, and its memory by component."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stepgrpo_lab.engines import ENGINES, Engine
from stepgrpo_lab.engines.models import native_dtype_of
from stepgrpo_lab.planning.sizes import (
    OPTIMIZERS,
    ModelDimensions,
    Optimizer,
    full_parameters,
    head_bytes,
    kv_bytes,
    layer_activations,
    lora_parameters,
    model_dimensions,
    nf4_bytes,
    optimizer_bytes,
    sampling_bytes,
)
from stepgrpo_lab.recipes.schema import Recipe

GIB = 2**30
GB = 10**9


@dataclass(frozen=True)
class Gpu:
    """What one GPU offers.

    Attributes:
        name: As ``--gpu`` names it.
        memory: What PyTorch reports as its total capacity, in bytes: less than the number on the box.
        capability: CUDA compute capability (major, minor).
        bandwidth: Of its own memory, in bytes per second.
        compute: Dense 16-bit matrix operations per second.
        link: To the other GPUs of its node, in bytes per second and direction.
    """

    name: str
    memory: int
    capability: tuple[int, int]
    bandwidth: float
    compute: float
    link: float


def _gpu(
    name: str, gib: float, capability: tuple[int, int], bandwidth_gb: float, tera_flops: float, link_gb: float
) -> Gpu:
    return Gpu(name, int(gib * GIB), capability, bandwidth_gb * GB, tera_flops * 1e12, link_gb * GB)


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("T4", 14.56, (7, 5), 320, 65, 16),
        _gpu("L4", 22.03, (8, 9), 300, 121, 32),
        _gpu("A100", 79.15, (8, 0), 2039, 312, 300),
        _gpu("H100", 79.10, (9, 0), 3350, 989, 450),
        _gpu("H200", 139.80, (9, 0), 4800, 989, 450),
    )
}
"""T4 (16 GB), L4 (24 GB), A100 (SXM, 80 GB), H100 (SXM, 80 GB) and H200 (SXM, 141 GB).

Capacity: the totals in PyTorch's own out-of-memory messages, the smallest where drivers differ. Bandwidth, dense 16-bit
rate and link: NVIDIA's data sheets. The T4 and the L4 are linked by PCIe 3.0 and 4.0, 16 lanes; the others by NVLink.
"""

NETWORK = 50 * GB
"""Between nodes, in bytes per second for each GPU: one 400 Gb/s adapter for each, as in NVIDIA's DGX H100."""


def find_gpu(name: str) -> Gpu:
    """The GPU of a name.

    Raises:
        ValueError: No such GPU in the table.

    Example:
        >>> find_gpu("T4").capability
        (7, 5)
    """
    if name not in GPUS:
        raise ValueError(f"unknown GPU {name!r}: choose from {', '.join(GPUS)}")
    return GPUS[name]


PROMPT_TOKENS = 512
"""Longest prompt that a plan reckons with; nine in ten of DAPO-Math-17k's are shorter than half of it."""

PROBE_TOKENS = 64
"""Places that probes use beyond the completion limit."""

_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Setup:
    """What decides how much memory a run takes on each GPU.

    Attributes:
        dimensions, gpu, gpus: Model and machine.
        sharded: Weights, gradients and optimiser states are spread over the GPUs (FSDP2, ZeRO-3).
        engine: Who samples.
        weights: Bytes of a number in the weights (of what is not quantised).
        compute: Bytes of a number in matrix products.
        quantised: The layers' matrices are in 4 bits.
        adapter: Sizes of the trained adapter's matrices; empty when every weight trains.
        optimizer: What the optimiser keeps.
        reference: A second model is needed for the KL term.
        checkpointing: Activations are recomputed.
        prompt, completion: Longest of each, in tokens.
        rollout_rows, prompts_at_once: Completions decoded at once in training, and the different prompts among them.
        evaluation_rows: Completions decoded at once in evaluation, each of another prompt.
        rows: Completions of one forward and backward pass.
    """

    dimensions: ModelDimensions
    gpu: Gpu
    gpus: int
    sharded: bool
    engine: Engine
    weights: int
    compute: int
    quantised: bool
    adapter: tuple[int, ...]
    optimizer: Optimizer
    reference: bool
    checkpointing: bool
    prompt: int
    completion: int
    rollout_rows: int
    prompts_at_once: int
    evaluation_rows: int
    rows: int

    @property
    def context(self) -> int:
        """Longest prompt and completion together, in tokens."""
        return self.prompt + self.completion

    @property
    def shards(self) -> int:
        """Among how many GPUs what is sharded is spread."""
        return self.gpus if self.sharded else 1

    @property
    def residual(self) -> int:
        """Bytes of a number in the residual stream: sharding engines cast the weights, autocast does not."""
        return self.compute if self.sharded else self.weights

    @property
    def casts(self) -> bool:
        """Autocast keeps a 16-bit copy of every matrix it used."""
        return self.weights > self.compute and not self.sharded

    @property
    def trained(self) -> tuple[list[int], list[int]]:
        """Sizes of the trained tensors: those of embeddings, and the others."""
        return ([], list(self.adapter)) if self.adapter else full_parameters(self.dimensions)


def recipe_setup(
    recipe: Recipe,
    *,
    gpu: str | None = None,
    gpus: int | None = None,
    engine: Engine | None = None,
    prompt_tokens: int = PROMPT_TOKENS,
    dimensions: ModelDimensions | None = None,
) -> Setup:
    """Read a recipe for a machine and an engine; by default for those that it names.

    Raises:
        ValueError: A value that cannot be planned for; the message names it.
    """
    hardware, optimisation, rollout, model = recipe.hardware, recipe.optimisation, recipe.rollout, recipe.model
    name = gpu or hardware.gpu
    if name is None:
        raise ValueError(f"recipe {recipe.name!r} names no GPU: give one, for example --gpu T4")
    engine = engine or rollout.engine
    if engine not in ENGINES:
        raise ValueError(f"unknown engine {engine!r}: use one of {', '.join(ENGINES)}")
    if optimisation.optimizer not in OPTIMIZERS:
        raise ValueError(
            f"optimisation.optimizer is {optimisation.optimizer!r}: its memory is unknown, use {', '.join(OPTIMIZERS)}"
        )
    machine, count = find_gpu(name), hardware.gpus if gpus is None else gpus
    if count < 1 or prompt_tokens < 1:
        raise ValueError(f"{count} GPUs and prompts of {prompt_tokens} tokens: both must be at least 1")
    dimensions = dimensions or model_dimensions(model.path)
    if (context := prompt_tokens + rollout.max_tokens + PROBE_TOKENS) > dimensions.positions:
        raise ValueError(
            f"rollout.max_tokens is {rollout.max_tokens}: with prompts and probes {context} positions, but the model "
            f"has {dimensions.positions}"
        )
    weights = _WIDTHS[native_dtype_of(machine.capability) if model.dtype == "auto" else model.dtype]
    adapter = model.lora and lora_parameters(dimensions, model.lora.r, model.lora.targets)
    local = optimisation.prompts_per_step * optimisation.group_size * optimisation.steps_per_rollout // count
    rows = min(rollout.rows, max(1, local))
    return Setup(
        dimensions=dimensions,
        gpu=machine,
        gpus=count,
        sharded=hardware.sharding != "none" and count > 1,
        engine=engine,
        weights=weights,
        compute=weights if optimisation.mixed_precision == "no" else 2,
        quantised=model.quantization is not None,
        adapter=tuple(adapter or ()),
        optimizer=OPTIMIZERS[optimisation.optimizer],
        reference=optimisation.kl_beta > 0 and model.lora is None,
        checkpointing=optimisation.gradient_checkpointing,
        prompt=prompt_tokens,
        completion=rollout.max_tokens,
        rollout_rows=rows,
        prompts_at_once=math.ceil(rows / optimisation.group_size),
        evaluation_rows=recipe.evaluation.rows or rollout.rows,
        rows=optimisation.rows_per_pass,
    )


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
