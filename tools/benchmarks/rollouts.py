"""The rollout engine: what probes cost, what exits gain, and how it compares with other strategies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any
from unittest import mock

import torch

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.method.records import Cost, Trajectory
from stepgrpo_lab.method.sampling import Sampling
from stepgrpo_lab.method.settings import RolloutSettings, rollout_settings
from stepgrpo_lab.overthinker.tasks import overthinker_problems

from . import strategies
from .measuring import Result, Table, alternate, figure, ratios
from .scripted import (
    EOS,
    NUMBERS,
    same_tokens,
    sample_keys,
    scripted_model,
    scripted_prompts,
    scripted_text,
    uneven_lengths,
)

ROWS = 64
LIMIT = 256
SHORT_STEPS, LONG_STEPS = (12, 20), (300, 500)
AT_DEFAULT = rollout_settings("official", markers="paper", think_budget=1.0, near_budget_margin=0)
NEVER = rollout_settings("official", markers="paper", exit_threshold=1.0, think_budget=1.0, near_budget_margin=0)

Job = dict[str, Any]
"""One rollout's arguments: prompts, limits, keys, settings."""


@lru_cache(maxsize=1)
def overthinker() -> tuple[Any, Any]:
    """The embedded model and its tokenizer."""
    return load_model("overthinker")


def overthinker_job(count: int) -> Job:
    """Problems that the Overthinker thinks about, at temperature 1."""
    _, tokenizer = overthinker()
    problems = overthinker_problems("validation", count)
    prompts = [encode_prompt(tokenizer, problem.prompt) for problem in problems]
    return {"prompts": prompts, "limits": [LIMIT] * count, "keys": sample_keys(count)}


def scripted_job(lengths: list[int]) -> Job:
    """Completions of known lengths."""
    return {"prompts": scripted_prompts(lengths), "limits": lengths, "keys": sample_keys(len(lengths))}


def lockstep(
    engine: LockstepEngine, job: Job, settings: RolloutSettings | None = None
) -> tuple[list[Trajectory], Cost]:
    """The engine on a job."""
    return engine.generate(job["prompts"], Decoding(LIMIT, settings), keys=job["keys"], limits=job["limits"])


def probe_overhead(quick: bool) -> Result:
    """Probes that never exit, against none: the time ratio, over the ratio of tokens that must be fed."""
    name = "probe_overhead"
    model, tokenizer = overthinker()
    lengths = uneven_lengths(8 if quick else 16, 500, 700)
    cases = {
        "the Overthinker": (LockstepEngine(model, tokenizer), overthinker_job(32 if quick else 64)),
        "random weights, 300-500 tokens a step": (
            LockstepEngine(scripted_model(), scripted_text(LONG_STEPS)),
            scripted_job(lengths),
        ),
    }
    figures = []
    for case, (engine, job) in cases.items():
        plain, _ = lockstep(engine, job)
        probed, cost = lockstep(engine, job, NEVER)
        assert same_tokens(plain, probed)
        unavoidable = (cost.kept_tokens + cost.probe_tokens) / cost.kept_tokens
        seconds = alternate(
            {"plain": partial(lockstep, engine, job), "probed": partial(lockstep, engine, job, NEVER)},
            1 if quick else 3,
        )
        probes = sum(len(row.probes) for row in probed) / len(probed)
        figures.append(
            figure(
                name,
                f"time of probes over their unavoidable share, {case}",
                ratios(seconds["probed"], seconds["plain"], 1 / unavoidable),
                most=1.15,
                note=f"{probes:.1f} probes a completion; unavoidable {unavoidable:.3f} (kept and probed, over kept); "
                f"{cost.replayed_tokens / cost.kept_tokens:.1%} of the kept tokens fed again after declines.",
            )
        )
    return Result(figures)


def net_gain(quick: bool) -> Result:
    """Exits at the default threshold, against plain sampling: time saved and tokens saved."""
    model, tokenizer = overthinker()
    cases = {
        "a training step's 128 completions, all at once": (128, 128, "nothing waits, so the longest set their number"),
        "256 completions on 64 rows": (256, ROWS, "a row that exits makes room for a waiting one"),
    }
    figures = []
    for case, (count, rows, cause) in cases.items():
        engine, job = LockstepEngine(model, tokenizer, max_rows=rows), overthinker_job(count)
        tasks = {"plain": partial(lockstep, engine, job), "early": partial(lockstep, engine, job, AT_DEFAULT)}
        (_, plain), (_, early) = (task() for task in tasks.values())
        seconds = alternate(tasks, 1 if quick else 5)
        tokens = 1 - early.decoded_tokens / plain.decoded_tokens
        saved = [1 - ratio for ratio in ratios(seconds["early"], seconds["plain"])]
        passes = early.forward_passes / plain.forward_passes
        note = (
            f"Probes included, {tokens:.1%} fewer tokens are decoded, kept tokens "
            f"{1 - early.kept_tokens / plain.kept_tokens:.1%} fewer; {passes:.2f} times the forward passes: {cause}. "
            "Every completion probed, threshold 0.95."
        )
        gaps = [100 * (tokens - share) for share in saved]
        figures += [
            figure(
                "net_gain", f"net tokens saved by exits, less time saved, {case}", gaps, "points", most=10, note=note
            ),
            figure("net_gain", f"time saved by exits, {case}", [100 * share for share in saved], "%"),
        ]
    return Result(figures)


def against_generate(quick: bool) -> Result:
    """Kept tokens per second against ``model.generate``, TRL's default path."""
    count = 64 if quick else 128
    engine = LockstepEngine(scripted_model(), scripted_text(LONG_STEPS), max_rows=ROWS)
    jobs = {
        "uneven": (scripted_job(uneven_lengths(count, 80, 256)), 1.5),
        "even": (scripted_job([64] * count), 1.0),
    }
    figures = []
    for kind, (job, least) in jobs.items():
        most = max(job["limits"])
        generate = partial(
            strategies.generate_in_batches, engine.model, job["prompts"], limit=most, eos=EOS, pad=EOS, batch=ROWS
        )
        ours, _ = lockstep(engine, job)
        assert generate() == [row.completion_ids for row in ours]
        seconds = alternate({"generate": generate, "lockstep": partial(lockstep, engine, job)}, 1 if quick else 3)
        mean = sum(job["limits"]) / count
        figures.append(
            figure(
                "against_generate",
                f"tokens per second over TRL's default path, {kind} lengths",
                ratios(seconds["generate"], seconds["lockstep"]),
                least=least,
                note=f"{count} completions in batches of {ROWS}, mean {mean:.0f} and longest {most} tokens.",
            )
        )
    return Result(figures)


def pass_parts(quick: bool) -> Result:
    """What a decoding pass of the embedded model is made of: how much of it are matrix products at all."""
    model, _ = overthinker()
    count, figures = 64, []
    for rows in (8, ROWS):
        tasks = {
            "pass": partial(forward_passes, model, rows, count),
            "separate": partial(matrix_products, model, rows, count),
            "fused": partial(matrix_products, model, rows, count, fused=True),
        }
        for task in tasks.values():
            task()
        seconds = alternate(tasks, 1 if quick else 7, time.process_time)
        products, saved = ratios(seconds["separate"], seconds["pass"]), ratios(seconds["fused"], seconds["separate"])
        figures += [
            figure(
                "pass_parts",
                f"share of matrix products in a bare decoding pass, {rows} rows",
                [100 * share for share in products],
                "%",
                note="The rest is the price of some 400 small operations, most of it their dispatch.",
            ),
            figure(
                "pass_parts",
                f"share of a pass that fused QKV and gate/up projections would save, {rows} rows",
                [100 * share * (1 - ratio) for share, ratio in zip(products, saved, strict=True)],
                "%",
            ),
        ]
    return Result(figures)


@torch.no_grad()
def matrix_products(model: Any, rows: int, count: int, fused: bool = False) -> None:
    """The products of so many decoding passes and nothing else; fused, those that share their input are one."""
    weights = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    if fused:
        weights = _fused(model)
    inputs = {width: torch.ones(rows, 1, width) for width in {weight.shape[1] for weight in weights}}
    for _ in range(count):
        for weight in weights:
            torch.nn.functional.linear(inputs[weight.shape[1]], weight)


@lru_cache(maxsize=1)
def _fused(model: Any) -> list[torch.Tensor]:
    weights = [model.lm_head.weight]
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        weights.append(torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]))
        weights.append(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
        weights += [attention.o_proj.weight, mlp.down_proj.weight]
    return weights


def peers(quick: bool) -> Result:
    """Tokens per CPU second of the embedded model, under everything that a user of transformers could take instead."""
    model, tokenizer = overthinker()
    engine = LockstepEngine(model, tokenizer, max_rows=ROWS)
    many, few = overthinker_job(8 if quick else 64), overthinker_job(2 if quick else 6)
    ends = {"limit": LIMIT, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id}
    one_by_one = partial(
        strategies.early_exit_one_by_one, model, engine.token_text, settings=AT_DEFAULT, sampling=Sampling(), **few
    )
    tasks: dict[str, Callable[[], int]] = {
        "lockstep": lambda: kept(lockstep(engine, many)[0]),
        "lockstep, truncated": lambda: kept(lockstep(engine, many, AT_DEFAULT)[0]),
        "generate": lambda: sum(map(len, strategies.generate_in_batches(model, many["prompts"], batch=ROWS, **ends))),
        "generate_batch": lambda: sum(map(len, strategies.continuous_batching(paged, many["prompts"], **ends))),
        "early exit one by one": lambda: kept(one_by_one()),
    }
    paged, _ = load_model("overthinker")
    tokens: dict[str, list[int]] = {name: [task()] for name, task in tasks.items()}  # the first call warms up
    counted = {name: partial(_count, task, tokens[name]) for name, task in tasks.items()}
    seconds = alternate(counted, 1 if quick else 3, time.process_time)
    speeds = {
        name: [made / spent for made, spent in zip(tokens[name][1:], seconds[name], strict=True)] for name in tasks
    }
    pairs = [
        ("lockstep", "generate", "one batch of `generate`"),
        ("lockstep", "generate_batch", "`generate_batch` (continuous batching)"),
        ("lockstep, truncated", "early exit one by one", "early exit one by one with copied caches"),
    ]
    return Result(
        [
            figure(
                "peers",
                f"tokens per CPU second, {ours} over {words}",
                ratios(speeds[ours], speeds[theirs]),
                note=f"The Overthinker, {len(many['prompts'])} problems at temperature 1 ({len(few['prompts'])} one by "
                "one); each samples with its own random numbers.",
            )
            for ours, theirs, words in pairs
        ],
        [
            Table(
                "Tokens that the embedded model writes in a CPU second",
                ["strategy", "median", "range"],
                [
                    [name, f"{statistics.median(speed):,.0f}", f"{min(speed):,.0f} to {max(speed):,.0f}"]
                    for name, speed in speeds.items()
                ],
            )
        ],
    )


def kept(rows: Sequence[Trajectory]) -> int:
    """Tokens of finished completions."""
    return sum(row.tokens for row in rows)


def _count(task: Callable[[], int], counts: list[int]) -> None:
    counts.append(task())


def against_one_by_one(quick: bool) -> Result:
    """Early exit at the default threshold against one sample at a time, each probe on a copy of the cache."""
    name = "against_one_by_one"
    model, tokenizer = overthinker()
    engine = LockstepEngine(model, tokenizer, max_rows=ROWS)
    many, few = overthinker_job(64 if quick else 512), overthinker_job(2 if quick else 6)
    common = {"sampling": Sampling(), "text": engine.token_text, "model": model}
    one_by_one = partial(strategies.early_exit_one_by_one, settings=AT_DEFAULT, **common, **few)
    theirs, ours = one_by_one(), lockstep(engine, many, AT_DEFAULT)[0]
    assert same_tokens(theirs, ours[: len(theirs)])
    seconds = alternate(
        {
            "one by one": one_by_one,
            "single": partial(forward_passes, model, 1, 768),
            "lockstep": partial(lockstep, engine, many, AT_DEFAULT),
            "full": partial(forward_passes, model, ROWS, 192),
        },
        1 if quick else 9,
    )
    kept = [sum(row.tokens for row in rows) for rows in (ours, theirs)]
    faster = ratios(seconds["one by one"], seconds["lockstep"], kept[0] / kept[1])
    bound = ratios(seconds["single"], seconds["full"], ROWS * 192 / 768)
    return Result(
        [
            figure(
                name,
                f"tokens per second over early exit one by one with copied caches, batch {ROWS}",
                faster,
                note="The Overthinker at the default threshold; the same completions.",
            ),
            figure(
                name,
                f"what batching allows: bare forward passes, tokens per second at batch {ROWS} over batch 1",
                bound,
                note="Plain passes of transformers over a context of 128 tokens, nothing chosen or recorded.",
            ),
            figure(
                name,
                "early exit, over one by one with copied caches: share of what batching allows",
                [a / b for a, b in zip(faster, bound, strict=True)],
                least=0.8,
                note=where_time_goes(engine, many),
            ),
        ]
    )


def where_time_goes(engine: LockstepEngine, job: Job) -> str:
    """What the engine spends on something else than full decoding passes."""
    spent = dict.fromkeys(("_step", "_admit"), 0.0)

    def timed(name: str, *arguments: Any) -> Any:
        started = time.perf_counter()
        result = getattr(LockstepEngine, name)(engine, *arguments)
        spent[name] += time.perf_counter() - started
        return result

    with mock.patch.multiple(engine, **{name: partial(timed, name) for name in spent}):
        started = time.perf_counter()
        _, cost = lockstep(engine, job, AT_DEFAULT)
        whole = time.perf_counter() - started
    steps, prefills = spent["_step"] / whole, spent["_admit"] / whole
    return (
        f"Of the engine's time {steps:.0%} are decoding passes, {prefills:.0%} prefills, {1 - steps - prefills:.0%} "
        f"choosing and bookkeeping in Python; a pass feeds {cost.decoded_tokens / cost.forward_passes:.0f} tokens of "
        f"{engine.max_rows} possible, and its attention is as wide as the longest row."
    )


@torch.no_grad()
def forward_passes(model: Any, rows: int, count: int, context: int = 96) -> None:
    """So many decoding passes and nothing else; the cache is renewed every 64 passes."""
    from transformers import DynamicCache

    for start in range(0, count, 64):
        cache = DynamicCache(config=model.config)
        model(input_ids=torch.ones(rows, context, dtype=torch.long), past_key_values=cache, logits_to_keep=1)
        for _ in range(min(64, count - start)):
            model(input_ids=torch.ones(rows, 1, dtype=torch.long), past_key_values=cache, logits_to_keep=1)


def against_rounds(quick: bool) -> Result:
    """The same truncated rollout, submitted in rounds."""
    model, tokenizer = overthinker()
    lengths = scripted_job(uneven_lengths(16 if quick else 64, 300, 800))
    uneven_steps = uneven_lengths(NUMBERS, 40, 400)
    cases: dict[str, tuple[LockstepEngine, Job, float | None]] = {
        "the Overthinker": (LockstepEngine(model, tokenizer), overthinker_job(ROWS), None),
        "random weights, uneven completions, even steps (50-80 tokens)": (
            LockstepEngine(scripted_model(sure_every=8), scripted_text((50, 80))),
            lengths,
            None,
        ),
        "random weights, uneven completions, uneven steps (5-400 tokens, median 40)": (
            LockstepEngine(scripted_model(sure_every=8), scripted_text(uneven_steps)),
            lengths,
            2.0,
        ),
    }
    figures = []
    for case, (engine, job, least) in cases.items():
        rounds = partial(
            strategies.resubmit_in_rounds,
            engine.model,
            engine.token_text,
            settings=AT_DEFAULT,
            sampling=Sampling(),
            **job,
        )
        ours, cost = lockstep(engine, job, AT_DEFAULT)
        theirs, passes = rounds()
        assert same_tokens(theirs, ours)
        tasks = {"rounds": rounds, "lockstep": partial(lockstep, engine, job, AT_DEFAULT)}
        seconds = alternate(tasks, 1 if quick else 3)
        probes: Sequence[int] = [len(row.probes) for row in ours]
        figures.append(
            figure(
                "against_rounds",
                f"time of re-submission in rounds over the engine's, {case}",
                ratios(seconds["rounds"], seconds["lockstep"]),
                least=least,
                note=f"{len(ours)} completions at once, {min(probes)} to {max(probes)} probes each.",
            )
        )
        figures.append(
            figure(
                "against_rounds",
                f"forward passes of the rounds over the engine's, {case}",
                [passes / cost.forward_passes],
                note="Near 1, nothing is lost by waiting, because a row that has met its marker leaves the batch; what "
                "is lost then is reading each text again and probing apart.",
            )
        )
    return Result(figures)
