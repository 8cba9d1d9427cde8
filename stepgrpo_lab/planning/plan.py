"""``stepgrpo plan``: the memory of a recipe on a machine, whether it fits, and what to change when it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from stepgrpo_lab.engines import Engine
from stepgrpo_lab.engines.models import native_dtype_of
from stepgrpo_lab.planning._memory import PHASES, PROMPT_TOKENS, Component, Setup, components, phase_bytes, recipe_setup
from stepgrpo_lab.planning.sizes import ModelDimensions, model_dimensions
from stepgrpo_lab.recipes.schema import Lora, Recipe

SAMPLING, TRAINING = ("rollout", "server"), ("update", "step")
SHORTEST = 512
"""Completion limit below which no plan goes: a reasoning model says nothing in less."""


@dataclass(frozen=True)
class Change:
    """One setting to change.

    Attributes:
        key, value: As ``--set KEY=VALUE`` takes them.
        peak: Bytes at the highest moment after this change and those before it.
        cost: What is given up.
    """

    key: str
    value: Any
    peak: int
    cost: str


@dataclass(frozen=True)
class MemoryPlan:
    """The memory of a recipe on each GPU of a machine.

    Attributes:
        recipe: Its name.
        setup: What was planned for.
        components: What lies on a GPU, and when.
        changes: What to change, in this order, until it fits; empty when it does.
        notes: What else the machine has to say to the recipe.
    """

    recipe: str
    setup: Setup
    components: list[Component]
    changes: list[Change]
    notes: list[str]

    @property
    def phases(self) -> dict[str, int]:
        """Bytes on a GPU at each moment."""
        return phase_bytes(self.components)

    @property
    def peak(self) -> int:
        """Bytes at the highest moment."""
        return max(self.phases.values())

    @property
    def fits(self) -> bool:
        """Whether the highest moment stays within what the GPU has."""
        return self.peak <= self.setup.gpu.memory

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary of everything above."""
        return {
            "recipe": self.recipe,
            "gpu": self.setup.gpu.name,
            "gpus": self.setup.gpus,
            "capacity": self.setup.gpu.memory,
            "peak": self.peak,
            "fits": self.fits,
            "phases": self.phases,
            "components": [asdict(component) for component in self.components],
            "changes": [asdict(change) for change in self.changes],
            "notes": self.notes,
            "assumptions": {
                "parameters": self.setup.dimensions.parameters,
                "engine": self.setup.engine,
                "prompt_tokens": self.setup.prompt,
                "completion_tokens": self.setup.completion,
                "rollout_rows": self.setup.rollout_rows,
            },
        }


def plan_memory(
    recipe: Recipe,
    *,
    gpu: str | None = None,
    gpus: int | None = None,
    engine: Engine | None = None,
    prompt_tokens: int = PROMPT_TOKENS,
    dimensions: ModelDimensions | None = None,
) -> MemoryPlan:
    """Plan a recipe's memory, at its worst: every completion as long as it may be.

    Args:
        recipe: A checked recipe.
        gpu, gpus: The machine; by default the one that the recipe names.
        engine: "lockstep" samples with the trained model; "vllm" with a second copy on the same GPU that sleeps during
            updates; "vllm-server" on GPUs of its own. By default the recipe's.
        prompt_tokens: Longest prompt.
        dimensions: Of a model that lies nowhere yet; by default ``recipe.model.path`` decides.

    Raises:
        ValueError: Unknown GPU, model or optimiser, or a completion longer than the model's positions.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> plan = plan_memory(load_recipe("qwen3-8b-lora-a100"), gpu="L4")
        >>> plan.fits, [f"{change.key}={change.value}" for change in plan.changes]
        (False, ['model.quantization=nf4', 'rollout.rows=8'])
    """
    dimensions = dimensions or model_dimensions(recipe.model.path)

    def setup_of(changed: Recipe, count: int | None = gpus) -> Setup:
        return recipe_setup(
            changed, gpu=gpu, gpus=count, engine=engine, prompt_tokens=prompt_tokens, dimensions=dimensions
        )

    setup = setup_of(recipe)
    changes = changes_that_fit(recipe, setup_of)
    notes = [*_notes(recipe, setup), *(_more_gpus(recipe, setup_of) if changes else [])]
    return MemoryPlan(recipe.name, setup, components(setup), changes, notes)


def _more_gpus(recipe: Recipe, setup_of: Callable[..., Setup]) -> list[str]:
    """With how many GPUs every weight would train as the recipe says."""
    if recipe.model.lora is not None:
        return []
    sharded = replace(recipe, hardware=replace(recipe.hardware, sharding="fsdp2"))
    for count in (2, 4, 8, 16, 32, 64):
        setup = setup_of(sharded, count)
        if count > setup_of(recipe).gpus and not crowded(setup, tuple(PHASES)):
            return [f"or unchanged on {count} of these GPUs with hardware.sharding=fsdp2 and --gpus {count}"]
    return []


def _notes(recipe: Recipe, setup: Setup) -> list[str]:
    gpu, notes = setup.gpu, []
    native = native_dtype_of(gpu.capability)
    asked = {recipe.model.dtype, {"bf16": "bfloat16"}.get(recipe.optimisation.mixed_precision)}
    if native == "float16" and "bfloat16" in asked:
        notes.append(
            f"a {gpu.name} (compute capability {gpu.capability[0]}.{gpu.capability[1]}) claims bfloat16 but only "
            "emulates it: set model.dtype=auto and optimisation.mixed_precision=auto"
        )
    if recipe.model.lora is None and setup.weights < 4:
        notes.append("16-bit weights without masters: at a small learning rate most updates round to nothing")
    if setup.quantised and setup.engine != "lockstep":
        notes.append("4-bit weights cannot be handed to a second engine: sample with the lockstep engine")
    if setup.engine == "vllm" and setup.gpus > 1:
        notes.append("a training in several processes starts no vLLM engine in each: sample with vllm-server")
    per_step = recipe.optimisation.prompts_per_step * recipe.optimisation.group_size
    if per_step % (recipe.optimisation.rows_per_pass * setup.gpus):
        notes.append(
            f"{per_step} completions a step cannot be shared by {setup.gpus} GPUs in passes of "
            f"{recipe.optimisation.rows_per_pass}: change optimisation.prompts_per_step or rows_per_pass"
        )
    return notes


# ---- what to change when it does not fit, mildest first --------------------------------------------------------------

Step = tuple[str, Any, str]
"""Key, value and cost of a change."""


def crowded(setup: Setup, phases: Iterable[str]) -> bool:
    """Whether one of these moments takes more than the GPU has."""
    found = phase_bytes(components(setup))
    return any(found.get(phase, 0) > setup.gpu.memory for phase in phases)


def changes_that_fit(recipe: Recipe, setup_of: Callable[[Recipe], Setup]) -> list[Change]:
    """What to change until the recipe fits: empty if it does already, everything if nothing helps.

    What costs only time (smaller batches) is tried on its own, then below each change of the method in turn.
    """
    if not crowded(setup_of(recipe), PHASES):
        return []
    for sacrifice in _sacrifices(recipe):
        steps = list(sacrifice)
        changed = _apply(recipe, steps)
        steps += _batches(changed, setup_of)
        if not crowded(setup_of(_apply(recipe, steps)), PHASES):
            break
    return [
        Change(key, value, _peak(setup_of(_apply(recipe, steps[: number + 1]))), cost)
        for number, (key, value, cost) in enumerate(steps)
    ]


def _peak(setup: Setup) -> int:
    return max(phase_bytes(components(setup)).values())


def _sacrifices(recipe: Recipe) -> Iterator[Sequence[Step]]:
    """Changes of the method, each sequence dearer than the last; the first is empty."""
    model, optimisation = recipe.model, recipe.optimisation
    kept: list[Step] = []
    yield kept
    if model.lora is None:
        if optimisation.optimizer in ("adamw_torch", "adamw_torch_fused"):
            kept = [("optimisation.optimizer", "adamw_bnb_8bit", "optimiser states in 8 bits")]
            yield kept
        if optimisation.kl_beta > 0:
            kept = [*kept, ("optimisation.kl_beta", 0.0, "no reference model, so no KL term")]
            yield kept
        kept = [("model.lora", {}, "an adapter instead of every weight"), ("model.dtype", "auto", "16-bit weights")]
        yield kept
    if recipe.hardware.sharding != "none":
        kept = [*kept, ("hardware.sharding", "none", "a whole copy of the weights on each GPU")]
    if model.quantization is None:
        kept = [*kept, ("model.quantization", "nf4", "4-bit weights: slower, and a little rounded")]
        yield kept
    for length in _halves(recipe.rollout.max_tokens):
        if length >= SHORTEST:
            yield [*kept, ("rollout.max_tokens", length, "longer thoughts are cut off")]


def _batches(recipe: Recipe, setup_of: Callable[[Recipe], Setup]) -> Iterator[Step]:
    """Changes that cost time alone, each only where its moment is crowded, and only as far as needed."""
    optimisation, rows = recipe.optimisation, recipe.rollout.rows
    per_step = optimisation.prompts_per_step * optimisation.group_size
    passes = [rows for rows in _halves(optimisation.rows_per_pass) if per_step % rows == 0]
    for key, phases, values, cost in (
        ("rollout.rows", SAMPLING, _halves(rows), "a slower rollout"),
        ("evaluation.rows", ("evaluation",), _halves(recipe.evaluation.rows or rows), "a slower evaluation"),
        ("optimisation.gradient_checkpointing", TRAINING, [True], "a third more computing in updates"),
        ("optimisation.rows_per_pass", TRAINING, passes, "more and smaller passes"),
    ):
        if key == "optimisation.gradient_checkpointing" and optimisation.gradient_checkpointing:
            continue
        for value in values:
            if not crowded(setup_of(recipe), phases):
                break
            step = (key, value, cost)
            if value == values[-1] or not crowded(setup_of(_apply(recipe, [step])), phases):
                recipe = _apply(recipe, [step])
                yield step


def _halves(number: int) -> list[int]:
    """All halves of a number down to 1, the largest first."""
    return [number >> shift for shift in range(1, number.bit_length())]


def _apply(recipe: Recipe, steps: Iterable[Step]) -> Recipe:
    for key, value, _ in steps:
        section, name = key.split(".")
        value = Lora(**value) if key == "model.lora" else value
        recipe = replace(recipe, **{section: replace(getattr(recipe, section), **{name: value})})
    return recipe
