"""Training runs that are killed with SIGKILL at a random moment of a chosen phase, and what must be left of them."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any

from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.training._guard import checkpoint_damage

PHASES = ("rollout", "update", "checkpoint", "evaluation", "model")
"""What a run is doing: sampling, moving weights, writing a checkpoint, measuring, writing the trained model."""

STEPS = 3
RECIPE = {
    "data.counts.train": STEPS,
    "data.counts.validation": 2,
    "data.counts.test": 2,
    "optimisation.max_steps": STEPS,
    "optimisation.prompts_per_step": 1,
    "optimisation.group_size": 4,
    "optimisation.rows_per_pass": 2,
    "optimisation.learning_rate": 1e-4,
    "optimisation.save_every": 1,
    "rollout.max_tokens": 96,
    "evaluation.every": STEPS,
    "evaluation.texts": 2,
}
TIMINGS = ("seconds/", "step_time", "epoch")
"""Beginnings of the metrics that differ from run to run."""


def small_recipe() -> Recipe:
    """A run of seconds on the Overthinker, with a checkpoint after each step."""
    return load_recipe("overthinker", [f"{key}={value}" for key, value in RECIPE.items()])


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Attributes:
        phase: One of :data:`PHASES`.
        entry: At which entry into it, counted from 1 in one process.
        delay: Seconds after that.
    """

    phase: str
    entry: int
    delay: float


def train_and_tell(recipe: Recipe | None, folder: str, pipe: Any) -> None:
    """The process that is killed: trains, and sends the name of each phase that it enters."""
    from stepgrpo_lab.cli.quiet import quiet
    from stepgrpo_lab.run import job as run
    from stepgrpo_lab.training import StepGRPOTrainer
    from stepgrpo_lab.training._guard import GuardedTrainer

    def telling(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            pipe.send((phase, time.monotonic()))
            return function(*args, **kwargs)

        return wrapper

    quiet()
    StepGRPOTrainer.complete = telling("rollout", StepGRPOTrainer.complete)  # type: ignore[method-assign]
    GuardedTrainer.compute_loss = telling("update", GuardedTrainer.compute_loss)  # type: ignore[method-assign]
    GuardedTrainer._save_checkpoint = telling("checkpoint", GuardedTrainer._save_checkpoint)  # type: ignore[method-assign]
    run.evaluate_policy = telling("evaluation", run.evaluate_policy)  # type: ignore[attr-defined]
    run.save_policy = telling("model", run.save_policy)  # type: ignore[attr-defined]
    run.train(recipe, folder, resume=recipe is None)
    pipe.send(("end", time.monotonic()))


def processes() -> Any:
    """Processes that start at once: the server that forks them has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["stepgrpo_lab.run.job", "stepgrpo_lab.training.trainer", "stepgrpo_lab.run.report", "peft"]
    )
    return context


def phases_of(folder: Path, moment: Moment | None = None) -> Iterator[tuple[str, float]]:
    """Start or resume the run of a folder in a process of its own, and kill it at a moment, if one is given.

    Yields:
        Each phase that it entered, and when (seconds of the monotonic clock); "end" at last, unless it was killed.
    """
    recipe = None if (folder / "recipe.yaml").exists() else small_recipe()
    context = processes()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=train_and_tell, args=(recipe, str(folder), theirs), daemon=False)
    process.start()
    theirs.close()
    entries = 0
    try:
        while True:
            phase, when = ours.recv()
            yield phase, when
            entries += moment is not None and phase == moment.phase
            if moment is not None and entries == moment.entry:
                time.sleep(moment.delay)
                break
    except EOFError:  # it ended, or died by itself
        pass
    finally:
        process.kill()
        process.join()
        ours.close()


def durations(phases: list[tuple[str, float]]) -> dict[str, list[float]]:
    """Phase -> seconds until the next phase begins, entry by entry."""
    found: dict[str, list[float]] = {}
    for (phase, start), (_, end) in pairwise(phases):
        found.setdefault(phase, []).append(end - start)
    return found


def random_moment(phase: str, seconds: dict[str, list[float]], rng: random.Random) -> Moment:
    """A moment within one of the first entries into a phase: any time of its length in an undisturbed run."""
    entry = rng.randrange(min(2, len(seconds[phase])))
    return Moment(phase, entry + 1, rng.uniform(0, seconds[phase][entry]))


@dataclass(frozen=True)
class Kill:
    """One kill and what it left.

    Attributes:
        run: Number of the run; a run is killed several times, and each time resumed.
        moment: When.
        left: Newest checkpoint, "none", or what is wrong with the newest one.
    """

    run: int
    moment: Moment
    left: str


def kill_and_resume(
    folder: Path, phases: Sequence[str], seconds: dict[str, list[float]], rng: random.Random
) -> Iterator[Kill]:
    """Kill runs once in each of the phases, one after the other, resuming after every kill.

    A run that reaches its end before it could be killed makes room for the next one. Afterwards each run folder
    ``run-<n>`` holds a finished run.
    """
    number = 0
    for phase in phases:
        moment = random_moment(phase, seconds, rng)
        for _ in range(2):
            place = folder / f"run-{number}"
            seen = [name for name, _ in phases_of(place, moment)]
            if seen[-1] != "end":
                yield Kill(number, moment, newest_checkpoint(place))
                break
            number += 1
    for _ in phases_of(folder / f"run-{number}"):
        pass


def newest_checkpoint(folder: Path) -> str:
    """The newest checkpoint of a run and its damage, in words."""
    found = sorted((folder / "checkpoints").glob("checkpoint-*"))
    if not found:
        return "none"
    damage = checkpoint_damage(found[-1])
    return f"{found[-1].name}: {damage or 'whole'}"


def same_weights(first: Path, second: Path) -> bool:
    """Whether two runs ended with the same bits in every weight."""
    import torch
    from safetensors.torch import load_file

    ours, theirs = (
        {path.name: load_file(path) for path in (folder / "model").glob("*.safetensors")} for folder in (first, second)
    )
    return ours.keys() == theirs.keys() != set() and all(
        ours[file].keys() == weights.keys() and all(torch.equal(ours[file][name], weights[name]) for name in weights)
        for file, weights in theirs.items()
    )


def curves(folder: Path) -> list[dict[str, Any]]:
    """A run's metrics without what depends on the clock; every line must be whole."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith(TIMINGS)} for row in rows]


SAME = ("recipe.yaml", "evaluation_before.json", "selection.json", "evaluation_after.json", "completions.jsonl")
"""Files that are the same, byte for byte, however often a run was killed."""


def differences(folder: Path, undisturbed: Path) -> list[str]:
    """What a resumed run has that the undisturbed one has not; empty if none can tell them apart."""
    found = [] if same_weights(folder, undisturbed) else ["weights"]
    if curves(folder) != curves(undisturbed):
        found.append("metrics.jsonl")
    found += [name for name in SAME if _content(folder / name) != _content(undisturbed / name)]
    return found + [str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in (".part", ".tmp")]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None
