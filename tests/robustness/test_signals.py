"""SIGTERM and SIGHUP stop every command in order, as Ctrl-C does, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from commands import Running, start
from tiny import save_tiny, tiny_overrides

from stepgrpo_lab.training._guard import last_checkpoint
from stepgrpo_lab.training.metrics import read_metrics

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has neither fork nor these signals")

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def sets(model: Path, **changes: Any) -> list[str]:
    sizes = {"optimisation.max_steps": 100_000, "optimisation.save_every": 100_000, **changes}
    sizes["optimisation.stop_without_signal"] = "null"  # the tiny model never is right
    return [part for override in tiny_overrides(model, **sizes) for part in ("--set", override)]


def waiting_at(module: str, name: str) -> None:
    """In the command's process: a function says that it was called, and then takes a minute."""
    owner: Any = __import__(module, fromlist=["_"])
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)

    def wait(*_: Any, **__: Any) -> None:
        print("here", flush=True)
        time.sleep(60)

    setattr(owner, name, wait)


def sampling() -> None:
    waiting_at("stepgrpo_lab.engines.lockstep", "LockstepEngine.generate")


def exporting() -> None:
    waiting_at("stepgrpo_lab.run.folder", "move_into_place")


def loading() -> None:
    waiting_at("stepgrpo_lab.run.job", "recipe_model")


def stopped_by(number: int, command: Running) -> None:
    """The exit code is that of the signal, and nobody reads a traceback."""
    assert command.end() == 128 + number, command.said()
    assert "Traceback" not in command.said()


COMMANDS = {
    "evaluate": ("evaluate MODEL --limit 24", sampling),
    "rollout": ("rollout MODEL --limit 24", sampling),
    "record": ("record MODEL --untrained MODEL --output made.jsonl.gz", sampling),
    "benchmark": ("benchmark MODEL --set aime24 --folder .. --limit 24 --dtype float32", sampling),
    "export": ("export MODEL made", exporting),
}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_stopped_and_leaves_nothing_half_made(name: str, number: int, model: Path, folder: Path) -> None:
    (folder.parent / "aime24.jsonl").write_text('{"problem": "1+1?", "answer": "2"}\n' * 30, encoding="utf-8")
    line, first = COMMANDS[name]
    command = start([word.replace("MODEL", str(model)) for word in line.split()], folder, first=first)
    command.wait_for("here")
    command.send(number)
    stopped_by(number, command)
    assert [path.name for path in folder.iterdir() if not path.name.endswith((".lock", ".holder"))] == []


@pytest.mark.parametrize(("number", "method"), [*((number, "grpo") for number in SIGNALS), (signal.SIGTERM, "sft")])
def test_a_training_is_saved_and_says_how_to_go_on(number: int, method: str, model: Path, folder: Path) -> None:
    imitation = {
        **{"method": "sft", "model.path": "overthinker", "rollout.max_tokens": 128, "evaluation.every": 100_000},
        **{"data.counts.test": 1, "data.counts.validation": 1, "optimisation.prompts_per_step": 1},
        **{"optimisation.group_size": 2, "optimisation.rows_per_pass": 2},
    }
    changes = imitation if method == "sft" else {}
    command = start(["train", *sets(model, **changes), "--output", "run 1"], folder)
    command.wait_for("step 10/")
    command.send(number)
    stopped_by(number, command)
    assert "stopped and saved" in command.said() and "stepgrpo train --resume 'run 1'" in command.said()
    saved = last_checkpoint(folder / "run 1" / "checkpoints")
    steps = [row["step"] for row in read_metrics(folder / "run 1" / "metrics.jsonl")]
    assert saved is not None and saved.name == f"checkpoint-{max(steps)}"


def test_the_second_signal_stops_at_once_and_the_run_goes_on_from_where_it_was_saved(model: Path, folder: Path) -> None:
    command = start(["train", *sets(model, **{"optimisation.max_steps": 30}), "--output", "run"], folder)
    command.wait_for("step 10/")
    command.send(signal.SIGTERM)
    command.wait_for("a second")
    command.send(signal.SIGTERM)  # may come after the saving, which then is what stopped it
    stopped_by(signal.SIGTERM, command)
    again = start(["train", "--resume", "run"], folder)
    assert again.end() == 0, again.said()
    assert [row["step"] for row in read_metrics(folder / "run" / "metrics.jsonl")] == list(range(31))


def test_a_training_that_has_not_begun_names_nothing_to_resume(model: Path, folder: Path) -> None:
    command = start(["train", *sets(model), "--output", "run"], folder, first=sampling)
    command.wait_for("here")
    command.send(signal.SIGTERM)
    stopped_by(signal.SIGTERM, command)
    assert "--resume run" in command.said() and (folder / "run" / "recipe.yaml").exists()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_row_of_a_comparison_is_saved_and_goes_on(number: int, model: Path, folder: Path) -> None:
    changes = [*sets(model), "--set", "optimisation.token_budget=null"]
    arguments = ["compare", "all", *changes, "--row", "step-grpo", "--output", "table"]
    command = start(arguments, folder, first=sampling)
    command.wait_for("here")
    command.send(number)
    stopped_by(number, command)
    assert "run the same command to go on" in command.said()


def test_what_was_started_with_nohup_ignores_a_hang_up(model: Path, folder: Path) -> None:
    command = start(["train", *sets(model), "--output", "run"], folder, first=nohup)
    command.wait_for("step 10/")
    command.send(signal.SIGHUP)
    command.wait_for("step 20/")
    command.send(signal.SIGTERM)
    stopped_by(signal.SIGTERM, command)


def nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


SLOW_IMPORT = """
import time
print("importing", flush=True)
try:
    time.sleep(60)
except BaseException:  # as libraries do that try whether something can be imported
    pass
"""


def import_slowly() -> None:
    from stepgrpo_lab import cli

    sys.path.insert(0, os.getcwd())
    cli.find_command = lambda name: lambda options: __import__("slow_import") and 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_an_import_is_not_lost(number: int, folder: Path) -> None:
    (folder / "slow_import.py").write_text(SLOW_IMPORT, encoding="utf-8")
    command = start(["report", "."], folder, first=import_slowly)
    command.wait_for("importing")
    command.send(number)
    stopped_by(number, command)
    assert "stopped" in command.said()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_before_the_command_has_begun_ends_it_without_a_word(number: int, tmp_path: Path) -> None:
    """While the interpreter starts there is nothing to save, and no traceback to show."""
    (tmp_path / "sitecustomize.py").write_text(
        "import builtins, time\nreal = builtins.__import__\n"
        "def slowly(name, *rest, **named):\n"
        "    if name == 'stepgrpo_lab.cli':\n        print('importing', flush=True); time.sleep(60)\n"
        "    return real(name, *rest, **named)\n"
        "builtins.__import__ = slowly\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "stepgrpo_lab", "--version"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout and process.stdout.readline() == b"importing\n"
        process.send_signal(number)
        assert (process.communicate()[1], process.returncode) == (b"", -number)
