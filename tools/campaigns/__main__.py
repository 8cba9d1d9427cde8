"""The long campaigns, each behind one command; their records are the JSON files in `records`.

python -m tools.campaigns kill --count 20
python -m tools.campaigns fuzz --minutes 10
python -m tools.campaigns load --rows 1000000
python -m tools.campaigns mutate --count 20000
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

WHICH = ("count", "seed", "minutes", "rows")
"""Options that decide what is done, not how."""

RECORDS = Path(__file__).parent / "records"


def kill(count: int, seed: int) -> dict[str, Any]:
    """Kill training runs ``count`` times, spread over the phases, and compare each with an undisturbed run."""
    from .killing import PHASES, differences, durations, kill_and_resume, phases_of

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = durations(list(phases_of(folder / "undisturbed")))
        kills = []
        phases = [PHASES[number % len(PHASES)] for number in range(count)]
        for killed in kill_and_resume(folder, phases, seconds, random.Random(seed)):
            print(f"kill {len(kills) + 1}/{count}: {killed}", flush=True)
            kills.append(dataclasses.asdict(killed))
        runs = sorted(folder.glob("run-*"))
        found = {run.name: differences(run, folder / "undisturbed") for run in runs}
    return {
        "kills": len(kills),
        "by_phase": Counter(killed["moment"]["phase"] for killed in kills),
        "left_a_checkpoint_that_is_not_whole": sum(
            "checkpoint" in killed["left"] and "whole" not in killed["left"] for killed in kills
        ),
        "runs": len(runs),
        "runs_that_differ_from_the_undisturbed_one": {run: what for run, what in found.items() if what},
        "each": kills,
    }


def fuzz(minutes: float, seed: int) -> dict[str, Any]:
    """Let hypothesis look for completions that break an invariant, property after property, for some minutes."""
    from .fuzzing import campaign

    return campaign(minutes * 60, seed)


def load(rows: int) -> dict[str, Any]:
    """Read a file of so many problems, and measure what it takes."""
    from .loading import measure

    return measure(rows)


def mutate(count: int, seed: int, readers: list[str], processes: int) -> dict[str, Any]:
    """Break so many files in every way, and have each read; with ``readers``, these anew and the others as recorded."""
    from .mutating import campaign

    record = RECORDS / "mutate.json"
    before = json.loads(record.read_text()) if readers and record.exists() else None
    if before and (before["count"], before["seed"]) != (count, seed):
        before = None
    return {"count": count, "seed": seed, **campaign(count, seed, readers, processes, before)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.campaigns", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("kill")
    command.add_argument("--count", type=int, default=20)
    command.add_argument("--seed", type=int, default=0)
    command = commands.add_parser("fuzz")
    command.add_argument("--minutes", type=float, default=10)
    command.add_argument("--seed", type=int, default=0)
    command = commands.add_parser("load")
    command.add_argument("--rows", type=int, default=1_000_000)
    command = commands.add_parser("mutate")
    command.add_argument("--count", type=int, default=20_000)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--readers", nargs="*", default=[], help="run only these anew")
    command.add_argument("--processes", type=int, default=1)
    options = vars(parser.parse_args())
    name = options.pop("command")
    started = time.monotonic()
    found = {"kill": kill, "fuzz": fuzz, "load": load, "mutate": mutate}[name](**options)
    command_line = " ".join([name, *(f"--{key} {value}" for key, value in options.items() if key in WHICH)])
    record = {
        "command": f"python -m tools.campaigns {command_line}",
        "seconds": round(time.monotonic() - started, 1),
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        **found,
    }
    RECORDS.mkdir(exist_ok=True)
    (RECORDS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({key: value for key, value in record.items() if key != "each"}, indent=1))
    failed = found.get("runs_that_differ_from_the_undisturbed_one") or found.get("failures")
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
    sys.exit(main())
