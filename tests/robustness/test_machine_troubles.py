"""What a machine lacks is said on one line with the remedy, whoever noticed it; the traceback is kept in the run."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_tiny, tiny_overrides

from stepgrpo_lab.cli import main
from stepgrpo_lab.run import job

TROUBLES: dict[str, tuple[BaseException, str]] = {
    "Python": (MemoryError(), "memory"),
    "numpy": (MemoryError("Unable to allocate 8.00 GiB for an array"), "memory"),
    "torch on a GPU": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), "the GPU's memory"),
    "an older torch": (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), "the GPU's memory"),
    "cuBLAS": (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "the GPU's memory"),
    "torch on a CPU": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you tried 8"),
        "the machine's memory",
    ),
    "C++": (RuntimeError("std::bad_alloc"), "the machine's memory"),
    "the kernel": (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "the machine's memory"),
    "threads": (RuntimeError("can't start new thread"), "ulimit -u"),
    "OpenMP": (RuntimeError("libgomp: Thread creation failed: Resource temporarily unavailable"), "ulimit -u"),
    "processes": (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "ulimit -u"),
    "a full disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "make room"),
    "a quota": (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "make room"),
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    model = save_tiny(tmp_path_factory.mktemp("model"))
    overrides = tiny_overrides(model, **{"optimisation.max_steps": 1, "data.counts.test": 1})
    return [part for override in overrides for part in ("--set", override)]


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(job, "reinforcer", fail)


@pytest.mark.parametrize("who", TROUBLES)
def test_what_the_machine_lacks_is_one_line_with_the_remedy(
    who: str, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, words = TROUBLES[who]
    failing(monkeypatch, error)
    assert main(["train", *sets, "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("stepgrpo: error: ") and said.count("\n") == 1 and words in said
    assert (tmp_path / "run" / "recipe.yaml").exists(), "the run can go on where there is room"


def test_a_fault_of_the_program_keeps_its_traceback_in_the_run(
    sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, LookupError("nobody\nforesaw this"))
    run = tmp_path / "run"
    assert main(["train", *sets, "--output", str(run)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "nobody foresaw this" in said and str(run / "error.log") in said
    assert (run / "error.log").read_text(encoding="utf-8").startswith("Traceback")
    assert main(["train", "--resume", str(run), "--debug"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said and "raise error" in said


ODD = ["two words", "new\nline", "-dash", 'it\'s "quoted" $HOME', "ä答", "x" * 120, "tab\there", "*"]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_name_of_a_folder_is_a_name(
    name: str, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    failing(monkeypatch, KeyboardInterrupt())
    assert main(["train", *sets, f"--output={name}"]) == 130
    said = capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [name]
    command = shlex.split(said[said.index("stepgrpo train --resume") :])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(command[1:]) == 0
    assert main(["report", f"./{name}"]) == 0 and main(["export", f"./{name}", f"./{name}-out"]) == 0
    assert (tmp_path / f"{name}-out" / "model.safetensors").is_file()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("environment", [{}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}])
@pytest.mark.parametrize("name", ["ä答", b"\xff\xfe"])
def test_no_locale_and_no_bytes_make_a_traceback(
    name: str | bytes, environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "stepgrpo_lab", "report", name]
    path = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, env={**os.environ, **path, **environment}, cwd=tmp_path, capture_output=True)
    assert ended.returncode == 2 and ended.stderr.startswith(b"stepgrpo: error: ") and ended.stderr.count(b"\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["train --output", "export overthinker"])
def test_a_name_that_is_too_long_is_refused_before_anything_is_made(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "new/" + "x" * 300]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "name" in said and list(tmp_path.iterdir()) == []
