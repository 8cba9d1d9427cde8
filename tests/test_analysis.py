"""Judges of steps: rules on hand-made completions, a language model's untrusted answers, the truth as a judge."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.evaluation.analysis import LABELS, LanguageModelJudge, StepJudge, rule_judge, step_structure
from stepgrpo_lab.method.records import Problem, Step, StepLabel
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.overthinker import label_steps, overthinker_problems

PROBLEM = Problem("p", "What is 3*4+1?", "13")


def judged(thoughts: str, answer: str = "13", problem: Problem = PROBLEM) -> list[StepLabel]:
    text = f"<think>\n{thoughts}\n</think>\n\n\\boxed{{{answer}}}"
    return rule_judge(problem, text, MarkerSegmenter().split(text))


@pytest.mark.parametrize(
    ("thoughts", "expected"),
    [
        ("3*4+1 = 13.", ["needed"]),
        ("3*4 = 12. Wait, plus 1 is 13.", ["needed", "needed"]),
        ("It is 13. Wait, let me verify: 12+1. Wait, 13 again.", ["needed", "verifying", "redundant"]),
        ("It is 13. Wait, 12+1=13. Wait, let me double-check: 13.", ["needed", "verifying", "redundant"]),
        ("It is 13. Wait, nice weather. Wait, 13.", ["needed", "redundant", "verifying"]),
        ("3*4 = 12. Wait, 3*4 = 12. Wait, so 13.", ["needed", "redundant", "needed"]),
        ("12. Wait. Wait, so 13. Alternatively", ["needed", "malformed", "needed", "malformed"]),
        ("I see 130 and 1.13 and x13. Wait, hmm.", ["needed", "needed"]),  # none of them is 13
        ("It is 13.0, I think. Wait, checking.", ["needed", "verifying"]),
    ],
)
def test_rules_go_from_where_the_answer_first_appears(thoughts: str, expected: list[StepLabel]) -> None:
    assert judged(thoughts) == expected


def test_the_completions_own_answer_counts_right_or_wrong() -> None:
    assert judged("It is 14. Wait, 14.", answer="14") == ["needed", "verifying"]
    text = "<think>\n13. Wait, 13 again"  # it never boxed an answer: the gold stands in
    assert rule_judge(PROBLEM, text, MarkerSegmenter().split(text)) == ["needed", "verifying"]


@pytest.mark.parametrize(
    ("answer", "thoughts", "expected"),
    [
        ("1,400", "Costs 1400 dollars. Wait, check: 1,400.", ["needed", "verifying"]),
        ("\\frac{1}{2}", "So 0.5. Wait, 1/2 indeed.", ["needed", "verifying"]),
        ("x^2 + 1", "We get x^2+1 here. Wait, x^2 +1 it is.", ["needed", "verifying"]),
        ("B", "ABBA. Wait, so B. Wait, option B.", ["needed", "needed", "verifying"]),
        ("-3", "3 at first. Wait, so -3. Wait, -3.", ["needed", "needed", "verifying"]),
    ],
)
def test_answers_of_many_forms_are_found(answer: str, thoughts: str, expected: list[StepLabel]) -> None:
    assert judged(thoughts, answer) == expected


@given(st.lists(st.sampled_from(["12", "13", "check", "", "so 13", "again"]), min_size=1, max_size=12))
def test_rules_label_every_step_and_at_most_one_is_verifying(bodies: list[str]) -> None:
    labels = judged(" Wait, ".join(bodies))
    assert len(labels) == len(bodies) and set(labels) <= set(LABELS)
    assert labels.count("verifying") <= 1
    if "verifying" in labels:
        assert "needed" not in labels[labels.index("verifying") :]


# ---- structure -------------------------------------------------------------------------------------------------------


def test_structure_counts_steps_per_completion_and_their_shares() -> None:
    texts = {"a": "1 Wait 2 Wait 3", "b": "1"}
    problems = [Problem(name, "?", "1") for name in ("a", "b", "no text")]

    def judge(problem: Problem, text: str, steps: Sequence[Step]) -> list[StepLabel]:
        return ["needed", "verifying", "redundant"][: len(steps)]  # type: ignore[return-value]

    structure = step_structure(problems, texts, judge)
    assert structure.completions == 2
    assert structure.shares == {"needed": 0.5, "verifying": 0.25, "redundant": 0.25, "malformed": 0.0}
    assert structure.per_completion["needed"].estimate == 1
    assert structure.per_completion["redundant"].estimate == 0.5
    assert (structure.per_completion["redundant"].low, structure.per_completion["redundant"].high) == (0, 1)


def test_the_true_labels_are_one_judge_of_many() -> None:
    [problem] = overthinker_problems("test", 1, family="chain", level=1)

    def truth(problem: Problem, text: str, steps: Sequence[Step]) -> list[StepLabel]:
        return label_steps(problem, text)

    structure = step_structure([problem], {problem.id: "<think>\nnonsense Wait nonsense\n</think>"}, truth)
    assert structure.shares["malformed"] == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["needed"], "problem 'p': the judge gave 1 labels for 2 steps; give one each"),
        (["needed", "fine"], "the judge gave the label 'fine'; use needed, verifying, redundant, malformed"),
    ],
)
def test_a_judge_must_answer_for_each_step(labels: list[StepLabel], message: str) -> None:
    def judge(problem: Problem, text: str, steps: Sequence[Step]) -> list[StepLabel]:
        return labels

    with pytest.raises(ValueError, match=message):
        step_structure([PROBLEM], {"p": "1 Wait 2"}, judge)
    with pytest.raises(ValueError, match="no problem has a text to judge"):
        step_structure([PROBLEM], {}, judge)


# ---- a language model as the judge -----------------------------------------------------------------------------------


def test_a_language_model_sees_problem_and_steps_and_answers_in_json() -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return 'Here you are:\n```json\n["needed", "redundant"]\n```'

    judge: StepJudge = LanguageModelJudge(ask)
    text = "<think>3*4+1 = {13}. Wait, 13.</think>"
    assert judge(PROBLEM, text, MarkerSegmenter().split(text)) == ["needed", "redundant"]
    assert "What is 3*4+1?" in asked[0] and "Step 2: Wait, 13." in asked[0] and "{13}" in asked[0]
    assert "list of 2 labels" in asked[0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("needed, needed", "holds no JSON list of labels: 'needed, needed'"),
        ('["needed", ', "holds no JSON list"),
        ("[1, 2]", "holds no JSON list"),
        ('{"a": ["needed"]}', "gave 1 labels for 2 steps"),
        (json.dumps(["needed"] * 3), "gave 3 labels for 2 steps"),
        ('["needed", "__import__"]', "gave the label '__import__'"),
    ],
)
def test_an_answer_that_is_no_list_of_labels_is_an_error(answer: str, message: str) -> None:
    steps = MarkerSegmenter().split("1 Wait 2")
    with pytest.raises(ValueError, match=message):
        LanguageModelJudge(lambda prompt: answer)(PROBLEM, "1 Wait 2", steps)
