"""Starting up, and where the main job's time went."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .measuring import Result, Table, figure, seconds_of

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "trl", "vllm", "bitsandbytes", "plotly"}

_IMPORT = "import sys, time; t = time.perf_counter(); import stepgrpo_lab; print(time.perf_counter() - t, *sys.modules)"


def startup(quick: bool) -> Result:
    """Import and help, each in fresh interpreters."""
    repeats = 2 if quick else 9
    imports = []
    for _ in range(repeats):
        seconds, *modules = _python("-c", _IMPORT).split()
        assert not HEAVY & {name.partition(".")[0] for name in modules}
        imports.append(float(seconds))
    helps = [seconds_of(lambda: _python("-m", "stepgrpo_lab", "--help")) for _ in range(repeats)]
    note = f"No {', '.join(sorted(HEAVY))} imported."
    return Result(
        [
            figure("startup", "`import stepgrpo_lab`", imports, "s", most=0.3, note=note),
            figure("startup", "`stepgrpo --help`, interpreter included", helps, "s", most=1.0),
        ]
    )


def _python(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def main_job(quick: bool) -> Result:
    """Phases of the recorded run of `stepgrpo train` (two cores); nothing is run again."""
    path = ROOT / "data" / "results" / "overthinker" / "environment.json"
    seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"]
    total = sum(seconds.values())
    rows = [[phase.replace("_", " "), f"{value:.1f}", f"{value / total:.0%}"] for phase, value in seconds.items()]
    return Result(
        [figure("main_job", "the recorded main job, its phases together", [total / 60], "minutes", most=10)],
        [Table("The main job by phase", ["phase", "seconds", "share"], rows)],
    )
