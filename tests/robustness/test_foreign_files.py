"""Files that a stranger may have written: every reader reads them, or refuses in one line that names the file.

A slice of the campaign ``python -m tools.campaigns mutate``, which also measures time and memory.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.campaigns.mutating import READERS, Bench

MUTANTS = 24


@pytest.mark.parametrize("reader", READERS)
def test_broken_files_are_read_or_refused_in_one_line(reader: str, tmp_path: Path) -> None:
    bench = Bench(reader, tmp_path / "bench")
    verdicts = [bench.examine(number, seed=1) for number in range(MUTANTS)]
    assert [verdict for verdict in verdicts if verdict.fault] == []
    # A damaged checkpoint is passed over, for the one before.
    assert any(verdict.refused for verdict in verdicts) == (reader != "checkpoint")
