"""Runs drawn by seed, and what must hold of a run's folder after every kill and at its end.

A run goes through :data:`MILESTONES` in order, and never back. Whatever it has written is what an undisturbed run of
the same recipe has written, or a beginning of it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from stepgrpo_lab.cli import main
from stepgrpo_lab.training._guard import checkpoint_damage
from stepgrpo_lab.training.metrics import read_metrics

from .events import Event, Sitting, Work, sit

TIMINGS = ("seconds/", "step_time", "epoch", "train_")
"""Beginnings of the metrics that differ from run to run."""

SAME = ("recipe.yaml", "evaluation_before.json", "selection.json", "evaluation_after.json", "completions.jsonl")
"""Files that are the same, byte for byte, however often a run was killed."""

MILESTONES = {
    "started": "recipe.yaml",
    "measured": "evaluation_before.json",
    "training": "metrics.jsonl",
    "trained": "model",
    "evaluated": "evaluation_after.json",
    "compared": "completions.jsonl",
    "finished": "report.html",
}
"""State -> the file or folder that is there from then on; without any a run has not begun."""

STATES = ("not begun", *MILESTONES)
MANIFEST_WRITTEN = "manifest.json"

# ---- drawing ---------------------------------------------------------------------------------------------------------

METHODS: dict[str, dict[str, Any]] = {
    "step-grpo": {},
    "grpo": {"rollout.dynamic": "false"},
    "s-grpo": {"rollout.dynamic": "false", "rollout.serial": "true"},
    "sft": {"method": "sft", "model.path": "overthinker", "rollout.max_tokens": 128},
}


def by_position(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    """A reward for a random model, which is never right: without differences in a group no weight would move."""
    return [float(position) for position in range(len(correct))]


@dataclass(frozen=True)
class Case:
    """A run.

    Attributes:
        method: One of :data:`METHODS`.
        settings: Keys of its recipe that were drawn.
        keep: How many checkpoints are kept (``save_total_limit``); None keeps all.
    """

    method: str
    settings: dict[str, Any]
    keep: int | None

    def begin(self, model: Path, folder: Path) -> list[str]:
        """The command that begins it."""
        fixed = {
            **{"model.path": model, "data.counts.validation": 1, "data.counts.test": 2, "rollout.max_tokens": 16},
            **{"optimisation.learning_rate": 1e-3, "reward.function": f"{__name__}:by_position", "evaluation.texts": 1},
        }
        keys = {**fixed, **METHODS[self.method], **self.settings}
        return ["train", *overrides(keys), "--output", str(folder)]

    @property
    def dimensions(self) -> dict[str, str]:
        """What was drawn, in words, to be counted."""
        drawn = self.settings
        steps, prompts = drawn["optimisation.max_steps"], drawn["optimisation.prompts_per_step"]
        data = drawn["data.counts.train"] - steps * prompts
        passes = prompts * drawn["optimisation.group_size"] // drawn["optimisation.rows_per_pass"]
        budget = drawn["optimisation.token_budget"]
        return {
            "method": self.method,
            "weights": "LoRA" if "model.lora.r" in drawn else "all",
            "data": "end before the steps" if data < 0 else "outlast the steps" if data else "end with the steps",
            "steps": str(steps),
            "save_every": str(drawn["optimisation.save_every"]),
            "checkpoints kept": str(self.keep),
            "passes of a step": str(passes),
            "steps of a rollout": str(drawn["optimisation.steps_per_rollout"]),
            "token budget": "none" if budget is None else "given",
            "KL term": "with" if drawn["optimisation.kl_beta"] else "without",
            "proof of checkpoints": drawn["checkpoint.verify"],
        }


def overrides(keys: dict[str, Any]) -> list[str]:
    """Keys of a recipe as arguments.

    Example:
        >>> overrides({"model.lora": None})
        ['--set', 'model.lora=null']
    """
    pairs = [f"{key}={'null' if value is None else value}" for key, value in keys.items()]
    return [part for pair in pairs for part in ("--set", pair)]


def draw_case(rng: random.Random, method: str | None = None) -> Case:
    """A run of a few steps; each of its settings may matter to one that is resumed."""
    method = method or rng.choices(list(METHODS), (4, 3, 2, 1))[0]
    window = rng.choice((1, 1, 1, 2)) if method in ("step-grpo", "grpo") else 1
    steps, prompts, group = rng.randint(1, 3 if window > 1 else 5) * window, rng.randint(1, 3), rng.choice((2, 4))
    used = steps * prompts
    tokens = used * group * 16
    settings = {
        "seed": rng.randrange(1000),
        "data.counts.train": rng.choice((max(prompts, used // 2), used, used + 1, 40)),
        "optimisation.max_steps": steps,
        "optimisation.prompts_per_step": prompts,
        "optimisation.group_size": group,
        "optimisation.rows_per_pass": rng.choice((group, prompts * group)),
        "optimisation.steps_per_rollout": window,
        "optimisation.save_every": rng.choice((None, *range(1, steps // window + 2))),
        "optimisation.token_budget": rng.choice((None, None, int(tokens * rng.uniform(0.3, 0.9)))),
        "optimisation.schedule": rng.choice(("constant", "linear")),
        "optimisation.kl_beta": rng.choice((0, 0, 0.1)) if method != "sft" else 0,
        "checkpoint.verify": rng.choice(("full", "full", "sizes")),
        "evaluation.every": rng.randint(1, steps + 1),
        **rng.choice(({}, {"model.lora.r": 2})),
    }
    if settings["optimisation.save_every"]:
        settings["optimisation.save_every"] *= window
    return Case(method, settings, rng.choice((1, 2, 2, 3, None)))


def save_random_model(folder: Path) -> Path:
    """A model of one layer with random weights and the Overthinker's tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM

    from stepgrpo_lab import load_overthinker

    embedded, tokenizer = load_overthinker()
    config = embedded.config
    config.num_hidden_layers, config.layer_types = 1, config.layer_types[:1]
    config.hidden_size, config.intermediate_size, config.head_dim, config.num_attention_heads = 16, 32, 8, 2
    config.num_key_value_heads, config.initializer_range = 1, 0.2
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def train(case: Case, arguments: list[str], fault: str | None = None) -> int:
    """The command, where transformers is asked to keep so many checkpoints, which no recipe does."""
    from stepgrpo_lab.run import job

    trainer_config = job.trainer_config

    def keeping(*given: Any) -> Any:
        config = trainer_config(*given)
        config.save_total_limit = case.keep
        return config

    job.trainer_config = keeping  # type: ignore
    if fault is not None:
        FAULTS[fault]()
    return main(arguments)


# ---- what a folder holds ---------------------------------------------------------------------------------------------


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
    """A run's metrics without what depends on the clock."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [{key: value for key, value in row.items() if not key.startswith(TIMINGS)} for row in rows]


def _first_change(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False), 1):
        keys = sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))
        if keys:
            return f"row {number}, " + ", ".join(f"{key}: {one.get(key)} instead of {other.get(key)}" for key in keys)
    return f"{len(ours)} rows instead of {len(theirs)}"


def differences(folder: Path, undisturbed: Path) -> list[str]:
    """What a resumed run has that the undisturbed one has not; empty if none can tell them apart."""
    found = [] if same_weights(folder, undisturbed) else ["weights"]
    if curves(folder) != curves(undisturbed):
        found.append("metrics.jsonl")
    found += [name for name in SAME if _content(folder / name) != _content(undisturbed / name)]
    ours, theirs = ({str(path.relative_to(place)) for path in place.rglob("*")} for place in (folder, undisturbed))
    return found + [f"{path} is too much" for path in ours - theirs] + [f"{path} is missing" for path in theirs - ours]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def checkpoints(folder: Path) -> dict[int, Path]:
    """Step -> checkpoint, whole or not."""
    return {int(path.name.rpartition("-")[2]): path for path in (folder / "checkpoints").glob("checkpoint-*")}


def steps_begun(events: list[Event]) -> list[int]:
    """The steps whose checkpoints were begun, in order."""
    return [
        int(event.path.rpartition("-")[2])
        for event in events
        if event.what == "mkdir" and event.path.startswith("checkpoints/checkpoint-")
    ]


# ---- the state model -------------------------------------------------------------------------------------------------


@dataclass
class Run:
    """What is known of a run that is killed and resumed.

    Attributes:
        case: What it does.
        model: The untrained model.
        folder: Its folder.
        undisturbed: The folder of a run of the same case that nobody killed.
        fault: Planted in the library while it works.
        state: The last of :data:`STATES` that it reached.
        proven: Step of the newest checkpoint that counts; 0 without.
    """

    case: Case
    model: Path
    folder: Path
    undisturbed: Path
    fault: str | None = None
    state: str = STATES[0]
    proven: int = 0
    _left: int | None = field(default=None, repr=False)

    @property
    def command(self) -> Work:
        """What begins it, or goes on with it."""
        arguments = ["train", "--resume", str(self.folder)]
        if self.state == STATES[0]:
            arguments = self.case.begin(self.model, self.folder)
        return partial(train, self.case, arguments, self.fault)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The metrics that it must end with."""
        return curves(self.undisturbed)

    def faults(self, sitting: Sitting) -> list[str]:
        """What is wrong after a sitting, in words; the state moves on."""
        found = [*self._steps_faults(sitting), *self._file_faults()]
        if sitting.killed:
            found += self._checkpoint_faults(sitting)
        elif sitting.code != 0:
            found.append(f"exit code {sitting.code}: {sitting.words[-500:]}")
        else:
            found += differences(self.folder, self.undisturbed)
        rows = [row["step"] for row in curves(self.folder)]
        self._left = len(self.rows) - sum(step <= self.proven for step in rows) if self.proven else len(self.rows)
        return found

    def _steps_faults(self, sitting: Sitting) -> Iterator[str]:
        """Each step is trained, and its metrics are written, once: from the newest checkpoint on."""
        left = len(self.rows) if self._left is None else self._left
        written = sum(event.what == "append" and event.path == "metrics.jsonl" for event in sitting.events)
        if written > left or (written < left and not sitting.killed and self.state in STATES[:4]):
            yield f"{written} rows of metrics were written, {left} of {len(self.rows)} were left"

    def _file_faults(self) -> Iterator[str]:
        there = [name for name, file in MILESTONES.items() if (self.folder / file).exists()]
        if there != list(MILESTONES)[: len(there)]:
            yield f"{there[-1]} without what comes before: {there}"
        state = there[-1] if there else STATES[0]
        if STATES.index(state) < STATES.index(self.state):
            yield f"{state} after {self.state}"
        self.state = state
        for name in SAME:
            if (self.folder / name).exists() and _content(self.folder / name) != _content(self.undisturbed / name):
                yield f"{name} is not that of the undisturbed run"
        rows = curves(self.folder)
        if rows != self.rows[: len(rows)]:
            yield f"metrics.jsonl is not that of the undisturbed run: {_first_change(rows, self.rows)}"
        if (self.folder / "model").exists() and not same_weights(self.folder, self.undisturbed):
            yield "the weights of model/ are not those of the undisturbed run"

    def _checkpoint_faults(self, sitting: Sitting) -> Iterator[str]:
        """A checkpoint counts at the latest when the next one, or what follows training, is begun; then one does."""
        begun = steps_begun(sitting.events)
        over = any(event.path.startswith(("model.part", "environment.json")) for event in sitting.events)
        due = max([self.proven, *(begun if over else begun[:-1])])
        whole = [step for step, path in checkpoints(self.folder).items() if checkpoint_damage(path) is None]
        newest = max(whole, default=0)
        if newest < due:
            yield f"the newest whole checkpoint is {newest}, but {due} was there"
        last = max((row["step"] for row in curves(self.folder)), default=0)
        if newest > last:
            yield f"checkpoint {newest} was there before the metrics of its step"
        self.proven = newest

    def looked_at(self, scratch: Path) -> Iterator[str]:
        """What is wrong with how other commands take a folder as a kill has left it: they work, or refuse in a line."""
        copy = scratch / "copy"
        if self.folder.exists():
            shutil.copytree(self.folder, copy)
        begun, trained = self.state != STATES[0], (copy / "model").exists()
        for arguments, works in (
            (["report", str(copy)], begun),
            (["evaluate", str(copy), "--count", "1", "--limit", "16"], trained),
            *([] if begun else [(["train", "--resume", str(copy)], False)]),
        ):
            sitting = sit(partial(main, arguments), copy)
            refusals = [line for line in sitting.words.splitlines() if line.startswith("stepgrpo: error: ")]
            if sitting.code != (0 if works else 2) or len(refusals) != (0 if works else 1):
                yield f"{arguments[0]} of a run that is {self.state}: exit code {sitting.code}: {sitting.words[-500:]}"
        shutil.rmtree(copy, ignore_errors=True)


# ---- faults to plant -------------------------------------------------------------------------------------------------


def _one_step_too_many() -> None:
    from stepgrpo_lab.training._guard import GuardedTrainer

    del GuardedTrainer._run_epoch


def _no_manifest() -> None:
    from stepgrpo_lab.training._proof import Proof

    Proof._write = lambda self, entries: None  # type: ignore[method-assign]


def _metrics_twice() -> None:
    from stepgrpo_lab.training.callbacks import MetricsFile

    del MetricsFile.on_train_begin


def _files_in_place() -> None:
    from stepgrpo_lab.engines import files

    files.part_of = lambda path: path


FAULTS = {
    "a step too many": _one_step_too_many,
    "no manifest": _no_manifest,
    "metrics twice": _metrics_twice,
    "files written in place": _files_in_place,
}
"""Faults of the library, to see that the campaign finds them."""
