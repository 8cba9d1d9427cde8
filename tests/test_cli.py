"""The command line: help without heavy imports, errors in one line, and each command once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny, tiny_overrides

from stepgrpo_lab.cli import build_parser, find_command, main
from stepgrpo_lab.cli._commands import own_problems
from stepgrpo_lab.cli._output import StatusLine, printable, rollout_lines
from stepgrpo_lab.method.records import Cost, Probe, Problem, Trajectory
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.recipes import load_recipe, write_recipe


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, made by the command."""
    folder = tmp_path_factory.mktemp("cli")
    overrides = tiny_overrides(
        save_tiny(folder / "model"), **{"optimisation.max_steps": 1, "optimisation.save_every": 1}
    )
    arguments = [part for override in overrides for part in ("--set", override)]
    assert main(["train", *arguments, "--seed", "3", "--output", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["evaluate"],
        ["rollout"],
        ["export"],
        ["report"],
        ["compare"],
        ["benchmark"],
        ["overthinker", "build"],
    ],
)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys\nfrom stepgrpo_lab.cli import main\n"
        f"try:\n    main({[*command, '--help']})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'trl', 'plotly', 'numpy', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "usage: stepgrpo" in result.stdout and "example" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--recipe", "nowhere"], "no recipe 'nowhere'"),
        (["train", "--set", "optimisation.max_step=3"], "did you mean 'max_steps'"),
        (["train", "--resume", "nowhere"], "holds no run to resume"),
        (["train", "--resume", "x", "--seed", "1"], "drop --recipe, --set, --seed and --output"),
        (["evaluate", "no/such/model", "--count", "1"], "model 'no/such/model' cannot be loaded"),
        (["evaluate", "overthinker", "--data", "no.jsonl"], "no.jsonl"),
        (["export", "no/such/run", "out"], "holds no trained model"),
        (["report", "no/such/run"], "no/such/run"),
        (["rollout", "--index", "-1"], "--index is -1"),
        (["rollout", "--threshold", "2"], "exit_threshold is 2"),
    ],
)
def test_errors_are_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("stepgrpo: error: ") and message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_unknown_arguments_exit_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["train", "--sede", "1"])
    assert stop.value.code == 2
    assert "--sede" in capsys.readouterr().err


def test_ctrl_c_outside_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from stepgrpo_lab.cli import _commands as commands

    def interrupted(options: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "report", interrupted)
    assert main(["report", "x"]) == 130
    assert "stopped" in capsys.readouterr().err


def test_an_unfinished_run_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from stepgrpo_lab.run import job as run

    monkeypatch.setattr(run, "train", lambda recipe, folder, **_: run.RunResult(folder, False, None, None))  # type: ignore[arg-type]
    assert main(["train", "--output", str(tmp_path / "r")]) == 0
    assert f"stepgrpo train --resume {tmp_path / 'r'}" in capsys.readouterr().out


def test_a_run_stopped_at_once_says_so_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from stepgrpo_lab.run import job as run

    def interrupted(recipe: Any, folder: Path, **_: Any) -> None:
        if folder.exists():
            (folder / "recipe.yaml").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupted)
    assert main(["train", "--output", str(tmp_path / "r")]) == 130
    assert "--resume" not in capsys.readouterr().out, "there is nothing to go on with"
    (tmp_path / "r").mkdir()
    assert main(["train", "--output", str(tmp_path / "r")]) == 130
    assert f"last checkpoint: stepgrpo train --resume {tmp_path / 'r'}" in capsys.readouterr().out


def test_train_leaves_a_run(finished_run: Path) -> None:
    from stepgrpo_lab.recipes import load_recipe

    assert (finished_run / "report.html").exists()
    assert load_recipe(finished_run / "recipe.yaml").seed == 3


def test_evaluate_prints_figures(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--count", "4", "--samples", "2", "--limit", "24", "--deer", "paper"]
    assert main(["evaluate", str(finished_run), *options, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["problems"], figures["samples"]) == (4, 2)
    assert figures["tokens"]["estimate"] <= 24
    assert figures["settings"]["rollout"]["preset"] == "paper"
    assert main(["evaluate", str(finished_run / "model"), *options]) == 0
    out = capsys.readouterr().out
    assert "4 problems, 2 completion(s) each" in out and "accuracy" in out


def test_rollout_prints_one_trajectory(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", str(finished_run), "--problem", "Which?", "--limit", "30"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("PROBLEM  Which?\n") and "tokens kept" in out
    assert main(["rollout", str(finished_run), "--index", "2", "--limit", "30"]) == 0
    again = capsys.readouterr().out
    assert "gold answer" in again and again.rstrip().endswith(("right", "wrong"))


def test_rollout_takes_a_recipe_or_data(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = ["--recipe", str(finished_run / "recipe.yaml"), "--set", "data.suffix=' Think.'"]
    assert main(["rollout", *recipe]) == 0
    own = tmp_path / "own.jsonl"
    own.write_text('{"id": "a", "prompt": "Which digit?", "answer": "7"}\n', encoding="utf-8")
    assert "PROBLEM" in capsys.readouterr().out
    options = ["rollout", str(finished_run), "--data", str(own), "--limit", "20", "--top-k", "5", "--suffix", " Go."]
    assert main(options) == 0
    assert capsys.readouterr().out.startswith("PROBLEM  Which digit?   (gold answer: 7)\n")
    assert main([*options, "--index", "1"]) == 2
    assert "has 1 problems" in capsys.readouterr().err


def test_export_writes_a_plain_model(finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoModelForCausalLM

    assert main(["export", str(finished_run), str(tmp_path / "out")]) == 0
    assert AutoModelForCausalLM.from_pretrained(str(tmp_path / "out")).num_parameters() > 0
    assert main(["export", str(finished_run), str(tmp_path / "out")]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_export_of_a_checkpoint_is_the_model_alone(finished_run: Path, tmp_path: Path) -> None:
    checkpoint = finished_run / "checkpoints" / "checkpoint-1"
    assert (checkpoint / "optimizer.pt").is_file() and (checkpoint / "manifest.json").is_file()
    (checkpoint / "global_step1").mkdir()  # as DeepSpeed leaves it
    assert main(["export", str(checkpoint), str(tmp_path / "out")]) == 0
    exported, trained = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (tmp_path / "out", finished_run / "model")
    )
    assert exported == trained
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_report_is_written_again_with_table_and_picture(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished_run / "report.html").unlink()
    assert main(["report", str(finished_run), "--picture", str(tmp_path / "result.svg")]) == 0
    assert (finished_run / "report.html").exists()
    assert "| model | tokens | accuracy |" in capsys.readouterr().out
    assert (tmp_path / "result.svg").read_text(encoding="utf-8").startswith("<svg")


def test_overthinker_build_is_called_with_the_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from stepgrpo_lab.authoring.overthinker import build

    calls: list[Any] = []

    def fake(output: Path, settings: Any, *, progress: Any) -> Path:
        progress("traces", 1, 1, 0.5)
        calls.append((output, settings.seed))
        return output

    monkeypatch.setattr(build, "build_overthinker", fake)
    assert main(["overthinker", "build", "--output", str(tmp_path / "o"), "--seed", "4"]) == 0
    assert calls == [(tmp_path / "o", 4)]


# ---- output ----------------------------------------------------------------------------------------------------------


def test_terminal_sequences_are_made_visible() -> None:
    hostile = "a\x1b[2J\x07\x9b31m\u202eb\r\nc\td\x00"
    assert printable(hostile) == "a\\x1b[2J\\x07\\x9b31m\\u202eb\\r\nc\td\\x00"
    assert printable("plain ünïcode 答") == "plain ünïcode 答"


def test_errors_escape_what_they_quote(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--recipe", "\x1b[31mred"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_one_trajectory_in_words() -> None:
    pieces = ["<think>", "two", " Wait", "\x1b[2J", "\n</think>\n\n", "\\boxed{4}", "<end>"]
    text = TokenText.from_pieces(pieces)
    declined = Probe(2, 1, "Wait", [5], [0.5], "{4}", "4", True, 0.5, 0.4, False)
    accepted = Probe(4, 2, "Wait", [5], [0.99], "{4}", "4", True, 0.99, 0.98, True)
    trajectory = Trajectory(
        [0],
        [0, 1, 2, 3, 4, 5, 6],
        [-1.0, -1.0, -1.0, -1.0, None, -1.0, -1.0],
        "",
        2,
        "early",
        "eos",
        True,
        [declined, accepted],
        Cost(3, 7, 9, 2),
    )
    assert list(rollout_lines(Problem("p", "2+2?", "4"), trajectory, text, True)) == [
        "PROBLEM  2+2?   (gold answer: 4)",
        'THINK    "<think>two"',
        'PROBE 1  at token 2, before "Wait": "{4}", answer 4, confidence 0.500 (joint 0.400) - '
        "declined: it leaves no trace",
        'THINK    " Wait\\x1b[2J"',
        'PROBE 2  at token 4, before "Wait": "{4}", answer 4, confidence 0.990 (joint 0.980) - '
        "accepted: thoughts end here",
        "CLOSE    early",
        'ANSWER   "\\n</think>\\n\\n\\boxed{4}<end>"',
        "2 steps, 7 tokens kept (1 of them forced), 9 for probes, 2 replayed; ended by eos, right",
    ]


def test_a_natural_close_is_found_in_the_text() -> None:
    text = TokenText.from_pieces(["on", "</", "think>", " 4"])
    trajectory = Trajectory([0], [0, 1, 2, 3], [-1.0] * 4, "", 1, "natural", "length")
    lines = list(rollout_lines(Problem("p", "?", ""), trajectory, text, None))
    assert lines[1:4] == ['THINK    "on</"', "CLOSE    natural", 'ANSWER   "think> 4"']


def test_status_line_rewrites_itself_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status = StatusLine()
    status("step 1")
    status.end()
    assert capsys.readouterr().out == "step 1\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    live = StatusLine()
    live("step 1")
    live("step 2 " + "x" * 1000)
    live.end()
    out = capsys.readouterr().out
    assert out.startswith("\r\x1b[Kstep 1\r\x1b[Kstep 2 x") and out.endswith("x\n") and len(out) < 400


def test_every_command_has_a_function() -> None:
    parser = build_parser()
    lines = ["train", "evaluate m", "rollout", "export a b", "report a", "reproduce headline", "compare", "benchmark m"]
    lines += ["record a", "overthinker build --output o", "notebooks build 02", "notebooks check", "site --output o"]
    for line in lines:
        assert callable(find_command(parser.parse_args(line.split()).function))


@pytest.mark.parametrize(
    ("model", "problems"),
    [
        ("overthinker", "overthinker:test"),
        ("overthinker-2", "overthinker-2:test"),
        ("runs/second", "overthinker-2:test"),
        ("runs/second/model", "overthinker-2:test"),
        ("runs/second/checkpoints/checkpoint-8", "overthinker-2:test"),
        ("runs/second/other", "overthinker:test"),
        ("Qwen/Qwen3-0.6B", "overthinker:test"),
    ],
)
def test_a_model_is_asked_its_own_problems(
    model: str, problems: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs" / "second").mkdir(parents=True)
    write_recipe(load_recipe("overthinker-2"), tmp_path / "runs" / "second" / "recipe.yaml")
    monkeypatch.chdir(tmp_path)
    assert own_problems(model) == problems
