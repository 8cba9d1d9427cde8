"""What runs where, as far as this machine can tell: without what only POSIX has, and beside Apple's accelerator."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import stepgrpo_lab

PACKAGE = Path(stepgrpo_lab.__file__).parent

IMPORT_ALL = """
import pkgutil, stepgrpo_lab
for module in pkgutil.walk_packages(stepgrpo_lab.__path__, "stepgrpo_lab."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
"""
GRADE = """
from stepgrpo_lab import Grader
with Grader() as grader:
    assert grader.grade(["(1+x)^2", "2"], ["x^2+2x+1", "x+1"]) == [True, False]
"""
TRAIN = """
from stepgrpo_lab.cli import main
sizes = "max_steps=1 save_every=1 prompts_per_step=2 group_size=4 rows_per_pass=8".split()
sizes = ["optimisation." + size for size in sizes]
sizes += ["data.counts." + count for count in "train=8 validation=2 test=4".split()]
overrides = [word for size in sizes for word in ("--set", size)]
assert main(["train", *overrides, "--output", "run"]) == 0
assert main(["train", "--resume", "run"]) == 0
assert main(["report", "run"]) == 0
"""


@pytest.fixture
def as_on_windows(tmp_path: Path) -> dict[str, str]:
    """The environment of Python processes in which the library finds what Windows has, and no more."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_bytes((Path(__file__).parent / "windows_like.py").read_bytes())
    path = os.pathsep.join([str(hooks), str(PACKAGE.parent)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNDEFAULTENCODING": "1"}


def run(program: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, encoding="utf-8")


@pytest.mark.parametrize("program", [IMPORT_ALL, GRADE, TRAIN], ids=["import", "grade", "train"])
def test_nothing_needs_posix(program: str, as_on_windows: dict[str, str], tmp_path: Path) -> None:
    ended = run(program, as_on_windows, tmp_path)
    assert ended.returncode == 0, ended.stderr[-3000:]


@pytest.mark.parametrize(
    "use",
    [
        "import fcntl",
        "import os; os.fork",
        "import os; os.open('.', os.O_RDONLY)",
        "import signal; signal.SIGHUP",
        "import subprocess; subprocess.Popen(['true'], preexec_fn=print)",
        "open('text', 'w')",
    ],
)
def test_what_needs_posix_would_be_noticed(use: str, as_on_windows: dict[str, str], tmp_path: Path) -> None:
    """The stand-in hides what it is meant to hide, and from the library alone."""
    ended = run(f"exec({use!r}, {{'__name__': 'stepgrpo_lab.own'}})", as_on_windows, tmp_path)
    assert ended.returncode == 1
    elsewhere = run("import os, signal, fcntl; os.fork, signal.SIGHUP", as_on_windows, tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stderr


ON_A_MAC = """
import torch
torch.backends.mps.is_available = torch.backends.mps.is_built = lambda: True
from stepgrpo_lab.training.config import StepGRPOConfig
from stepgrpo_lab.training.fine_tuning import FineTuneConfig
for config in (StepGRPOConfig, FineTuneConfig):
    print(config(output_dir="run").device, config(output_dir="run", bf16=False).bf16)
"""


def test_on_a_mac_training_stays_on_the_cpu(tmp_path: Path) -> None:
    """transformers would take Apple's GPU by itself."""
    ended = run(ON_A_MAC, {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}, tmp_path)
    assert ended.stdout.split() == ["cpu", "False"] * 2, ended.stderr[-3000:]


@pytest.mark.parametrize("device", ["mps", "mps:0"])
def test_apple_s_gpu_is_refused_with_the_remedy(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    model, tokenizer = stepgrpo_lab.load_overthinker()
    with pytest.raises(ValueError, match="device='cpu'"):
        stepgrpo_lab.load_model("overthinker", device=device)
    monkeypatch.setattr(type(model), "device", property(lambda self: torch.device(device)))
    with pytest.raises(ValueError, match="device='cpu'"):
        stepgrpo_lab.LockstepEngine(model, tokenizer)
