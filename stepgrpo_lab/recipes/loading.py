"""Read, override, check, write and compare recipes. Wrong keys and values are errors that name key and remedy."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from stepgrpo_lab.engines.files import read_text
from stepgrpo_lab.method.settings import PRESETS
from stepgrpo_lab.recipes._building import check_reward
from stepgrpo_lab.recipes.schema import PRESET_KEYS, Recipe, Rollout, naming_key, with_preset

_FOLDER = Path(__file__).parent
MOST_RECIPE = 64 * 1024
"""Most bytes of a recipe; ours have three thousand."""

MOST_DEPTH = 16
"""Most levels of sections and lists in a recipe; ours have three."""

Section = TypeVar("Section")


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_recipe(source: str | Path = "overthinker", overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        source: Name of a recipe of the package, or path of a YAML file.
        overrides: Changes such as "optimisation.learning_rate=1e-4"; the value is read as YAML.

    Raises:
        ValueError: No such recipe, an unknown key, or a value that cannot be; the message names it.

    Example:
        >>> load_recipe("overthinker", ["optimisation.max_steps=5"]).optimisation.max_steps
        5
    """
    path = _FOLDER / f"{source}.yaml" if str(source) in recipe_names() else Path(source)
    if not path.is_file():
        raise ValueError(
            f"no recipe {str(source)!r}: give the path of a YAML file, or one of {', '.join(recipe_names())}"
        )
    content = read_yaml(read_text(path, MOST_RECIPE), path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no sections: see the recipe 'overthinker' for the form")
    if any(override.partition("=")[0].strip() == "rollout.preset" for override in overrides):
        content["rollout"] = _without_preset_values(content.get("rollout"))
    for override in overrides:
        _override(content, override)
    recipe = build_section(Recipe, {"name": path.stem, **content})
    check_recipe(recipe)
    return recipe


def read_yaml(text: str, path: str | Path) -> Any:
    """Plain values from YAML: no objects, no aliases, of which a few lines can stand for more than fits in memory, and
    no nesting beyond what a recipe needs.

    Raises:
        ValueError: It is not such YAML; the message names ``path``.

    Example:
        >>> read_yaml("seed: 3", "mine.yaml")
        {'seed': 3}
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is twenty times as fast
    try:
        trap = _trap(yaml.parse(text, Loader=loader))
        if trap is None:
            return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date that is none, or a huge number
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    raise ValueError(f"{path} {trap}")


def _trap(events: Iterable[Any]) -> str | None:
    """What makes YAML more than plain values of little depth, told before anything is built of it; None if nothing."""
    import yaml

    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            return "holds aliases (*name): write their values out"
        if getattr(event, "tag", None) is not None:
            return f"holds the type {event.tag!r}: write plain values"
        if depth > MOST_DEPTH:
            return f"is nested more than {MOST_DEPTH} levels deep: a recipe has sections and values"
    return None


def write_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe with every value spelt out, so that it means the same under later defaults."""
    import yaml

    text = yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True)
    Path(path).write_text(text, encoding="utf-8")


def recipe_differences(first: Recipe, second: Recipe) -> list[tuple[str, Any, Any]]:
    """Keys at which two recipes differ, as ``--set`` takes them, with the value of each; names and descriptions aside.

    A section that only one of them has counts as one value.

    Example:
        >>> from stepgrpo_lab import load_recipe
        >>> recipe_differences(load_recipe(), load_recipe("overthinker", ["rollout.rows=64"]))
        [('rollout.rows', 128, 64)]
    """
    return [difference for difference in _differences(first, second) if difference[0] not in ("name", "description")]


def _differences(first: Any, second: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    if type(first) is type(second) and dataclasses.is_dataclass(first):
        for field in dataclasses.fields(first):
            path = f"{where}.{field.name}" if where else field.name
            yield from _differences(getattr(first, field.name), getattr(second, field.name), path)
    elif first != second:
        yield where, first, second


def _override(content: dict[str, Any], override: str) -> None:
    import yaml

    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"--set {override!r} is not KEY=VALUE: write for example optimisation.learning_rate=1e-4")
    *sections, name = key.strip().split(".")
    place = content
    for section in sections:
        place[section] = place.get(section) or {}
        if not isinstance(place[section], dict):
            raise ValueError(f"--set {override!r}: {section!r} is a value, not a section")
        place = place[section]
    try:
        place[name] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {override!r}: the value is not YAML") from error


def _without_preset_values(rollout: Any) -> Any:
    """The rollout section of a written recipe, without what it spells out of its preset, so that another can take over.

    A section written by hand, which seldom has every key, is left alone.
    """
    if not isinstance(rollout, dict) or not set(PRESET_KEYS) <= rollout.keys():
        return rollout
    preset = dataclasses.asdict(PRESETS.get(str(rollout["preset"]), PRESETS["official"]))
    return {key: value for key, value in rollout.items() if key not in preset or value != preset[key]}


def build_section(kind: type[Section], content: Mapping[str, Any], where: str = "") -> Section:
    """Turn nested dictionaries into data classes, checking every key and type.

    Raises:
        ValueError: An unknown key (with the nearest known one) or a value of the wrong type.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where or 'the recipe'} is {content!r}: it must be a section with keys")
    hints = typing.get_type_hints(kind)
    if kind is Rollout:
        content = with_preset(content)
    for key in content:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1)
            advice = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(hints)}"
            raise ValueError(f"unknown key {_join(where, key)!r}: {advice}")
    values = {key: _value(hints[key], value, _join(where, key)) for key, value in content.items()}
    with naming_key(kind, where):
        return kind(**values)


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _value(hint: Any, value: Any, where: str) -> Any:
    """``value`` as the annotated type ``hint`` asks for, or an error that names ``where`` it stands."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and value is not None:
            return build_section(typing.cast("type[Any]", option), value, where)
        if value is False and "no" in typing.get_args(option):
            return "no"  # YAML 1.1 reads the bare word as false
        if typing.get_origin(option) is tuple and isinstance(value, (list, tuple)) and _fits(list[str], list(value)):
            return tuple(value)
        if _fits(option, value):
            return value
    if float in options and (number := _as_float(value)) is not None:
        return number
    raise ValueError(f"{where} is {value!r}: it must be {' or '.join(map(_name, options))}")


def _fits(option: Any, value: Any) -> bool:
    if typing.get_origin(option) is typing.Literal:
        return value in typing.get_args(option) and not isinstance(value, bool)
    if typing.get_origin(option) is list:
        [kind] = typing.get_args(option)
        return isinstance(value, list) and bool(value) and all(_fits(kind, item) for item in value)
    if option is types.NoneType:
        return value is None
    return type(value) is option


def _as_float(value: Any) -> float | None:
    """Whole numbers, and "1e-4", which YAML 1.1 reads as text."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _name(option: Any) -> str:
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(repr(value) for value in typing.get_args(option))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    if typing.get_origin(option) in (list, tuple):
        return "a list of words" if str in typing.get_args(option) else "a list of whole numbers"
    return names.get(option, "a section")


def check_recipe(recipe: Recipe) -> None:
    """Check what types alone cannot say.

    Raises:
        ValueError: A value is out of range, or two settings contradict each other.
    """
    for path, low, high in _RANGES:
        value = functools.reduce(getattr, path.split("."), typing.cast(Any, recipe))
        if value is not None and not low <= value <= high:
            raise ValueError(
                f"{path} is {value:g}: it must be at least {low:g}"
                + f" and at most {high:g}" * (high not in (_MANY, math.inf))
            )
    if recipe.model.quantization and recipe.model.lora is None:
        raise ValueError(
            "model.quantization is nf4 without model.lora: 4-bit weights cannot be trained, add a lora section"
        )
    if recipe.model.quantization and recipe.hardware.sharding != "none":
        raise ValueError("model.quantization is nf4: 4-bit weights are not sharded, set hardware.sharding=none")
    if recipe.model.dtype == "auto" and recipe.model.lora is None:
        raise ValueError(
            "model.dtype is auto without model.lora: on a GPU every weight would train in 16 bits, where small updates "
            "round to nothing; set model.dtype=float32"
        )
    _check_pass_rates(recipe)
    _check_engine(recipe)
    optimisation = recipe.optimisation
    rows = optimisation.prompts_per_step * optimisation.group_size
    if rows % optimisation.rows_per_pass:
        raise ValueError(
            f"optimisation.rows_per_pass is {optimisation.rows_per_pass}: it must divide the {rows} completions of a "
            "step (prompts_per_step x group_size)"
        )
    if optimisation.save_every and optimisation.save_every % optimisation.steps_per_rollout:
        raise ValueError(
            f"optimisation.save_every is {optimisation.save_every}: it must be a multiple of steps_per_rollout "
            f"({optimisation.steps_per_rollout}), or a checkpoint could not be resumed exactly"
        )
    check_reward(recipe)


def _check_pass_rates(recipe: Recipe) -> None:
    rates = recipe.data.pass_rates
    if rates is None:
        return
    if rates.samples < 1:
        raise ValueError(f"data.pass_rates.samples is {rates.samples}: it must be at least 1")
    if not 0 <= rates.least <= rates.most <= 1:
        raise ValueError(
            f"data.pass_rates keeps rates from {rates.least:g} to {rates.most:g}: give 0 <= least <= most <= 1"
        )


def _check_engine(recipe: Recipe) -> None:
    engine = recipe.rollout.engine
    if engine == "lockstep":
        return
    if recipe.model.quantization:
        raise ValueError(
            f"rollout.engine is {engine}, but model.quantization is {recipe.model.quantization}: vLLM would sample "
            "from the weights before rounding, which are another policy; set rollout.engine=lockstep"
        )
    if recipe.method == "sft":
        raise ValueError(f"rollout.engine is {engine}: method sft samples with the lockstep engine")
    if not recipe.rollout.vllm.url.startswith(("http://", "https://")):
        raise ValueError(f"rollout.vllm.url is {recipe.rollout.vllm.url!r}: it must start with http:// or https://")


_MANY = 1e9
_RANGES = (
    ("seed", 0, 2**32 - 1),
    ("data.counts.train", 1, _MANY),
    ("data.counts.validation", 1, _MANY),
    ("data.counts.test", 1, _MANY),
    ("rollout.max_tokens", 8, _MANY),
    ("rollout.temperature", 0.01, 10),
    ("rollout.rows", 1, _MANY),
    ("rollout.vllm.memory", 0.01, 1),
    ("rollout.vllm.context", 16, _MANY),
    ("rollout.vllm.timeout", 1, _MANY),
    ("reward.strength", 0, 1),
    ("reward.penalized_share", 0, 1),
    ("reward.target_tokens", 1, _MANY),
    ("reward.overlong_limit", 1, _MANY),
    ("reward.overlong_cache", 1, _MANY),
    ("reward.length_scale", 1e-6, _MANY),
    ("reward.grading_timeout", 0.01, _MANY),
    ("optimisation.learning_rate", 0, 1),
    ("optimisation.prompts_per_step", 1, _MANY),
    ("optimisation.group_size", 2, _MANY),
    ("optimisation.max_steps", 1, _MANY),
    ("optimisation.token_budget", 1, math.inf),
    ("optimisation.steps_per_rollout", 1, _MANY),
    ("optimisation.rows_per_pass", 1, _MANY),
    ("optimisation.kl_beta", 0, _MANY),
    ("optimisation.epsilon", 0, 1),
    ("optimisation.save_every", 1, _MANY),
    ("evaluation.every", 1, _MANY),
    ("evaluation.samples", 1, _MANY),
    ("evaluation.temperature", 0, 10),
    ("evaluation.top_p", 0.01, 1),
    ("evaluation.top_k", 0, _MANY),
    ("evaluation.texts", 0, _MANY),
    ("evaluation.rows", 1, _MANY),
    ("hardware.gpus", 1, _MANY),
)
