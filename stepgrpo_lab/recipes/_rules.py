"""What types and ranges cannot say of a recipe: names that must be known, and settings that must fit each other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from stepgrpo_lab.engines.hub import EMBEDDED
from stepgrpo_lab.evaluation.problems import BENCHMARKS, find_benchmark
from stepgrpo_lab.method.baselines import scaled_tokens
from stepgrpo_lab.method.names import did_you_mean, listed, near_name, shown
from stepgrpo_lab.overthinker.tasks import LABORATORIES, find_laboratory
from stepgrpo_lab.recipes._building import recipe_reward
from stepgrpo_lab.recipes.schema import REWARD_FUNCTIONS, Recipe, Reward, naming_key
from stepgrpo_lab.training import TRL_LOSSES

Broken = tuple[tuple[str, ...], str]
"""The keys that a rule looks at, and one line about their values."""

LONGEST_NAME = 100

MOST_ROWS = 1_000_000
"""Completions of a step: a bound for slips of the finger, far above any published batch."""

_NAME = re.compile(r"(?!\.)[\w.-]+")
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*|:.+")
"""Code of one's own: "module:name", or ":name" where it was passed in Python."""


def broken_rules(recipe: Recipe) -> Iterator[Broken]:
    """Everything about a recipe of the right types that cannot be, before anything of it is imported or read."""
    for rules in (_names, _sources, _model, _engine, _optimisation, _reward, _rollout):
        yield from rules(recipe)


def _names(recipe: Recipe) -> Iterator[Broken]:
    if not _NAME.fullmatch(recipe.name) or len(recipe.name) > LONGEST_NAME:
        yield (
            ("name",),
            f"name is {shown(recipe.name)}: use letters, digits, '.', '_' and '-', not beginning with '.', at most "
            f"{LONGEST_NAME} of them",
        )
    optimisation = recipe.optimisation
    yield from _unknown("optimisation.loss_type", optimisation.loss_type, lambda: TRL_LOSSES)
    yield from _unknown("optimisation.optimizer", optimisation.optimizer, _optimizers, known="adamw_torch")
    yield from _unknown("optimisation.schedule", optimisation.schedule, _schedules, known="constant")
    trackers = [recipe.report_to] if isinstance(recipe.report_to, str) else recipe.report_to
    if trackers not in (["none"], ["all"]):
        for tracker in trackers:
            yield from _unknown("report_to", tracker, _trackers)


def _unknown(key: str, name: str, names: Callable[[], Iterable[str]], known: str = "") -> Iterator[Broken]:
    """A name that another library does not know; the library is only asked where it is not our own default."""
    if name == known or name in (choices := list(names())):
        return
    yield (key,), f"{key} is {shown(name)}: use one of {listed(choices)}{did_you_mean(name, choices)}"


def _optimizers() -> Iterable[str]:
    from transformers.training_args import OptimizerNames

    return (kind.value for kind in OptimizerNames)


def _schedules() -> Iterable[str]:
    from transformers import SchedulerType

    return (kind.value for kind in SchedulerType)


def _trackers() -> Iterable[str]:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return INTEGRATION_TO_CALLBACK


# ---- problems --------------------------------------------------------------------------------------------------------


def _sources(recipe: Recipe) -> Iterator[Broken]:
    for part in ("train", "validation", "test"):
        key, source, count = f"data.{part}", getattr(recipe.data, part), getattr(recipe.data.counts, part)
        if fault := source_fault(source):
            yield (key,), f"{key} is {fault}"
        elif fault := count_fault(source, count):
            yield (key, f"data.counts.{part}"), f"data.counts.{part} is {'null' if count is None else count}: {fault}"
    rates = recipe.data.pass_rates
    if rates is not None and rates.least > rates.most:
        yield (
            ("data.pass_rates",),
            f"data.pass_rates keeps rates from {rates.least:g} to {rates.most:g}: give 0 <= least <= most <= 1",
        )


def source_fault(source: str) -> str | None:
    """What is wrong with the name of a source of problems, without a look at any file; None if nothing is.

    Example:
        >>> source_fault("gsm8kk").partition("; ")[2], source_fault("gsm8k:train")
        ("did you mean 'gsm8k'?", None)
    """
    name, _, split = source.partition(":")
    if source.endswith(".jsonl") or find_benchmark(source) or (split and find_benchmark(name)):
        return None
    generated = [f"{each}:{part}" for each in LABORATORIES for part in find_laboratory(each).shares]
    if source in generated:
        return None
    known = [*generated, *BENCHMARKS, *(each.hub_id for each in BENCHMARKS.values())]
    near = near_name(source, known) or near_name(name, known)
    return (
        f"{shown(source)}: give {', '.join(generated)}, a path that ends in .jsonl, or one of {', '.join(BENCHMARKS)}"
        + (f"; did you mean {near!r}?" if near else "")
    )


def check_source(source: str, count: int | None) -> None:
    """Check the name of a source and the number asked of it, before any problem is made or read.

    Raises:
        ValueError: There is no such source, or it has not so many.
    """
    if fault := source_fault(source):
        raise ValueError(f"--data is {fault}")
    if fault := count_fault(source, count):
        raise ValueError(f"--count is {count}: {fault}")


def count_fault(source: str, count: int | None) -> str | None:
    """What is wrong with the number of problems asked of a source; None if nothing is."""
    name, _, split = source.partition(":")
    if name not in LABORATORIES or split not in find_laboratory(name).shares:
        return None
    if count is None:
        return f"{source} is generated without end, so give its count, for example 1000"
    if count > find_laboratory(name).most(split):
        return f"{source} gives at most {find_laboratory(name).most(split)} problems"
    return None


# ---- settings that must fit each other -------------------------------------------------------------------------------


def _model(recipe: Recipe) -> Iterator[Broken]:
    model = recipe.model
    if not model.path.strip():
        yield (
            ("model.path",),
            f"model.path is {model.path!r}: give {', '.join(EMBEDDED)}, a folder or a Hugging Face id",
        )
    if model.quantization and model.lora is None:
        yield (
            ("model.quantization", "model.lora"),
            "model.quantization is nf4 without model.lora: 4-bit weights cannot be trained, add a lora section",
        )
    if model.quantization and recipe.hardware.sharding != "none":
        yield (
            ("model.quantization", "hardware.sharding"),
            "model.quantization is nf4: 4-bit weights are not sharded, set hardware.sharding=none",
        )
    if model.dtype == "auto" and model.lora is None:
        yield (
            ("model.dtype", "model.lora"),
            "model.dtype is auto without model.lora: on a GPU every weight would train in 16 bits, where small updates "
            "round to nothing; set model.dtype=float32",
        )


def _engine(recipe: Recipe) -> Iterator[Broken]:
    engine, quantization, url = recipe.rollout.engine, recipe.model.quantization, recipe.rollout.vllm.url
    if engine == "lockstep":
        return
    if quantization:
        yield (
            ("rollout.engine", "model.quantization"),
            f"rollout.engine is {engine}, but model.quantization is {quantization}: vLLM would sample from the weights "
            "before rounding, which are another policy; set rollout.engine=lockstep",
        )
    if recipe.method == "sft":
        yield (
            ("rollout.engine", "method"),
            f"rollout.engine is {engine}: method sft samples with the lockstep engine, set rollout.engine=lockstep",
        )
    if not url.startswith(("http://", "https://")):
        yield ("rollout.vllm.url",), f"rollout.vllm.url is {shown(url)}: it must start with http:// or https://"


def _optimisation(recipe: Recipe) -> Iterator[Broken]:
    optimisation = recipe.optimisation
    rows, given = optimisation.prompts_per_step * optimisation.group_size, optimisation.rows_per_pass
    if rows > MOST_ROWS:
        yield (
            ("optimisation.prompts_per_step", "optimisation.group_size"),
            f"optimisation.prompts_per_step is {optimisation.prompts_per_step}: times group_size that is {rows} "
            f"completions a step, and at most {MOST_ROWS} are offered",
        )
    elif rows % given:
        fitting = next(divisor for divisor in range(min(given, rows), 0, -1) if rows % divisor == 0)
        yield (
            tuple(f"optimisation.{key}" for key in ("rows_per_pass", "prompts_per_step", "group_size")),
            f"optimisation.rows_per_pass is {given}: it must divide the {rows} completions of a step (prompts_per_step "
            f"x group_size); set optimisation.rows_per_pass={fitting}",
        )
    every, window = optimisation.save_every, optimisation.steps_per_rollout
    if every and every % window:
        yield (
            ("optimisation.save_every", "optimisation.steps_per_rollout"),
            f"optimisation.save_every is {every}: it must be a multiple of steps_per_rollout ({window}), or a "
            f"checkpoint could not be resumed exactly; set optimisation.save_every={-(-every // window) * window}",
        )


def _reward(recipe: Recipe) -> Iterator[Broken]:
    """Whether the reward section can mean something beside the rollout's."""
    reward, limit = recipe.reward, recipe.rollout.max_tokens
    if reward.function not in REWARD_FUNCTIONS:
        if not _OWN.fullmatch(reward.function):
            known = " or ".join(map(repr, REWARD_FUNCTIONS))
            yield (
                ("reward.function",),
                f"reward.function is {shown(reward.function)}: it must be {known}, or 'module:name' of your own"
                + did_you_mean(reward.function, REWARD_FUNCTIONS),
            )
        return
    keys = ("reward.function", "reward.length_scale", "rollout.max_tokens")
    remedy = f"rollout.max_tokens is {limit}: lower reward.length_scale (our lengths over the published ones)"
    if reward.function in ("l1_exact", "l1_max"):
        target = scaled_tokens(reward.target_tokens, reward.length_scale)
        if target > limit:
            yield (
                (*keys, "reward.target_tokens"),
                f"reward.target_tokens is {target} tokens after scaling, but {remedy}",
            )
    if reward.function == "soft_overlong":
        start = scaled_tokens(reward.overlong_limit, reward.length_scale)
        start -= scaled_tokens(reward.overlong_cache, reward.length_scale)
        if start >= limit:
            yield (
                (*keys, "reward.overlong_limit", "reward.overlong_cache"),
                f"reward.overlong_limit punishes from {start} tokens on after scaling, but {remedy}",
            )
    try:
        with naming_key(Reward, "reward"):
            recipe_reward(reward)
    except ValueError as error:
        yield ("reward",), str(error)


def _rollout(recipe: Recipe) -> Iterator[Broken]:
    rollout, scale, limit = recipe.rollout, recipe.reward.length_scale, recipe.rollout.max_tokens
    if recipe.reward.function == "serial_group" and not rollout.serial:
        yield (
            ("reward.function", "rollout.serial"),
            "reward.function is 'serial_group': it pays the exits of a chain, so set rollout.serial=true",
        )
    if rollout.serial and rollout.dynamic:
        yield (
            ("rollout.serial", "rollout.dynamic"),
            "rollout.serial and rollout.dynamic are two ways to sample: set rollout.dynamic=false",
        )
    for published in rollout.round_limits or []:
        if scaled_tokens(published, scale) > limit:
            yield (
                ("rollout.round_limits", "rollout.max_tokens", "reward.length_scale"),
                f"rollout.round_limits holds {published}, too much after scaling: rollout.max_tokens is {limit}: lower "
                "reward.length_scale (our lengths over the published ones)",
            )
            break
    if rollout.segmenter is not None and not _OWN.fullmatch(rollout.segmenter):
        yield (
            ("rollout.segmenter",),
            f"rollout.segmenter is {shown(rollout.segmenter)}: it must be null, or 'module:name' of your own",
        )
