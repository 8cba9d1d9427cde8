"""Word problems: the truth, the splits, the traces, and the reader of derivations."""

from __future__ import annotations

import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.overthinker import label_steps, overthinker_problems
from stepgrpo_lab.overthinker._scenarios import HELD_OUT, SCENARIOS
from stepgrpo_lab.overthinker.equations import EQUATION, calculate, derived_result, operations
from stepgrpo_lab.overthinker.stories import OPERATIONS, WORD_PROBLEMS, make_story, write_story_trace
from stepgrpo_lab.overthinker.traces import format_completion
from stepgrpo_lab.overthinker.verifier import derived_answers

LABORATORY = WORD_PROBLEMS.name
LEVELS = sorted(OPERATIONS)

seeds = st.integers(0, 2**32 - 1)
levels = st.sampled_from(LEVELS)


def drawn(seed: int, level: int) -> Problem:
    return make_story(random.Random(seed), level)


def trace(problem: Problem, seed: int) -> tuple[str, str]:
    thoughts, answer = write_story_trace(problem, random.Random(seed))
    return format_completion(thoughts, answer), answer


def story_count(problem: Problem) -> int:
    """An independent solution: what happens in the story, one event after the other, in plain Python."""
    opening, events = problem.meta["opening"], problem.meta["events"]
    count = opening[0] * (opening[1] if len(opening) > 1 else 1)
    for kind, first, *rest in events:
        amount = first * rest[0] if rest else first
        if kind == "/":
            count, left_over = divmod(count, amount)
            assert left_over == 0
        elif kind == "*":
            count *= amount
        else:
            count += amount if kind[0] == "+" else -amount
        assert count > 0
    return count


# ---- problems --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seeds, levels)
def test_the_truth_is_what_happens_in_the_story(seed, level):
    problem = drawn(seed, level)
    expression = problem.meta["expression"]
    assert int(problem.answer) == story_count(problem) == eval(expression.replace("/", "//"))
    assert operations(expression) in OPERATIONS[level]
    shown = list(map(int, re.findall(r"\d+", problem.prompt)))
    assert sorted(shown) == sorted(map(int, re.findall(r"\d+", expression)))
    assert "{" not in problem.prompt


def test_the_same_seed_gives_the_same_problems_and_traces():
    first, again = (overthinker_problems("train", 30, seed=5, laboratory=LABORATORY) for _ in range(2))
    assert first == again != overthinker_problems("train", 30, seed=6, laboratory=LABORATORY)
    assert [trace(problem, 1) for problem in first] == [trace(problem, 1) for problem in again]


def test_no_calculation_is_in_two_splits_and_held_out_stories_are_of_their_own_kind():
    splits = {split: overthinker_problems(split, 150, laboratory=LABORATORY) for split in WORD_PROBLEMS.shares}
    expressions = {split: {p.meta["expression"] for p in problems} for split, problems in splits.items()}
    for first, second in itertools.combinations(expressions.values(), 2):
        assert not first & second
    for split, problems in splits.items():
        assert {p.meta["scenario"] in HELD_OUT for p in problems} == {split == "held_out"}
        assert {p.level for p in problems} == set(LEVELS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_every_event_once(name):
    events = [event.operation for event in SCENARIOS[name].events]
    assert sorted(events) == sorted(["+", "-", "*", "/", "+*", "-*"])


def test_prompts_go_through_a_tokenizer_unchanged(qwen3_tokenizer):
    for problem in overthinker_problems("test", 20, laboratory=LABORATORY):
        assert problem.prompt in qwen3_tokenizer.decode(encode_prompt(qwen3_tokenizer, problem.prompt))


# ---- traces and their labels -----------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(seeds, levels)
def test_every_step_of_a_trace_is_a_derivation_and_the_last_one_gives_the_answer(seed, level):
    problem = drawn(seed, level)
    text, answer = trace(problem, seed)
    derived, labels = derived_answers(problem, text), label_steps(problem, text)
    assert len(labels) == MarkerSegmenter("paper").count(text)
    assert None not in derived and derived[-1] == answer
    for result, label in zip(derived, labels, strict=True):
        assert label != "malformed"
        assert result == problem.answer or label in ("needed", "spoiling")
    if problem.answer in derived:
        first = derived.index(problem.answer)
        assert labels[: first + 1] == ["needed"] * (first + 1)
        assert "needed" not in labels[first + 1 :]


@settings(max_examples=80, deadline=None)
@given(seeds, levels)
def test_a_derivation_without_slips_reaches_the_truth(seed, level):
    problem = drawn(seed, level)
    text, _ = trace(problem, seed)
    for step, result in zip(MarkerSegmenter("paper").split(text), derived_answers(problem, text), strict=True):
        if all(calculate(left) == int(right) for left, right in EQUATION.findall(step.text)):
            assert result == problem.answer


def test_traces_err_recheck_and_try_another_way():
    texts = [trace(p, seed) for seed, p in enumerate(overthinker_problems("train", 300, laboratory=LABORATORY))]
    everything = " ".join(text for text, _ in texts)
    assert "Wait," in everything and "Alternatively," in everything
    problems = overthinker_problems("train", 300, laboratory=LABORATORY)
    right = [answer == problem.answer for (_, answer), problem in zip(texts, problems, strict=True)]
    labels = {label for (text, _), problem in zip(texts, problems, strict=True) for label in label_steps(problem, text)}
    assert 0.8 < sum(right) / len(right) < 1
    assert labels == {"needed", "verifying", "redundant", "spoiling"}


# ---- the reader of derivations ---------------------------------------------------------------------------------------

EXPRESSION = "(12+7)*2-30/5"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("(12+7)*2-30/5=32", 32),
        ("12+7=19, 19*2=38, 30/5=6, 38-6=32", 32),
        ("First 30 / 5 = 6. Then 7 + 12 = 19; 2 * 19 = 38. So 38 - 6 = 32.", 32),
        ("12+7=20, 20*2=40, 30/5=6, 40-6=34", 34),
        ("12+7=19, 19*2=38, 30/5=6", None),
        ("12-7=5, 5*2=10, 30/5=6, 10-6=4", None),
        ("12+7=19, 19*2=38, 38*2=76, 30/5=6, 76-6=70", None),
        ("12+7=19, 19*3=57, 30/5=6, 57-6=51", None),
        ("2*12=24, 7*2=14, 24+14=38, 30/5=6, 38-6=32", None),
        ("12+7=19=19, 19*2-30/5=32", None),
        ("(12+7)*2-30/5=32.5", None),
        ("(12+7)*2-30/5=32, 32=32", None),
        ("32", None),
        ("", None),
        ("12++7=19, 19*2=38, 30/5=6, 38-6=32", None),
        ("(12+7*2-30/5=32", None),
        ("12**7=19", None),
        ("(" * 70 + "12=12", None),
    ],
)
def test_what_is_a_derivation(text, result):
    assert derived_result(text, EXPRESSION) == result


def test_a_result_that_equals_a_number_of_the_problem_may_be_either():
    assert derived_result("5+7=12, 12+12=24", "5+7+12") == 24
    assert derived_result("12+5=17, 17+7=24", "5+7+12") == 24


def test_a_wrong_derivation_after_a_right_one_spoils():
    problem = Problem("p", "", "38", "story", 1, {"expression": "(12+7)*2"})
    text = "<think>\n(12+7)*2=36 Wait, 12+7=19, 19*2=38 Alternatively, 12+7=19, 2*19=38 Wait, 12+7=18, 18*2=36 Wait, 1"
    assert label_steps(problem, text) == ["needed", "needed", "verifying", "spoiling", "malformed"]
    assert derived_answers(problem, text) == ["36", "38", "38", "36", None]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="0123456789+-*/()= .,aW\n", max_size=300))
def test_any_text_is_read_without_an_error(text):
    derived_result(text, EXPRESSION)
    derived_result(f"12+7={text}", EXPRESSION)


@given(st.text(max_size=60))
def test_what_is_no_expression_is_refused_by_name(text):
    try:
        calculate(text)
    except ValueError as error:
        assert "expression" in str(error) or "zero" in str(error)
