"""The untrained model's evaluation is measured once for all runs that begin alike, and never taken for another."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from tiny import save_tiny, tiny_model, tiny_overrides, tiny_tokenizer

from stepgrpo_lab.engines.paths import CACHE_VARIABLE
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.run import _kept as kept
from stepgrpo_lab.run import job as run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


def begin(model: Path, place: Path, lines: list[str] | None = None, **changes: Any) -> Any:
    return run.measure_untrained(
        load_recipe("overthinker", tiny_overrides(model, **changes)),
        place,
        progress=(lambda line: None) if lines is None else lines.append,
    )


def noted(place: Path) -> Any:
    return json.loads((place / "environment.json").read_text())


def test_a_second_run_takes_what_the_first_has_measured(
    model: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, lines = begin(model, tmp_path / "first"), list[str]()
    assert "reused" not in noted(tmp_path / "first")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("measured again")

    monkeypatch.setattr(run, "evaluate_policy", refuse)
    second = begin(model, tmp_path / "second", lines)
    assert second == first and any(str(folder) in line for line in lines)
    assert noted(tmp_path / "second")["reused"]["evaluation_before"] > 0
    written = [(tmp_path / place / run.BEFORE).read_text() for place in ("first", "second")]
    assert written[0] == written[1]
    with pytest.raises(AssertionError, match="measured again"):  # another seed is another measurement
        begin(model, tmp_path / "third", seed=1)
    monkeypatch.setenv(CACHE_VARIABLE, "off")
    with pytest.raises(AssertionError, match="measured again"):
        begin(model, tmp_path / "fourth")


def test_a_broken_entry_is_measured_anew(model: Path, folder: Path, tmp_path: Path) -> None:
    first = begin(model, tmp_path / "first")
    [entry] = folder.glob("*.json")
    whole = entry.read_text()
    for number, text in enumerate(("", whole[:-100], "{}", '{"seconds": 1, "evaluation": {}}')):
        entry.write_text(text)
        assert begin(model, tmp_path / str(number)) == first
        assert json.loads(entry.read_text())["evaluation"] == json.loads(whole)["evaluation"]


def test_a_folder_that_cannot_be_used_stops_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    lines = list[str]()
    assert begin(model, tmp_path / "run", lines).problem_ids
    assert any("cannot be used" in line for line in lines)


def test_of_two_runs_one_measures_and_the_other_waits(folder: Path, model: Path, tmp_path: Path) -> None:
    first = begin(model, tmp_path / "first")
    [entry] = folder.glob("*.json")
    content = entry.read_text()
    entry.unlink()
    waiting, results = threading.Event(), list[Any]()

    def say(line: str) -> None:
        if "waiting" in line:
            waiting.set()

    def refuse() -> Any:
        raise AssertionError("measured although another run was at it")

    key = entry.stem.removeprefix("evaluation-")
    other = threading.Thread(target=lambda: results.append(kept.measured_once(lambda: key, refuse, say)))
    with FileLock(entry.with_suffix(".lock")):
        other.start()
        assert waiting.wait(30)
        entry.write_text(content)
    other.join(30)
    assert results[0][0] == first


# ---- what an entry is named by ---------------------------------------------------------------------------------------

RECIPE = load_recipe("overthinker")
PROBLEMS = overthinker_problems("test", 3)


def key(model: Any = None, tokenizer: Any = None, problems: list[Problem] = PROBLEMS, *changes: str) -> str:
    return kept.evaluation_key(
        load_recipe("overthinker", list(changes)), model or tiny_model(), tokenizer or tiny_tokenizer(), problems
    )


def one_bit(model: Any) -> Any:
    with torch.no_grad():
        weight = model.model.layers[1].mlp.up_proj.weight
        weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(9.0))
    return model


def other_end(model: Any) -> Any:
    model.generation_config.eos_token_id = [1, 2]
    return model


def other_base(model: Any) -> Any:
    model.config.rope_parameters = {"rope_theta": 500.0, "rope_type": "default"}
    return model


@pytest.mark.parametrize("change", [one_bit, other_end, other_base, lambda model: model.to(torch.bfloat16)])
def test_another_model_has_another_name(change: Callable[[Any], Any]) -> None:
    assert key() == key() != key(change(tiny_model()))


def test_other_problems_have_another_name() -> None:
    reworded = [dataclasses.replace(PROBLEMS[0], prompt=PROBLEMS[0].prompt + " "), *PROBLEMS[1:]]
    regraded = [dataclasses.replace(PROBLEMS[0], answer="11"), *PROBLEMS[1:]]
    names = [key(problems=problems) for problems in (PROBLEMS, PROBLEMS[:2], PROBLEMS[::-1], reworded, regraded)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "change",
    [
        *("evaluation.temperature=0.5", "evaluation.top_p=0.9", "evaluation.top_k=5", "evaluation.samples=2"),
        *("evaluation.texts=3", "rollout.max_tokens=128", "rollout.markers=official", "seed=7", "data.suffix=x"),
        *("reward.grading_timeout=9", "optimisation.mixed_precision=bf16"),
    ],
)
def test_another_sampling_has_another_name(change: str) -> None:
    assert key(None, None, PROBLEMS, change) != key()


def test_what_only_trains_has_the_same_name() -> None:
    assert key(None, None, PROBLEMS, "optimisation.learning_rate=1e-5", "reward.step_alpha=0.5") == key()


def test_other_code_or_versions_have_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setattr(kept, "_code", lambda: "another")
    other_code = key()
    monkeypatch.setattr(kept, "system", lambda: {"versions": {"torch": "0"}})
    assert len({before, other_code, key()}) == 3


def test_another_template_has_another_name() -> None:
    import copy

    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template += " "
    assert key(tokenizer=tokenizer) != key()
