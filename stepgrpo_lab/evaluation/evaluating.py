"""Measure a model on problems, and compare two measurements problem by problem.

Plain decoding by default: the question is what the model has learned, not what an exit rule can do to it. With
``RolloutSettings`` the same call evaluates the truncated rollout, which is DEER (arXiv 2504.15895).
"""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from statistics import fmean
from typing import TYPE_CHECKING, Any

from stepgrpo_lab.engines.completions import Decoding, OnFinish
from stepgrpo_lab.engines.distributed import all_gather_shares, rank_share
from stepgrpo_lab.evaluation.grading import Grader
from stepgrpo_lab.evaluation.problems import check_golds_of_a_set
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.records import Cost, Outcome, Problem, Trajectory
from stepgrpo_lab.method.sampling import SampleKey, Sampling
from stepgrpo_lab.method.settings import RolloutSettings, cut_at_first_marker
from stepgrpo_lab.method.steps import MarkerSegmenter, Segmenter
from stepgrpo_lab.method.token_text import THINK_CLOSE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from stepgrpo_lab.engines.completions import RolloutEngine

EVALUATION_SAMPLING = Sampling(temperature=0.6, top_p=0.95, top_k=20)
"""Qwen3's recommended decoding in thinking mode; its makers advise against greedy decoding there."""


RAW_ACCURACY = "raw_math_verify_accuracy"
"""Under this name a record's settings hold the accuracy by math-verify alone, as published figures have it."""


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
    raw: bool = False,
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
        raw: Also note the accuracy that math-verify alone would state, under :data:`RAW_ACCURACY` in the settings.

    Golds that cannot be graded are counted in a warning, and a set with more than a tenth of them is refused. Where no
    completion has a tag of thoughts, a warning says so and the boxes are graded wherever they stand.

    Raises:
        ValueError: No problems, duplicate ids, golds that cannot be graded, or a setting out of range.

    Example:
        >>> from stepgrpo_lab import load_overthinker, overthinker_problems
        >>> evaluation = evaluate(*load_overthinker(), overthinker_problems("validation", 5), limit=256)
        >>> evaluation.summary()["accuracy"].estimate
        1.0
    """
    from stepgrpo_lab.engines.lockstep import LockstepEngine
    from stepgrpo_lab.engines.tokenizers import encode_prompt

    _check(problems, samples, limit)
    prompts = [encode_prompt(tokenizer, problem.prompt, suffix) for problem in problems]
    repeated = [problem for problem in problems for _ in range(samples)]
    share = rank_share(len(repeated)) if shared else range(len(repeated))
    with Grader() if grader is None else nullcontext(grader) as checking:
        unusable = check_golds_of_a_set(problems, checking)
    engine = engine or LockstepEngine(model, tokenizer, max_rows=max_rows)
    decoding = Decoding(limit, settings, sampling, segmenter)
    trajectories, cost = engine.generate(
        [prompts[index // samples] for index in share],
        decoding,
        keys=[SampleKey(seed, "eval", 0, index) for index in share],
        on_finish=_counting(progress, len(share)),
    )
    if shared:
        trajectories, cost = all_gather_shares(trajectories), sum(all_gather_shares([cost]), Cost())
    with Grader() if grader is None else nullcontext(grader) as running:
        golds = [problem.answer for problem in repeated]
        graded = outcomes(trajectories, golds, running, segmenter or MarkerSegmenter(markers))
        if settings is None and _never_thinks(trajectories):
            graded = _outcomes_without_thoughts(trajectories, golds, graded, running)
        trial_answers = _graded_probes(trajectories, golds, running)
        noted: dict[str, Any] = {"unusable_golds": unusable} if unusable else {}
        if raw:
            noted[RAW_ACCURACY] = fmean(running.grade_raw([each.answer for each in graded], golds))
    return Evaluation(
        problem_ids=[problem.id for problem in problems],
        families=[problem.family for problem in problems],
        levels=[problem.level for problem in problems],
        outcomes=[graded[start : start + samples] for start in range(0, len(graded), samples)],
        trial_answers=trial_answers,
        cost=cost,
        settings=_recorded_settings(decoding, samples, seed, markers) | noted,
        texts={problem.id: trajectories[index * samples].text for index, problem in enumerate(problems[:keep_texts])},
    )


def _never_thinks(trajectories: Sequence[Trajectory]) -> bool:
    """Whether no completion has a tag of thoughts, though some end by themselves and box an answer."""
    if any(tag in trajectory.text for trajectory in trajectories for tag in ("<think>", THINK_CLOSE)):
        return False
    return any(_answer_without_thoughts(trajectory) is not None for trajectory in trajectories)


def _answer_without_thoughts(trajectory: Trajectory) -> str | None:
    """The boxed answer of a completion that is all answer; thoughts that were cut off box nothing."""
    return extract_boxed(THINK_CLOSE + trajectory.text) if trajectory.finish == "eos" else None


def _outcomes_without_thoughts(
    trajectories: Sequence[Trajectory], golds: Sequence[str], graded: Sequence[Outcome], grader: Grader
) -> list[Outcome]:
    """Grade what a model that never thinks boxes anywhere in its completions; their format stays wrong."""
    answers = [_answer_without_thoughts(trajectory) for trajectory in trajectories]
    warnings.warn(
        f"none of the {len(trajectories)} completions has a {THINK_CLOSE}: this model does not think, so what "
        f"{sum(answer is not None for answer in answers)} of them box anywhere is graded. A training counts no such "
        "answer: teach the tags by supervised fine-tuning first, or choose a model that thinks",
        UserWarning,
        stacklevel=3,
    )
    verdicts = grader.grade(answers, golds)
    return [
        dataclasses.replace(outcome, correct=correct, answer=answer)
        for outcome, correct, answer in zip(graded, verdicts, answers, strict=True)
    ]


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


def _counting(progress: Callable[[int, int], None] | None, total: int) -> OnFinish:
    finished = itertools.count(1)

    def on_finish(index: int, trajectory: Trajectory) -> None:
        if progress:
            progress(next(finished), total)

    return on_finish


def _recorded_settings(decoding: Decoding, samples: int, seed: int, markers: str | Sequence[str]) -> dict[str, Any]:
    return {
        "samples": samples,
        "limit": decoding.limit,
        **dataclasses.asdict(decoding.sampling),
        "seed": seed,
        "markers": markers if isinstance(markers, str) else list(markers),
        "rollout": None if decoding.settings is None else dataclasses.asdict(decoding.settings),
        **({} if decoding.segmenter is None else {"segmenter": type(decoding.segmenter).__qualname__}),
    }


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


# ---- validation during training: what the model has learned, and what only the rollout adds -------------------------

Measure = Callable[[RolloutSettings | None], Evaluation]
"""Evaluates the policy on the held-out problems: plain decoding (None), or a truncated rollout."""


def validation_figures(measure: Measure, rollout: RolloutSettings | None) -> dict[str, float]:
    """The figures of one validation.

    Args:
        measure: See :data:`Measure`.
        rollout: The truncated rollout of the training; None if it trains without one.

    Returns:
        Means over completions under plain decoding: ``accuracy``, ``tokens``, ``steps``, ``truncated``. With a
        truncated rollout also ``rollout_accuracy`` and ``rollout_tokens`` under it: ``tokens - rollout_tokens`` is what
        the model has *not* made its own. And ``first_cut_accuracy``, when all thoughts end at the first marker (as long
        as it stays low, later steps are needed), with ``first_probe_ece``, the calibration error (10 bins, joint
        probability) of the trial answers given there.
    """
    plain = measure(None)
    figures = {
        "accuracy": plain.mean("correct"),
        "tokens": plain.mean("tokens"),
        "steps": plain.mean("steps"),
        "truncated": plain.mean("truncated"),
    }
    if rollout is None:
        return figures
    truncated, cut = measure(rollout), measure(cut_at_first_marker(rollout))
    figures |= {
        "rollout_accuracy": truncated.mean("correct"),
        "rollout_tokens": truncated.mean("tokens"),
        "first_cut_accuracy": cut.mean("correct"),
    }
    calibration = cut.calibration()
    return figures if calibration is None else {**figures, "first_probe_ece": calibration.ece}
