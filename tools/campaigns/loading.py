"""What a long problem file and a long run cost: memory in bytes, measured, not timed."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stepgrpo_lab.evaluation.problems import iterate_problems, load_problems

ROW = '{"id": "p%d", "problem": "Start at %d: +5 *3 -4 +9. Which digit, mod 10?", "answer": "%d"}\n'


def write_rows(path: Path, rows: int) -> Path:
    """A file of so many small problems, written row by row."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            file.write(ROW % (number, number % 97, number % 10))
    return path


def peak_of(work: Callable[[], Any]) -> tuple[Any, int]:
    """What a call returns, and the most bytes of Python objects that it held at once."""
    tracemalloc.start()
    try:
        return work(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure(rows: int) -> dict[str, Any]:
    """Read a generated file of so many rows: all, the first thousand, and one after the other."""
    import resource  # Windows has none

    with tempfile.TemporaryDirectory() as folder:
        path = write_rows(Path(folder) / "problems.jsonl", rows)
        size = path.stat().st_size
        first, first_peak = peak_of(lambda: len(load_problems(path, limit=1000)))
        streamed, streamed_peak = peak_of(lambda: sum(1 for _ in iterate_problems(path)))
        loaded, peak = peak_of(lambda: len(load_problems(path)))
    return {
        "rows": loaded,
        "file_bytes": size,
        "first_thousand_peak_bytes": first_peak if first == 1000 else None,
        "streamed_peak_bytes_per_row": round(streamed_peak / streamed, 1),
        "loaded_peak_bytes_per_row": round(peak / loaded, 1),
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
