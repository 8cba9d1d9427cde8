"""The build of Overthinker 2: traces and drills, then calibration at every marker of its own completions.

The drills are leaps alone, many to a row, with the loss on their results: they decide how far quick derivations can be
trusted, so their number is the dial of the laboratory's difficulty. The traces' natural answer follows the last
derivation. The *trial* answer is taught the truth, on the model's own completions only: so what the model says and how
sure it may be stay apart. An eighth of the traces close with the words that the preset ``paper`` forces; the others
close with those of ``official``. The answer after the paper's words is a trial answer, so no trace teaches it.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stepgrpo_lab.authoring.overthinker._fitting import (
    IGNORED,
    Batch,
    Example,
    FitSettings,
    Fork,
    bucketed,
    continuation,
    fit,
    token_loss,
    updates_done,
)
from stepgrpo_lab.authoring.overthinker.stages import ModelSettings, Progress, tokenizer_of
from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.method.settings import PRESETS
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.leaps import OVERTHINKER_2, drill_equations, write_trace
from stepgrpo_lab.overthinker.traces import format_completion

COMPLETION_LIMIT = 192

PAPER_SHARE = 0.12
"""Share of the traces that close with the words of the preset ``paper``."""

DRILL_TOKENS = 152
SAMPLED_AT = (Sampling(1.0), Sampling(0.6, top_p=0.95, top_k=20))
"""Its own completions are drawn as in training, and as in evaluation."""


@dataclass(frozen=True)
class LeapSettings(ModelSettings):
    """Length of the build of Overthinker 2; the defaults are what the shipped model was built with.

    Attributes:
        drills: Rows of drills in an update of the first stage.
        drilled: So many updates have drills; the first stage's others are traces alone.
        calibration_batch: Completions in an update of the second stage.
    """

    batch_size: int = 10
    traces: FitSettings = field(
        default_factory=lambda: FitSettings(updates=650, learning_rate=4e-3, warmup=50, save_every=50, matrices="muon")
    )
    calibration: FitSettings = field(
        default_factory=lambda: FitSettings(updates=180, learning_rate=5e-4, warmup=20, save_every=90)
    )
    calibration_rounds: int = 3
    calibration_problems: int = 1500
    drills: int = 12
    drilled: int = 450
    calibration_batch: int = 16


def new_tokenizer(seed: int = 0) -> Any:
    """Train the tokenizer on a sample of problems and traces."""
    problems = itertools.islice(OVERTHINKER_2.draw("train", seed), 3000)
    return tokenizer_of(problems, lambda problem, rng: format_completion(*write_trace(problem, rng)), seed)


class TraceExamples:
    """Traces and drills as examples; every batch depends on its number alone.

    Args:
        tokenizer: The model's.
        settings: Seed, and how many traces and drills a batch has.
        salt: Another salt, other batches.
    """

    POOL = 16  # batches drawn together, so that lengths within a batch are alike
    LABORATORY = OVERTHINKER_2
    LIMIT = COMPLETION_LIMIT
    ROWS = 160  # completions decoded at once

    def __init__(self, tokenizer: Any, settings: LeapSettings, salt: str = "") -> None:
        self.tokenizer, self.settings, self.salt = tokenizer, settings, salt
        self._pool: tuple[int, list[list[Example]]] = (-1, [])

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _rng(self, kind: str, number: int) -> random.Random:
        return random.Random(f"{kind}-{self.salt}-{self.settings.seed}-{number}")

    def write(self, problem: Problem, rng: random.Random) -> tuple[str, str]:
        """Thoughts and answer of one trace."""
        return write_trace(problem, rng)

    @staticmethod
    def loss(model: Any, batch: Batch) -> Tensor:
        """The loss of a batch of these examples."""
        return token_loss(model, batch)

    def trace(self, problem: Problem, rng: random.Random) -> Example:
        """One trace, trained on everything after the prompt but the answer after the paper's words."""
        from stepgrpo_lab.engines.tokenizers import encode_prompt

        thoughts, answer = self.write(problem, rng)
        prompt = encode_prompt(self.tokenizer, problem.prompt)
        if rng.random() < PAPER_SHARE:
            given, reply = self._encode(f"<think>\n{thoughts}{PRESETS['paper'].probe_prompt}"), self._encode(answer)
            end = [*self._encode("}"), self.tokenizer.eos_token_id]
            example = Example(
                [*prompt, *given, *reply, *end], [IGNORED] * len(prompt) + given + [IGNORED] * len(reply) + end
            )
        else:
            example = continuation(
                prompt, [*self._encode(format_completion(thoughts, answer)), self.tokenizer.eos_token_id]
            )
        longest = len(prompt) + self.LIMIT
        return Example(example.ids[:longest], example.labels[:longest])

    def traces(self, update: int) -> list[Example]:
        """Batch ``update`` of traces."""
        index, place = divmod(update, self.POOL)
        if self._pool[0] != index:
            rng = self._rng("traces", index)
            problems = self.LABORATORY.draw("train", rng.randrange(2**32))
            size = self.settings.batch_size
            drawn = [self.trace(problem, rng) for problem in itertools.islice(problems, self.POOL * size)]
            self._pool = index, bucketed(drawn, size, rng)
        return self._pool[1][place]

    def drill(self, equations: Iterator[tuple[str, str]]) -> Example:
        """A row of equations, trained on their results."""
        ids: list[int] = []
        labels: list[int] = []
        while len(ids) < DRILL_TOKENS:
            left, right = next(equations)
            question, result = self._encode(" " * bool(ids) + left), self._encode(right)
            ids += question + result
            labels += [IGNORED] * len(question) + result
        return Example(ids[:DRILL_TOKENS], labels[:DRILL_TOKENS])

    def drills(self, update: int) -> list[Example]:
        """Batch ``update`` of drills: single operations first, leaps later."""
        single = min(0.9, max(0.1, 0.9 - (update - 200) / 300))
        equations = drill_equations(self._rng("drills", update), single)
        return [self.drill(equations) for _ in range(self.settings.drills)]


def train_on_traces(
    model: Any,
    tokenizer: Any,
    settings: LeapSettings,
    folder: Path,
    progress: Progress | None = None,
    kind: type[TraceExamples] = TraceExamples,
) -> None:
    """Stage one, in place: traces and drills side by side."""
    examples = kind(tokenizer, settings)

    def groups(update: int) -> Sequence[Sequence[Example]]:
        return [examples.traces(update), examples.drills(update) if update < settings.drilled else []]

    report = (lambda done, total, loss: progress("traces", done, total, loss)) if progress else None
    fit(model, groups, settings.traces, tokenizer.pad_token_id, folder, report, kind.loss)


def probe_forms(answer: str) -> list[tuple[str, str, bool]]:
    """How each preset asks for the answer at a marker: (forced text, trained text, whether the turn ends after it).

    Example:
        >>> probe_forms("7")[1]
        ('</think> The final answer is \\\\boxed{', '7}', True)
    """
    official, paper = PRESETS["official"], PRESETS["paper"]
    return [(official.probe_prompt, f"{{{answer}}}\n</think>", False), (paper.probe_prompt, f"{answer}}}", True)]


def calibration_example(problem: Problem, trajectory: Trajectory, text: TokenText, eos: int) -> Example:
    """One of its own completions, asked for the true answer in both forms at every marker."""
    prompt, completion = trajectory.prompt_ids, trajectory.completion_ids
    ids = [*prompt, *completion]
    labels, forks = [IGNORED] * len(ids), []
    for step in MarkerSegmenter("paper").split_ids(completion, text)[1:]:
        for forced, trained, ends in probe_forms(problem.answer):
            head, tail = text.encode(forced), [*text.encode(trained), *([eos] if ends else [])]
            forks.append(Fork(len(ids), len(ids) + len(head) + len(tail), len(prompt) + (step.token_start or 0)))
            ids += head + tail
            labels += [IGNORED] * len(head) + tail
    return Example(ids, labels, tuple(forks))


def sample_examples(
    model: Any,
    tokenizer: Any,
    settings: LeapSettings,
    number: int,
    progress: Progress | None = None,
    kind: type[TraceExamples] = TraceExamples,
) -> list[Example]:
    """Calibration examples of round ``number``: completions of the current model that hold a marker."""
    from stepgrpo_lab.engines.completions import Decoding
    from stepgrpo_lab.engines.lockstep import LockstepEngine
    from stepgrpo_lab.engines.tokenizers import encode_prompt

    text = TokenText.from_tokenizer(tokenizer)
    engine = LockstepEngine(model, tokenizer, max_rows=kind.ROWS)
    stream = kind.LABORATORY.draw("train", random.Random(f"calibration-{settings.seed}-{number}").randrange(2**32))
    examples = []
    for part, sampling in enumerate(SAMPLED_AT):
        problems = list(itertools.islice(stream, settings.calibration_problems // len(SAMPLED_AT)))
        keys = [SampleKey(settings.seed, f"calibration-{part}", number, index) for index in range(len(problems))]
        prompts = [encode_prompt(tokenizer, problem.prompt) for problem in problems]
        trajectories, _ = engine.generate(prompts, Decoding(kind.LIMIT, sampling=sampling), keys=keys)
        for problem, trajectory in zip(problems, trajectories, strict=True):
            examples.append(calibration_example(problem, trajectory, text, tokenizer.eos_token_id))
        if progress:
            progress(f"completions {number + 1}", len(examples), settings.calibration_problems, 0.0)
    return [example for example in examples if example.forks]


def calibrate(
    model: Any,
    tokenizer: Any,
    settings: LeapSettings,
    folder: Path,
    progress: Progress | None = None,
    kind: type[TraceExamples] = TraceExamples,
) -> None:
    """Stage two, in place: rounds of own completions, each trained beside fresh traces."""
    for number in range(settings.calibration_rounds):
        checkpoint = folder / f"calibration-{number + 1}"
        if updates_done(checkpoint) == settings.calibration.updates:
            examples = []  # the round is done, and its weights are read from the checkpoint
        else:
            examples = sample_examples(model, tokenizer, settings, number, progress, kind)
        traces = kind(tokenizer, settings, checkpoint.name)
        batches = _passes(examples, settings, number)

        def groups(
            update: int, own: Sequence[list[Example]] = batches, fresh: TraceExamples = traces
        ) -> Sequence[Sequence[Example]]:
            return [fresh.traces(update), *own[update : update + 1]]  # a model may write no marker yet

        def report(done: int, total: int, loss: float, name: str = checkpoint.name) -> None:
            if progress:
                progress(name, done, total, loss)

        fit(model, groups, settings.calibration, tokenizer.pad_token_id, checkpoint, report, kind.loss)


def _passes(examples: list[Example], settings: LeapSettings, number: int) -> list[list[Example]]:
    """As many batches as a round has updates, passing over the examples as often as that takes."""
    rng = random.Random(f"batches-{settings.seed}-{number}")
    batches: list[list[Example]] = []
    while examples and len(batches) < settings.calibration.updates:
        batches += bucketed(examples, settings.calibration_batch, rng)
    return batches
