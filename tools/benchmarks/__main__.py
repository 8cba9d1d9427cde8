"""``python -m tools.benchmarks [--only NAME ...] [--quick]``, from the top of a checkout."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["STEPGRPO_CACHE"] = "off"  # every speed is measured

FOLDER = Path(__file__).parents[2] / "data" / "results"


def main() -> None:
    """Run benchmarks, print their figures, and put them into the record unless this is only a quick look."""
    import torch

    from .catalogue import BENCHMARKS
    from .measuring import figures_markdown, table_markdown, write_record

    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks", description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="small and unrepeated: does it run? nothing is recorded")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in arguments.only or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = BENCHMARKS[name](arguments.quick)
        if not arguments.quick:
            write_record(FOLDER, {name: results[name]}, list(BENCHMARKS))
    print(figures_markdown([row for result in results.values() for row in result.figures]))
    for table in (table for result in results.values() for table in result.tables):
        print(f"\n{table_markdown(table)}")


if __name__ == "__main__":
    main()
