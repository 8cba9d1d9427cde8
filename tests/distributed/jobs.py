"""What the processes do: the train job from the command line, and what it wrote and said."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TEST_PROBLEMS = 7
RECIPE = {
    "data.counts.train": 12,
    "data.counts.validation": 3,
    "data.counts.test": TEST_PROBLEMS,
    "optimisation.max_steps": 2,
    "optimisation.prompts_per_step": 3,
    "optimisation.group_size": 4,
    "optimisation.rows_per_pass": 3,
    "rollout.max_tokens": 128,
    "evaluation.every": 2,
    "evaluation.texts": 2,
}


@dataclass
class Job:
    """What one process did.

    Attributes:
        said: Its standard output.
        wrote: Names of the files that it opened for writing, renamed or removed in the run folder.
        decoded: Completions that it decoded, call by call.
    """

    said: str
    wrote: list[str] = field(default_factory=list)
    decoded: list[int] = field(default_factory=list)


def train_job(root: str, resume: bool = False) -> Job:
    """``stepgrpo train`` into a folder of ``root`` whose name each process makes up for itself; or ``--resume``."""
    from stepgrpo_lab import cli
    from stepgrpo_lab.engines.lockstep import LockstepEngine

    job, said = Job(""), io.StringIO()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
        if (writes or event in ("os.rename", "os.remove", "shutil.rmtree")) and str(arguments[0]).startswith(root):
            job.wrote.append(Path(str(arguments[0])).name)

    sys.addaudithook(watch)
    generate = LockstepEngine.generate

    def counted(self: Any, prompts: Any, decoding: Any, **options: Any) -> Any:
        job.decoded.append(len(prompts))
        return generate(self, prompts, decoding, **options)

    LockstepEngine.generate = counted  # type: ignore[method-assign]
    changes = [part for key, value in RECIPE.items() for part in ("--set", f"{key}={value}")]
    rank = os.environ.get("RANK", "0")
    where = ["--resume", f"{root}/run-0"] if resume else [*changes, "--output", f"{root}/run-{rank}"]
    with redirect_stdout(said):
        assert cli.main(["train", *where]) == 0
    job.said = said.getvalue()
    return job
