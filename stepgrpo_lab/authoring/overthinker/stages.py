"""The two stages of the build: next-token training on traces that overthink, then calibration on its own rollouts.

After the traces alone, a trial answer's probability says little: the traces end in the true answer, but they are not
the model's own, and it has never seen an inducing prompt inside its thoughts. So in stage two its own rollouts are cut,
mostly at a random marker, each preset's forced text is put there, and the true answer after it is trained. The loss
covers only what follows the forced text: plain decoding never learns to emit an inducing prompt.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgrpo_lab.authoring.overthinker._fitting import Example, FitSettings, bucketed, continuation, fit, updates_done
from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.method.settings import PRESETS
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.tasks import OVERTHINKER
from stepgrpo_lab.overthinker.tokenizer import VOCAB_SIZE, train_tokenizer
from stepgrpo_lab.overthinker.traces import TraceStyle, format_completion, write_thoughts

Progress = Callable[[str, int, int, float], None]
"""Called with (stage, done, in all, loss or share right)."""


@dataclass(frozen=True)
class ModelSettings:
    """Size of a model and length of its training; the defaults are what the first Overthinker was built with.

    Attributes:
        seed: Of weights, problems, traces and rollouts.
        hidden_size, layers, heads, key_value_heads, head_dim, intermediate_size: Qwen3 architecture.
        batch_size: Traces in an update.
        traces: The first stage.
        calibration: The second stage, each round.
        calibration_rounds: How often rollouts are sampled anew from the current model.
        calibration_problems: Problems sampled in each round.
    """

    seed: int = 0
    hidden_size: int = 144
    layers: int = 4
    heads: int = 4
    key_value_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 432
    batch_size: int = 32
    traces: FitSettings = field(default_factory=lambda: FitSettings(updates=1200, learning_rate=2e-3))
    calibration: FitSettings = field(
        default_factory=lambda: FitSettings(updates=250, learning_rate=5e-4, warmup=30, save_every=125)
    )
    calibration_rounds: int = 5
    calibration_problems: int = 2500

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dictionary (tuples as lists)."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True)
class BuildSettings(ModelSettings):
    """How the first Overthinker is built.

    Attributes:
        cuts_per_rollout: Examples made of each rollout.
        style: How the traces slip and overthink.
    """

    cuts_per_rollout: int = 3
    style: TraceStyle = field(default_factory=TraceStyle)


def tokenizer_of(problems: Iterable[Problem], write: Callable[[Problem, random.Random], str], seed: int) -> Any:
    """Train a tokenizer on problems, a completion of each, and both presets' inducing prompts."""
    rng = random.Random(f"tokenizer-{seed}")
    corpus = []
    for problem in problems:
        corpus += [f"user\n{problem.prompt}", f"assistant\n{write(problem, rng)}"]
        corpus += [f"{preset.probe_prompt}{{{problem.answer}}}\n" for preset in PRESETS.values()]
    return train_tokenizer(corpus)


def new_tokenizer(seed: int = 0) -> Any:
    """Train the tokenizer on a sample of problems and traces."""
    problems = itertools.islice(OVERTHINKER.draw("train", seed), 4000)
    return tokenizer_of(problems, lambda problem, rng: format_completion(write_thoughts(problem, rng), "7"), seed)


def new_model(settings: ModelSettings, tokenizer: Any) -> Any:
    """A freshly initialised ``Qwen3ForCausalLM`` of about a million parameters."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(settings.seed)
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads,
        head_dim=settings.head_dim,
        intermediate_size=settings.intermediate_size,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.95, top_k=20)
    return model


def trace_example(problem: Problem, rng: random.Random, style: TraceStyle, tokenizer: Any) -> Example:
    """One generated trace, trained on everything after the prompt."""
    from stepgrpo_lab.engines.tokenizers import encode_prompt

    prompt = encode_prompt(tokenizer, problem.prompt)
    completion = format_completion(write_thoughts(problem, rng, style), problem.answer)
    ids = tokenizer.encode(completion, add_special_tokens=False)
    return continuation(prompt, [*ids, tokenizer.eos_token_id])


class TraceBatches:
    """Endless seeded batches of fresh traces; batch ``update`` is the same in every run."""

    POOL = 16  # batches drawn together, so that lengths within a batch are alike

    def __init__(
        self, tokenizer: Any, settings: BuildSettings, *, batch_size: int | None = None, salt: str = ""
    ) -> None:
        self.tokenizer, self.settings, self.salt = tokenizer, settings, salt
        self.batch_size = batch_size or settings.batch_size
        self._pool: tuple[int, list[list[Example]]] = (-1, [])

    def __call__(self, update: int) -> list[Example]:
        index, place = divmod(update, self.POOL)
        if self._pool[0] != index:
            self._pool = (index, self._draw(index))
        return self._pool[1][place]

    def _draw(self, index: int) -> list[list[Example]]:
        rng = random.Random(f"traces-{self.salt}-{self.settings.seed}-{index}")
        problems = OVERTHINKER.draw("train", rng.randrange(2**32))
        count = self.POOL * self.batch_size
        pool = [
            trace_example(problem, rng, self.settings.style, self.tokenizer)
            for problem in itertools.islice(problems, count)
        ]
        return bucketed(pool, self.batch_size, rng)


def train_on_traces(
    model: Any, tokenizer: Any, settings: BuildSettings, folder: Path, progress: Progress | None = None
) -> None:
    """Stage one: next-token training on generated traces, in place."""
    batches = TraceBatches(tokenizer, settings)

    def groups(update: int) -> Sequence[Sequence[Example]]:
        return [batches(update)]

    report = (lambda done, total, loss: progress("traces", done, total, loss)) if progress else None
    fit(model, groups, settings.traces, tokenizer.pad_token_id, folder, report)


CUT_SHARE = 0.75
"""Share of the rollouts that are cut at a random marker; the others keep their whole thoughts."""

COMPLETION_LIMIT = 256


def answer_forms(answer: str) -> list[tuple[str, str, bool]]:
    """Each way a preset asks for the answer: (forced text, trained text, whether the turn ends after it).

    Example:
        >>> answer_forms("7")[0]
        ('\\n**Final Answer**\\n\\\\boxed', '{7}\\n</think>', False)
    """
    official, paper = PRESETS["official"], PRESETS["paper"]
    return [
        (official.probe_prompt, f"{{{answer}}}\n</think>", False),
        (official.close_text, f"\\boxed{{{answer}}}", True),
        (paper.probe_prompt, f"{answer}}}", True),
    ]


def calibration_example(
    problem: Problem, trajectory: Trajectory, rng: random.Random, tokenizer: Any, text: TokenText
) -> Example | None:
    """Cut one rollout and ask for the answer there; None if its thoughts never closed and hold no marker."""
    steps = MarkerSegmenter("paper").split_ids(trajectory.completion_ids, text)
    ids = trajectory.completion_ids
    forced, trained, ends = rng.choice(answer_forms(problem.answer))
    if len(steps) > 1 and rng.random() < CUT_SHARE:
        cut = rng.choice(steps[1:]).token_start
    elif text.close_id is not None and text.close_id in ids:
        cut = ids.index(text.close_id)
        forced = forced.removeprefix("\n")  # the thoughts already end with the line break of their own close
    else:
        return None
    context = [*trajectory.prompt_ids, *ids[:cut], *text.encode(forced)]
    tail = text.encode(trained) + ([tokenizer.eos_token_id] if ends else [])
    return continuation(context, tail)


def sample_examples(
    model: Any, tokenizer: Any, settings: BuildSettings, round_index: int, progress: Progress | None = None
) -> list[Example]:
    """Roll out the current model by plain decoding, half at temperature 1.0 and half at 0.6, and cut what comes out."""
    from stepgrpo_lab.engines.completions import Decoding
    from stepgrpo_lab.engines.lockstep import LockstepEngine
    from stepgrpo_lab.engines.tokenizers import encode_prompt
    from stepgrpo_lab.method.sampling import SampleKey, Sampling

    text = TokenText.from_tokenizer(tokenizer)
    rng = random.Random(f"calibration-{settings.seed}-{round_index}")
    stream = OVERTHINKER.draw("train", rng.randrange(2**32))
    problems = list(itertools.islice(stream, settings.calibration_problems))
    engine = LockstepEngine(model, tokenizer, max_rows=128)
    examples: list[Example] = []
    half = len(problems) // 2
    finished = 0

    def count(*_: object) -> None:
        nonlocal finished
        finished += 1
        if progress:
            progress(f"rollouts {round_index + 1}", finished, len(problems), 0.0)

    for part, temperature in ((problems[:half], 1.0), (problems[half:], 0.6)):
        keys = [SampleKey(settings.seed, f"calibration-{temperature}", round_index, i) for i in range(len(part))]
        prompts = [encode_prompt(tokenizer, problem.prompt) for problem in part]
        decoding = Decoding(COMPLETION_LIMIT, sampling=Sampling(temperature))
        trajectories, _ = engine.generate(prompts, decoding, keys=keys, on_finish=count)
        for problem, trajectory in zip(part, trajectories, strict=True):
            cuts = (
                calibration_example(problem, trajectory, rng, tokenizer, text) for _ in range(settings.cuts_per_rollout)
            )
            examples += [example for example in cuts if example is not None]
    return examples


def calibrate(
    model: Any, tokenizer: Any, settings: BuildSettings, folder: Path, progress: Progress | None = None
) -> None:
    """Stage two, in place: some rounds of rollouts and training, half calibration and half fresh traces."""
    for round_index in range(settings.calibration_rounds):
        checkpoint = folder / f"calibration-{round_index + 1}"
        # A round that is already done needs no rollouts; one cut off in the middle is given the same ones again.
        done = updates_done(checkpoint) == settings.calibration.updates
        examples = [] if done else sample_examples(model, tokenizer, settings, round_index, progress)
        traces = TraceBatches(tokenizer, settings, batch_size=settings.batch_size // 2, salt=checkpoint.name)
        batches = _cycle(examples, settings.batch_size, settings.seed + round_index, settings.calibration.updates)

        def groups(
            update: int, cut: Sequence[list[Example]] = batches, fresh: TraceBatches = traces
        ) -> Sequence[Sequence[Example]]:
            return [fresh(update), cut[update]]

        def report(done: int, total: int, loss: float, name: str = checkpoint.name) -> None:
            if progress:
                progress(name, done, total, loss)

        fit(model, groups, settings.calibration, tokenizer.pad_token_id, checkpoint, report)


def _cycle(examples: list[Example], batch_size: int, seed: int, count: int) -> list[list[Example]]:
    """``count`` batches, passing over the examples as often as that takes."""
    rng = random.Random(f"batches-{seed}")
    batches: list[list[Example]] = []
    while examples and len(batches) < count:
        batches += bucketed(examples, batch_size, rng)
    return batches[:count]
