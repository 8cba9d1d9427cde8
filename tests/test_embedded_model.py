"""The shipped Overthinker: what its card says, and the rollout's invariants on a model that really reasons."""

from __future__ import annotations

import json

import pytest
import torch

from stepgrpo_lab.authoring.overthinker.card import (
    COMPLETION_LIMIT,
    LEAST_CUT_COST,
    RELIABILITY,
    RELIABILITY_TITLE,
    draw_reliability,
    gates,
    measure_overthinker,
    render_card,
)
from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.method.settings import rollout_settings
from stepgrpo_lab.overthinker import load_overthinker, overthinker_problems

PROMPTS = 24


@pytest.fixture(scope="module")
def overthinker():
    return load_overthinker()


@pytest.fixture(scope="module")
def card():
    return json.loads(data_path("overthinker", "card.json").read_text())


def roll_out(overthinker, settings=None, *, rows=64, only=None):
    model, tokenizer = overthinker
    problems = overthinker_problems("test", PROMPTS)
    chosen = range(PROMPTS) if only is None else only
    trajectories, _ = LockstepEngine(model, tokenizer, max_rows=rows).generate(
        [encode_prompt(tokenizer, problems[i].prompt) for i in chosen],
        Decoding(COMPLETION_LIMIT, settings),
        keys=[SampleKey(7, "test", 0, i) for i in chosen],
    )
    return trajectories


def unreachable(preset):
    return rollout_settings(preset, markers="paper", exit_threshold=1.0, near_budget_margin=0, think_budget=1.0)


def test_size_and_format(overthinker):
    model, tokenizer = overthinker
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert 900_000 < model.num_parameters() < 2_000_000
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    files = sorted(path.name for path in data_path("overthinker").iterdir())
    assert "model.safetensors" in files
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_declined_probes_leave_no_trace(overthinker, preset):
    """Invariant 1: with an unreachable threshold, probing changes nothing at all."""
    plain, probed = roll_out(overthinker), roll_out(overthinker, unreachable(preset))
    assert sum(len(trajectory.probes) for trajectory in probed) > 3 * PROMPTS
    assert [t.completion_ids for t in probed] == [t.completion_ids for t in plain]


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_a_completion_does_not_depend_on_its_batch(overthinker, preset):
    """Invariant 2."""
    settings = rollout_settings(preset, markers="paper", near_budget_margin=0)
    whole = roll_out(overthinker, settings)
    assert [t.completion_ids for t in roll_out(overthinker, settings, rows=5)] == [t.completion_ids for t in whole]
    [alone] = roll_out(overthinker, settings, only=[3])
    assert alone.completion_ids == whole[3].completion_ids


def test_recorded_logprobs_equal_a_teacher_forced_pass(overthinker):
    """Invariant 3."""
    model, _ = overthinker
    for trajectory in roll_out(overthinker, rollout_settings("official", markers="paper", near_budget_margin=0))[:8]:
        ids = torch.tensor([trajectory.prompt_ids + trajectory.completion_ids])
        with torch.no_grad():
            logprobs = model(ids).logits[0].float().log_softmax(-1)
        for place, (token, recorded) in enumerate(
            zip(trajectory.completion_ids, trajectory.logprobs, strict=True), start=len(trajectory.prompt_ids)
        ):
            if recorded is not None:
                assert logprobs[place - 1, token].item() == pytest.approx(recorded, abs=1e-4)


@pytest.mark.parametrize("preset", ["official", "paper"])
def test_completions_are_clean_text(overthinker, preset):
    """Invariant 4: no probe, no doubled marker, one close."""
    settings = rollout_settings(preset, markers="paper", near_budget_margin=0)
    trajectories = roll_out(overthinker, settings)
    assert any(trajectory.close == "early" for trajectory in trajectories)
    for trajectory in trajectories:
        assert trajectory.text.count("</think>") <= 1
        assert "**Final Answer**" not in trajectory.text
        assert "WaitWait" not in trajectory.text.replace(" ", "")
        accepted = [probe for probe in trajectory.probes if probe.accepted]
        assert len(accepted) == (trajectory.close == "early")


def test_the_card_is_rendered_from_its_figures(card):
    assert data_path("overthinker", "README.md").read_text(encoding="utf-8") == render_card(card["figures"])


def test_the_card_s_picture_is_drawn_from_its_figures(card):
    drawn = draw_reliability(card["figures"]["calibration"], RELIABILITY_TITLE)
    assert data_path("overthinker", RELIABILITY).read_text(encoding="utf-8") == drawn


def test_the_gates_hold_but_for_the_one_that_the_card_names(card):
    """The calibration error misses its bound by 0.001, less than it varies between two samples of problems."""
    failed = [gate for gate in gates(card["figures"]) if not gate.passed]
    assert [gate.asks.partition(" of ")[0] for gate in failed] == ["calibration error"]
    assert float(failed[0].measured) < 0.06


def test_the_card_can_be_measured_again(overthinker, card):
    """The first problems of the card's own measurement, done again, lie where the card says."""
    figures = measure_overthinker(*overthinker, 200)
    for name in ("plain", "deer_official", "deer_paper", "first_cut"):
        now, then = figures[name], card["figures"][name]
        assert now["accuracy"]["low"] <= then["accuracy"]["estimate"] <= now["accuracy"]["high"], name
        assert now["tokens"]["low"] * 0.97 <= then["tokens"]["estimate"] <= now["tokens"]["high"] * 1.03, name


def test_it_overthinks_and_its_steps_are_needed(card):
    assert card["figures"]["structure"]["all"]["redundant"] > 1
    assert all(change["high"] < -LEAST_CUT_COST for change in card["figures"]["first_cut_change"].values())


def test_evaluation_does_not_depend_on_the_batch(overthinker):
    problems = overthinker_problems("validation", 20)
    first, second = (evaluate(*overthinker, problems, limit=COMPLETION_LIMIT, max_rows=rows) for rows in (64, 7))
    assert first.outcomes == second.outcomes
