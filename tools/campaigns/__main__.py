"""The long campaigns, each behind one command; their records are the JSON files in `records`.

python -m tools.campaigns kill --minutes 25
python -m tools.campaigns fuzz --minutes 10
python -m tools.campaigns load --rows 1000000
python -m tools.campaigns mutate --count 20000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

WHICH = ("count", "seed", "minutes", "rows")
"""Options that decide what is done, not how."""

RECORDS = Path(__file__).parent / "records"


def kill(minutes: float, seed: int, fault: str | None) -> dict[str, Any]:
    """Kill drawn runs and other commands at drawn events, resume them, and hold them against undisturbed ones."""
    from .killing import campaign

    return campaign(minutes, seed, fault)


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
    command.add_argument("--minutes", type=float, default=25)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--fault", help="plant this fault of tools.campaigns.runs.FAULTS; no record is written")
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
    if options.get("fault") is None:
        RECORDS.mkdir(exist_ok=True)
        (RECORDS / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    return 1 if found.get("failures") else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported
    sys.exit(main())
