"""The second laboratory: its problems and traces, the reader of derivations, drills, calibration at forks, gates."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgrpo_lab.authoring.overthinker import leaping
from stepgrpo_lab.authoring.overthinker._fitting import IGNORED, Example, collate
from stepgrpo_lab.authoring.overthinker.card import RELIABILITY, RELIABILITY_TITLE, draw_reliability
from stepgrpo_lab.authoring.overthinker.gates import (
    BOUNDS,
    CLOSING_TOKENS,
    TRAINED_BOUNDS,
    Sample,
    forced_logprob,
    leap_gates,
    probe_figures,
    second_over_first,
    shuffled_truths,
    stopper,
    watching,
)
from stepgrpo_lab.authoring.overthinker.leap_card import FROZEN, render_leap_card
from stepgrpo_lab.authoring.overthinker.leaping import LeapSettings, TraceExamples, calibration_example, probe_forms
from stepgrpo_lab.authoring.overthinker.stages import new_model
from stepgrpo_lab.engines.paths import data_path
from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.records import Probe, Problem, Trajectory
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker import leaps, load_overthinker, overthinker_problems
from stepgrpo_lab.overthinker.leaps import OVERTHINKER_2, SLIPS, WIDTHS, write_trace
from stepgrpo_lab.overthinker.tasks import OVERTHINKER, find_laboratory
from stepgrpo_lab.overthinker.traces import format_completion
from stepgrpo_lab.overthinker.verifier import checking_habits, derived_answers, label_steps

LABORATORY = "overthinker-2"
FAMILIES = sorted(OVERTHINKER_2.families)
CHAIN = Problem("c", "", "8", "chain", 4, {"start": 7, "groups": [[["+", 7], ["*", 7]], [["-", 9], ["+", 9]]]})
SEARCH = Problem(
    "s",
    "",
    "B",
    "search",
    1,
    {"candidates": [[4, [[["-", 3], ["*", 7]]]], [5, [[["+", 4], ["-", 9]]]], [2, [[["+", 2], ["+", 1]]]]]},
)
TINY = LeapSettings(
    hidden_size=32, layers=1, heads=2, key_value_heads=1, head_dim=16, intermediate_size=32, batch_size=4
)


@pytest.fixture(scope="module")
def tokenizer():
    return leaping.new_tokenizer()


def drawn(seed: int, family: str) -> Problem:
    return next(OVERTHINKER_2.draw("train", seed, family))


def work_out(start: int, groups: list) -> int:
    """An independent solution, with Python's own arithmetic from left to right."""
    act = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    for symbol, operand in itertools.chain.from_iterable(groups):
        start = act[symbol](start, operand)
    return start % 10


# ---- problems --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_right_and_prompts_tell_everything(family):
    for problem in overthinker_problems("test", 200, family=family, laboratory=LABORATORY):
        chains = problem.meta.get("candidates") or [[problem.meta["start"], problem.meta["groups"]]]
        values = [work_out(*chain) for chain in chains]
        assert problem.answer == ("ABCDEF"[values.index(0)] if family == "search" else str(values[0]))
        assert family == "chain" or values.count(0) == 1
        question = problem.prompt.replace(" ", "").replace(":", "")
        for start, groups in chains:
            assert f"{start}{''.join(f'{s}{o}' for s, o in itertools.chain.from_iterable(groups))}" in question


def test_splits_cannot_overlap_and_cover_every_level():
    drawn = {split: overthinker_problems(split, 1000, seed=3, laboratory=LABORATORY) for split in OVERTHINKER_2.shares}
    for first, second in itertools.combinations(drawn.values(), 2):
        assert not {p.prompt for p in first} & {p.prompt for p in second}
    for problems in drawn.values():
        levels = {(p.family, p.level) for p in problems}
        assert levels == {(family, level) for family, each in OVERTHINKER_2.level_weights.items() for level in each}


def test_the_level_above_the_last_is_harder_than_all_training():
    [chain] = overthinker_problems("test", 1, family="chain", level=7, laboratory=LABORATORY)
    [search] = overthinker_problems("test", 1, family="search", level=4, laboratory=LABORATORY)
    assert len(chain.meta["groups"]) == 4 > max(len(WIDTHS[level]) for level in OVERTHINKER_2.level_weights["chain"])
    assert len(search.meta["candidates"]) == 6


def test_a_laboratory_is_found_by_name_and_has_its_own_splits():
    assert find_laboratory() is OVERTHINKER
    with pytest.raises(ValueError, match="did you mean 'overthinker-2'"):
        find_laboratory("overthinker2")
    with pytest.raises(ValueError, match="unknown split 'gates'"):
        overthinker_problems("gates", 1)
    with pytest.raises(ValueError, match="at most"):
        overthinker_problems("gates", OVERTHINKER_2.most("gates") + 1, laboratory=LABORATORY)


# ---- traces and the reader of derivations ----------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10**6), family=st.sampled_from(FAMILIES))
def test_every_step_of_a_trace_is_legal_and_the_answer_follows_its_last_derivation(seed, family):
    problem = drawn(seed, family)
    text = format_completion(*write_trace(problem, random.Random(seed)))
    labels, derived = label_steps(problem, text), derived_answers(problem, text)
    assert len(labels) == len(derived) == MarkerSegmenter("paper").count(text)
    assert "malformed" not in labels
    found = [answer for answer in derived if answer]
    assert not found or extract_boxed(text) == found[-1]
    right = derived.index(problem.answer) if problem.answer in derived else len(derived)
    assert labels[: right + 1] == ["needed"] * len(labels[: right + 1])
    assert "needed" not in labels[right + 1 :]
    if family == "chain":
        spoiled = [answer != problem.answer for answer in derived[right + 1 :]]
        assert [label == "spoiling" for label in labels[right + 1 :]] == spoiled


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), careful=st.booleans())
def test_a_quick_derivation_leaps_and_a_careful_one_does_not(seed, careful):
    problem = drawn(seed, "chain")
    text, _ = leaps.walk(problem.meta["start"], problem.meta["groups"], random.Random(seed), careful=careful)
    widths = [sum(sign in "+-*" for sign in equation) for equation in text.split()]
    groups = list(map(len, problem.meta["groups"]))
    assert widths == ([1] * sum(groups) if careful else groups)


def test_without_slips_nothing_is_spoiled_and_the_trace_is_right(monkeypatch):
    monkeypatch.setattr(leaps, "SLIPS", {1: 0.0, 2: 0.0})
    for seed, family in itertools.product(range(60), FAMILIES):
        problem = drawn(seed, family)
        text = format_completion(*write_trace(problem, random.Random(seed)))
        assert extract_boxed(text) == problem.answer
        assert "spoiling" not in label_steps(problem, text)


QUICK, CAREFUL, WRONG = "7+7*7=8 8-9+9=8", "7+7=4 4*7=8 8-9=9 9+9=8", "7+7*7=8 8-9+9=6"
FOUND = "B 5+4-9=0 yes"


@pytest.mark.parametrize(
    ("problem", "steps", "expected"),
    [
        (CHAIN, [QUICK], "needed"),
        (CHAIN, [QUICK, CAREFUL, QUICK], "needed verifying redundant"),
        (CHAIN, [WRONG, CAREFUL, WRONG], "needed needed spoiling"),
        (CHAIN, [QUICK, WRONG, CAREFUL], "needed spoiling verifying"),
        (CHAIN, ["7+7*7=8 8-9=9 9+9=8"], "needed"),
        (CHAIN, ["7+7*7=6 6-9+9=8"], "needed"),
        # unfinished, out of order, across groups, from another value, of nothing
        (CHAIN, ["7+7*7=8"], "malformed"),
        (CHAIN, ["8-9+9=8 7+7*7=8"], "malformed"),
        (CHAIN, ["7+7=4 4*7-9=9 9+9=8"], "malformed"),
        (CHAIN, ["7+7*7=8 9-9+9=9"], "malformed"),
        (CHAIN, [f"{QUICK} 8+1=9"], "malformed"),
        (CHAIN, ["nonsense"], "malformed"),
        (SEARCH, ["A 4-3*7=7 no", FOUND, f"Wait {FOUND}"], "needed needed verifying"),
        (SEARCH, [FOUND, "B 5+4=9 9-9=0 yes"], "needed verifying"),
        # the right candidate given up, a wrong one taken, after the right one was found
        (SEARCH, [FOUND, "B 5+4-9=4 no"], "needed spoiling"),
        (SEARCH, [FOUND, "C 2+2+1=0 yes", "A 4-3*7=7 no"], "needed spoiling redundant"),
        (SEARCH, ["B 5+4-9=4 no", "C 2+2+1=0 yes", FOUND], "needed needed needed"),
        (SEARCH, ["B 5+4-9=0 no"], "malformed"),
        (SEARCH, ["D 5+4-9=0 yes"], "malformed"),
        (SEARCH, ["A 5+4-9=0 yes"], "malformed"),
    ],
)  # fmt: skip
def test_labels(problem, steps, expected):
    joined = " Wait ".join(step.removeprefix("Wait ") for step in steps)
    assert label_steps(problem, f"<think>\n{joined}\n</think>\n\n\\boxed{{0}}") == expected.split()


def test_leaps_across_groups_of_the_first_laboratory_stay_malformed():
    problem = Problem("c", "", "6", "chain", meta={"start": 7, "operations": [["+", 5], ["*", 3]]})
    assert label_steps(problem, "<think>\n7+5*3=6\n</think>") == ["malformed"]


# ---- what is trained -------------------------------------------------------------------------------------------------


def trained_text(example: Example, text: TokenText) -> str:
    return text.decode([token for token in example.labels if token != IGNORED])


def test_the_answer_after_the_papers_words_is_never_taught_by_a_trace(tokenizer):
    text = TokenText.from_tokenizer(tokenizer)
    examples = TraceExamples(tokenizer, TINY)
    closes = {"paper": 0, "official": 0}
    for seed in range(120):
        problem = drawn(seed, "chain")
        trained = trained_text(examples.trace(problem, random.Random(seed)), text)
        if not trained.endswith("<|im_end|>"):
            continue  # cut off at the limit
        if "The final answer is" in trained:
            closes["paper"] += 1
            assert trained.endswith("\\boxed{}<|im_end|>")
        else:
            closes["official"] += 1
            assert extract_boxed(trained) is not None
    assert 5 <= closes["paper"] <= 30 and closes["official"] > 60


def test_drills_train_results_only(tokenizer):
    text = TokenText.from_tokenizer(tokenizer)
    for update in (0, 10**6):
        for example in TraceExamples(tokenizer, TINY).drills(update):
            results = trained_text(example, text)
            equations = text.decode(example.ids).split(" ")
            assert results.isdigit()
            for equation, result in zip(equations, results, strict=False):
                left, _, written = equation.partition("=")
                signs = [[sign, int(digit)] for sign, digit in zip(left[1::2], left[2::2], strict=True)]
                assert written == result == str(work_out(int(left[0]), [signs]))


def test_batches_depend_on_their_number_alone(tokenizer):
    first, second = TraceExamples(tokenizer, TINY), TraceExamples(tokenizer, TINY)
    wanted = [first.traces(update) for update in range(20)]
    assert second.traces(17) == wanted[17] and second.traces(3) == wanted[3]
    assert first.drills(5) == second.drills(5) != first.drills(6)


def watched_completion(tokenizer) -> tuple[Trajectory, TokenText]:
    text = TokenText.from_tokenizer(tokenizer)
    completion = text.encode(f"<think>\n{WRONG} Wait {CAREFUL} Wait {QUICK}\n</think>\n\n\\boxed{{8}}")
    prompt = text.encode("<|im_start|>user\n7?<|im_end|>\n<|im_start|>assistant\n")
    return Trajectory(prompt, completion, [0.0] * len(completion), text.decode(completion), 3, "natural", "eos"), text


def test_calibration_asks_for_the_truth_at_every_marker_in_both_forms(tokenizer):
    trajectory, text = watched_completion(tokenizer)
    example = calibration_example(CHAIN, trajectory, text, tokenizer.eos_token_id)
    asked = [
        (text.decode(example.ids[: fork.place]).count("Wait"), text.decode(example.ids[fork.start : fork.end]))
        for fork in example.forks
    ]
    ends = {False: "", True: "<|im_end|>"}
    tails = [forced + trained + ends[ended] for forced, trained, ended in probe_forms("8")]
    assert asked == [(before, tail) for before in (0, 1) for tail in tails]
    assert all(text.decode(example.ids[fork.place :]).startswith(" Wait") for fork in example.forks)


def test_a_fork_sees_exactly_what_a_probe_there_would_see(tokenizer):
    trajectory, text = watched_completion(tokenizer)
    example = calibration_example(CHAIN, trajectory, text, tokenizer.eos_token_id)
    model = new_model(TINY, tokenizer).eval()
    batch = collate([example, Example([5, 6], [5, 6])], tokenizer.pad_token_id)
    with torch.no_grad():
        together = model(**{name: value for name, value in batch.items() if name != "labels"}).logits[0]
        for fork in example.forks:
            tail = example.ids[fork.start : fork.end]
            alone = model(input_ids=torch.tensor([[*example.ids[: fork.place], *tail]])).logits[0]
            assert torch.allclose(together[fork.start : fork.end], alone[-len(tail) :], atol=1e-5)


# ---- gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bounds", "name"), [(bounds, name) for bounds in (BOUNDS, TRAINED_BOUNDS) for name in bounds])
def test_each_gate_fails_on_its_own_figure_alone(bounds, name):
    passing = {each: (max(least, -10) + min(most, 90)) / 2 for each, (least, most, _) in bounds.items()}
    assert all(gate.passed for gate in leap_gates(passing, bounds))
    least, most, asks = bounds[name]
    for value in (least - 0.001, most + 0.001):
        [failed] = [gate for gate in leap_gates(passing | {name: value}, bounds) if not gate.passed]
        assert failed.asks.startswith(asks)


def sample(derived: list[str | None], answer: str | None, truth: str = "8", level: int = 4) -> Sample:
    problem = dataclasses.replace(CHAIN, answer=truth, level=level)
    return Sample(problem, derived, [10 * (place + 1) for place in range(len(derived))], answer, 60, answer is None)


def test_a_perfect_stopper_by_hand():
    flipped, kept, never = sample(["8", "3"], "3"), sample(["2", "8"], "8"), sample(["1", "1"], None)
    points, tokens = stopper([flipped, kept, never], ["8"] * 3)
    assert points == pytest.approx(100 / 3)
    assert tokens == pytest.approx((10 + 20 + 2 * CLOSING_TOKENS + 60) / 180)
    assert stopper([flipped], ["3"])[0] == 0  # a truth that the answer already has gains nothing


def test_shuffled_truths_stay_within_their_level():
    samples = [sample(["1"], "1", truth, level) for truth, level in (("1", 4), ("2", 5), ("3", 4), ("4", 5))]
    assert shuffled_truths(samples) == ["3", "4", "1", "2"]


def test_the_second_derivation_is_held_against_the_first_of_the_same_completions():
    assert second_over_first(
        [sample(["1", "8"], "8"), sample(["8", "1"], "1"), sample(["1", "8"], "8")]
    ) == pytest.approx(100 / 3)
    assert second_over_first([sample(["8"], "8")]) == 0.0


def probe(joint: float, answer: str) -> Probe:
    return Probe(0, 1, "Wait", [], [], "", answer, True, 0.0, joint, False)


def test_calibration_is_measured_at_the_first_marker_and_at_every_one():
    watched = [
        Trajectory([1], [2], [0.0], "", 1, None, "eos", True, [probe(joint, "8"), probe(0.5, "8")])
        for joint in (0.2, 0.4, 0.6, 0.8)
    ]
    figures = probe_figures(watched, ["8", "8", "8", "8"])
    assert figures["ece_first"] == pytest.approx(0.5)  # all are right, 0.5 was stated on average
    assert figures["ece_all"] == pytest.approx(0.5)
    assert figures["fullest_bin"] == 0.25
    assert figures["spread"] >= 0.4


def test_forced_tokens_are_scored_by_the_policy_itself(tokenizer):
    model = new_model(TINY, tokenizer).eval()
    trajectories = []
    for length in (4, 6):
        ids = list(range(20, 20 + length))
        logprobs = [None if place % 2 else 0.0 for place in range(length)]
        trajectories.append(Trajectory([5, 6, 7], ids, logprobs, "", 1, "early", "eos"))
    wanted = []
    for trajectory in trajectories:
        with torch.no_grad():
            logprobs = (
                model(input_ids=torch.tensor([trajectory.prompt_ids + trajectory.completion_ids]))
                .logits[0]
                .log_softmax(-1)
            )
        wanted += [
            logprobs[2 + place, token].item() for place, token in enumerate(trajectory.completion_ids) if place % 2
        ]
    assert forced_logprob(model, trajectories) == pytest.approx(sum(wanted) / len(wanted), abs=1e-4)
    assert forced_logprob(model, []) == 0.0


def test_watching_never_exits():
    rule = watching("official").exit_rule(192)
    assert rule.threshold == 1.0 and rule.near_budget == 192


# ---- the shipped model -----------------------------------------------------------------------------------------------

SHIPPED = data_path(LABORATORY)


@pytest.fixture(scope="module")
def card():
    return json.loads((SHIPPED / "card.json").read_text(encoding="utf-8"))


def test_the_card_belongs_to_the_weights(card):
    weights = (SHIPPED / "model.safetensors").read_bytes()
    assert card["weights"] == hashlib.sha256(weights).hexdigest()
    assert len(weights) <= 6_000_000
    assert card["settings"] == LeapSettings(seed=card["settings"]["seed"]).to_json()
    assert (SHIPPED / "README.md").read_text(encoding="utf-8") == render_leap_card(card)
    drawn = draw_reliability(card["figures"]["reliability"]["official"], RELIABILITY_TITLE)
    assert (SHIPPED / RELIABILITY).read_text(encoding="utf-8") == drawn


def test_the_shipped_weights_are_the_frozen_ones(card):
    assert card["frozen"]
    assert card["weights"] == FROZEN


def test_the_card_names_the_gates_that_fail(card):
    assert set(card["figures"]["gated"]) == set(BOUNDS)
    failed = [gate.asks for gate in leap_gates(card["figures"]["gated"]) if not gate.passed]
    text = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert text.count("**failed**") == len(failed) == 1
    assert card["figures"]["problems"] == 2000


def test_the_card_can_be_measured_again(card):
    model, tokenizer = load_overthinker(LABORATORY)
    assert model.num_parameters() <= 1_500_000
    problems = overthinker_problems("gates", 150, laboratory=LABORATORY)
    figures = evaluate(model, tokenizer, problems, limit=192).summary()
    for name in ("accuracy", "tokens", "steps"):
        then = card["figures"]["plain"][name]["estimate"]
        assert figures[name].low * 0.95 <= then <= figures[name].high * 1.05, name


# ---- how a model derives and checks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "answer_is_right", "expected"),
    [
        (["8", "8", "8"], True, {"mu": 1.0, "false_rejects": 0.0, "flips": 0.0, "expected_derivations": 1.0}),
        (["8", "2"], False, {"mu": 0.5, "false_rejects": 1.0, "flips": 1.0}),
        (["2", "2", "8"], True, {"mu": 1 / 3, "false_accepts": 0.5, "flips": 0.0, "expected_derivations": 3 / 2}),
        (["2"], False, {"mu": 0.0, "flips": 0.0, "derivations": 1.0}),
    ],
)
def test_checking_habits_of_a_chain(steps, answer_is_right, expected):
    problem = Problem("c", "", "8", "chain", 1, {"start": 7, "groups": [[["+", 1]]]})
    text = format_completion(" Wait ".join(f"7+1={result}" for result in steps), steps[-1])
    habits = checking_habits([problem], {"c": text}, {"c": answer_is_right})
    assert {name: habits[name] for name in expected} == pytest.approx(expected)
    assert habits["derivations"] == len(steps)
    assert ("false_rejects" in habits) == ("8" in steps[:-1])


def test_the_traces_own_habits_are_those_they_were_written_with():
    problems = [drawn(seed, "chain") for seed in range(300)]
    texts = {
        problem.id: format_completion(*write_trace(problem, random.Random(seed)))
        for seed, problem in enumerate(problems)
    }
    right = {problem.id: derived_answers(problem, texts[problem.id])[-1] == problem.answer for problem in problems}
    habits = checking_habits(problems, texts, right)
    assert habits["single"] == pytest.approx(1 - SLIPS[1], abs=0.01)
    assert habits["leap"] == pytest.approx(1 - SLIPS[2], abs=0.03)
