"""Measure a model on problems, and compare two measurements problem by problem.

Plain decoding by default: the question is what the model has learnt, not what an exit rule can do to it. With
``RolloutSettings`` the same call evaluates the truncated rollout, which is DEER (arXiv 2504.15895).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from stepgrpo_lab.engines.processes import gather_shares, my_share
from stepgrpo_lab.evaluation.evaluation_records import Comparison, Evaluation, compare, completion_pairs
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.presets import RolloutSettings
from stepgrpo_lab.method.records import Cost, Outcome, Problem, Trajectory
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.method.steps import MarkerSegmenter, Segmenter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stepgrpo_lab.engines.completions import RolloutEngine

__all__ = [
    "EVALUATION_SAMPLING",
    "Comparison",
    "Evaluation",
    "compare",
    "completion_pairs",
    "evaluate",
    "outcome",
    "outcomes",
]

EVALUATION_SAMPLING = Sampling(temperature=0.6, top_p=0.95, top_k=20)


def outcome(trajectory: Trajectory, gold: str, grader: Grader, segmenter: Segmenter | None = None) -> Outcome:
    """Grade one completion; see :func:`outcomes`, which is faster for many."""
    return outcomes([trajectory], [gold], grader, segmenter)[0]


def outcomes(
    trajectories: Sequence[Trajectory], golds: Sequence[str], grader: Grader, segmenter: Segmenter | None = None
) -> list[Outcome]:
    """Grade completions: what reward and evaluation need to know of each.

    Args:
        trajectories: ``[completions]``.
        golds: ``[completions]`` gold answers.
        grader: Decides whether an answer equals its gold answer.
        segmenter: Counts the steps again in its own way; by default the count made during the rollout stands.

    Raises:
        ValueError: The two lists differ in length.
    """
    if len(trajectories) != len(golds):
        raise ValueError(f"{len(trajectories)} trajectories but {len(golds)} golds; pass one gold answer for each")
    answers = [extract_boxed(trajectory.text) for trajectory in trajectories]
    return [
        Outcome(
            correct=correct,
            formatted=answer is not None,
            steps=segmenter.count(trajectory.text) if segmenter else trajectory.steps,
            tokens=trajectory.tokens,
            answer=answer,
            truncated=trajectory.finish == "length",
            close=trajectory.close,
        )
        for trajectory, answer, correct in zip(trajectories, answers, grader.grade(answers, golds), strict=True)
    ]


def evaluate(
    model: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    samples: int = 1,
    limit: int,
    sampling: Sampling = EVALUATION_SAMPLING,
    settings: RolloutSettings | None = None,
    seed: int = 0,
    max_rows: int = 64,
    markers: str | Sequence[str] = "paper",
    segmenter: Segmenter | None = None,
    grader: Grader | None = None,
    suffix: str = "",
    keep_texts: int = 0,
    progress: Callable[[int, int], None] | None = None,
    shared: bool = False,
    engine: RolloutEngine | None = None,
) -> Evaluation:
    """Sample completions for every problem and grade them.

    The result depends on the model, the problems and the seed, not on ``max_rows``: every completion has its own key.

    Args:
        model, tokenizer: As loaded by :func:`stepgrpo_lab.engines.models.load_model`; with ``engine`` no
            model is needed.
        problems: ``[problems]`` with distinct ids.
        samples: Completions per problem; more samples, narrower intervals.
        limit: Completion limit in tokens.
        sampling: Temperature, top-p and top-k.
        settings: None for plain decoding; else the truncated rollout with these settings.
        seed: Seed of the completions.
        max_rows: Rows decoded side by side: memory against speed.
        markers: Words that open a semantic step, for counting steps.
        segmenter: Counts steps, and starts probes, in its own way in place of the markers.
        grader: A grader to reuse; by default one is started and closed.
        suffix: Text added to every question.
        keep_texts: For how many problems the first sample's text is kept.
        progress: Called with (finished, all) completions of this process after each one.
        shared: In a training of several processes, let each decode its share; all must call, and all get the whole.
        engine: Completes the prompts in place of ``model``, such as a vLLM engine with the same weights; by default a
            lockstep engine with ``max_rows``.

    Raises:
        ValueError: No problems, duplicate ids, or a setting out of range.

    Example:
        >>> from stepgrpo_lab import load_overthinker, overthinker_problems
        >>> evaluation = evaluate(*load_overthinker(), overthinker_problems("validation", 5), limit=256)
        >>> evaluation.summary()["accuracy"].estimate
        1.0
    """
    from stepgrpo_lab.engines.lockstep import LockstepEngine
    from stepgrpo_lab.engines.models import encode_prompt

    _check(problems, samples, limit)
    prompts = [encode_prompt(tokenizer, problem.prompt, suffix) for problem in problems]
    repeated = [problem for problem in problems for _ in range(samples)]
    share = my_share(len(repeated)) if shared else range(len(repeated))
    finished = 0

    def count_finished(index: int, trajectory: Trajectory) -> None:
        nonlocal finished
        finished += 1
        if progress:
            progress(finished, len(share))

    engine = engine or LockstepEngine(model, tokenizer, max_rows=max_rows)
    trajectories, cost = engine.generate(
        [prompts[index // samples] for index in share],
        limit=limit,
        keys=[SampleKey(seed, "eval", 0, index) for index in share],
        settings=settings,
        sampling=sampling,
        segmenter=segmenter,
        on_finish=count_finished,
    )
    if shared:
        trajectories, cost = gather_shares(trajectories), sum(gather_shares([cost]), Cost())
    with Grader() if grader is None else nullcontext(grader) as judge:
        golds = [problem.answer for problem in repeated]
        graded = outcomes(trajectories, golds, judge, segmenter or MarkerSegmenter(markers))
        trial_answers = _graded_probes(trajectories, golds, judge)
    return Evaluation(
        problem_ids=[problem.id for problem in problems],
        families=[problem.family for problem in problems],
        levels=[problem.level for problem in problems],
        outcomes=[graded[start : start + samples] for start in range(0, len(graded), samples)],
        trial_answers=trial_answers,
        cost=cost,
        settings={
            "samples": samples,
            "limit": limit,
            **dataclasses.asdict(sampling),
            "seed": seed,
            "markers": markers if isinstance(markers, str) else list(markers),
            "rollout": None if settings is None else dataclasses.asdict(settings),
            **({} if segmenter is None else {"segmenter": type(segmenter).__qualname__}),
        },
        texts={problem.id: trajectories[index * samples].text for index, problem in enumerate(problems[:keep_texts])},
    )


def _check(problems: Sequence[Problem], samples: int, limit: int) -> None:
    if not problems:
        raise ValueError("no problems to evaluate on; pass at least one")
    if samples < 1 or limit < 1:
        raise ValueError(f"samples is {samples} and limit is {limit}; both must be at least 1")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise ValueError(f"problem id {problem.id!r} occurs twice; give every problem its own id")
        seen.add(problem.id)


def _graded_probes(
    trajectories: Sequence[Trajectory], golds: Sequence[str], grader: Grader
) -> list[tuple[float, bool]]:
    """Probes that wrote no box state no probability of an answer, so they are left out."""
    boxed = [
        (probe.joint, probe.answer, gold)
        for trajectory, gold in zip(trajectories, golds, strict=True)
        for probe in trajectory.probes
        if probe.answer is not None
    ]
    verdicts = grader.grade([answer for _, answer, _ in boxed], [gold for _, _, gold in boxed])
    return [(joint, correct) for (joint, _, _), correct in zip(boxed, verdicts, strict=True)]
