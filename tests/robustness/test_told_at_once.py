"""Mistakes of a recipe or of a command are all said before anything is loaded, and leave no folder behind."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepgrpo_lab.cli import main
from stepgrpo_lab.engines.writers import InUseError, Writer
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.recipes.schema import RecipeError


def keys_of(section: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from keys_of(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


@pytest.mark.parametrize("value", ["{a: [1]}", ".nan", "[[1]]"])
def test_a_wrong_value_of_every_key_is_listed_in_one_pass(value: str) -> None:
    keys = list(keys_of(load_recipe("overthinker")))
    with pytest.raises(RecipeError) as caught:
        load_recipe("overthinker", [f"{key}={value}" for key in keys])
    mistakes = caught.value.mistakes
    assert [key for key in keys if not any(key in mistake for mistake in mistakes)] == []
    assert all("\n" not in mistake and len(mistake) < 400 for mistake in mistakes)


COMMANDS = {
    "train --set data.train=gsm8kk": "gsm8k",
    "train --set data.train=overthinker:tran": "overthinker:train",
    "train --set data.train=no/such.jsonl": "no/such.jsonl",
    "train --seed -5": "--seed",
    "train --seed 99999999999999999999999": "--seed",
    "train --set seed=-1": "seed",
    "train --set report_to=wandbb": "wandb",
    "train --set max_steps=3": "optimisation.max_steps",
    "train --set reward.function=step_awre": "step_aware",
    "train --set rollout.preset=oficial": "official",
    "train --set name=../../../etc/x": "name",
    "train --set optimisation.max_steps=99999999999999999999": "optimisation.max_steps",
    "train --set optimisation.rows_per_pass=7": "rows_per_pass",
    "train --recipe overthinkr": "overthinker",
    "train --set model.path=no/such/model": "no/such/model",
    "trian": "train",
    "train --recpie x": "--recipe",
    "evaluate overthinker --count 0": "--count",
    "evaluate overthinker --count 1000000000": "--count",
    "evaluate no/such/model": "no/such/model",
    "rollout --index 99999999": "--index",
    "compare --row nope": "nope",
    "record nodir": "nodir",
    "report .": "no run",
    "train --output=": "the name is empty",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_mistake_is_named_and_leaves_nothing_behind(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = main(command.split())
    except SystemExit as end:  # argparse's own
        code = int(end.code or 0)
    said = capsys.readouterr()
    assert code == 2
    assert COMMANDS[command] in said.err and "Traceback" not in said.err
    assert "evaluat" not in said.out and list(tmp_path.iterdir()) == []


WRONG_PLACES = (
    *(
        "train --output FULL",
        "train --output FILE",
        "train --output FILE/x",
        "train --recipe EMPTY",
        "train --recipe FILE",
    ),
    *("train --resume EMPTY", "train --resume FILE", "train --set data.train=EMPTY", "train --set data.train=FILE"),
    *("train --set model.path=EMPTY", "train --set model.path=FILE", "evaluate EMPTY", "evaluate FILE"),
    *("evaluate overthinker --data EMPTY", "evaluate overthinker --data FILE", "rollout EMPTY"),
    *("benchmark overthinker --set aime24 --folder EMPTY", "benchmark overthinker --set aime24 --folder FILE"),
    *("export EMPTY new", "export FILE new", "export overthinker FULL", "export overthinker FILE"),
    *("export overthinker FILE/x", "report EMPTY", "report FILE", "record EMPTY", "record overthinker --output FULL"),
    *(
        "record overthinker --output FILE/x",
        "compare --output FILE --row vanilla",
        "compare --output FILE/x --published",
    ),
    *("overthinker build --output FILE", "overthinker build --output FULL", "notebooks check --root EMPTY"),
)


@pytest.mark.parametrize("command", WRONG_PLACES)
def test_a_wrong_file_or_folder_is_one_line_and_leaves_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"EMPTY": tmp_path / "an empty folder", "FULL": tmp_path / "full", "FILE": tmp_path / "file"}
    for name in ("EMPTY", "FULL"):
        places[name].mkdir()
    for path in (places["FILE"], places["FULL"] / "mine"):
        path.write_text("mine", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    words = command.split()
    for name, path in places.items():
        words = [word.replace(name, str(path)) for word in words]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("stepgrpo: error: ") and said.count("\n") == 1 and "fault of the program" not in said
    assert sorted(tmp_path.rglob("*")) == before


HOLD = """
import sys
from pathlib import Path
from stepgrpo_lab.engines.writers import Writer
with Writer.in_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_told_who_writes_and_a_killed_one_is_forgotten(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        with pytest.raises(InUseError, match=str(holder.pid)), Writer.in_folder(tmp_path / "run"):
            pass
        holder.kill()
        holder.wait()
        with Writer.in_folder(tmp_path / "run") as again, again:
            pass
    assert list((tmp_path / "run").iterdir()) == []


def test_the_command_line_names_the_writer_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("seed: 0\n", encoding="utf-8")
    with Writer.in_folder(folder):
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}
        assert main(["train", "--resume", str(folder)]) == 2
        assert str(os.getpid()) in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"} == before
