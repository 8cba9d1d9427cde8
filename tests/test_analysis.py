"""Judges of steps: rules on hand-made completions, a language model's untrusted replies, the truth as a judge."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.evaluation.analysis import LABELS, LanguageModelJudge, read_labels, rule_judge, step_structure
from stepgrpo_lab.method.records import Problem, Step, StepLabel
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.overthinker import label_steps, overthinker_problems

PROBLEM = Problem("p", "What is 3*4+1?", "13")
SHEEP = Problem("sheep", "A farmer has 17 sheep. All but 9 run away. How many are left?", "9")


def judged(thoughts: str, answer: str = "13", problem: Problem = PROBLEM) -> list[StepLabel]:
    text = f"<think>\n{thoughts}\n</think>\n\n\\boxed{{{answer}}}"
    return rule_judge(problem, text, MarkerSegmenter().split(text))


@pytest.mark.parametrize(
    ("thoughts", "expected"),
    [
        ("3*4+1 = 13.", ["needed"]),
        ("3*4 = 12. Wait, plus 1 is 13.", ["needed", "needed"]),
        ("It is 13. Wait, let me verify: 12+1. Wait, 13 again.", ["needed", "verifying", "redundant"]),
        ("It is 13. Wait, nice weather. Wait, 13.", ["needed", "redundant", "verifying"]),
        ("3*4 = 12. Wait, 3*4 = 12. Wait, so 13.", ["needed", "redundant", "needed"]),
        ("12. Wait. Wait, so 13. Alternatively", ["needed", "malformed", "needed", "malformed"]),
        ("I see 130 and 1.13 and x13. Wait, hmm.", ["needed", "needed"]),  # none of them is 13
        ("It is 13.0, I think. Wait, checking.", ["needed", "verifying"]),
    ],
)
def test_rules_go_from_where_the_answer_first_appears(thoughts: str, expected: list[StepLabel]) -> None:
    assert judged(thoughts) == expected


@pytest.mark.parametrize(
    ("problem", "answer", "thoughts", "expected"),
    [
        (SHEEP, "9", "All but 9 run away. Wait, is it 17-9=8? Wait, so 9 are left. Wait, check: 9.", "nnnv"),
        (SHEEP, "9", "17 sheep, and 9 did not run. Wait, 17-9 is 8. Wait, the answer is 9.", "nnn"),
        (PROBLEM, "2", "1. Let f(x)=x. 2. Factor it. Wait, so x=2. Wait, x=2 again.", "nnv"),
        (PROBLEM, "2", "Step 2: try x^2 in case 2. Wait, equation 2 gives x = 2.", "nn"),
        (PROBLEM, "3", "3) is easy. Wait, there are 3*4 of them. Wait, hence 3.", "nnn"),
        (PROBLEM, "1,400", "Costs 1400 dollars. Wait, check: 1,400.", "nv"),
        (PROBLEM, "\\frac{1}{2}", "So 0.5. Wait, 1/2 indeed.", "nv"),
        (PROBLEM, "x^2 + 1", "We get x^2+1 here. Wait, x^2 +1 it is.", "nv"),
        (PROBLEM, "B", "ABBA. Wait, so B. Wait, option B.", "nnv"),
        (PROBLEM, "-3", "3 at first. Wait, so -3. Wait, -3.", "nnv"),
        (PROBLEM, "\\sqrt{2}", "It is √2. Wait, sqrt(2) it is.", "nv"),
        (PROBLEM, "2\\pi", "It is 2π. Wait, 2 \\pi it is.", "nv"),
    ],
)
def test_what_states_the_answer(problem: Problem, answer: str, thoughts: str, expected: str) -> None:
    assert "".join(label[0] for label in judged(thoughts, answer, problem)) == expected


def test_the_completions_own_answer_counts_right_or_wrong() -> None:
    assert judged("It is 14. Wait, 14.", answer="14") == ["needed", "verifying"]
    text = "<think>\n13. Wait, 13 again"  # it never boxed an answer: the gold stands in
    assert rule_judge(PROBLEM, text, MarkerSegmenter().split(text)) == ["needed", "verifying"]


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
    assert structure.completions == 2 and structure.refused == {}
    assert structure.shares == {"needed": 0.5, "verifying": 0.25, "redundant": 0.25, "malformed": 0.0, "spoiling": 0.0}
    assert structure.per_completion["needed"].estimate == 1.0


def test_a_refusal_costs_one_completion_and_is_counted() -> None:
    texts = {name: "1 Wait 2" for name in "abcd"}
    problems = [Problem(name, f"what is {name}?", "1") for name in "abcd"]
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        if "what is b?" in prompt:
            return "I would rather not."
        first_try = "what is c?" in prompt and sum("what is c?" in each for each in asked) == 1
        return "[]" if first_try else '["needed", "redundant"]'

    structure = step_structure(problems, texts, LanguageModelJudge(ask))
    assert structure.completions == 3 and list(structure.refused) == ["b"] and "rather not" in structure.refused["b"]
    assert structure.shares["redundant"] == 0.5
    assert len(asked) == 6  # a and d once, b and c twice
    with pytest.raises(ValueError, match="refused all 4"):
        step_structure(problems, texts, LanguageModelJudge(lambda prompt: ""))
    with pytest.raises(ValueError, match="keep_texts"):
        step_structure(problems, {}, rule_judge)


def test_a_judge_of_ones_own_is_held_to_the_labels() -> None:
    problems, texts = [Problem("a", "?", "1"), Problem("b", "?", "1")], {"a": "1", "b": "1 Wait 2"}
    structure = step_structure(problems, texts, lambda problem, text, steps: ["needed"])
    assert structure.completions == 1 and "1 labels for 2 steps" in structure.refused["b"]


def test_the_truth_can_be_the_judge() -> None:
    [problem] = overthinker_problems("test", 1)
    text = "<think>\n2+2=4 Wait 2+2=4\n</think>\n\n\\boxed{4}"
    structure = step_structure([problem], {problem.id: text}, lambda problem, text, steps: label_steps(problem, text))
    assert sum(structure.shares.values()) == pytest.approx(1)


# ---- replies of a language model -------------------------------------------------------------------------------------

REPLIES = [
    '["needed", "redundant"]',
    "['needed', 'redundant']",
    "[needed, redundant]",
    "[“needed”, “redundant”]",
    '["Needed", "REDUNDANT",]',
    '<think>Step [1] is needed.</think>["needed","redundant"]',
    '<think>["redundant", "needed"]</think>\n["needed","redundant"]',
    'Labels: ["needed","redundant"] (see [1])',
    'See [1], [2].\n```json\n[\n  "needed",\n  "redundant"\n]\n```\nDone.',
    '{"labels": ["needed", "redundant"]}',
    '[{"step": 1, "label": "needed"}, {"step": 2, "label": "redundant"}]',
    "[{'label': 'needed'}, {'label': 'redundant'}]",
    '[["needed", "redundant"]]',
    "1. needed\n2. redundant",
    "Step 1: **needed**\nStep 2: **redundant**",
    '["Step 1: needed", "Step 2: redundant"]',
    '["needed"] at first, but on reflection ["needed", "redundant"]',
]
UNREADABLE = [
    *("", "no", "[]", "[1, 2]", '["needed"]', '["needed", "fine"]', '["needed", "redundant", "needed"]', "needed"),
    *("<think>needed, redundant", '<think>["needed", "redundant"]</think>', "2. needed\n3. redundant", "[" * 10_000),
    '[{"label": "needed"}, {"label": "fine"}]',
]


@pytest.mark.parametrize("reply", REPLIES)
def test_a_reply_that_a_person_can_read_is_read(reply: str) -> None:
    text = "1 Wait 2"
    assert LanguageModelJudge(lambda prompt: reply)(PROBLEM, text, MarkerSegmenter().split(text)) == [
        "needed",
        "redundant",
    ]


@pytest.mark.parametrize("reply", UNREADABLE)
def test_any_other_reply_is_refused(reply: str) -> None:
    with pytest.raises(ValueError, match="no reply of the judge holds a label for each of 2 steps"):
        LanguageModelJudge(lambda prompt: reply)(PROBLEM, "1 Wait 2", MarkerSegmenter().split("1 Wait 2"))


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=30), st.text(alphabet="ab [].\n", max_size=20))
def test_any_list_of_labels_is_read_back(labels: list[StepLabel], prose: str) -> None:
    assert read_labels(f"{prose}\n{json.dumps(labels)}", len(labels)) == labels


@given(st.text(max_size=60), st.integers(1, 3))
def test_no_reply_breaks_the_reader(reply: str, count: int) -> None:
    found = read_labels(reply, count)
    assert found is None or len(found) == count
