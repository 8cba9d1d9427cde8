"""Measures models for an experiment: held-out problems, harder ones, and which of their steps were needed."""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from stepgrpo_lab.engines.completions import RolloutEngine
from stepgrpo_lab.engines.files import read_json, write_atomically
from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.evaluation.results import Evaluation, compare, overall_figures
from stepgrpo_lab.evaluation.statistics import Interval, calibration
from stepgrpo_lab.experiments.plan import Plan
from stepgrpo_lab.experiments.record import CHANGES, Measurement, Structure
from stepgrpo_lab.method.records import Problem, from_json
from stepgrpo_lab.method.settings import RolloutSettings, cut_at_first_marker, rollout_settings
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.tasks import find_laboratory, overthinker_problems
from stepgrpo_lab.overthinker.verifier import checking_habits, structure
from stepgrpo_lab.recipes import Recipe
from stepgrpo_lab.recipes._building import recipe_sampling, sampling_engine

Model = tuple[Any, Any]
"""A model and its tokenizer."""


MEASURED = "measured.json"


def harder_problems(count: int, laboratory: str = "overthinker") -> list[Problem]:
    """Test problems that are harder than anything trained on: of each family, the level above its last, in turn.

    Example:
        >>> [(problem.family, problem.level) for problem in harder_problems(2)]
        [('chain', 4), ('search', 3)]
    """
    levels, each_family = (
        find_laboratory(laboratory).level_weights,
        partial(overthinker_problems, laboratory=laboratory),
    )
    each = [
        each_family("test", -(-count // len(levels)), family=family, level=max(levels[family]) + 1)
        for family in sorted(levels)
    ]
    return [problem for group in zip(*each, strict=True) for problem in group][:count]


@dataclass(frozen=True)
class Measured:
    """One model on the plan's problems.

    Attributes:
        test: The evaluation, with the text of every problem's first sample.
        structure: Steps by true label, on the test problems.
        seconds: Wall-clock time of the measurement.
        harder: The evaluation on harder problems, if the plan has any.
        first_cut: The evaluation on the test problems with all thoughts cut at the first marker, if the plan has one.
        longer: The evaluation of the first test problems with twice the token limit, if the plan has one.
    """

    test: Evaluation
    structure: Structure
    seconds: float
    harder: Evaluation | None = None
    first_cut: Evaluation | None = None
    longer: Evaluation | None = None

    @property
    def tokens_fed(self) -> float:
        """Tokens fed through the model for a test completion, probes included."""
        return self.test.cost.decoded_tokens / sum(map(len, self.test.outcomes))

    def cut_changes(self) -> dict[str, Interval]:
        """Family -> what the cut at the first marker changes in the accuracy, in points."""
        families = compare(self.test, self.first_cut).families if self.first_cut else {}
        return {family: comparison.accuracy_points for family, comparison in families.items()}


@dataclass
class Measuring:
    """Measures models on the same problems.

    Attributes:
        plan: How many problems and samples.
        progress: Receives one line at a time.
    """

    plan: Plan
    progress: Callable[[str], None] = lambda line: None
    _test: list[Problem] = field(default_factory=list)

    def habits(self, seeds: Sequence[Evaluation]) -> dict[str, float]:
        """How a row derives and checks on the test problems, averaged over its seeds; nothing in laboratory 1."""
        if self.plan.recipe == "overthinker":
            return {}
        problems = overthinker_problems(self.plan.split, self.plan.test, laboratory=self.plan.recipe)
        means = [
            checking_habits(
                problems,
                run.texts,
                {name: first.correct for name, (first, *_) in zip(run.problem_ids, run.outcomes, strict=True)},
            )
            for run in seeds
        ]
        shared = [name for name in means[0] if all(name in mean for mean in means)]
        return {name: statistics.fmean(mean[name] for mean in means) for name in shared}

    @staticmethod
    def read(place: Path) -> Measured:
        """A measurement that was made before, from a run folder."""
        return read_json(place / MEASURED, partial(from_json, Measured), "remove the file to measure again")

    def measured(
        self, place: Path, recipe: Recipe, load: Callable[[], Model], settings: RolloutSettings | None = None
    ) -> Measured:
        """A measurement from its file in a run folder, or made now and written there.

        Args:
            place: The run folder.
            recipe: Limit, decoding, markers and seed.
            load: Gives the model; called only if there is something to measure.
            settings: Measure under the truncated rollout instead of plain decoding.
        """
        path = place / MEASURED
        if path.exists():
            return self.read(place)
        plan, started = self.plan, time.perf_counter()
        self._test = self._test or overthinker_problems(plan.split, plan.test, laboratory=plan.recipe)
        also = f" and {plan.harder} harder ones" if plan.harder else ""
        self.progress(f"measuring {place.name} on {plan.test} {plan.split} problems{also}")
        model = load()
        with sampling_engine(recipe, *model) as engine:
            evaluation = partial(self.evaluation, model, recipe=recipe, samples=plan.samples, engine=engine)
            test = evaluation(self._test, settings=settings)
            harder = harder_problems(plan.harder, plan.recipe)
            harder_ones = evaluation(harder, settings=settings) if harder else None
            cut = evaluation(self._test, settings=first_cut(recipe)) if plan.first_cut else None
            some = self._test[: plan.twice_the_limit]
            longer = evaluation(some, settings=settings, times=2) if some else None
        measured = Measured(
            test=test,
            structure=structure(self._test, test.texts, TokenText.from_tokenizer(model[1])),
            harder=harder_ones,
            first_cut=cut,
            longer=longer,
            seconds=round(time.perf_counter() - started, 1),
        )
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(dataclasses.asdict(measured)))
        return measured

    def evaluation(
        self,
        model: Model,
        problems: Sequence[Problem],
        recipe: Recipe,
        samples: int = 1,
        settings: RolloutSettings | None = None,
        engine: RolloutEngine | None = None,
        times: int = 1,
    ) -> Evaluation:
        """Evaluate as the recipe says, with so many times its limit; an engine samples in place of the model."""
        return evaluate(
            *model,
            problems,
            samples=samples,
            limit=times * recipe.rollout.max_tokens,
            sampling=recipe_sampling(recipe.evaluation),
            settings=settings,
            seed=recipe.seed,
            max_rows=recipe.rollout.rows,
            markers=recipe.rollout.markers,
            suffix=recipe.data.suffix,
            keep_texts=len(problems),
            engine=engine,
        )


def first_cut(recipe: Recipe) -> RolloutSettings:
    """The rollout that closes all thoughts at the first marker."""
    return cut_at_first_marker(rollout_settings(recipe.rollout.preset, markers=recipe.rollout.markers))


def measure(vanilla: Evaluation, *seeds: Evaluation) -> Measurement:
    """Figures of a row against the untrained model on the same problems, with its families and levels.

    Args:
        vanilla: The untrained model.
        seeds: One evaluation for each training run; of several, the intervals cover the seeds too.
    """
    parts = {
        name: _measurement(vanilla.subset(keep), [each.subset(keep) for each in seeds])
        for name, keep in _parts_of(vanilla).items()
    }
    return dataclasses.replace(_measurement(vanilla, seeds), parts=parts)


def contrast(before: Sequence[Evaluation], after: Sequence[Evaluation]) -> Measurement:
    """Changes of one row against another one, overall and by family; intervals over problems and both rows' seeds."""
    change, samples = compare(before, *after), sum(len(run.outcomes[0]) for run in after)
    parts = {
        name: Measurement(part.problems, samples, part.accuracy_points, part.token_ratio)
        for name, part in change.families.items()
    }
    return Measurement(change.problems, samples, change.accuracy_points, change.token_ratio, parts=parts)


def tokens_given(*seeds: Evaluation) -> dict[str, float]:
    """Mean tokens of the completions that are right, and of those that are wrong; without a kind that has none."""
    outcomes = [outcome for seed in seeds for problem in seed.outcomes for outcome in problem]
    kinds = {"right": True, "wrong": False}
    lengths = {name: [one.tokens for one in outcomes if one.correct == kind] for name, kind in kinds.items()}
    return {name: statistics.fmean(tokens) for name, tokens in lengths.items() if tokens}


def calibration_at_first_marker(cuts: Sequence[Evaluation]) -> dict[str, float] | None:
    """How sure a row's first trial answers are, and how often right: each run's figures, averaged.

    Args:
        cuts: For each run, the evaluation with all thoughts cut at the first marker: one trial answer a thought.
    """
    pairs = [list(zip(*cut.trial_answers, strict=True)) for cut in cuts if cut.trial_answers]
    runs = [
        (statistics.fmean(stated), statistics.fmean(right), calibration(stated, right, 15, equal_mass=True).ece)
        for stated, right in pairs
    ]
    means = map(statistics.fmean, zip(*runs, strict=True))
    return dict(zip(("stated", "right", "ece"), means, strict=True)) if runs else None


def measure_run(vanilla: Evaluation, after: Evaluation) -> Measurement:
    """Changes of one run against the untrained model, overall and by family; intervals over problems."""
    return contrast([vanilla], [after])


def _parts_of(evaluation: Evaluation) -> dict[str, list[bool]]:
    """Family, and level of a family -> which problems belong to it."""
    names = list(zip(evaluation.families, evaluation.levels, strict=True))
    parts = {}
    for family in sorted(set(evaluation.families)):
        parts[family] = [name[0] == family for name in names]
        for level in sorted({level for of, level in names if of == family and level is not None}):
            parts[f"{family}, level {level}"] = [name == (family, level) for name in names]
    return parts


def _measurement(vanilla: Evaluation, seeds: Sequence[Evaluation]) -> Measurement:
    comparison = compare(vanilla, *seeds)
    changes = {name: getattr(comparison, name) for name in CHANGES}
    return Measurement(**overall_figures(*seeds), **changes)


def mean_structure(parts: Sequence[Structure]) -> Structure:
    """The structures of several runs of the same problems, averaged.

    Example:
        >>> mean_structure([{"all": {"needed": 1.0}}, {"all": {"needed": 2.0}}])
        {'all': {'needed': 1.5}}
        >>> mean_structure([{"all": {"needed": 1.0}}, {"all": {"needed": 1.0, "spoiling": 1.0}}])  # one saw none
        {'all': {'needed': 1.0, 'spoiling': 0.5}}
    """
    labels = {name: list(dict.fromkeys(label for part in parts for label in part[name])) for name in parts[0]}
    return {
        name: {label: sum(part[name].get(label, 0.0) for part in parts) / len(parts) for label in shown}
        for name, shown in labels.items()
    }
