"""A run folder, a model or a recording from a stranger opens without executing anything."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import save_tiny, tiny_model, tiny_overrides, tiny_tokenizer

from stepgrpo_lab.engines.models import load_model, merge_lora
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.recipes import _building as building
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.recordings._files import load_recordings
from stepgrpo_lab.run import job as run
from stepgrpo_lab.run.report import write_report
from stepgrpo_lab.training import StepGRPOConfig, StepGRPOTrainer, problems_dataset
from stepgrpo_lab.training._guard import last_checkpoint
from stepgrpo_lab.training._proof import Proof
from stepgrpo_lab.widgets import LiveDashboard

REFUSED = (ValueError, OSError)
"""What a reader may say of a file that is not what it should be; with a message of one line."""


def by_position(correct: Any, *_: Any) -> list[float]:
    return [float(position) for position in range(len(correct))]


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.trace}",)


def pickles(trace: Path, folder: Path) -> dict[str, bytes]:
    """The bomb as a bare pickle and as torch writes it; the test of the bomb itself is :func:`test_the_bomb_works`."""
    torch.save({"state": Bomb(trace)}, folder / "bomb.pt")
    return {"bare": pickle.dumps(Bomb(trace)), "torch": (folder / "bomb.pt").read_bytes()}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def stranger(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with everything in it: stopped once, so that it has checkpoints, and then finished."""
    patch = pytest.MonkeyPatch()
    patch.setattr(building, "recipe_reward", lambda reward: by_position)
    folder = tmp_path_factory.mktemp("stranger") / "run"
    changes = {"optimisation.max_steps": 2, "optimisation.save_every": 1}
    run.train(load_recipe("overthinker", tiny_overrides(model, **changes)), folder)
    patch.undo()
    return folder


def refused_or_done(work: Callable[[], Any]) -> None:
    """Run what may well refuse; whatever else it raises fails the test."""
    try:
        work()
    except REFUSED as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["bare", "torch"])
def test_the_bomb_works(trace: Path, tmp_path: Path, kind: str) -> None:
    packed = pickles(trace, tmp_path)[kind]
    if kind == "bare":
        pickle.loads(packed)
    else:
        torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("kind", ["bare", "torch"])
def test_no_file_of_a_run_folder_is_unpickled(stranger: Path, tmp_path: Path, trace: Path, kind: str) -> None:
    packed = pickles(trace, tmp_path)[kind]
    answer = sorted(path.relative_to(stranger) for path in stranger.rglob("*") if path.is_file())
    answer = [path for path in answer if path.parts[0] != "checkpoints"]
    assert {"recipe.yaml", "metrics.jsonl", "environment.json", "model"} <= {path.parts[0] for path in answer}
    added = [Path("model") / name for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin")]
    for place in (*answer, *added):
        folder = tmp_path / "copy"
        shutil.copytree(stranger, folder)
        (folder / place).write_bytes(packed)
        if place.name == "pytorch_model.bin":
            (folder / "model" / "model.safetensors").unlink()
        refused_or_done(lambda folder=folder: write_report(folder))
        refused_or_done(lambda folder=folder: LiveDashboard.of_run(folder))
        refused_or_done(lambda folder=folder: load_recipe(folder / "recipe.yaml"))
        if place.parts[0] == "model":
            refused_or_done(lambda folder=folder: load_model(folder / "model", device="cpu"))
        assert not trace.exists(), place
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["bare", "torch"])
def test_no_file_of_a_checkpoint_executes_anything_on_resume(
    stranger: Path, tmp_path: Path, trace: Path, kind: str
) -> None:
    packed = pickles(trace, tmp_path)[kind]
    checkpoint = stranger / "checkpoints" / "checkpoint-1"
    names = [path.name for path in checkpoint.iterdir()]
    assert "training_args.bin" not in names, "a pickle that nobody needs"
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= set(names)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "pytorch_model.bin"):
        folder = tmp_path / "checkpoints"
        shutil.copytree(checkpoint, folder / "checkpoint-1")
        (folder / "checkpoint-1" / name).write_bytes(packed)
        if name == "pytorch_model.bin":
            (folder / "checkpoint-1" / "model.safetensors").unlink()
        Proof(folder / "checkpoint-1", "full").finish()  # whoever can change a file can change the manifest
        whole = last_checkpoint(folder) is not None
        assert whole == (name == "training_args.bin" or (kind == "torch" and name != "pytorch_model.bin"))
        if whole and name != "training_args.bin":
            trainer = make_trainer(tmp_path / "out")
            with pytest.raises(Exception, match=r"weights_only|Weights only"):  # torch's own restricted unpickler
                trainer.train(resume_from_checkpoint=str(folder / "checkpoint-1"))
            trainer.close()
        assert not trace.exists(), name
        shutil.rmtree(folder)


def make_trainer(folder: Path, **changes: Any) -> StepGRPOTrainer:
    config = StepGRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        max_steps=2,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=16,
        save_strategy="no",
        **changes,
    )
    problems = problems_dataset(overthinker_problems("train", 4))
    return StepGRPOTrainer(tiny_model(), config, problems, tiny_tokenizer())


def test_a_checkpoint_without_safetensors_is_refused(stranger: Path, tmp_path: Path) -> None:
    shutil.copytree(stranger / "checkpoints" / "checkpoint-1", tmp_path / "checkpoint-1")
    torch.save(tiny_model().state_dict(), tmp_path / "checkpoint-1" / "pytorch_model.bin")
    (tmp_path / "checkpoint-1" / "model.safetensors").unlink()
    trainer = make_trainer(tmp_path / "out")
    with pytest.raises(ValueError, match="holds no weights in safetensors, and no others are read"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    trainer.close()


def test_removing_a_damaged_checkpoint_never_leaves_the_run_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "checkpoint-9").symlink_to(tmp_path / "mine")
    assert last_checkpoint(tmp_path / "checkpoints") is None
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


CODE = "import pathlib\npathlib.Path({trace!r}).touch()\nclass Model: pass\nclass Config: pass\n"


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_beside_a_model_is_not_run(model: Path, tmp_path: Path, trace: Path, file: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / "evil.py").write_text(CODE.format(trace=str(trace)))
    settings = json.loads((folder / file).read_text())
    settings |= {"model_type": "evil"} if file == "config.json" else {"tokenizer_class": "Evil"}
    names = ("AutoConfig", "AutoModelForCausalLM") if file == "config.json" else ("AutoTokenizer",)
    settings["auto_map"] = {name: "evil.Config" if name == "AutoConfig" else "evil.Model" for name in names}
    if file == "tokenizer_config.json":
        settings["auto_map"] = {"AutoTokenizer": ["evil.Model", "evil.Model"]}
    (folder / file).write_text(json.dumps(settings))
    refused_or_done(lambda: load_model(folder, device="cpu"))
    assert not trace.exists()


def test_a_chat_template_is_no_program(model: Path, tmp_path: Path, trace: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    shell = "{{ cycler.__init__.__globals__.os.system('touch " + str(trace) + "') }}{{ messages[0].content }}"
    (folder / "chat_template.jinja").write_text(shell)
    with pytest.raises(ValueError, match=r"chat template refuses the messages \(.*unsafe"):
        load_model(folder, device="cpu")
    assert not trace.exists()


def test_an_adapter_s_pickle_is_not_read(model: Path, tmp_path: Path, trace: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps({**settings, "base_model_name_or_path": str(model)}))
    (adapter / "adapter_model.bin").write_bytes(pickles(trace, tmp_path)["torch"])
    for read in (lambda: merge_lora(adapter, tmp_path / "merged"), lambda: load_model(adapter, device="cpu")):
        with pytest.raises(ValueError, match=r"no adapter_model\.safetensors, and pickled weights are not read"):
            read()
    assert not trace.exists()


RECORDINGS = {
    "empty": b"",
    "a pickle": b"\x80\x04.",
    "another form": gzip.compress(b"[]"),
    "nested": gzip.compress(b"[" * 50_000),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings_from_a_stranger_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.jsonl.gz"
    path.write_bytes(RECORDINGS[name])
    with pytest.raises(ValueError, match=r"evil\.jsonl\.gz.* `stepgrpo record`"):
        load_recordings(path)
