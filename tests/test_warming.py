"""The warm-up on word problems: an adapter on a base that stays what it was, resumable, measured in two worlds."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from stepgrpo_lab.authoring.overthinker import build
from stepgrpo_lab.authoring.overthinker._fitting import FitSettings, collate, continuation, loss_of_endings, token_loss
from stepgrpo_lab.authoring.overthinker.warming import BOUNDS, StoryExamples, WarmUpSettings, fresh_adapter, warm_up
from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.overthinker import overthinker_problems
from stepgrpo_lab.overthinker.verifier import derived_answers

SHORT = FitSettings(updates=2, learning_rate=1e-2, warmup=1, save_every=1)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    base = tmp_path_factory.mktemp("base")
    model = tiny_model()
    model.config.max_position_embeddings = 2048
    model.save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    return WarmUpSettings(
        base=str(base), r=2, alpha=4, batch_size=2, traces=SHORT, calibration=SHORT, calibration_problems=4
    )


def test_no_logits_before_the_first_label_are_worth_anything():
    batch = collate([continuation([5, 6, 7], [8, 9]), continuation([5, 6, 7, 8], [9, 5, 6])], pad_id=0)
    model = tiny_model()
    torch.testing.assert_close(loss_of_endings(model, batch), token_loss(model, batch), rtol=1e-2, atol=1e-2)


def test_examples_train_what_follows_the_prompt_and_end_in_the_last_result(settings):
    tokenizer = tiny_tokenizer()
    for problem in overthinker_problems("train", 12, laboratory="word-problems"):
        example = StoryExamples(tokenizer, settings)
        ids = example.trace(problem, example._rng("test", 0)).ids
        text = tokenizer.decode(ids)
        assert problem.prompt in text
        answer = extract_boxed(text)
        assert answer is None or answer == derived_answers(problem, text.partition("assistant\n")[2])[-1]


def test_a_warm_up_goes_on_where_it_stopped_and_leaves_the_base_alone(settings, tmp_path, monkeypatch):
    whole, _ = warm_up(tmp_path / "whole", tmp_path / "work-1", settings)
    stages = []

    class Stopped(Exception):
        pass

    def stop(stage: str, done: int, total: int, loss: float) -> None:
        stages.append(stage)
        if stage == "traces" and done == total:
            raise Stopped

    with pytest.raises(Stopped):
        warm_up(tmp_path / "again", tmp_path / "work-2", settings, stop)
    again, _ = warm_up(tmp_path / "again", tmp_path / "work-2", settings)
    for (name, ours), (_, theirs) in zip(whole.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    adapted, tokenizer = load_model(tmp_path / "whole", device="cpu")
    base, _ = load_model(settings.base, device="cpu")
    assert len(tokenizer) == len(tiny_tokenizer())
    with adapted.disable_adapter(), torch.no_grad():
        ids = torch.tensor([[5, 6, 7]])
        assert torch.equal(adapted(ids).logits, base(ids).logits)
    trained = {name for name, value in whole.named_parameters() if value.requires_grad}
    assert trained and all("lora" in name for name in trained)
    before = dict(fresh_adapter(settings)[0].named_parameters())
    assert any(not torch.equal(before[name], value) for name, value in whole.named_parameters() if name in trained)


def test_a_build_is_measured_on_old_and_new_stories(settings, tmp_path):
    folder = build.build_overthinker(tmp_path / "built", dataclasses.replace(settings, seed=1), card_problems=6)
    figures = json.loads((folder / "card.json").read_text())["figures"]
    assert figures["problems"] == 6
    for split in ("gates", "held_out"):
        assert set(BOUNDS) <= set(figures[split])
        assert 0 <= figures[split]["accuracy"] <= 1
    assert (folder / "README.md").read_text().count("**failed**") >= 1
    assert not (folder / build.WORK_FOLDER).exists()
