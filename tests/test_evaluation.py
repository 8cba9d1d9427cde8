"""Evaluations: grading, figures, pairing, storage, and independence of the batch size."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, ClassVar

import pytest

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.evaluation.evaluating import RAW_ACCURACY, evaluate, outcome, outcomes
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.results import Evaluation, compare, completion_pairs
from stepgrpo_lab.method.records import Cost, Outcome, Probe, Problem, Trajectory
from stepgrpo_lab.method.rollout import rollout_settings
from stepgrpo_lab.method.steps import MarkerSegmenter


@pytest.fixture(scope="module")
def grader():
    with Grader() as grader:
        yield grader


def trajectory(text: str, **fields: Any) -> Trajectory:
    defaults: dict[str, Any] = {"steps": 9, "close": "natural", "finish": "eos"}
    ids = list(range(len(text.split())))
    return Trajectory([0], ids, [-1.0] * len(ids), text, **{**defaults, **fields})


def evaluation(correct: list[list[int]], tokens: list[list[int]], ids: str = "abcdef", **fields: Any) -> Evaluation:
    rows = [
        [Outcome(bool(c), True, steps=2, tokens=t, close="natural") for c, t in zip(*samples, strict=True)]
        for samples in zip(correct, tokens, strict=True)
    ]
    names = list(ids[: len(rows)])
    return Evaluation(
        names, ["even" if i % 2 == 0 else "odd" for i in range(len(rows))], [1] * len(rows), rows, **fields
    )


def test_outcome_reads_the_box_after_the_first_close(grader):
    judged = outcome(trajectory("<think> \\boxed{9} Wait, no </think> \\boxed{7} <|im_end|>"), "7", grader)
    assert judged == Outcome(True, True, steps=9, tokens=7, answer="7", truncated=False, close="natural")


def test_outcomes_of_wrong_unboxed_and_unclosed_completions(grader):
    judged = outcomes(
        [
            trajectory("</think> \\boxed{8}"),
            trajectory("</think> seven"),
            trajectory("\\boxed{7}", close=None, finish="length"),
        ],
        ["7", "7", "7"],
        grader,
    )
    assert [(o.correct, o.formatted, o.truncated, o.close) for o in judged] == [
        (False, True, False, "natural"),
        (False, False, False, "natural"),
        (False, False, True, None),
    ]


def test_outcomes_count_steps_again_with_another_segmenter(grader):
    text = "one Wait two Alternatively three </think> \\boxed{7}"
    assert outcome(trajectory(text), "7", grader, MarkerSegmenter("official")).steps == 2
    assert outcome(trajectory(text), "7", grader, MarkerSegmenter("paper")).steps == 3


def test_outcomes_want_one_gold_for_each_trajectory(grader):
    with pytest.raises(ValueError, match="1 trajectories but 2 golds"):
        outcomes([trajectory("x")], ["1", "2"], grader)


def test_summary_has_each_figure_overall_by_family_and_by_level():
    measured = evaluation([[1, 1], [0, 1], [1, 1], [0, 0]], [[10, 20], [30, 40], [50, 60], [70, 80]])
    measured.levels = [1, 2, 2, None]
    summary = measured.summary()
    assert (summary["problems"], summary["samples"]) == (4, 2)
    assert summary["accuracy"].estimate == pytest.approx(5 / 8)
    assert summary["tokens"].estimate == pytest.approx(45)
    assert summary["closed"].estimate == 1 and summary["truncated"].estimate == 0
    assert summary["accuracy"].low < 5 / 8 < summary["accuracy"].high
    assert summary["families"]["even"]["accuracy"].estimate == 1
    assert summary["families"]["odd"]["tokens"].estimate == pytest.approx(55)
    assert summary["levels"]["2"]["problems"] == 2 and set(summary["levels"]) == {"1", "2"}
    assert summary["calibration"] is None
    json.dumps(summary, default=dataclasses.asdict)


def test_calibration_uses_the_trial_answers():
    measured = evaluation([[1]], [[1]], trial_answers=[(0.9, True), (0.9, False)])
    result = measured.summary()["calibration"]
    assert result.count == 2 and result.ece == pytest.approx(0.4)


def test_evaluation_survives_json():
    measured = evaluation(
        [[1, 0]],
        [[3, 4]],
        trial_answers=[(0.5, True)],
        cost=Cost(1, 2, 3, 4, 5),
        settings={"limit": 9},
        texts={"a": "é"},
    )
    assert Evaluation.from_dict(json.loads(json.dumps(measured.to_dict()))) == measured


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"outcomes": None}, "outcomes"),
        ({"outcomes": []}, "outcomes"),
        ({"surprise": 1}, "surprise"),
        ({"cost": {"kept": 1}}, r"cost\.kept"),
        ({"trial_answers": [[0.5, True], [math.nan, True]]}, r"trial_answers\[1\]\[0\]"),
        ({"problem_ids": ["a", "b"]}, "problem_ids"),
        ({"settings": {"markers": [7]}}, r"settings: .*markers"),
    ],
)
def test_a_broken_record_is_refused(change, field):
    with pytest.raises(ValueError, match=field):
        Evaluation.from_dict({**evaluation([[1]], [[1]]).to_dict(), **change})


def test_compare_pairs_by_problem_id_and_not_by_place():
    before = evaluation([[1], [0], [1]], [[10], [20], [30]], ids="abc")
    turned = evaluation([[1], [0], [1]], [[15], [10], [5]], ids="cba")
    comparison = compare(before, turned)
    assert comparison.problems == 3
    assert (comparison.accuracy_points.low, comparison.accuracy_points.high) == (0, 0)
    assert comparison.token_ratio.low == comparison.token_ratio.high == pytest.approx(0.5)
    assert comparison.families["odd"].token_ratio.estimate == pytest.approx(0.5)
    assert comparison.families["even"].problems == 2


def test_compare_counts_in_points():
    comparison = compare(evaluation([[1], [1], [0], [0]], [[9]] * 4), evaluation([[1], [1], [1], [0]], [[9]] * 4))
    assert comparison.accuracy_points.estimate == pytest.approx(25)
    assert comparison.steps.estimate == 0


def test_compare_refuses_other_problems():
    with pytest.raises(ValueError, match="problem 'b' is in one evaluation only"):
        compare(evaluation([[1]], [[1]], ids="a"), evaluation([[1], [1]], [[1], [1]], ids="ab"))


def test_compare_refuses_evaluations_that_divide_the_problems_differently():
    first = evaluation([[1], [1]], [[1], [1]], ids="ab")
    with pytest.raises(ValueError, match="'a' is of family 'even'"):
        compare(first, dataclasses.replace(first, families=["renamed", *first.families[1:]]))


def test_completion_pairs_hold_the_texts_that_both_kept():
    problems = [Problem("a", "1+1?", "2"), Problem("b", "1+2?", "3")]
    before = evaluation([[1], [0]], [[5], [6]], texts={"a": "long", "b": "longer"})
    after = evaluation([[0], [0]], [[3], [4]], texts={"a": "short"})
    (row,) = completion_pairs(problems, before, after)
    assert row["problem"]["prompt"] == "1+1?" and row["gold"] == "2"
    assert row["before"] == {"text": "long", "tokens": 5, "steps": 2, "correct": True}
    assert row["after"] == {"text": "short", "tokens": 3, "steps": 2, "correct": False}
    json.dumps(row)


class FakeEngine:
    """Answers every prompt with a fixed completion and one probe, and remembers how it was called."""

    calls: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, model: Any, tokenizer: Any, *, max_rows: int) -> None:
        pass

    def generate(self, prompts: list[list[int]], decoding: Decoding, *, keys: list[Any], on_finish: Any) -> Any:
        FakeEngine.calls.append({"prompts": prompts, "keys": keys, **vars(decoding)})
        probes = [
            Probe(3, 1, "Wait", [1], [0.9], "7}", "7", True, 0.95, 0.9, False),
            Probe(5, 2, "Wait", [1], [0.8], "no box", None, False, 0.0, 0.0, False),
        ]
        made = [trajectory(f"a Wait b </think> \\boxed{{{key.sample}}}", probes=list(probes)) for key in keys]
        for index, each in enumerate(made):
            on_finish(index, each)
        return made, Cost(kept_tokens=1)


@pytest.fixture
def fake_engine(monkeypatch):
    FakeEngine.calls = []
    monkeypatch.setattr("stepgrpo_lab.engines.lockstep.LockstepEngine", FakeEngine)
    monkeypatch.setattr(
        "stepgrpo_lab.engines.tokenizers.encode_prompt", lambda tokenizer, question, suffix: [len(question + suffix)]
    )
    return FakeEngine


def test_evaluate_keys_grades_and_keeps_what_it_should(fake_engine, grader):
    seen: list[tuple[int, int]] = []
    problems = [Problem("a", "x", "0", "f", 1), Problem("b", "xyz", "7", "g", 2)]
    settings = rollout_settings("paper")
    measured = evaluate(
        None,
        None,
        problems,
        samples=2,
        limit=9,
        settings=settings,
        seed=5,
        grader=grader,
        suffix="!",
        keep_texts=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    (call,) = fake_engine.calls
    assert call["prompts"] == [[2], [2], [4], [4]]
    assert [dataclasses.astuple(key) for key in call["keys"]] == [(5, "eval", 0, index) for index in range(4)]
    assert call["settings"] is settings and call["limit"] == 9
    assert (call["sampling"].temperature, call["sampling"].top_p, call["sampling"].top_k) == (0.6, 0.95, 20)
    assert measured.column("correct") == [[1.0, 0.0], [0.0, 0.0]]
    assert measured.column("steps") == [[2.0, 2.0], [2.0, 2.0]]
    assert measured.trial_answers == [(0.9, False), (0.9, False), (0.9, True), (0.9, True)]
    assert measured.texts == {"a": "a Wait b </think> \\boxed{0}"}
    assert (measured.problem_ids, measured.families, measured.levels) == (["a", "b"], ["f", "g"], [1, 2])
    assert measured.settings["rollout"]["preset"] == "paper" and measured.settings["seed"] == 5
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def completions(monkeypatch, fake_engine, *made):
    monkeypatch.setattr(
        fake_engine, "generate", lambda self, prompts, decoding, *, keys, on_finish: (list(made), Cost(kept_tokens=1))
    )


def test_a_model_that_never_thinks_is_named_and_graded_by_its_boxes(fake_engine, grader, monkeypatch):
    texts = ["The answer is \\boxed{4}.", "I do not know.", "It is \\boxed{5}."]
    made = [dataclasses.replace(trajectory(text), finish="eos") for text in texts]
    completions(monkeypatch, fake_engine, *made)
    problems = [Problem(name, name, "4") for name in "abc"]
    with pytest.warns(UserWarning, match=r"none of the 3 completions has a </think>.*2 of them box"):
        measured = evaluate(None, None, problems, limit=9, grader=grader)
    assert measured.column("correct") == [[1.0], [0.0], [0.0]]
    assert not any(outcome.formatted for row in measured.outcomes for outcome in row)


@pytest.mark.parametrize(
    ("text", "finish"), [("cut off: \\boxed{4}", "length"), ("<think>\\boxed{4}", "eos"), ("no box", "eos")]
)
def test_thoughts_that_never_close_earn_nothing(fake_engine, grader, monkeypatch, recwarn, text, finish):
    completions(monkeypatch, fake_engine, dataclasses.replace(trajectory(text), finish=finish))
    measured = evaluate(None, None, [Problem("a", "a", "4")], limit=9, grader=grader)
    assert measured.mean("correct") == 0 and not [each for each in recwarn if each.category is UserWarning]


def test_the_accuracy_by_math_verify_alone_is_noted_on_request(fake_engine, grader, monkeypatch):
    completions(monkeypatch, fake_engine, trajectory("</think>\\boxed{5t}"))
    measured = evaluate(None, None, [Problem("a", "a", "5")], limit=9, grader=grader, raw=True)
    assert measured.mean("correct") == 0 and measured.settings[RAW_ACCURACY] == 1  # it takes the t for a unit


@pytest.mark.parametrize(
    ("problems", "changes", "words"),
    [
        ([], {}, "no problems"),
        ([Problem("a", "x", "\\frac{")], {}, "1 of 1 gold answers cannot be graded"),
        ([Problem("a", "x", "1")] * 2, {}, "problem id 'a' occurs twice"),
        ([Problem("a", "x", "1")], {"samples": 0}, "samples is 0"),
        ([Problem("a", "x", "1")], {"limit": 0}, "limit is 0"),
    ],
)
def test_evaluate_refuses_bad_input(fake_engine, problems, changes, words):
    with pytest.raises(ValueError, match=words):
        evaluate(None, None, problems, **{"limit": 9, **changes})
    assert not fake_engine.calls


def test_an_evaluation_shared_by_processes_is_the_whole_in_order(fake_engine, grader, monkeypatch):
    problems = [Problem(str(number), "x", str(number)) for number in range(3)]
    options = {"samples": 2, "limit": 9, "grader": grader, "keep_texts": 3}
    whole = evaluate(None, None, problems, **options)
    sent: dict[int, list[Any]] = {0: [], 1: []}
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, gathered in sent.items():  # what each process would send
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setattr("accelerate.utils.gather_object", lambda own, to=gathered: to.extend(own) or own * 2)
        evaluate(None, None, problems, shared=True, **options)
    together = iter(zip(*sent.values(), strict=True))
    monkeypatch.setattr("accelerate.utils.gather_object", lambda own: list(next(together)))
    joined = evaluate(None, None, problems, shared=True, **options)
    assert (joined.outcomes, joined.texts) == (whole.outcomes, whole.texts)
    assert [len(call["keys"]) for call in fake_engine.calls] == [6, 3, 3, 3]


@pytest.mark.parametrize("settings", [None, rollout_settings("paper", exit_threshold=0.0)])
def test_evaluate_depends_on_the_seed_and_not_on_the_batch(byte_bpe_tokenizer, grader, settings, monkeypatch):
    torch = pytest.importorskip("torch")
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(byte_bpe_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        eos_token_id=byte_bpe_tokenizer.eos_token_id,
        pad_token_id=byte_bpe_tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config).eval()
    template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}<think>\n"
    monkeypatch.setattr(byte_bpe_tokenizer, "chat_template", template)
    problems = [Problem(str(number), f"{number}+1?", str(number + 1)) for number in range(3)]

    def measured(**changes: Any) -> Evaluation:
        options = {"samples": 2, "limit": 24, "settings": settings, "grader": grader, "keep_texts": 3, **changes}
        return evaluate(model, byte_bpe_tokenizer, problems, **options)

    alone, together, other = measured(max_rows=1), measured(max_rows=6), measured(max_rows=6, seed=1)
    assert alone.outcomes == together.outcomes and alone.texts == together.texts
    assert alone.trial_answers == together.trial_answers
    assert other.texts != together.texts
    assert (together.cost.probe_tokens > 0) == (settings is not None)
    assert together.cost.kept_tokens == sum(map(sum, together.column("tokens")))
