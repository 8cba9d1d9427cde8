"""Kills, cut-off files, full disks: the last good checkpoint is there, and the end is that of an undisturbed run."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tiny, tiny_model, tiny_overrides, tiny_tokenizer

from stepgrpo_lab.cli import main
from stepgrpo_lab.engines import files
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.recipes import _building as building
from stepgrpo_lab.run import job as run
from stepgrpo_lab.run.folder import check_unused, export_model
from stepgrpo_lab.training import _proof
from stepgrpo_lab.training._guard import checkpoint_damage, last_checkpoint
from stepgrpo_lab.training.fine_tuning import FineTuneConfig, FineTuneTrainer, Selection
from stepgrpo_lab.training.metrics import read_metrics
from tools.campaigns.events import Moment, sit
from tools.campaigns.killing import kill_chain
from tools.campaigns.runs import FAULTS, Case, Run, differences, same_weights, save_random_model

CHECKPOINT = {
    *("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json"),
    *("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja", "manifest.json"),
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose data outlast its steps, done undisturbed; the whole campaign: ``python -m tools.campaigns kill``."""
    place = tmp_path_factory.mktemp("kills")
    settings = {
        **{"data.counts.train": 40, "optimisation.max_steps": 3, "optimisation.prompts_per_step": 1},
        **{"optimisation.group_size": 2, "optimisation.rows_per_pass": 2, "optimisation.save_every": 1},
        "evaluation.every": 3,
    }
    model = save_random_model(place / "model")
    run = Run(Case("grpo", settings, keep=1), model, place / "undisturbed", place / "undisturbed")
    assert sit(run.command, run.folder).code == 0
    return run


def killed_at(drawn: Run, folder: Path, *moments: Moment, fault: str | None = None) -> list[str]:
    """Kill a run at each moment, let it end after the last, and say what is wrong."""
    run, left = Run(drawn.case, drawn.model, folder, drawn.undisturbed, fault), list(moments)
    sittings = list(kill_chain(run, lambda done: left.pop(0) if left else None))
    assert sittings[0][0].killed
    return [line for *_, found in sittings for line in found]


MANIFEST = "rename checkpoints/checkpoint-*/manifest.json.part"


def test_kills_between_events_leave_no_trace(drawn: Run, tmp_path: Path) -> None:
    moments = [Moment(2, MANIFEST), Moment(1, "rmdir checkpoints/checkpoint-*"), Moment(1, "rename model.part", 0.5)]
    assert killed_at(drawn, tmp_path / "run", *moments) == []


SHOWN_BY = {
    "a step too many": Moment(1, "rename model.part"),
    "no manifest": Moment(1, "rename model.part"),
    "metrics twice": Moment(3, MANIFEST),
    "files written in place": Moment(1, "rename evaluation_before.json", torn=0.5),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_kill_campaign_sees_faults(drawn: Run, tmp_path: Path, fault: str) -> None:
    assert killed_at(drawn, tmp_path / "run", SHOWN_BY[fault], fault=fault) != []


# ---- one short run with a random model, for everything that needs its files ------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def rewards_by_position() -> Iterator[None]:
    """A random model is never right: reward its groups by position, or no weight would move."""

    def by_position(correct: Any, *_: Any) -> list[float]:
        return [float(position) for position in range(len(correct))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "recipe_reward", lambda reward: by_position)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def recipe(model: Path) -> Recipe:
    return load_recipe("overthinker", tiny_overrides(model, **{"optimisation.save_every": 1}))


@pytest.fixture(scope="module")
def straight(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The undisturbed run."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    run.train(recipe, folder)
    return folder


@pytest.fixture(scope="module")
def stopped_once(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped after step 3 of 4, with the checkpoints of the last two steps."""

    def interrupt(line: str) -> None:
        if line.startswith("step 2/"):
            signal.raise_signal(signal.SIGINT)

    folder = tmp_path_factory.mktemp("runs") / "stopped"
    assert not run.train(recipe, folder, progress=interrupt).finished
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-3"]
    return folder


@pytest.fixture
def stopped(stopped_once: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(stopped_once, tmp_path / "stopped"))


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def test_no_checkpoint_with_a_cut_off_file_is_loaded(stopped: Path, tmp_path: Path) -> None:
    newest = stopped / "checkpoints" / "checkpoint-3"
    assert {path.name for path in newest.iterdir()} == CHECKPOINT, "a file that checkpoint_damage() does not know"
    assert checkpoint_damage(newest) is None
    needed = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
    for name in needed:
        for share in (0.0, 0.3, 0.99, None):
            copy = Path(tempfile.mkdtemp(dir=tmp_path)) / "checkpoints"
            shutil.copytree(stopped / "checkpoints", copy)
            path = copy / "checkpoint-3" / name
            path.unlink() if share is None else cut(path, share)
            lines: list[str] = []
            assert last_checkpoint(copy, lines.append) == copy / "checkpoint-2", (name, share)
            assert not (copy / "checkpoint-3").exists()
            missing_last = share is None and name == "trainer_state.json"  # an ordinary kill, nothing to tell
            what = "missing" if share is None else "cut off"
            assert lines == ([] if missing_last else [f"checkpoint-3 is passed over: {name} is {what}"])


# ---- power cuts: what they leave of files that had not reached the disk ----------------------------------------------


def zeroed(path: Path, old: bytes) -> None:
    """The right length, with a hole in the middle."""
    data = bytearray(path.read_bytes())
    start, end = len(data) // 3, len(data) // 3 + max(1, min(4096, len(data) // 3))
    data[start:end] = bytes(end - start) if any(data[start:end]) else b"\1" * (end - start)
    path.write_bytes(data)


def truncated(path: Path, old: bytes) -> None:
    cut(path, 0.9)


def emptied(path: Path, old: bytes) -> None:
    cut(path, 0)


def missing(path: Path, old: bytes) -> None:
    path.unlink()


def renamed_late(path: Path, old: bytes) -> None:
    """The name still leads to what was there before."""
    path.write_bytes(old if old != path.read_bytes() else old + b" ")


def bit_flipped(path: Path, old: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("power_cut", [zeroed, truncated, emptied, missing, renamed_late, bit_flipped])
def test_a_power_cut_in_any_file_of_a_checkpoint_is_seen(stopped: Path, tmp_path: Path, power_cut: Any) -> None:
    for name in sorted(CHECKPOINT):
        copy = Path(tempfile.mkdtemp(dir=tmp_path)) / "checkpoints"
        shutil.copytree(stopped / "checkpoints", copy)
        power_cut(copy / "checkpoint-3" / name, (copy / "checkpoint-2" / name).read_bytes())
        lines: list[str] = []
        assert last_checkpoint(copy, lines.append) == copy / "checkpoint-2", name
        assert not (copy / "checkpoint-3").exists(), name
        assert lines == [] if (name, power_cut) == ("trainer_state.json", missing) else "checkpoint-3" in lines[0]


def test_sizes_alone_believe_contents_and_no_length(stopped: Path) -> None:
    folder = stopped / "checkpoints"
    zeroed(folder / "checkpoint-3" / "model.safetensors", b"")
    assert last_checkpoint(folder, verify="sizes") == folder / "checkpoint-3"
    truncated(folder / "checkpoint-3" / "config.json", b"")
    assert last_checkpoint(folder, verify="sizes") == folder / "checkpoint-2"


def test_a_checkpoint_of_0_1_has_no_manifest_and_is_held_against_its_own_lengths(stopped: Path) -> None:
    newest = stopped / "checkpoints" / "checkpoint-3"
    (newest / "manifest.json").unlink()
    state = json.loads((newest / "trainer_state.json").read_text())
    del state["stateful_callbacks"]
    (newest / "trainer_state.json").write_text(json.dumps(state))
    assert last_checkpoint(stopped / "checkpoints") == newest
    cut(newest / "optimizer.pt", 0.9)
    assert last_checkpoint(stopped / "checkpoints") == stopped / "checkpoints" / "checkpoint-2"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "[" * 100_000, '{"files": {}}', '{"files": {"config.json": 3}}'),
        *('{"files": {"config.json": {"bytes": "x"}}}', '{"files": {"../recipe.yaml": {"bytes": 1}}}'),
    ],
)
def test_a_damaged_manifest_is_no_proof(stopped: Path, text: str) -> None:
    (stopped / "checkpoints" / "checkpoint-3" / "manifest.json").write_text(text)
    assert "manifest.json is damaged" in str(checkpoint_damage(stopped / "checkpoints" / "checkpoint-3"))


def test_files_reach_the_disk_before_the_checkpoint_counts(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[Path, int] = {}  # path -> how many files of the run had been synced before it
    sync, replace = files.sync, os.replace
    renamed: list[tuple[Path, bool]] = []

    def watched(path: Path) -> None:
        sync(path)
        synced.setdefault(path, len(synced))

    def noted(beside: Path, path: Path) -> None:
        renamed.append((Path(path), Path(beside) in synced))
        replace(beside, path)

    for module in (files, _proof):
        monkeypatch.setattr(module, "sync", watched)
    monkeypatch.setattr(os, "replace", noted)
    folder = tmp_path / "run"
    run.train(dataclasses.replace(recipe, optimisation=dataclasses.replace(recipe.optimisation, max_steps=1)), folder)
    [checkpoint] = (folder / "checkpoints").iterdir()
    beside = checkpoint / "manifest.json.part"
    assert all(synced[checkpoint / name] < synced[beside] for name in CHECKPOINT - {"manifest.json"})
    assert {checkpoint, folder / "checkpoints", folder} <= set(synced)
    ours = {path.name: on_disk for path, on_disk in renamed if path.is_relative_to(folder)}
    assert all(ours.values()), ours
    names = {"recipe.yaml", "model", "metrics.jsonl", "evaluation_before.json", "evaluation_after.json"}
    assert names | {"completions.jsonl", "environment.json", "report.html", "manifest.json"} <= set(ours)


def test_a_disk_that_is_full_when_files_are_synced_costs_no_good_checkpoint(
    stopped: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        if path.name == "optimizer.pt":
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_proof, "sync", full)
        with pytest.raises(OSError, match=r"checkpoint-4 cannot be written \(the disk or a quota is full: .*make room"):
            run.train(None, stopped, resume=True)
    assert last_checkpoint(stopped / "checkpoints") == stopped / "checkpoints" / "checkpoint-3"
    run.train(None, stopped, resume=True)
    assert same_weights(stopped, straight)


def test_a_run_with_a_cut_off_checkpoint_ends_like_an_undisturbed_one(stopped: Path, straight: Path) -> None:
    cut(stopped / "checkpoints" / "checkpoint-3" / "optimizer.pt", 0.5)
    with (stopped / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    lines: list[str] = []
    assert run.train(None, stopped, resume=True, progress=lines.append).finished
    assert "checkpoint-3 is passed over: optimizer.pt is cut off" in lines
    assert same_weights(stopped, straight)
    assert [row["step"] for row in read_metrics(stopped / "metrics.jsonl")] == [0, 1, 2, 3, 4]


def test_a_half_dropped_checkpoint_is_not_kept_for_its_date(stopped: Path, straight: Path) -> None:
    older, newest = (stopped / "checkpoints" / f"checkpoint-{step}" for step in (2, 3))
    (older / "trainer_state.json").unlink()  # a kill came while it was dropped, which is why it changed last
    for path, age in ((older, 0), (newest, 3600)):
        os.utime(path, (time.time() - age, time.time() - age))
    run.train(None, stopped, resume=True)
    assert sorted(path.name for path in newest.parent.iterdir()) == ["checkpoint-3", "checkpoint-4"]
    assert same_weights(stopped, straight)


def test_a_probe_that_a_kill_left_does_not_fill_a_folder(model: Path, tmp_path: Path) -> None:
    for name in ("run", "exported"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".writable").touch()
    check_unused(tmp_path / "run")
    export_model(model, tmp_path / "exported")
    assert {path.name for path in (tmp_path / "exported").iterdir()} == {path.name for path in model.iterdir()}


ENDS: dict[str, dict[str, Any]] = {
    "its last step": {},
    "a spent token budget": {"optimisation.token_budget": 350, "optimisation.save_every": 1},
    "an adapter's last step": {"model.lora.r": 2},
    "the last step of imitation": {
        **{"model.path": "overthinker", "method": "sft", "optimisation.max_steps": 2},
        **{"rollout.max_tokens": 128, "optimisation.group_size": 2, "optimisation.rows_per_pass": 2},
    },
}


@pytest.mark.parametrize("end", ENDS)
def test_a_run_that_was_trained_to_its_end_trains_no_further(model: Path, tmp_path: Path, end: str) -> None:
    """Killed before ``model/`` was there, in the middle of an epoch."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run.train(load_recipe("overthinker", tiny_overrides(model, **{"data.counts.train": 40, **ENDS[end]})), whole)
    shutil.copytree(whole, killed)
    shutil.rmtree(killed / "model")
    for name in ("evaluation_after.json", "completions.jsonl", "report.html"):
        (killed / name).unlink()
    assert run.train(None, killed, resume=True).finished
    assert differences(killed, whole) == []
    ours, theirs = ({path.name for path in (folder / "checkpoints").iterdir()} for folder in (killed, whole))
    assert ours == theirs


def test_imitation_that_is_resumed_counts_its_tokens_on(tmp_path: Path) -> None:
    selection = Selection([Trajectory([1, 2], [3, 4, 5], [-0.1] * 3, "", 1, None, "eos")] * 8, {})
    counted = []
    for checkpoint in (None, str(tmp_path / "checkpoint-1")):
        options = {"max_steps": 3, "save_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 2}
        config = FineTuneConfig(output_dir=str(tmp_path), use_cpu=True, **options)
        trainer = FineTuneTrainer(tiny_model(), config, selection, tiny_tokenizer())
        trainer.train(resume_from_checkpoint=checkpoint)
        counted.append([row["num_tokens"] for row in trainer.state.log_history if "num_tokens" in row])
    assert counted == [[10, 20, 30]] * 2


@pytest.mark.parametrize("budget", [None, 350])
def test_ctrl_c_in_the_last_step_is_the_end(model: Path, tmp_path: Path, budget: int | None) -> None:
    changes = {"data.counts.train": 40, "optimisation.token_budget": budget or "null"}
    recipe = load_recipe("overthinker", tiny_overrides(model, **changes))
    straight = run.train(recipe, tmp_path / "straight")
    last = read_metrics(tmp_path / "straight" / "metrics.jsonl")[-1]["step"]
    assert straight.finished and 1 < last <= 4 and (budget is None or last < 4)

    def interrupt(line: str) -> None:
        if line.startswith(f"step {last - 1}/"):
            signal.raise_signal(signal.SIGINT)

    assert run.train(recipe, tmp_path / "stopped", progress=interrupt).finished
    assert same_weights(tmp_path / "stopped", tmp_path / "straight")


def test_half_a_recipe_is_no_recipe(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run.train(recipe, tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml.part").write_text("name: half\n")  # as a kill would leave it
    with pytest.raises(ValueError, match=r"holds no run to resume \(recipe.yaml is missing\)"):
        run.train(None, tmp_path / "run", resume=True)
    with pytest.raises(KeyboardInterrupt):  # the folder is as good as empty: the run may begin
        run.train(recipe, tmp_path / "run", progress=lambda line: signal.raise_signal(signal.SIGINT))
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe


# ---- full disks and places that cannot be written to -----------------------------------------------------------------


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The kernel refuses to write further, in the middle of a file: as near to a full disk as one gets without root."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
@pytest.mark.parametrize("largest", ["model.safetensors", "optimizer.pt"])
def test_a_disk_that_fills_up_keeps_the_last_good_checkpoint(stopped: Path, straight: Path, largest: str) -> None:
    folder = stopped / "checkpoints"
    # Room for the weights, not for the optimiser's two moments beside them; or not even for the weights.
    size = (folder / "checkpoint-3" / "model.safetensors").stat().st_size
    limit = size - 1 if largest == "model.safetensors" else size + 1
    with no_file_above(limit), pytest.raises(OSError) as caught:
        run.train(None, stopped, resume=True)
    message = str(caught.value)
    assert (
        "checkpoint-4 cannot be written (" in message
        and "make room there, then go on" in message
        and "\n" not in message
    )
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-2", "checkpoint-3"]
    assert last_checkpoint(folder) == folder / "checkpoint-3"
    run.train(None, stopped, resume=True)
    assert same_weights(stopped, straight)
    assert [row["step"] for row in read_metrics(stopped / "metrics.jsonl")] == [0, 1, 2, 3, 4]


def test_a_full_disk_is_named_on_one_line_with_the_remedy(
    stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert main(["train", "--resume", str(stopped)]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"stepgrpo: error: the run folder {stopped} cannot be written to (No space left on device): make room or give "
        f"another --output; a run that has begun goes on with --resume {stopped}\n"
    )
    assert len(read_metrics(stopped / "metrics.jsonl")) == 4, "the metrics so far are lost"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_read_only_output_is_named(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(number, "Read-only file system", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(OSError, match=r"cannot be written to \(.*\): make room or give another"):
            run.train(recipe, tmp_path / "run")


def test_output_below_a_file_is_named(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file" / "run", tmp_path / "file"):
        with pytest.raises(OSError, match=r"cannot be written to \(Not a directory\): .*give another --output"):
            run.train(recipe, folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_errors_that_are_about_something_else_stay_as_they_are(model: Path, tmp_path: Path) -> None:
    recipe = load_recipe("overthinker", tiny_overrides(model, **{"data.test": tmp_path / "none.jsonl"}))
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file"):
        run.train(recipe, tmp_path / "run")


@pytest.mark.parametrize("name", ["evaluation_before.json", "environment.json"])
def test_broken_files_of_a_resumed_run_are_named(stopped: Path, name: str) -> None:
    (stopped / name).write_text('{"half": ')
    with pytest.raises(ValueError, match=rf"{name}: .*repair the file, or remove it"):
        run.train(None, stopped, resume=True)
    assert json.loads((stopped / "checkpoints" / "checkpoint-3" / "trainer_state.json").read_text())
