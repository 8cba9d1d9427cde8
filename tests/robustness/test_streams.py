"""Whoever stops reading what a command prints does not end it; what cannot be written is said where it matters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import CLOSED, start
from tiny import save_tiny, tiny_overrides

from stepgrpo_lab.training.metrics import read_metrics

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork, /dev/full and pipes as POSIX has them")


def nobody_reads(descriptor: int) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    os.dup2(writing, descriptor)
    os.close(writing)


def full(descriptor: int) -> None:
    device = os.open("/dev/full", os.O_WRONLY)
    os.dup2(device, descriptor)
    os.close(device)


BROKEN: dict[str, Callable[[int], None]] = {"a reader that is gone": nobody_reads, "closed": os.close, "full": full}


def run(arguments: list[str], broken: str, descriptors: tuple[int, ...]) -> subprocess.CompletedProcess[str]:
    """A command of a real process, some of whose streams are broken from the start."""

    def spoil() -> None:
        for descriptor in descriptors:
            BROKEN[broken](descriptor)

    command = [sys.executable, "-m", "stepgrpo_lab", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=environment,
        preexec_fn=spoil,
    )


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("command", ["compare --list", "train --help", "--version"])
def test_a_printing_command_ends_without_a_word_unless_its_output_is_lost(command: str, broken: str) -> None:
    ended = run(command.split(), broken, (1,))
    if broken == "full":
        assert ended.returncode == 2
        assert "standard output cannot be written" in ended.stderr and ended.stderr.count("\n") == 1
    else:
        assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("broken", BROKEN)
def test_an_error_that_nobody_can_read_keeps_its_exit_code(broken: str) -> None:
    assert run(["report", "no/such/run"], broken, (2,)).returncode == 2
    assert run(["report", "no/such/run"], broken, (1, 2)).returncode == 2


def test_a_reader_that_takes_one_line_ends_nothing() -> None:
    """As ``| head -1`` does."""
    command = [sys.executable, "-m", "stepgrpo_lab", "compare", "--list"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout and process.stderr and process.stdout.readline()
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    changes: dict[str, Any] = {"optimisation.max_steps": 2}
    overrides = tiny_overrides(save_tiny(tmp_path_factory.mktemp("model")), **changes)
    return [part for override in overrides for part in ("--set", override)]


def spoil_both() -> None:
    for descriptor in (1, 2):
        nobody_reads(descriptor)


def fill_both() -> None:
    for descriptor in (1, 2):
        full(descriptor)


@pytest.mark.parametrize(
    ("streams", "first"),
    [({"out": CLOSED, "err": CLOSED}, int), ({"out": CLOSED}, int), ({}, spoil_both), ({}, fill_both)],
    ids=["closed", "stdout closed", "a reader that is gone", "full"],
)
def test_a_training_ends_as_if_everybody_read(
    streams: dict[str, str], first: Callable[[], Any], overrides: list[str], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    command = start(["train", *overrides, "--output", "run"], tmp_path / "here", **streams, first=first)  # type: ignore[arg-type]
    assert command.end() == 0
    run = tmp_path / "here" / "run"
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [0, 1, 2]
    assert (run / "model" / "model.safetensors").is_file() and (run / "report.html").is_file()
    text = "".join(path.read_text(encoding="utf-8") for path in run.glob("*.json*"))
    assert "run folder:" not in text and "step 1/2" not in text, "what was printed went into another file"
