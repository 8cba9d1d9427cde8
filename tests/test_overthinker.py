"""The generated laboratory: problems, traces, verifier, tokenizer, and a build small enough to run here."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import re
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgrpo_lab.authoring.overthinker._fitting import IGNORED, FitSettings
from stepgrpo_lab.authoring.overthinker.card import draw_reliability, gates
from stepgrpo_lab.authoring.overthinker.leaping import LeapSettings
from stepgrpo_lab.authoring.overthinker.stages import (
    BuildSettings,
    TraceBatches,
    answer_forms,
    calibration_example,
    new_tokenizer,
)
from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.tasks import OVERTHINKER, overthinker_problems
from stepgrpo_lab.overthinker.traces import TraceStyle, format_completion, write_thoughts
from stepgrpo_lab.overthinker.verifier import label_steps, oracle_tokens

CHAIN = Problem("c", "", "9", "chain", meta={"start": 7, "operations": [["+", 5], ["*", 3], ["-", 4], ["+", 7]]})
SEARCH = Problem(
    "s",
    "",
    "B",
    "search",
    meta={"candidates": [[4, [["-", 3], ["*", 7]]], [5, [["+", 4], ["-", 9]]], [2, [["+", 2], ["+", 1]]]]},
)
FAMILIES = sorted(OVERTHINKER.families)
NO_SLIPS = TraceStyle(slip_rate=0.0)
FOUND = "B 5+4=9 9-9=0 yes"
RIGHT = ["7+5=2 2*3=6", "Wait 6-4=2 2+7=9"]
CHECK = ["Wait 7+5=2 2*3=6", "Wait 6-4=2 2+7=9"]


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer()


def solve(problem: Problem) -> str:
    """An independent solution: evaluate chains with Python's own arithmetic, and look at every candidate."""

    def value(start: int, operations: list[list]) -> int:
        act = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
        return reduce(lambda value, step: act[step[0]](value, step[1]), operations, start) % 10

    if problem.family == "chain":
        return str(value(problem.meta["start"], problem.meta["operations"]))
    [place] = [i for i, chain in enumerate(problem.meta["candidates"]) if value(*chain) == 0]
    return "ABCDEFGH"[place]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_right_and_prompts_tell_everything(family):
    for problem in overthinker_problems("test", 300, family=family):
        assert solve(problem) == problem.answer
        chains = problem.meta.get("candidates") or [[problem.meta["start"], problem.meta["operations"]]]
        question = problem.prompt.replace(" ", "").replace(":", "")
        for start, operations in chains:
            assert f"{start}{''.join(f'{symbol}{operand}' for symbol, operand in operations)}" in question


def test_splits_cannot_overlap():
    drawn = {split: {p.id for p in overthinker_problems(split, 1500, seed=3)} for split in OVERTHINKER.shares}
    for first, second in itertools.combinations(OVERTHINKER.shares, 2):
        assert not drawn[first] & drawn[second]
    assert all(OVERTHINKER.split_of(p) == "test" for p in overthinker_problems("test", 50, seed=9))


def test_draws_are_seeded_distinct_and_extend_each_other():
    assert overthinker_problems("validation", 40) == overthinker_problems("validation", 80)[:40]
    assert overthinker_problems("validation", 40, seed=1) != overthinker_problems("validation", 40)
    ids = [p.id for p in overthinker_problems("train", 500)]
    assert len(set(ids)) == 500


def test_levels_set_the_length_and_reach_beyond_the_trained_ones():
    assert {len(p.meta["operations"]) for p in overthinker_problems("test", 60, family="chain")} == {4, 5, 6}
    [harder] = overthinker_problems("test", 1, family="chain", level=5)
    assert len(harder.meta["operations"]) == 8
    assert {len(p.meta["candidates"]) for p in overthinker_problems("test", 60, family="search")} == {4, 5}
    with pytest.raises(ValueError, match="the highest level is 7"):
        next(OVERTHINKER.draw("test", 0, family="search", level=8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("tset", 0), "unknown split 'tset'"), (("test", 0, "sudoku"), "unknown family 'sudoku'")],
)
def test_unknown_names_are_refused(arguments, message):
    split, seed, *family = arguments
    with pytest.raises(ValueError, match=message):
        next(OVERTHINKER.draw(split, seed, family=family[0] if family else None))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), family=st.sampled_from(FAMILIES))
def test_flawless_traces_hold_no_malformed_step_and_reach_the_answer(seed, family):
    problem = next(OVERTHINKER.draw("train", seed, family=family))
    text = format_completion(write_thoughts(problem, random.Random(seed), NO_SLIPS), problem.answer)
    labels = label_steps(problem, text)
    assert len(labels) == MarkerSegmenter("paper").count(text)
    assert "malformed" not in labels
    first_surplus = next((i for i, label in enumerate(labels) if label != "needed"), len(labels))
    assert "needed" not in labels[first_surplus:]
    if family == "chain":
        assert first_surplus == -(-len(problem.meta["operations"]) // 2)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), family=st.sampled_from(FAMILIES))
def test_slips_are_legal_moves(seed, family):
    problem = next(OVERTHINKER.draw("train", seed, family=family))
    text = format_completion(write_thoughts(problem, random.Random(seed), TraceStyle(slip_rate=0.3)), "0")
    assert "malformed" not in label_steps(problem, text)


def think(*steps: str) -> str:
    return f"<think>\n{' '.join(steps)}\n</think>\n\n\\boxed{{0}}"


@pytest.mark.parametrize(
    ("problem", "steps", "expected"),
    [
        (CHAIN, RIGHT, "needed needed"),
        (CHAIN, [*RIGHT, *CHECK], "needed needed verifying verifying"),
        (CHAIN, ["7+5=2 2*3=6", "Wait 6-4=2 2+7=9", "Wait 7+5=2 2*3=6"], "needed needed redundant"),
        # one check is verification, a second one is not
        (CHAIN, [*RIGHT, *CHECK, *CHECK], "needed needed verifying verifying redundant redundant"),
        (SEARCH, [FOUND, f"Wait {FOUND}", f"Wait {FOUND}"], "needed verifying redundant"),
        # a slip: legal, but the pass is lost and the second one is needed
        (CHAIN, ["7+5=3 3*3=9", "Wait 9-4=5 5+7=2", "Wait 7+5=2 2*3=6", "Wait 6-4=2 2+7=9"], "needed " * 4),
        # steps out of order, too long, or of nothing
        (CHAIN, ["7+5=2 2*3=6", "Wait 2+7=9"], "needed malformed"),
        (CHAIN, ["7+5=2 2*3=6 6-4=2"], "malformed"),
        (CHAIN, ["nonsense"], "malformed"),
        (SEARCH, ["A 4-3=1 1*7=7 no", "Alternatively B 5+4=9 9-9=0 yes"], "needed needed"),
        (SEARCH, [FOUND, f"Wait {FOUND}", "Alternatively C 2+2=4 4+1=5 no"], "needed verifying redundant"),
        (SEARCH, [FOUND, "Alternatively A 4-3=1 1*7=7 no", f"Wait {FOUND}"], "needed redundant verifying"),
        # slips: the right candidate misjudged, a wrong one taken for right
        (SEARCH, ["B 5+4=9 9-9=4 no", "Alternatively C 2+2=4 4+1=5 no"], "needed needed"),
        (SEARCH, ["C 2+2=4 4+1=0 yes", f"Wait {FOUND}"], "needed needed"),
        # a candidate that is not there, another one's work, unfinished work, a verdict against the work
        (SEARCH, ["D 5+4=9 9-9=0 yes"], "malformed"),
        (SEARCH, ["A 5+4=9 9-9=0 yes"], "malformed"),
        (SEARCH, ["B 5+4=9 yes"], "malformed"),
        (SEARCH, ["B 5+4=9 9-9=0 no"], "malformed"),
        (SEARCH, ["B 5+4=9 9-9=0"], "malformed"),
    ],
)  # fmt: skip
def test_labels(problem, steps, expected):
    assert label_steps(problem, think(*steps)) == expected.split()


def test_a_right_digit_by_two_wrong_turns_is_still_accepted_as_the_end_of_a_pass():
    """The verifier judges the value that a pass reaches, as a reader of the answer would."""
    steps = ["7+5=3 3*3=9", "Wait 9-4=5 5+7=9"]
    assert label_steps(CHAIN, think(*steps)) == ["needed", "needed"]


def test_a_family_without_verifier_is_refused():
    with pytest.raises(ValueError, match="gsm8k"):
        label_steps(Problem("x", "", "1", "gsm8k"), "text")


def test_oracle_keeps_everything_when_nothing_was_needed_after_the_last_step():
    assert oracle_tokens(["needed", "needed"], [5, 7], 3) == 15
    assert oracle_tokens(["redundant"], [5], 3) == 3


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_tokenizer_encodes_any_text(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_tokenizer_keeps_what_the_method_needs_apart(tokenizer):
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer.encode("</think>")) == 1
    assert "</think>" in tokenizer.decode(tokenizer.encode("a</think>b"), skip_special_tokens=True)
    assert len(tokenizer.encode(" Wait")) == len(tokenizer.encode(" Alternatively")) == 1
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+1?"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered == "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n"


def test_a_forced_close_has_the_tokens_of_a_natural_one(tokenizer):
    thoughts = "<think>\n7+5=2 2*3=6"
    natural = tokenizer.encode(thoughts + "\n</think>\n\n\\boxed{6}")
    forced = [*tokenizer.encode(thoughts), *tokenizer.encode("\n</think>\n\n"), *tokenizer.encode("\\boxed{6}")]
    assert natural == forced


def test_calibration_trains_only_what_follows_the_forced_text(tokenizer):
    text = TokenText.from_tokenizer(tokenizer)
    completion = text.encode(think("7+5=2 2*3=6", "Wait 6-4=2 2+7=9", "Wait 7+5=2 2*3=6"))
    trajectory = Trajectory([5, 6, 7], completion, [0.0] * len(completion), "", 3, "natural", "eos")
    endings = set()
    for seed in range(60):
        example = calibration_example(CHAIN, trajectory, random.Random(seed), tokenizer, text)
        start = len(example.ids) - sum(label != IGNORED for label in example.labels)
        context, trained = text.decode(example.ids[:start]), text.decode(example.ids[start:])
        forced, *_ = next(
            f for f in answer_forms("9") if context.endswith(f[0].removeprefix("\n")) and trained.startswith(f[1])
        )
        endings.add((forced, "Wait 7+5" in context))
        assert "<|im_end|>" not in context
        assert "\n\n</think>" not in context
    assert len(endings) >= 5


def test_trace_batches_depend_on_the_update_alone(tokenizer):
    first, second = (TraceBatches(tokenizer, BuildSettings(batch_size=4)) for _ in range(2))
    wanted = [first(update) for update in range(20)]
    assert second(17) == wanted[17]
    assert second(3) == wanted[3]


SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "layers": 1,
    "heads": 2,
    "key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 32,
    "batch_size": 4,
    "calibration": FitSettings(updates=2, learning_rate=1e-3, warmup=1, save_every=1),
    "calibration_rounds": 1,
    "calibration_problems": 6,
}
TINY = BuildSettings(**SMALL, traces=FitSettings(updates=6, learning_rate=1e-2, warmup=2, save_every=2))
TINY_2 = LeapSettings(
    **SMALL,
    drills=2,
    calibration_batch=2,
    traces=FitSettings(updates=6, learning_rate=1e-2, warmup=2, save_every=2, matrices="muon"),
)


@pytest.mark.parametrize(("tiny", "problems"), [(TINY, 4), (TINY_2, 30)], ids=["overthinker", "overthinker-2"])
def test_an_interrupted_build_ends_with_the_same_weights(tmp_path, tiny, problems):
    from safetensors.torch import load_file

    from stepgrpo_lab.authoring.overthinker.build import build_overthinker

    whole = build_overthinker(tmp_path / "whole", tiny, card_problems=problems)

    class Stop(Exception):
        pass

    def interrupt(stage: str, done: int, total: int, loss: float) -> None:
        if (stage, done) == ("traces", 5):
            raise Stop

    with pytest.raises(Stop):
        build_overthinker(tmp_path / "halves", tiny, card_problems=problems, progress=interrupt)
    with pytest.raises(ValueError, match="another build"):
        build_overthinker(tmp_path / "halves", dataclasses.replace(tiny, seed=1))
    halves = build_overthinker(tmp_path / "halves", tiny, card_problems=problems)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, halves))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    figures = json.loads((halves / "card.json").read_text())["figures"]
    assert figures == json.loads((whole / "card.json").read_text())["figures"]
    assert f"On {problems} " in (halves / "README.md").read_text()
    assert not (halves / "build").exists()


def interval(value: float, width: float = 1.0) -> dict[str, float]:
    return {"estimate": value, "low": value - width, "high": value + width}


def card_figures(**changes: float) -> dict:
    given = {"accuracy": 0.9, "saves": 0.6, "cut": -8.0, "ece": 0.05, "deer": -1.0, **changes}
    return {
        "plain": {"accuracy": interval(given["accuracy"])},
        "structure": {"all": {"oracle_saves": given["saves"]}},
        "first_cut_change": {"chain": interval(-50.0), "search": interval(given["cut"])},
        "calibration": {"ece": given["ece"]},
        "deer_change": {"official": interval(given["deer"])},
    }


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, []),
        ({"accuracy": 0.84}, ["accuracy"]),
        ({"saves": 0.59}, ["stopping after"]),
        ({"cut": -7.9}, ["search: a cut"]),
        ({"ece": 0.051}, ["calibration error"]),
        ({"deer": -1.1}, ["truncated rollout"]),
        ({"cut": 3.0, "ece": 0.2}, ["search: a cut", "calibration error"]),
    ],
)
def test_each_gate_fails_on_its_own_figure(changes, failed):
    found = [gate.asks for gate in gates(card_figures(**changes)) if not gate.passed]
    assert len(found) == len(failed)
    assert all(asks.startswith(start) for asks, start in zip(found, failed, strict=True))


def test_the_reliability_diagram_puts_each_bin_where_it_belongs():
    picture = draw_reliability({"bins": BINS, "ece": 0.1, "count": 4}, "a < b")
    assert picture.count("<circle") == 2  # the empty bin has no dot
    assert "a &lt; b" in picture and "ECE 0.100, 4 answers" in picture
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', picture)]
    (left, low), (right, high) = dots
    assert left < right and low > high  # SVG's vertical axis points down


BINS = [
    {"low": 0.0, "high": 0.5, "count": 3, "confidence": 0.25, "accuracy": 0.3},
    {"low": 0.5, "high": 0.75, "count": 0, "confidence": None, "accuracy": None},
    {"low": 0.75, "high": 1.0, "count": 1, "confidence": 0.9, "accuracy": 1.0},
]
