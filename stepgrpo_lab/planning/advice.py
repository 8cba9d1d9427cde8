"""What to change in a recipe that does not fit, mildest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stepgrpo_lab.planning.components import PHASES, components, phase_bytes
from stepgrpo_lab.planning.setup import Setup
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
