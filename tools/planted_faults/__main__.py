"""``python -m tools.planted_faults [--only NAME ...] [--list] [--checkout FOLDER] [--output FILE]``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tools.planted_faults.catalogue import FAULTS
from tools.planted_faults.planting import (
    ALL_PASSED,
    Fault,
    OutOfDateError,
    Verdict,
    copy_checkout,
    find_tests,
    run_tests,
    try_fault,
)

ROOT = Path(__file__).parents[2]


def table(verdicts: Sequence[Verdict], faults: Sequence[Fault]) -> str:
    """The verdicts as a Markdown table, under a line that counts them."""
    breaks = {fault.name: fault.breaks for fault in faults}
    counts = Counter(verdict.outcome for verdict in verdicts)
    lines = [", ".join(f"{count} {outcome}" for outcome, count in counts.most_common()) + ".", ""]
    lines += ["| fault | what it breaks | outcome | by | seconds |", "| --- | --- | --- | --- | --- |"]
    for row in verdicts:
        detail = row.detail.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row.fault} | {breaks[row.fault]} | {row.outcome} | {detail} | {row.seconds:g} |")
    return "\n".join(lines) + "\n"


def baseline(copy: Path, faults: Sequence[Fault]) -> str | None:
    """What fails without any fault; None if every selection passes."""
    selected: dict[str, None] = {}
    for fault in faults:
        try:
            selected |= dict.fromkeys(find_tests(copy, fault.tests))
        except OutOfDateError:
            continue  # reported in its turn
    code, output = run_tests(copy, list(selected)) if selected else (ALL_PASSED, "")
    return None if code == ALL_PASSED else output


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant the faults one after the other; returns 1 if one survives, 2 if the tests fail without any."""
    parser = argparse.ArgumentParser(prog="python -m tools.planted_faults", description=main.__doc__)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these faults alone (see --list)")
    parser.add_argument("--list", action="store_true", help="name the faults, and plant none")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the code to test (default: this checkout)")
    parser.add_argument("--output", type=Path, help="write a record: Markdown, or JSON by its ending")
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - {fault.name for fault in FAULTS}
    if unknown:
        parser.error(f"no fault {min(unknown)!r}: --list names them")
    faults = [fault for fault in FAULTS if options.only is None or fault.name in options.only]
    if options.list:
        print("\n".join(f"{fault.name}: {fault.breaks}" for fault in faults))
        return 0
    verdicts = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        copy_checkout(options.checkout.resolve(), copy)
        failing = baseline(copy, faults)
        if failing is not None:
            print(f"the tests fail without any fault:\n{failing}", file=sys.stderr)
            return 2
        for fault in faults:
            verdicts.append(try_fault(copy, fault))
            print(f"{verdicts[-1].outcome:12}{fault.name} ({verdicts[-1].seconds:g} s)", file=sys.stderr, flush=True)
    text = table(verdicts, faults)
    print(text)
    if options.output is not None:
        as_json = json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n"
        options.output.write_text(as_json if options.output.suffix == ".json" else text, encoding="utf-8")
    return 1 if any(verdict.outcome == "SURVIVED" for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
