"""What notebook 09 is made of: the figure of a plan, differences of recipes, rounding to 16 bits, advice that holds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.engines import ENGINES
from stepgrpo_lab.planning import plan_memory
from stepgrpo_lab.planning._memory import GIB
from stepgrpo_lab.planning.rounding import ROUNDED_TYPES, round_to, unchanged_share
from stepgrpo_lab.planning.views import KINDS, memory_by_kind, memory_chart
from stepgrpo_lab.recipes import load_recipe, recipe_names
from stepgrpo_lab.recipes.loading import recipe_differences

REAL = [name for name in recipe_names() if name.startswith("qwen3")]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("engine", ENGINES)
def test_every_byte_of_a_plan_has_a_kind(name: str, engine: str) -> None:
    for overrides in ([], ["optimisation.gradient_checkpointing=false", "optimisation.optimizer=adamw_torch"]):
        plan = plan_memory(load_recipe(name, overrides), engine=engine)  # type: ignore[arg-type]
        assert {phase: sum(kinds.values()) for phase, kinds in memory_by_kind(plan).items()} == plan.phases


def test_a_component_has_one_kind() -> None:
    names = [name for kind in KINDS.values() for name in kind]
    assert len(names) == len(set(names))


def test_bars_stack_to_the_plan() -> None:
    plans = {
        "fits": plan_memory(load_recipe("qwen3-1.7b-qlora-t4")),
        "<b>not</b>": plan_memory(load_recipe("qwen3-8b-full-1xh200"), gpu="A100"),
    }
    chart = memory_chart(plans)
    heights = [sum(column) for column in zip(*(bar.y for bar in chart.data), strict=True)]
    shares = [100 * total / plan.setup.gpu.memory for plan in plans.values() for total in plan.phases.values()]
    assert heights == pytest.approx(shares)
    assert max(heights[:4]) < 100 < max(heights[4:])
    cache = next(bar for bar in chart.data if bar.name == "KV cache")
    assert cache.customdata[1] == pytest.approx(memory_by_kind(plans["fits"])["rollout"]["KV cache"] / GIB)
    assert "<b>" not in cache.x[0][-1]
    with pytest.raises(ValueError, match="plans is empty"):
        memory_chart({})


def test_differences_of_recipes() -> None:
    small, large = load_recipe("qwen3-0.6b-lora-t4"), load_recipe("qwen3-1.7b-qlora-t4")
    assert recipe_differences(small, large) == [
        ("model.path", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B"),
        ("model.quantization", None, "nf4"),
    ]
    assert recipe_differences(small, small) == []
    (adapter,) = [d for d in recipe_differences(load_recipe(), small) if d[0].startswith("model.lora")]
    assert adapter[1] is None and adapter[2].r == 16


@given(st.floats(width=32, allow_nan=False), st.sampled_from(ROUNDED_TYPES))
def test_rounding_is_torch_s(value: float, dtype: str) -> None:
    assert round_to(value, dtype) == torch.tensor(value).to(getattr(torch, dtype)).item()


@given(st.floats(1e-3, 1), st.floats(2**-27, 2**-16, width=32), st.sampled_from(("bfloat16", "float16")))
def test_an_update_survives_as_in_torch(weight: float, update: float, dtype: str) -> None:
    held = torch.tensor(round_to(weight, dtype), dtype=getattr(torch, dtype))
    stays = bool(held.float().sub(update).to(held.dtype) == held)  # torch rounds a scalar to a 16-bit tensor's type
    assert unchanged_share([weight], update, dtype) == stays


def test_rounding_edges() -> None:
    assert round_to(-1e39, "bfloat16") == round_to(-70_000, "float16") == -math.inf
    assert math.isnan(round_to(math.nan, "bfloat16"))
    assert round_to(1e-8, "float16") == 0.0 < round_to(1e-8, "bfloat16")
    assert unchanged_share([0.5, 0.02, 0.0001, 0.0], 1e-6, "bfloat16") == 0.5
    assert unchanged_share([0.5, 0.02, 0.0001, 0.0], 1e-6, "float32") == 0.0
    with pytest.raises(ValueError, match="unknown dtype 'int8'"):
        round_to(1.0, "int8")
    with pytest.raises(ValueError, match="weights is empty"):
        unchanged_share([], 1e-6, "float32")
