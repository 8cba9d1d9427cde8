"""What a course builds for itself: data, a reward and a segmenter of one's own, through the Python interface."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import stepgrpo_lab as lab
from stepgrpo_lab.engines.models import encode_prompt
from stepgrpo_lab.method.records import Step
from stepgrpo_lab.method.steps import MarkerHit
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.training import problems_dataset


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


def test_a_segmenter_of_ones_own(tmp_path: Path) -> None:
    """The same segmenter cuts text, starts probes in the rollout, and counts the steps that the trainer rewards."""
    segmenter = EquationSegmenter()
    assert segmenter.count("<think>\n7+5=2 2*3=6 Wait 6-4=2 2+7=9\n</think>\n\n\\boxed{9}") == 3
    model, tokenizer = lab.load_overthinker()
    [problem] = lab.overthinker_problems("test", 1, family="chain", level=1)
    [trajectory], _ = lab.LockstepEngine(model, tokenizer).generate(
        [encode_prompt(tokenizer, problem.prompt)],
        limit=256,
        keys=[lab.SampleKey(0, "test", 0, 0)],
        settings=lab.rollout_settings("official", exit_threshold=1.0, near_budget_margin=0, max_probes=100),
        segmenter=segmenter,
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
