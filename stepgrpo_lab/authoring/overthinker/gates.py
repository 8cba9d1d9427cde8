"""The gates of Overthinker 2: what a laboratory must show before any method is tried in it.

They are measured on problems of their own split, at temperature 0.6 and threshold 0.95 for both presets, and every
bound stands in :data:`BOUNDS`. A completion that is watched (probed at every marker, with a threshold that nothing
exceeds) *is* the completion of plain decoding, so one run gives both.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stepgrpo_lab.authoring.overthinker.card import Gate
from stepgrpo_lab.authoring.overthinker.leaping import COMPLETION_LIMIT
from stepgrpo_lab.authoring.overthinker.stages import Progress
from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.evaluation.results import Evaluation, compare
from stepgrpo_lab.evaluation.statistics import Calibration, calibration
from stepgrpo_lab.method.records import Problem, Trajectory
from stepgrpo_lab.method.settings import PRESETS, RolloutSettings, cut_at_first_marker, rollout_settings
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.leaps import LEAP
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.overthinker.verifier import derived_answers, leaps

EASIEST = ("chain", 1)
HARD = {"chain": (4, 5, 6), "search": (2, 3)}
"""Levels of each family where a cut must cost much."""

ECE_BINS, WIDTH_BINS = 15, 10

Figures = dict[str, float]

Bounds = dict[str, tuple[float, float, str]]
"""Figure -> least, most, and what it is."""

BOUNDS: Bounds = {
    "accuracy": (0.70, 0.85, "accuracy of plain decoding"),
    "hardest_level": (0.30, 1.0, "accuracy on the hardest level"),
    "easiest_but_one": (0.0, 0.97, "accuracy on the easiest level but one"),
    "flips": (0.05, 0.20, "a right derivation was written, the answer is wrong"),
    "truncated": (0.03, 0.10, "cut off at the limit"),
    "stopper_points": (6, 100, "points that a perfect stopper gains, less the gain of one with shuffled truth"),
    "stopper_tokens": (0.0, 0.60, "share of the tokens that a perfect stopper writes"),
    **{
        f"{figure}_{preset}": (least, most, f"`{preset}`: {asks}")
        for preset in PRESETS
        for figure, least, most, asks in (
            ("deer_points_low", 0.01, 100, "lower end of the points that the truncated rollout gains"),
            ("deer_saves", 0.20, 1.0, "share of the tokens that the truncated rollout saves"),
            ("ece_first", 0.0, 0.05, "calibration error (15 bins of equal mass) at the first marker"),
            ("ece_all", 0.0, 0.05, "calibration error at every marker of watched completions"),
            ("spread", 0.4, 1.0, "10 to 90 % quantiles of the probability stated at the first marker"),
            ("fullest_bin", 0.0, 0.40, "share of first markers in the fullest of 10 bins of equal width"),
            ("forced_logprob", -3, 0, "mean log-probability of a forced token"),
        )
    },
    **{
        f"cut_{family}": (15, 100, f"{family}, hard levels: points that a cut at the first marker costs")
        for family in HARD
    },
    "cut_easiest": (-100, 3, "easiest level: points that a cut at the first marker costs"),
    "second_hard": (20, 100, "hard chains: points that the second derivation is above the first"),
    "second_easiest": (-100, 2, "easiest level: points that the second derivation is above the first"),
}
"""What the untrained model must show."""

TRAINED_BOUNDS: Bounds = {
    "cut_points": (8, 100, "points that a cut at the first marker still costs"),
    "leap_moved": (-0.05, 0.05, "change of the share of leaps that are right"),
}
"""What must still hold after GRPO: what was needed is needed, and leaps err as before."""


def leap_gates(gated: Figures, bounds: Bounds = BOUNDS) -> list[Gate]:
    """Every gate, from the figures ``gated`` of :func:`measure_gates`, or from :func:`measure_trained`."""
    return [
        Gate(f"{asks}: {least:g} to {most:g}", f"{gated[name]:.3f}", least <= gated[name] <= most)
        for name, (least, most, asks) in bounds.items()
    ]


# ---- what was sampled ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """One completion of plain decoding and what it derived on the way.

    Attributes:
        problem: The problem.
        derived: ``[steps]`` the answer of each derivation, as
            :func:`stepgrpo_lab.overthinker.verifier.derived_answers`.
        step_ends: ``[steps]`` tokens written when the step ends.
        answer: The final answer, if there is one.
        tokens: Length of the completion.
        truncated: Whether it was cut off at the limit.
    """

    problem: Problem
    derived: list[str | None]
    step_ends: list[int]
    answer: str | None
    tokens: int
    truncated: bool

    @property
    def right(self) -> bool:
        """Whether the final answer is right."""
        return self.answer == self.problem.answer


CLOSING_TOKENS = 8
"""Tokens that end a stopped completion: line break, ``</think>``, blank line, the four of a box, end of turn."""


def stopper(samples: Sequence[Sample], truths: Sequence[str]) -> tuple[float, float]:
    """What a stopper gains that ends every completion at its first derivation of ``truths``.

    Returns:
        Points of agreement with ``truths`` gained over the final answers, and the share of the tokens it writes.
    """
    gained = written = 0
    for sample, truth in zip(samples, truths, strict=True):
        stops = truth in sample.derived
        gained += stops - (sample.answer == truth) if stops else 0
        written += sample.step_ends[sample.derived.index(truth)] + CLOSING_TOKENS if stops else sample.tokens
    return 100 * gained / len(samples), written / sum(sample.tokens for sample in samples)


def shuffled_truths(samples: Sequence[Sample]) -> list[str]:
    """For each sample the answer of the next problem of its own family and level: a truth without a meaning."""
    truths = [sample.problem.answer for sample in samples]
    kinds: dict[tuple[str, int | None], list[int]] = {}
    for place, sample in enumerate(samples):
        kinds.setdefault((sample.problem.family, sample.problem.level), []).append(place)
    shuffled = list(truths)
    for places in kinds.values():
        for place, other in zip(places, [*places[1:], places[0]], strict=True):
            shuffled[place] = truths[other]
    return shuffled


def second_over_first(samples: Iterable[Sample]) -> float:
    """Points that the second derivation is right more often than the first, where there are two."""
    pairs = [
        (sample.derived[0], sample.derived[1], sample.problem.answer) for sample in samples if len(sample.derived) > 1
    ]
    return (
        100 * statistics.fmean((second == truth) - (first == truth) for first, second, truth in pairs) if pairs else 0.0
    )


def derivation_figures(samples: Sequence[Sample]) -> Figures:
    """Flips, what is cut off, perfect stoppers, and second derivations against first ones."""
    gained, written = stopper(samples, [sample.problem.answer for sample in samples])
    by_luck, _ = stopper(samples, shuffled_truths(samples))
    chains = [sample for sample in samples if sample.problem.family == "chain"]
    return {
        "flips": statistics.fmean(not sample.right and sample.problem.answer in sample.derived for sample in samples),
        "truncated": statistics.fmean(sample.truncated for sample in samples),
        "stopper_points": gained - by_luck,
        "stopper_tokens": written,
        "second_hard": second_over_first(sample for sample in chains if sample.problem.level in HARD["chain"]),
        "second_easiest": second_over_first(sample for sample in chains if sample.problem.level == EASIEST[1]),
    }


def reliability(stated: Sequence[tuple[float, bool]], bins: int, *, equal_mass: bool = False) -> Calibration:
    """Reliability of (joint probability, whether right) pairs."""
    return calibration([joint for joint, _ in stated], [right for _, right in stated], bins, equal_mass=equal_mass)


def probe_figures(watched: Sequence[Trajectory], truths: Sequence[str]) -> Figures:
    """How well the trial answers of watched completions are calibrated, and how far they are spread."""
    stated = [
        [(probe.joint, probe.answer == truth) for probe in trajectory.probes]
        for trajectory, truth in zip(watched, truths, strict=True)
    ]
    first = [probes[0] for probes in stated if probes]
    everywhere = list(itertools.chain.from_iterable(stated))
    if len(first) < 2:
        return {"ece_first": 1.0, "ece_all": 1.0, "spread": 0.0, "fullest_bin": 1.0}
    probabilities = [joint for joint, _ in first]
    deciles = statistics.quantiles(probabilities, n=10)
    fullest = max(part.count for part in reliability(first, WIDTH_BINS).bins)
    return {
        "ece_first": reliability(first, ECE_BINS, equal_mass=True).ece,
        "ece_all": reliability(everywhere, ECE_BINS, equal_mass=True).ece,
        "spread": deciles[-1] - deciles[0],
        "fullest_bin": fullest / len(first),
    }


def forced_logprob(model: Any, trajectories: Sequence[Trajectory], rows: int = 64) -> float:
    """Mean log-probability (nats, temperature 1) of the tokens that exits forced into completions."""
    import torch

    forced = sorted((t for t in trajectories if any(t.forced)), key=lambda trajectory: trajectory.tokens)
    values: list[float] = []
    for part in (forced[start : start + rows] for start in range(0, len(forced), rows)):
        ids = [torch.tensor([*trajectory.prompt_ids, *trajectory.completion_ids]) for trajectory in part]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        with torch.no_grad():
            logprobs = model(input_ids=padded, use_cache=False).logits[:, :-1].float().log_softmax(-1)
        chosen = logprobs.gather(-1, padded[:, 1:, None])[..., 0]
        for row, trajectory in enumerate(part):
            start = len(trajectory.prompt_ids) - 1
            values += [chosen[row, start + place].item() for place, was in enumerate(trajectory.forced) if was]
    return statistics.fmean(values) if values else 0.0


# ---- the measurement -------------------------------------------------------------------------------------------------


class _Keeping:
    """An engine that also keeps the trajectories of its last call."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.token_text = engine, engine.token_text
        self.trajectories: list[Trajectory] = []

    def generate(self, *arguments: Any, **options: Any) -> Any:
        self.trajectories, cost = self.engine.generate(*arguments, **options)
        return self.trajectories, cost


Run = Callable[[str, RolloutSettings | None], tuple[Evaluation, list[Trajectory]]]


def runner(
    model: Any,
    tokenizer: Any,
    problems: Sequence[Problem],
    seed: int,
    progress: Progress | None,
    *,
    limit: int = COMPLETION_LIMIT,
    rows: int = 160,
) -> Run:
    """Measures the model under some rollout; the trajectories come beside the evaluation."""
    from stepgrpo_lab.engines.lockstep import LockstepEngine

    engine = _Keeping(LockstepEngine(model, tokenizer, max_rows=rows))

    def run(name: str, settings: RolloutSettings | None) -> tuple[Evaluation, list[Trajectory]]:
        report = (lambda done, total: progress(name, done, total, 0.0)) if progress else None
        measured = evaluate(
            None,
            tokenizer,
            problems,
            limit=limit,
            settings=settings,
            seed=seed,
            engine=engine,
            progress=report,
        )
        return measured, engine.trajectories

    return run


def watching(preset: str) -> RolloutSettings:
    """A rollout that asks at every marker and never exits."""
    return rollout_settings(
        preset, markers="paper", exit_threshold=1.0, near_budget_margin=0, think_budget=1.0, max_probes=COMPLETION_LIMIT
    )


def exiting(preset: str) -> RolloutSettings:
    """The truncated rollout that the gates ask about."""
    return rollout_settings(preset, markers="paper", near_budget_margin=0)


def sampled(problem: Problem, trajectory: Trajectory, answer: str | None, text: TokenText) -> Sample:
    """A watched completion as a :class:`Sample`."""
    steps = MarkerSegmenter("paper").split_ids(trajectory.completion_ids, text)
    return Sample(
        problem,
        derived_answers(problem, trajectory.text),
        [step.token_end or 0 for step in steps],
        answer,
        trajectory.tokens,
        trajectory.finish == "length",
    )


def measure_gates(
    model: Any, tokenizer: Any, count: int = 2000, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """The figures that the gates ask for, on ``count`` problems of the split "gates".

    Returns:
        JSON-able: ``gated`` (the names of :data:`BOUNDS`); ``levels``, ``leaps`` and ``examples`` for the card; the
        summaries ``plain``, ``cut`` and ``deer`` by preset; ``reliability`` at the first marker by preset.

    Example:
        >>> measure_gates(*load_overthinker("overthinker-2"), count=100)  # doctest: +SKIP
    """
    problems = overthinker_problems("gates", count, seed=seed, laboratory="overthinker-2")
    truths = [problem.answer for problem in problems]
    text = TokenText.from_tokenizer(tokenizer)
    run = runner(model, tokenizer, problems, seed, progress)
    gated: Figures = {}
    deer: dict[str, dict[str, Any]] = {}
    stated: dict[str, Calibration] = {}
    for preset in PRESETS:
        plain, watched = run(f"watch, {preset}", watching(preset))
        gated |= {f"{name}_{preset}": value for name, value in probe_figures(watched, truths).items()}
        stated[preset] = reliability(_first_probes(watched, truths), WIDTH_BINS)
        stopped, trajectories = run(f"truncated rollout, {preset}", exiting(preset))
        change = compare(plain, stopped)
        gated[f"deer_points_low_{preset}"] = change.accuracy_points.low
        gated[f"deer_saves_{preset}"] = 1 - change.token_ratio.estimate
        gated[f"forced_logprob_{preset}"] = forced_logprob(model, trajectories)
        deer[preset] = {**stopped.summary(), "change": change.accuracy_points, "early": _early(trajectories)}
    cut, _ = run("cut at the first marker", cut_at_first_marker(exiting("official")))
    answers = [samples[0].answer for samples in plain.outcomes]
    samples = [sampled(*each, text) for each in zip(problems, watched, answers, strict=True)]
    gated |= derivation_figures(samples) | level_figures(plain, cut)
    return {
        "problems": count,
        "gated": gated,
        "levels": level_table(plain, cut, samples),
        "leaps": leap_accuracy(trajectory.text for trajectory in watched),
        "plain": plain.summary(),
        "cut": cut.summary(),
        "deer": deer,
        "reliability": stated,
        "texts": {problem.id: trajectory.text for problem, trajectory in zip(problems, watched, strict=True)},
    }


def measure_trained(
    model: Any,
    tokenizer: Any,
    before: dict[str, float],
    count: int = 2000,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Figures:
    """The figures of :data:`TRAINED_BOUNDS`, of a model that was trained from Overthinker 2.

    Args:
        model, tokenizer: The trained model.
        before: ``leaps`` of the untrained one, as :func:`measure_gates` measured them.
        count, seed, progress: As there.

    Returns:
        Also its accuracy, its tokens and the share of leaps that are right.
    """
    problems = overthinker_problems("gates", count, seed=seed, laboratory="overthinker-2")
    run = runner(model, tokenizer, problems, seed, progress)
    plain, trajectories = run("plain decoding", None)
    cut, _ = run("cut at the first marker", cut_at_first_marker(exiting("official")))
    right = leap_accuracy(trajectory.text for trajectory in trajectories)[str(LEAP)]
    return {
        "cut_points": 100 * (plain.mean("correct") - cut.mean("correct")),
        "leap_moved": right - before[str(LEAP)],
        "leaps": right,
        "accuracy": plain.mean("correct"),
        "tokens": plain.mean("tokens"),
    }


def _first_probes(watched: Sequence[Trajectory], truths: Sequence[str]) -> list[tuple[float, bool]]:
    pairs = [(t.probes[0], truth) for t, truth in zip(watched, truths, strict=True) if t.probes]
    return [(probe.joint, probe.answer == truth) for probe, truth in pairs] or [(0.0, False)]


def _early(trajectories: Sequence[Trajectory]) -> float:
    return statistics.fmean(trajectory.close == "early" for trajectory in trajectories)


def _part(evaluation: Evaluation, family: str, levels: Sequence[int]) -> Evaluation:
    return evaluation.subset(
        [name == family and level in levels for name, level in zip(evaluation.families, evaluation.levels, strict=True)]
    )


def _kinds(evaluation: Evaluation) -> list[tuple[str, int]]:
    return sorted({(family, level or 0) for family, level in zip(evaluation.families, evaluation.levels, strict=True)})


def level_figures(plain: Evaluation, cut: Evaluation) -> Figures:
    """Accuracy overall and at its extremes, and what a cut at the first marker costs."""

    def accuracy(evaluation: Evaluation, family: str, levels: Sequence[int]) -> float:
        return _part(evaluation, family, levels).mean("correct")

    def cost(family: str, levels: Sequence[int]) -> float:
        return 100 * (accuracy(plain, family, levels) - accuracy(cut, family, levels))

    by_level = {kind: accuracy(plain, kind[0], [kind[1]]) for kind in _kinds(plain)}
    return {
        "accuracy": plain.mean("correct"),
        "hardest_level": min(by_level.values()),
        "easiest_but_one": max(value for kind, value in by_level.items() if kind != EASIEST),
        "cut_easiest": cost(EASIEST[0], [EASIEST[1]]),
        **{f"cut_{family}": cost(family, levels) for family, levels in HARD.items()},
    }


def level_table(plain: Evaluation, cut: Evaluation, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """One row for each family and level, for the card."""
    rows = []
    for family, level in _kinds(plain):
        here, stopped = _part(plain, family, [level]), _part(cut, family, [level])
        derived = [s for s in samples if (s.problem.family, s.problem.level) == (family, level)]
        rows.append(
            {
                "family": family,
                "level": level,
                "problems": len(derived),
                "accuracy": here.mean("correct"),
                "tokens": here.mean("tokens"),
                "steps": here.mean("steps"),
                "cut_accuracy": stopped.mean("correct"),
                "first_right": statistics.fmean(s.derived[0] == s.problem.answer for s in derived),
                "flips": derivation_figures(derived)["flips"],
            }
        )
    return rows


def leap_accuracy(texts: Iterable[str]) -> dict[str, float]:
    """Share of written equations that are right, by how many operations they take at once ("1", "2")."""
    written = list(itertools.chain.from_iterable(map(leaps, texts)))
    widths = range(1, LEAP + 1)
    return {
        str(width): statistics.fmean([right for size, right in written if size == width] or [0]) for width in widths
    }
