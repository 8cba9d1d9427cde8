"""Stage two of the build: teach the Overthinker how sure it may be of a trial answer.

After the traces alone, a trial answer's probability says little: the traces end in the true answer, but they are not
the model's own, and it has never seen an inducing prompt inside its thoughts. So its own rollouts are cut, mostly at a
random marker, each preset's forced text is put there, and the true answer after it is trained. The loss covers only
what follows the forced text: plain decoding never learns to emit an inducing prompt.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepgrpo_lab.authoring.overthinker.fitting import Example, bucketed, fit, updates_done
from stepgrpo_lab.authoring.overthinker.pretraining import BuildSettings, Progress, TraceBatches
from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.method.settings import PRESETS
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.tasks import draw_problems

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
    return Example([*context, *tail], len(context))


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
    stream = draw_problems("train", rng.randrange(2**32))
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
