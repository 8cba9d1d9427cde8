"""What a course builds for itself: data, a reward and a segmenter of one's own, through the Python interface."""

from __future__ import annotations

import json
import re
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_overrides
from transformers import TrainerCallback

import stepgrpo_lab as lab
from stepgrpo_lab.engines.tokenizers import encode_prompt
from stepgrpo_lab.method.records import Step
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.method.steps import MarkerHit
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.recipes import Recipe, write_recipe
from stepgrpo_lab.recipes._building import recipe_parts
from stepgrpo_lab.run import measure_untrained, train
from stepgrpo_lab.training import problems_dataset
from stepgrpo_lab.training.metrics import read_metrics


def config(folder: Path, **changes: object) -> lab.StepGRPOConfig:
    return lab.StepGRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        max_steps=1,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=200,
        rollout=lab.rollout_settings(markers="paper"),
        learning_rate=1e-5,
        save_strategy="no",
        report_to="none",
        **changes,
    )


def test_data_of_ones_own(tmp_path: Path) -> None:
    """JSON Lines with a problem and its answer are all that an evaluation needs."""
    rows = [
        {"problem": "Start at 3: +4 *3 -2 +5. Which digit, mod 10?", "answer": "4"},
        {"problem": "Start at 3: +4 *3 -2 +6. Which digit, mod 10?", "answer": "4"},  # a wrong gold answer
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = lab.evaluate(*lab.load_overthinker(), lab.load_problems(str(tmp_path / "mine.jsonl")), limit=256)
    assert [samples[0].correct for samples in result.outcomes] == [True, False]


def test_a_reward_of_ones_own(tmp_path: Path) -> None:
    """A reward is a function of one group; here right answers earn more the fewer tokens they took."""
    seen = []

    def short_and_right(correct, steps, formatted, tokens):
        seen.append((correct, tokens))
        return [1 - n / 1000 if c else 0.0 for c, n in zip(correct, tokens, strict=True)]

    model, tokenizer = lab.load_overthinker()
    problems = problems_dataset(lab.overthinker_problems("train", 2))
    trainer = lab.StepGRPOTrainer(model, config(tmp_path), problems, tokenizer, group_reward=short_and_right)
    try:
        trainer.train()
    finally:
        trainer.close()
    rewards = [short_and_right(correct, None, None, tokens) for correct, tokens in list(seen)]
    assert [len(group) for group in rewards] == [4, 4]
    [logged] = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert abs(logged - sum(map(sum, rewards)) / 8) < 1e-5


class EquationSegmenter(lab.Segmenter):
    """Every equation is a step of its own: a step begins where a digit follows a finished equation and a space."""

    start = re.compile(r"(?<==\d) (?=\d)")

    def split(self, text: str) -> list[Step]:
        thoughts = text.split("</think>")[0]
        bounds = pairwise([0, *(gap.start() for gap in self.start.finditer(thoughts)), len(thoughts)])
        return [Step(i, " " if i else None, text[a:b], a, b) for i, (a, b) in enumerate(bounds)]

    def scanner(self, token_text: TokenText) -> EquationScanner:
        return EquationScanner(self, token_text)


class EquationScanner:
    """Sees the thoughts token by token; each digit of the Overthinker is a token, and so is the space before it."""

    def __init__(self, segmenter: EquationSegmenter, token_text: TokenText) -> None:
        self.segmenter, self.token_text, self.ids = segmenter, token_text, list[int]()

    @property
    def text(self) -> str:
        return self.token_text.decode(self.ids)

    @property
    def steps(self) -> int:
        return self.segmenter.count(self.text)

    @property
    def closed(self) -> bool:
        return "</think>" in self.text

    def push(self, token_id: int) -> MarkerHit | None:
        before = self.steps
        self.ids.append(token_id)
        return MarkerHit(" ", held=2) if self.steps > before else None

    def drop(self, count: int) -> None:
        del self.ids[len(self.ids) - count :]

    def finish(self) -> int:
        return self.steps


class Equations(lab.Segmenter):
    """The same with ``split`` alone: the scanner is derived from it."""

    split = EquationSegmenter.split
    start = EquationSegmenter.start


def test_a_segmenter_of_split_alone_probes_and_leaves_no_trace() -> None:
    model, tokenizer = lab.load_overthinker()
    engine = lab.LockstepEngine(model, tokenizer)
    prompts = [encode_prompt(tokenizer, problem.prompt) for problem in lab.overthinker_problems("test", 3)]
    keys = [SampleKey(0, "own", 0, place) for place in range(3)]
    never = lab.rollout_settings("official", exit_threshold=1.0, near_budget_margin=0)
    decoding = lab.Decoding(100, never, segmenter=Equations())
    plain, _ = engine.generate(prompts, decoding, keys=keys, probed=[False] * 3)
    probed, _ = engine.generate(prompts, decoding, keys=keys)
    assert [row.completion_ids for row in probed] == [row.completion_ids for row in plain]
    assert all(row.steps == Equations().count(row.text) > 1 and row.probes for row in probed)


def test_a_segmenter_of_ones_own(tmp_path: Path) -> None:
    """The same segmenter cuts text, starts probes in the rollout, and counts the steps that the trainer rewards."""
    segmenter = EquationSegmenter()
    assert segmenter.count("<think>\n7+5=2 2*3=6 Wait 6-4=2 2+7=9\n</think>\n\n\\boxed{9}") == 3
    model, tokenizer = lab.load_overthinker()
    [problem] = lab.overthinker_problems("test", 1, family="chain", level=1)
    settings = lab.rollout_settings("official", exit_threshold=1.0, near_budget_margin=0, max_probes=100)
    [trajectory], _ = lab.LockstepEngine(model, tokenizer).generate(
        [encode_prompt(tokenizer, problem.prompt)],
        lab.Decoding(256, settings, segmenter=segmenter),
        keys=[lab.SampleKey(0, "test", 0, 0)],
    )
    assert len(trajectory.probes) == trajectory.steps - 1 == segmenter.count(trajectory.text) - 1
    problems = problems_dataset(lab.overthinker_problems("train", 2, family="chain"))
    trainer = lab.StepGRPOTrainer(model, config(tmp_path), problems, tokenizer, segmenter=segmenter)
    try:
        trainer.train()
    finally:
        trainer.close()
    [row] = [row for row in trainer.state.log_history if "steps/all" in row]
    assert row["probe/per_completion"] > 0
    assert row["steps/all"] > 1


# ---- a whole run, from its recipe or from Python ---------------------------------------------------------------------


def by_position(correct: Any, steps: Any, formatted: Any, tokens: Any) -> list[float]:
    """Everything is right here, so that only a reward of one's own tells a group's members apart."""
    return [10.0 + position for position in range(len(correct))]


def make_reward() -> Any:
    return by_position


class Batch:
    def rewards_of_groups(self, correct: Any) -> Any:
        return [by_position for _ in correct]


def two_steps(*overrides: str) -> Recipe:
    tiny = {"optimisation.max_steps": 2, "optimisation.prompts_per_step": 1, "rollout.max_tokens": 96}
    counts = {"data.counts.test": 2, "data.counts.validation": 1}
    return lab.load_recipe("overthinker", [*tiny_overrides(Path("overthinker"), **tiny, **counts), *overrides])


class CtrlC(TrainerCallback):
    """Stops a training after its first step."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0:
            signal.raise_signal(signal.SIGINT)


def without_timings(folder: Path) -> list[dict[str, Any]]:
    timings = ("seconds/", "step_time", "epoch")
    return [
        {key: value for key, value in row.items() if not key.startswith(timings)}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


NAMED = ("reward.function=test_own_parts:by_position", "rollout.segmenter=test_own_parts:EquationSegmenter")


def test_own_parts_end_to_end(tmp_path: Path) -> None:
    """Named in the recipe and passed in Python they train alike, and a resumed run goes on with them."""
    folder, stop = tmp_path / "named", (CtrlC(),)
    assert not train(two_steps(*NAMED), folder, callbacks=stop).finished
    before = json.loads((folder / "evaluation_before.json").read_text())
    assert before["settings"]["segmenter"] == "EquationSegmenter"
    with pytest.raises(ValueError, match="test_own_parts:by_position"):
        train(None, folder, resume=True, reward=by_position)
    assert train(None, folder, resume=True).finished
    logged = without_timings(folder)
    assert [row["reward"] for row in logged if "reward" in row] == pytest.approx([11.5, 11.5])  # 10, 11, 12, 13

    folder, own = tmp_path / "passed", {"reward": by_position, "segmenter": EquationSegmenter()}
    assert not train(two_steps(), folder, **own, callbacks=stop).finished
    with pytest.raises(ValueError, match=r"reward\.function is ':by_position'.*reward="):
        train(None, folder, resume=True)
    with pytest.raises(ValueError, match=r"rollout\.segmenter is ':EquationSegmenter'.*segmenter="):
        train(None, folder, resume=True, reward=by_position)
    with pytest.raises(ValueError, match="':make_reward'"):
        train(None, folder, resume=True, reward=make_reward, segmenter=EquationSegmenter())
    assert train(None, folder, resume=True, **own).finished
    assert without_timings(folder) == logged
    weights = [tmp_path / run / "model" / "model.safetensors" for run in ("named", "passed")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("reward.function=no_such_module:f", ("reward.function", "no_such_module", "PYTHONPATH")),
        ("reward.function=test_own_parts:missing", ("reward.function", "test_own_parts", "missing")),
        ("reward.function=test_own_parts:EquationScanner", ("reward.function", "EquationScanner", "no arguments")),
        ("reward.function=math:sqrt", ("reward.function", "math:sqrt", "(correct, steps, formatted, tokens)")),
        ("rollout.segmenter=math:pi", ("rollout.segmenter", "math:pi", "Segmenter")),
    ],
)
def test_parts_that_cannot_be_had_stop_a_run_before_it_begins(
    tmp_path: Path, override: str, words: tuple[str, ...]
) -> None:
    recipe = two_steps(override)
    for start in (train, measure_untrained):
        with pytest.raises(ValueError) as caught:
            start(recipe, tmp_path / "run")
        assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["by_position", "make_reward", "Batch"])
def test_objects_factories_and_classes_are_rewards(name: str) -> None:
    found = recipe_parts(two_steps(f"reward.function=test_own_parts:{name}")).reward
    assert isinstance(found, Batch) if name == "Batch" else found is by_position


def test_a_recipe_from_elsewhere_runs_nothing_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile_part.py").write_text("raise SystemError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    recipe = two_steps("reward.function=hostile_part:f", "rollout.segmenter=hostile_part:s")
    write_recipe(recipe, tmp_path / "recipe.yaml")
    assert lab.load_recipe(tmp_path / "recipe.yaml").rollout == recipe.rollout
    with pytest.raises(ValueError, match="hostile_part"):
        recipe_parts(recipe)


def test_supervised_fine_tuning_has_no_reward(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="method sft"):
        train(two_steps("method=sft"), tmp_path / "run", reward=by_position)
