"""The checks of notebook 09: right solutions pass, common mistakes fail with a message of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stepgrpo_lab import load_recipe
from stepgrpo_lab.course.checks import adapter_size, cache_bytes_per_token, longest_completion
from stepgrpo_lab.planning import plan_memory


def right_cache(config: Any, width: int) -> int:
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * width


def right_size(shapes: Any, layers: int, rank: int) -> int:
    return layers * rank * sum(outputs + inputs for outputs, inputs in shapes.values())


def fits(recipe: str, gpu: str | None, limit: int) -> bool:
    return plan_memory(load_recipe(recipe, [f"rollout.max_tokens={limit}"]), gpu=gpu).fits


def right_longest(recipe: str, gpu: str, limits: list[int]) -> int | None:
    return max((limit for limit in limits if fits(recipe, gpu, limit)), default=None)


@pytest.mark.parametrize(
    ("check", "solution"),
    [(cache_bytes_per_token, right_cache), (adapter_size, right_size), (longest_completion, right_longest)],
)
def test_right_solutions_pass(check: Callable[[Any], Any], solution: Any) -> None:
    assert check(solution).passed


def raising(*_: Any) -> Any:
    raise RuntimeError("boom")


def query_heads(config: Any, width: int) -> int:
    return 2 * config["num_hidden_layers"] * config["num_attention_heads"] * config["head_dim"] * width


def derived_head(config: Any, width: int) -> int:
    head = config["hidden_size"] // config["num_attention_heads"]
    return 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head * width


def product(shapes: Any, layers: int, rank: int) -> int:
    return layers * rank * sum(outputs * inputs for outputs, inputs in shapes.values())


def first_fitting(recipe: str, gpu: str, limits: list[int]) -> int | None:
    return next((limit for limit in limits if fits(recipe, gpu, limit)), None)


def own_gpu(recipe: str, gpu: str, limits: list[int]) -> int | None:
    return right_longest(recipe, None, limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("check", "solution", "message"),
    [
        (cache_bytes_per_token, lambda config, width: right_cache(config, width) // 2, "both keys and values"),
        (cache_bytes_per_token, query_heads, "only key-value heads are kept"),
        (cache_bytes_per_token, derived_head, "it is not hidden_size // heads"),
        (
            cache_bytes_per_token,
            lambda config, width: right_cache({**config, "num_hidden_layers": 1}, width),
            "every layer keeps its own",
        ),
        (cache_bytes_per_token, lambda config, width: 7, "Keys and values, of all layers"),
        (adapter_size, product, "add, do not multiply"),
        (adapter_size, lambda shapes, layers, rank: product(shapes, layers, 1), "the matrices themselves"),
        (adapter_size, lambda shapes, layers, rank: right_size(shapes, 1, rank), "every layer has its own"),
        (adapter_size, lambda shapes, n, r: n * r * sum(i for _, i in shapes.values()), "that is A alone"),
        (adapter_size, lambda shapes, n, r: n * r * sum(o for o, _ in shapes.values()), "that is B alone"),
        (longest_completion, first_fitting, "that fits, but"),
        (longest_completion, lambda recipe, gpu, limits: max(limits), "that does not fit"),
        (longest_completion, own_gpu, "that fits, but"),
        (longest_completion, lambda recipe, gpu, limits: right_longest(recipe, gpu, limits) or 0, "give None"),
    ],
)
def test_common_mistakes_have_a_message(check: Callable[[Any], Any], solution: Any, message: str) -> None:
    result = check(solution)
    assert not result.passed
    assert message in result.message


@pytest.mark.parametrize("check", [cache_bytes_per_token, adapter_size, longest_completion])
def test_stubs_and_exceptions_are_red(check: Callable[[Any], Any]) -> None:
    stub = check(lambda *_: None)
    assert not stub.passed and "gives nothing yet" in stub.message
    assert "raised RuntimeError: boom" in check(raising).message
