"""Commands that write files beside training, to be killed too: export, record, rate, a comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stepgrpo_lab.cli import main

from .events import Sitting, Work
from .runs import overrides

LOCKS = (".lock", ".holder")
PARTS = (".part", ".tmp", ".holder")
CLOCK = ("seconds", "step_time", "epoch")


@dataclass(frozen=True)
class Errand:
    """A command that is given again after a kill, as it was.

    Attributes:
        name: For people.
        work: Of a folder that holds the model "untrained", and the folder to write.
        may_refuse: After a kill at its very end it refuses in one line, as all is there.
    """

    name: str
    work: Callable[[Path, Path], Work]
    may_refuse: bool = False

    def faults(self, folder: Path, undisturbed: Path, sitting: Sitting) -> list[str]:
        """What is wrong after a sitting, in words."""
        ours, theirs = contents(folder), contents(undisturbed)
        if sitting.killed:
            return [f"{name} is not whole" for name, has in ours.items() if not _is_beginning(has, theirs.get(name))]
        errors = sitting.words.count("stepgrpo: error: ")
        if (sitting.code, errors) != (0, 0) and not (self.may_refuse and (sitting.code, errors) == (2, 1)):
            return [f"exit code {sitting.code}: {sitting.words[-500:]}"]
        found = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
        left = [str(path) for path in folder.rglob("*") if path.name.endswith(PARTS)]
        return [f"{name} differs" for name in sorted(found)] + [f"{path} is left" for path in left]


def contents(folder: Path) -> dict[str, Any]:
    """Name -> what a finished file holds, without what depends on the clock."""
    names = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    own = {name: path for name, path in names.items() if not path.name.endswith((*PARTS, *LOCKS))}
    return {name: _content(path) for name, path in own.items() if ".part/" not in name}


def _is_beginning(part: Any, whole: Any) -> bool:
    """Whether a file is as it will be; one of rows may still lack some."""
    return whole is None or part == (whole[: len(part)] if isinstance(part, tuple) else whole)


def _content(path: Path) -> Any:
    if path.suffix in (".html", ".svg", ".md") or path.name == "environment.json":
        return path.suffix
    if path.suffix == ".jsonl":
        lines = path.read_text().split("\n")[:-1]  # what a kill has cut off is no line
        return tuple(json.dumps(_without_clock(json.loads(line))) for line in lines)
    return _without_clock(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(item) for key, item in value.items() if not key.startswith(CLOCK)}
    return list(map(_without_clock, value)) if isinstance(value, list) else value


def _export(home: Path, folder: Path) -> Work:
    return partial(main, ["export", str(home / "untrained"), str(folder / "model")])


def _record(home: Path, folder: Path) -> Work:
    model = str(home / "untrained")
    output = ["--output", str(folder / "some.jsonl.gz"), "--survey", "2"]
    return partial(main, ["record", model, "--untrained", model, *output])


def _rate(home: Path, folder: Path) -> Work:
    keys = {
        **{"model.path": home / "untrained", "data.pass_rates.file": folder / "rates.jsonl", "data.counts.train": 24},
        **{"data.pass_rates.samples": 2, "rollout.max_tokens": 8, "rollout.rows": 4},
    }
    return partial(main, ["rate", "--recipe", "overthinker", *overrides(keys)])


def _compare(home: Path, folder: Path) -> Work:
    return partial(compare, str(home / "untrained"), folder)


def compare(model: str, folder: Path) -> int:
    """A comparison of two rows that takes seconds."""
    from stepgrpo_lab.experiments.plan import Experiment, Plan
    from stepgrpo_lab.experiments.rows import find_rows
    from stepgrpo_lab.experiments.run import run_experiment

    counts = {"validation": 2, "curves": 1, "test": 2, "harder": 0, "samples": 1, "proof_steps": 2}
    plan = Plan(token_budget=None, learning_rates=(), **counts)
    keys = {
        **{"model.path": model, "data.counts.train": 20, "rollout.max_tokens": 16, "evaluation.every": 2},
        **{"optimisation.prompts_per_step": 1, "optimisation.group_size": 2, "optimisation.rows_per_pass": 2},
        **{"optimisation.save_every": 1},
    }
    row = find_rows(["l1-exact"])[0]
    run_experiment(
        Experiment("methods", "?", tuple(find_rows(["vanilla", row.name])), plan),
        folder,
        overrides=[f"{key}={value}" for key, value in keys.items()],
    )
    return 0


ERRANDS = (
    Errand("compare", _compare),
    Errand("export", _export, may_refuse=True),
    Errand("rate", _rate),
    Errand("record", _record),
)
