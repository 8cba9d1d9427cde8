"""A package that is not installed is named, with the command that brings it, before anything is loaded."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import stepgrpo_lab
from stepgrpo_lab import widgets
from stepgrpo_lab.cli import main


@pytest.fixture
def nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a model, a tokenizer or a notebook's kernel is too late."""

    def too_late(*arguments: Any, **options: Any) -> None:
        raise AssertionError("something was loaded before the package was asked for")

    from transformers import AutoModelForCausalLM, AutoTokenizer

    for loader in (AutoModelForCausalLM, AutoTokenizer):
        monkeypatch.setattr(loader, "from_pretrained", too_late)


TRAIN = "train --output run --set data.counts.train=8"


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("vllm", f"{TRAIN} --set rollout.engine=vllm"),
        ("vllm", "evaluate overthinker --engine vllm"),
        ("vllm", "rollout overthinker --engine vllm"),
        ("bitsandbytes", f"{TRAIN} --set model.quantization=nf4 --set model.lora.r=4"),
        ("jupytext", "notebooks build 02"),
        ("nbclient", "notebooks build 02"),
        ("kaleido", "notebooks build 02"),
        ("nbformat", "notebooks check"),
    ],
)
def test_a_command_names_what_is_missing(
    package: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    if package != "kaleido":  # the test extra has none, and it is asked for last
        monkeypatch.setitem(sys.modules, "kaleido", sys.modules[__name__])
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert package in line and "pip install" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("nothing_is_loaded")
@pytest.mark.parametrize("optimizer", ["adamw_bnb_8bit", "paged_adamw_32bit", "lion_8bit", "schedule_free_adamw"])
def test_an_optimiser_s_package_is_asked_for_before_a_run(
    optimizer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for check in ("is_bitsandbytes_available", "is_schedulefree_available"):
        monkeypatch.setattr(f"transformers.trainer_optimizer.{check}", lambda: False)
    recipe = stepgrpo_lab.load_recipe("overthinker", [f"optimisation.optimizer={optimizer}"])
    with pytest.raises(ImportError, match=rf"optimisation\.optimizer is '{optimizer}'.*install"):
        stepgrpo_lab.train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", widgets.__all__)
def test_without_ipywidgets_a_widget_is_a_page_that_names_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    widget = getattr(widgets, name)()
    page = widget._repr_mimebundle_()["text/html"]
    assert widget.body() in page or widget.sentence
    assert "ipywidgets" in page and "pip install" in page
    with pytest.raises(ImportError, match="pip install"):
        _ = widget.view
