"""Read, override, check, write and compare recipes. Wrong keys and values are errors that name key and remedy."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from stepgrpo_lab.engines.files import read_text, write_atomically
from stepgrpo_lab.method.names import did_you_mean, near_name, shown
from stepgrpo_lab.method.settings import PRESETS
from stepgrpo_lab.recipes._rules import LONGEST_NAME, broken_rules
from stepgrpo_lab.recipes.schema import PRESET_KEYS, Recipe, RecipeError, Rollout, naming_key, with_preset

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
        RecipeError: Unknown keys, values that cannot be, or settings that contradict each other: all of them, with the
            key, the value and the remedy of each. It is a ValueError.
        ValueError: No such recipe, or a file that holds none.

    Example:
        >>> load_recipe("overthinker", ["optimisation.max_steps=5"]).optimisation.max_steps
        5
    """
    path = _FOLDER / f"{source}.yaml" if str(source) in recipe_names() else Path(source)
    if not path.is_file():
        raise ValueError(
            f"no recipe {str(source)!r}: give the path of a YAML file, or one of {', '.join(recipe_names())}"
            + did_you_mean(source, recipe_names())
        )
    content = read_yaml(read_text(path, MOST_RECIPE), path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no sections: see the recipe 'overthinker' for the form")
    if any(override.partition("=")[0].strip() == "rollout.preset" for override in overrides):
        content["rollout"] = _without_preset_values(content.get("rollout"))
    mistakes: dict[str, str] = {}
    for override in overrides:
        try:
            _override(content, override)
        except ValueError as error:
            mistakes[f"--set {override}"] = str(error)
    return _checked({"name": _name_of(path), **content}, mistakes)


def check_recipe(recipe: Recipe) -> None:
    """Check a recipe that was made or changed in Python as one that is read.

    Raises:
        RecipeError: As :func:`load_recipe`.
    """
    _checked(dataclasses.asdict(recipe), {})


def _checked(content: Mapping[str, Any], mistakes: dict[str, str]) -> Recipe:
    """The recipe of some content, if neither ``mistakes`` (key -> line) nor the content hold any."""
    recipe = build_section(Recipe, content, mistakes=mistakes)
    wrong = tuple(mistakes)
    for keys, line in broken_rules(recipe):
        if not any(_overlap(key, other) for key in keys for other in wrong):  # a stand-in breaks no rule
            mistakes[" ".join(keys)] = line
    if mistakes:
        raise RecipeError(list(dict.fromkeys(mistakes.values())))
    return recipe


def _overlap(key: str, other: str) -> bool:
    """Whether two keys are the same, or one is the other's section."""
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def _name_of(path: Path) -> str:
    """A recipe's name where its file gives none: that of the file, as far as a name may hold its characters."""
    return re.sub(r"[^\w.-]+", "-", path.stem).lstrip(".")[:LONGEST_NAME] or "recipe"


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
            return loader(text).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: an impossible date, or a huge number
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
    """Write a recipe with every value spelt out, so that it means the same under later defaults, and whole: half a
    recipe could be taken for one with other values.
    """
    import yaml

    text = yaml.safe_dump(dataclasses.asdict(recipe), sort_keys=False, allow_unicode=True)
    write_atomically(path, text)


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
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"--set {shown(override)} is not KEY=VALUE: write for example optimisation.learning_rate=1e-4")
    *sections, name = key.strip().split(".")
    place = content
    for section in sections:
        place[section] = place.get(section) or {}
        if not isinstance(place[section], dict):
            raise ValueError(f"--set {shown(override)}: {section!r} is a value, not a section")
        place = place[section]
    try:
        place[name] = read_yaml(text, key)
    except ValueError as error:
        raise ValueError(f"--set {shown(override)}: the value is not YAML") from error


def _without_preset_values(rollout: Any) -> Any:
    """The rollout section of a written recipe, without what it spells out of its preset, so that another can take over.

    A section written by hand, which seldom has every key, is left alone.
    """
    if not isinstance(rollout, dict) or not set(PRESET_KEYS) <= rollout.keys():
        return rollout
    preset = dataclasses.asdict(PRESETS.get(str(rollout["preset"]), PRESETS["official"]))
    return {key: value for key, value in rollout.items() if key not in preset or value != preset[key]}


def build_section(
    kind: type[Section], content: Mapping[str, Any], where: str = "", *, mistakes: dict[str, str]
) -> Section:
    """Turn nested dictionaries into data classes, checking every key, type and range.

    Args:
        kind: The data class.
        content: Its keys and values, sections within as dictionaries.
        where: The key of this section.
        mistakes: Receives a line for each key that is wrong; its default stands in for its value.
    """
    if not isinstance(content, Mapping):
        mistakes[where] = f"{where or 'the recipe'} is {shown(content)}: it must be a section with keys"
        content = {}
    hints = typing.get_type_hints(kind, include_extras=True)
    if kind is Rollout:
        content = with_preset(content)
    values = {}
    for key, value in content.items():
        path = _join(where, key)
        if key not in hints:
            mistakes[path] = _unknown(where, path)
            continue
        try:
            values[key] = _value(hints[key], value, path, mistakes)
        except ValueError as error:
            mistakes[path] = f"{error}{_such_as(kind, key)}"
    return _made(kind, values, where, mistakes)


def _made(kind: type[Section], values: dict[str, Any], where: str, mistakes: dict[str, str]) -> Section:
    """An object of a class that checks its own values; what it refuses is noted, and gives way to the default."""
    stand_ins = with_preset({"preset": values.get("preset", "official")}) if kind is Rollout else {}
    while True:
        try:
            with naming_key(kind, where):
                return kind(**{**stand_ins, **values})
        except ValueError as error:
            path = str(error).split(maxsplit=1)[0].rstrip(":")
            mistakes.setdefault(path, str(error))
            name = path.rpartition(".")[2]
            values = {key: value for key, value in values.items() if key != name} if name in values else {}


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)


def _keys(kind: Any = Recipe, where: str = "") -> Iterator[str]:
    """Every key of the schema, sections and those within them, as ``--set`` takes it."""
    for name, hint in typing.get_type_hints(kind).items():
        yield (path := _join(where, name))
        for option in _options(hint):
            if dataclasses.is_dataclass(option):
                yield from _keys(option, path)


def _unknown(where: str, path: str) -> str:
    """What to say of a key that the schema lacks: the same name in another section, or one that is near."""
    name, keys = path.rpartition(".")[2], list(_keys())
    siblings = [key.rpartition(".")[2] for key in keys if key.rpartition(".")[0] == where]
    meant = [key for key in keys if key.rpartition(".")[2] == name]
    if not meant and (near := near_name(name, siblings)):
        meant = [near]
    elif not meant:
        near = near_name(name, [key.rpartition(".")[2] for key in keys], nearness=0.75)
        meant = [key for key in keys if key.rpartition(".")[2] == near]
    advice = f"did you mean {' or '.join(map(repr, meant))}?" if meant else f"known keys: {', '.join(siblings)}"
    return f"unknown key {shown(path)}: {advice}"


def _options(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def _value(hint: Any, value: Any, where: str, mistakes: dict[str, str]) -> Any:
    """``value`` as the annotated type ``hint`` asks for.

    Raises:
        ValueError: It has another type, or is out of range; the message names ``where`` it stands.
    """
    options = _options(hint)
    plain = [typing.get_args(option)[0] if _is_annotated(option) else option for option in options]
    for option in plain:
        if dataclasses.is_dataclass(option) and value is not None:
            return build_section(typing.cast("type[Any]", option), value, where, mistakes=mistakes)
    for option, kind in zip(options, plain, strict=True):
        if value is False and "no" in typing.get_args(kind):
            return "no"  # YAML 1.1 reads the bare word as false
        if typing.get_origin(kind) is tuple and isinstance(value, (list, tuple)) and _fits(list[str], list(value)):
            return tuple(value)
        if _fits(kind, value):
            return _in_range(option, value, where)
    if float in plain and (number := _as_float(value)) is not None:
        return _in_range(options[plain.index(float)], number, where)
    literals = [option for option in plain if typing.get_origin(option) is typing.Literal]
    words = [word for literal in literals for word in typing.get_args(literal)]
    allowed = " or ".join(map(_name, plain))
    raise ValueError(f"{where} is {shown(value)}: it must be {allowed}{did_you_mean(value, words)}")


def _is_annotated(option: Any) -> bool:
    return typing.get_origin(option) is typing.Annotated


def _in_range(option: Any, value: Any, where: str) -> Any:
    """``value``, if it and whatever it lists lie where the annotation says."""
    if isinstance(value, list):
        [option] = typing.get_args(option)
    bounds = option.__metadata__[0] if _is_annotated(option) else None
    for number in value if isinstance(value, list) else [value]:
        if bounds is not None and number not in bounds:
            raise ValueError(f"{where} {'holds' if number is not value else 'is'} {shown(number)}: it must be {bounds}")
    return value


def _such_as(kind: type, key: str) -> str:
    """A value that fits, for the end of a message about a number: the key's default, or the least."""
    hint = typing.get_type_hints(kind, include_extras=True)[key]
    [field] = [field for field in dataclasses.fields(kind) if field.name == key]
    bounds = [option.__metadata__[0] for option in _options(hint) if _is_annotated(option)]
    if not bounds:
        return ""
    return f", such as {shown(bounds[0].low if field.default is None else field.default)}"


def _fits(option: Any, value: Any) -> bool:
    if typing.get_origin(option) is typing.Literal:
        return isinstance(value, str) and value in typing.get_args(option)
    if typing.get_origin(option) is list:
        [kind] = typing.get_args(option)
        kind = typing.get_args(kind)[0] if _is_annotated(kind) else kind
        return isinstance(value, list) and bool(value) and all(_fits(kind, item) for item in value)
    if option is types.NoneType:
        return value is None
    if option is str:  # what no file name, no command line and no tokenizer takes
        return isinstance(value, str) and not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value)
    return type(value) is option


def _as_float(value: Any) -> float | None:
    """Whole numbers, and "1e-4", which YAML 1.1 reads as text."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _name(option: Any) -> str:
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(repr(value) for value in typing.get_args(option))
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", types.NoneType: "null"}
    if typing.get_origin(option) in (list, tuple):
        return "a list of words" if str in typing.get_args(option) else "a list of whole numbers"
    return names.get(option, "a section")
