"""How the cost of a token grows with batch, context and probes, and with the way the cache is kept."""

from __future__ import annotations

import dataclasses
import statistics
from functools import partial

import torch
from transformers import DynamicCache

from stepgrpo_lab.engines.cache import LockstepCache
from stepgrpo_lab.engines.lockstep import LockstepEngine
from tools.counting import PeakBytes

from .measuring import Result, Table, alternate, figure
from .rollouts import NEVER, SHORT_STEPS, lockstep, scripted_job
from .scripted import scripted_model, scripted_text

POSITIONS = 9216
PASSES = 16


def growth(quick: bool) -> Result:
    """Time per token against batch, context and probes; what abandoned probes leave in memory."""
    batches = [1, 4, 16, 64] if quick else [1, 4, 16, 64, 128, 256]
    contexts = [128, 512] if quick else [128, 512, 2048, 8192]
    memory = probe_memory([1, 4, 16] if quick else [1, 4, 16, 64])
    widest = max(int(row[2]) for row in memory.rows)
    figures = [
        figure(
            "growth",
            "most memory with many abandoned probes, over that with one",
            [widest / int(memory.rows[0][2])],
            most=1.05,
            note="The rewind cache writes the next probe over the last one's places.",
        )
    ]
    return Result(figures, [batch_table(batches, quick), context_table(contexts, quick), probe_table(quick), memory])


def batch_table(batches: list[int], quick: bool) -> Table:
    """The whole engine on even lengths, by batch."""
    engine = LockstepEngine(scripted_model(positions=POSITIONS), scripted_text(SHORT_STEPS), max_rows=max(batches))
    tokens = 65
    jobs = {batch: scripted_job([tokens] * batch) for batch in batches}
    first = {batch: scripted_job([tokens] * batch) | {"limits": [1] * batch} for batch in batches}
    tasks = {f"{batch}": partial(lockstep, engine, job) for batch, job in jobs.items()}
    tasks |= {f"{batch} first": partial(lockstep, engine, job) for batch, job in first.items()}
    seconds = {name: statistics.median(values) for name, values in alternate(tasks, 2 if quick else 4).items()}
    steps = {batch: (seconds[f"{batch}"] - seconds[f"{batch} first"]) / (tokens - 1) for batch in batches}
    rows = [[f"{batch}", f"{1e3 * step:.2f}", f"{1e6 * step / batch:.0f}"] for batch, step in steps.items()]
    return Table("Batch (context 32 to 96 tokens)", ["rows", "ms a step", "µs a token"], rows)


def context_table(contexts: list[int], quick: bool, rows: int = 8) -> Table:
    """One decoding pass by context length: the rewind cache, and the two ways that keep transformers' own cache.

    *Fork* decodes in a ``DynamicCache``, which copies itself at every pass. *Mask* does too, and with a mask of its own
    because declined probes leave holes; its context is also longer by all of them (here none: the best case).
    """
    model = scripted_model(positions=POSITIONS)
    lines = []
    for context in contexts:
        passes = {
            "rewind": _Rewind(model, rows, context),
            "mask": _Dynamic(model, rows, context, masked=True),
            "fork": _Dynamic(model, rows, context, masked=False),
        }
        seconds = alternate(passes, 2 if quick else 4)
        each = {name: 1e3 * statistics.median(values) / PASSES for name, values in seconds.items()}
        lines.append([f"{context:,}", *(f"{each[name]:.2f}" for name in passes)])
    columns = ["context", *(f"{name}, ms a pass" for name in ("rewind", "mask", "fork"))]
    return Table(f"Context and cache ({rows} rows)", columns, lines)


class _Rewind:
    """Decoding passes in the engine's cache; the places are fed over and over."""

    def __init__(self, model: torch.nn.Module, rows: int, context: int) -> None:
        self.model, self.rows, self.context = model, rows, context
        self.cache = LockstepCache(model.config.num_hidden_layers, rows, context + PASSES)

    @torch.no_grad()
    def __call__(self) -> None:
        for step in range(PASSES):
            places = torch.full((self.rows,), self.context + step)
            mask = self.cache.begin_step(places, self.context + step + 1)
            ids = torch.ones(self.rows, 1, dtype=torch.long)
            self.model(ids, attention_mask=mask, position_ids=places[:, None], past_key_values=self.cache)


class _Dynamic:
    """Decoding passes in transformers' cache, which is cut back afterwards."""

    def __init__(self, model: torch.nn.Module, rows: int, context: int, *, masked: bool) -> None:
        self.model, self.rows, self.context, self.masked = model, rows, context, masked
        config = model.config
        self.cache = DynamicCache(config=config)
        for layer in range(config.num_hidden_layers):
            zeros = torch.zeros(rows, config.num_key_value_heads, context, config.head_dim)
            self.cache.update(zeros, zeros.clone(), layer)

    @torch.no_grad()
    def __call__(self) -> None:
        for step in range(PASSES):
            length = self.context + step + 1
            mask = torch.ones(self.rows, length, dtype=torch.long)
            mask[:, 0] = int(not self.masked)  # one hole keeps transformers from leaving the mask out
            places = torch.full((self.rows, 1), length - 1)
            ids = torch.ones(self.rows, 1, dtype=torch.long)
            self.model(ids, attention_mask=mask, position_ids=places, past_key_values=self.cache)
        self.cache.crop(-PASSES)


def probe_table(quick: bool) -> Table:
    """The whole engine by probes per completion: time over that without probes, and over the tokens fed."""
    length, rows = (240, 8) if quick else (240, 16)
    lines = []
    for step in (120, 60, 30, 15):
        settings = dataclasses.replace(NEVER, max_probes=1000)
        engine = LockstepEngine(scripted_model(positions=POSITIONS), scripted_text((step, step)))
        job = scripted_job([length] * rows)
        records, cost = lockstep(engine, job, settings)
        tasks = {"plain": partial(lockstep, engine, job), "probed": partial(lockstep, engine, job, settings)}
        seconds = alternate(tasks, 1 if quick else 3)
        time_ratio = statistics.median(seconds["probed"]) / statistics.median(seconds["plain"])
        fed = cost.decoded_tokens / cost.kept_tokens
        probes = sum(len(row.probes) for row in records) / rows
        lines.append([f"{probes:.1f}", f"{fed:.2f}", f"{time_ratio:.2f}", f"{time_ratio / fed:.2f}"])
    columns = ["probes a completion", "tokens fed over kept", "time over plain", "time a token over plain"]
    return Table(f"Probes ({rows} rows, {length} tokens kept)", columns, lines)


def probe_memory(counts: list[int]) -> Table:
    """Most bytes at once while the engine runs, by abandoned probes: counted, not timed."""
    length, rows, lines = 400, 8, []
    for count in counts:
        settings = dataclasses.replace(NEVER, max_probes=count)
        engine = LockstepEngine(scripted_model(positions=POSITIONS), scripted_text((5, 5)))
        job = scripted_job([length] * rows)
        with PeakBytes() as allocated:
            records, cost = lockstep(engine, job, settings)
        probes = sum(len(row.probes) for row in records) / rows
        holes = (cost.probe_tokens + cost.replayed_tokens) / rows / length
        lines.append([f"{probes:.0f}", f"{cost.probe_tokens // rows}", f"{allocated.peak}", f"{1 + holes:.2f}"])
    columns = [
        "probes abandoned",
        "places that they used",
        "most bytes at once",
        "places over kept if they stayed",
    ]
    return Table(f"Memory of abandoned probes ({rows} rows, {length} tokens kept)", columns, lines)
