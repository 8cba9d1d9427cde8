"""Runs an experiment: trains, chooses learning rates, measures. What is done is not done again.

Several processes may work in one folder: each row has a lock, and a process takes the rows that no other one holds.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from filelock import FileLock

from stepgrpo_lab.engines.files import SMALL, read_json, write_atomically
from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.engines.signals import RunStopped
from stepgrpo_lab.engines.writers import InUseError, Writer
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.evaluation.statistics import t_interval
from stepgrpo_lab.experiments._measure import (
    Measured,
    Measuring,
    calibration_at_first_marker,
    contrast,
    mean_structure,
    measure,
    measure_run,
    tokens_given,
)
from stepgrpo_lab.experiments._page import write_record
from stepgrpo_lab.experiments.plan import MOST_STEPS, Experiment, Plan, chosen_rate, validation_score
from stepgrpo_lab.experiments.record import CURVES, Contrast, Record, RowResult, SeedResult
from stepgrpo_lab.experiments.rows import ROWS, STEP_GRPO, VANILLA_ROW, Row, find_rows
from stepgrpo_lab.method.records import from_json
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.recipes._building import recipe_model, sampling_engine
from stepgrpo_lab.run import job
from stepgrpo_lab.run.folder import read_environment, read_evaluation
from stepgrpo_lab.training.callbacks import duration
from stepgrpo_lab.training.metrics import run_curves, run_decoded_tokens

Progress = Callable[[str], None]

PLAN_FILE = "plan.json"

WAIT = 5.0
"""Seconds between two looks at rows that another process holds."""


def run_experiment(
    experiment: Experiment,
    folder: str | Path,
    names: Iterable[str] = (),
    *,
    hours: float = 6.0,
    overrides: Sequence[str] = (),
    progress: Progress = lambda line: None,
    progress_every: int = 1,
) -> Record:
    """Train and measure what is left of an experiment, and write the table of all its rows that are done.

    The folder receives ``runs/`` (a run folder each), ``rows/`` (a result each), and the experiment's record, tables,
    picture and page (:func:`~stepgrpo_lab.experiments._page.write_record`). A row that is done is not done again, and a
    run cut off is resumed. Several processes may be given the same folder: they share the rows among them.

    Args:
        experiment: What to compare, and what to spend on it.
        folder: Where everything is kept.
        names: Run these rows alone; by default all.
        hours: No row is begun that would probably end after this time.
        overrides: Changes to the recipe of every row, as for ``stepgrpo train --set``.
        progress: Receives one line at a time.
        progress_every: Steps between two lines of a training.

    Returns:
        The record of all rows that are done, in the experiment's order.

    Raises:
        ValueError: No such row, a recipe that cannot be, or a folder that was begun with another plan or holds
            something else.
        InterruptedError: Ctrl-C (or SIGTERM, SIGHUP) ended a run early, or the hours are over; call again to go on.

    Example:
        >>> from stepgrpo_lab.experiments.plan import find_experiment
        >>> run_experiment(find_experiment("methods"), "runs/comparison", ["vanilla", "grpo"])  # doctest: +SKIP
    """
    folder = Path(folder)
    clock = _Clock(hours, progress)
    runs = Runs(
        folder,
        experiment.plan,
        rows=experiment.rows,
        overrides=overrides,
        progress=clock.report,
        progress_every=progress_every,
    )
    wanted = find_rows(names, experiment.rows)
    load_recipe(experiment.plan.recipe, overrides)  # a wrong key is refused before the folder keeps it
    _check_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    common_files = FileLock(folder / "comparison.lock")
    with common_files:
        _keep_plan(folder, experiment.plan, overrides)
    try:
        pending = wanted
        while pending:
            held = {row: reason for row in pending if (reason := _held(row, wanted, runs, clock))}
            if list(held) == pending:
                clock.report(f"waiting for {'; '.join(f'{row.title}: {reason}' for row, reason in held.items())}")
                time.sleep(WAIT)
            pending = list(held)
    finally:
        with common_files:
            done = [result for row in experiment.rows if (result := runs.finished(row))]
            record = Record(done, experiment.plan, experiment.name, runs.contrasts(experiment.contrasts))
            if done:
                write_record(folder, record)
    return record


def _held(row: Row, wanted: Sequence[Row], runs: Runs, clock: _Clock) -> str | None:
    """Run a row; or say which other process holds it, or one whose figures it needs."""
    own = len(runs.left(row))
    clock.check(len(set[Path]().union(*map(runs.left, wanted))), own)
    try:
        runs.run(row)
    except InUseError as error:
        return str(error)
    clock.trained += own
    return None


def _check_own(folder: Path) -> None:
    """Nothing is written into a folder that holds something else.

    Raises:
        ValueError: It does.
    """
    if (
        folder.is_dir()
        and any(folder.iterdir())
        and not any((folder / name).exists() for name in (PLAN_FILE, "rows", "runs"))
    ):
        raise ValueError(f"{folder} holds files of something else: give a new folder, or an empty one")


def _keep_plan(folder: Path, plan: Plan, overrides: Sequence[str]) -> None:
    """Rows of one table are measured alike, so a folder keeps the plan it was begun with."""
    path = folder / PLAN_FILE
    if not path.exists():
        write_atomically(path, json.dumps({**dataclasses.asdict(plan), "overrides": list(overrides)}, indent=1) + "\n")
        return
    kept = read_json(path, _kept_plan, "remove the file to begin with a new plan", SMALL)
    if kept != (plan, list(overrides)):
        raise ValueError(f"{folder} was begun with another plan ({path}): give another folder")


class _Kept(TypedDict):
    overrides: list[str]


def _kept_plan(data: Any) -> tuple[Plan, list[str]]:
    return Plan.from_json(data), from_json(_Kept, data)["overrides"]


class Runs:
    """The runs of an experiment, in one folder.

    Args:
        folder: Receives ``runs/`` (a run folder each) and ``rows/`` (a result each).
        plan: What is spent on every row.
        rows: Where the rows are found that another row depends on.
        overrides: Changes to the recipe of every row; a row's own changes come after them.
        progress: Receives one line at a time.
        progress_every: Steps between two lines of a training.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        rows: Sequence[Row] = ROWS,
        overrides: Sequence[str] = (),
        progress: Progress = lambda line: None,
        progress_every: int = 1,
    ) -> None:
        self.folder, self.plan, self.overrides = folder, plan, list(overrides)
        self.rows = {row.name: row for row in (*ROWS, VANILLA_ROW, *rows)}
        self.progress, self.progress_every = progress, progress_every
        self.measuring = Measuring(plan, progress)
        self._locks: dict[str, Writer] = {}

    # ---- a row -------------------------------------------------------------------------------------------------------

    def finished(self, row: Row) -> RowResult | None:
        """The result of a row that is done."""
        path = self._result_path(row)
        return read_json(path, partial(from_json, RowResult), "remove it to run the row") if path.exists() else None

    def hold(self, row: Row) -> Writer:
        """A lock on what belongs to a row, so that processes which share the folder do not do the same work."""
        path = self._result_path(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._locks.setdefault(row.name, Writer(path, path.with_suffix(".lock")))

    def run(self, row: Row) -> RowResult:
        """Train and measure what is left of a row.

        Raises:
            InterruptedError: Ctrl-C ended a run early; call again to go on.
            InUseError: Another process is at this row, or at one whose figures it needs.
        """
        with self.hold(row):
            return self.finished(row) or self._run(row)

    def _run(self, row: Row) -> RowResult:
        vanilla, rate, scores = self._untrained(VANILLA_ROW), None, {}
        if row.kind == "untrained":
            parts = {seed: self._untrained(row) for seed in row.seeds}
        else:
            scores = self.rate_scores(row)
            rate = chosen_rate(scores) if scores else None
            parts = {seed: self._trained(row, seed, rate) for seed in row.seeds}
        seeds = list(parts.values())
        result = RowResult(
            name=row.name,
            title=row.title,
            kind=row.kind,
            expectation=row.expectation,
            published=row.published,
            test=measure(vanilla.test, *(part.test for part in seeds)),
            harder=measure(vanilla.harder, *(part.harder for part in seeds if part.harder)) if vanilla.harder else None,
            longer=measure(vanilla.longer, *(part.longer for part in seeds if part.longer)) if vanilla.longer else None,
            given=tokens_given(*(part.test for part in seeds)),
            seeds=[self._seed_result(row, seed, rate, part, vanilla.test) for seed, part in parts.items()],
            structure=mean_structure([part.structure for part in seeds]),
            habits=self.measuring.habits([part.test for part in seeds]),
            calibration=calibration_at_first_marker([part.first_cut for part in seeds if part.first_cut]),
            learning_rate=rate,
            rates={f"{tried:g}": score for tried, score in scores.items()} if row.kind == "method" else {},
            covers="problems and seeds" if len(seeds) > 1 else "problems",
        )
        write_atomically(self._result_path(row), json.dumps(result.to_json(), indent=1) + "\n")
        return result

    def rate_scores(self, row: Row) -> dict[float, float]:
        """Learning rate -> score on validation problems; all but the methods take Step-GRPO's rate alone.

        Empty where the plan has no grid: the recipe's rate is taken.
        """
        if not self.plan.learning_rates:
            return {}
        if row.kind != "method":
            scores = self.rate_scores(self.rows[STEP_GRPO])
            return {chosen_rate(scores): max(scores.values())}
        done = self.finished(row)
        if done is not None:
            return {float(rate): score for rate, score in done.rates.items()}
        scores = {}
        with self.hold(row):
            for rate in self.plan.learning_rates:
                result = self._train(row, row.seeds[0], rate)
                scores[rate] = validation_score(result.before, result.after)
        return scores

    def contrasts(self, pairs: Iterable[tuple[str, str]]) -> list[Contrast]:
        """Rows held against each other, of which both are done."""
        rows = [(self.rows[after], self.rows[before]) for after, before in pairs]
        return [self._contrast(*pair) for pair in rows if all(map(self.finished, pair))]

    def _contrast(self, after: Row, before: Row) -> Contrast:
        runs = [[self._read(row, seed) for seed in row.seeds] for row in (before, after)]
        tests = [[run.test for run in row] for row in runs]
        longer = [[run.longer for run in row if run.longer] for row in runs]
        old, new = ([100 * test.mean("correct") for test in row] for row in tests)
        return Contrast(
            after=after.title,
            before=before.title,
            test=contrast(*tests),
            seeds=t_interval(new, old) if min(len(old), len(new)) > 1 else None,
            longer=contrast(*longer) if all(longer) else None,
        )

    def _read(self, row: Row, seed: int) -> Measured:
        """The measurement of one run of a row that is done."""
        done = self.finished(row)
        place = self.place(row, seed, done.learning_rate if done else None)
        return self.measuring.read(self.folder / "runs" / row.name if row.kind == "untrained" else place)

    def left(self, row: Row) -> set[Path]:
        """The folders of the trainings that a row still needs, those of the rows that it depends on among them."""
        if row.kind == "untrained" or self._result_path(row).exists():
            return set()
        places = {self.place(row, seed, rate) for seed in row.seeds for rate in self.plan.learning_rates or (None,)}
        step_grpo = self.rows[STEP_GRPO]
        if self.plan.learning_rates and row.kind != "method" and not self._result_path(step_grpo).exists():
            places |= {self.place(step_grpo, step_grpo.seeds[0], rate) for rate in self.plan.learning_rates}
        if row.budget_of:
            places |= {self.place(self.rows[row.budget_of], seed, None) for seed in row.seeds}
        return {place for place in places if not (place / "model").is_dir()}

    def _result_path(self, row: Row) -> Path:
        return self.folder / "rows" / f"{row.name}.json"

    def _seed_result(self, row: Row, seed: int, rate: float | None, part: Measured, vanilla: Evaluation) -> SeedResult:
        place = self.folder / "runs" / row.name if row.kind == "untrained" else self.place(row, seed, rate)
        return SeedResult(
            seed=seed,
            accuracy=part.test.mean("correct"),
            tokens=part.test.mean("tokens"),
            tokens_fed=part.tokens_fed,
            decoded_tokens=run_decoded_tokens(place),
            seconds=round(training_seconds(place) + part.seconds, 1),
            curves=run_curves(place, CURVES),
            test=measure_run(vanilla, part.test),
            first_cut=part.cut_changes(),
        )

    # ---- training ----------------------------------------------------------------------------------------------------

    def recipe(self, row: Row, seed: int, rate: float | None = None) -> Recipe:
        """A run's recipe. What it calls its test problems are validation problems: no run sees the others.

        Args:
            row: The row.
            seed: Seed of the run.
            rate: Learning rate; None for the recipe's own.
        """
        plan = self.plan
        keys = [
            f"data.test={plan.recipe}:validation",
            f"data.counts.test={plan.validation}",
            f"data.counts.validation={plan.curves}",
            "evaluation.samples=1",
            "optimisation.save_every=20",
            *self._budget(row),
            *self.overrides,
            *row.overrides,
            f"seed={seed}",
        ]
        if rate is not None:
            keys.append(f"optimisation.learning_rate={rate}")
        if row.budget_of:
            budget = run_decoded_tokens(self.place(self.rows[row.budget_of], seed, None))
            keys += [f"optimisation.token_budget={budget}", f"optimisation.max_steps={MOST_STEPS}"]
        if row.source_tokens:
            keys.append(f"reward.length_scale={self.vanilla_tokens() / row.source_tokens:.4g}")
        return dataclasses.replace(load_recipe(plan.recipe, keys), name=row.name, description=row.title)

    def _budget(self, row: Row) -> list[str]:
        if row.kind == "proof":
            return [f"optimisation.max_steps={self.plan.proof_steps}"]
        if self.plan.token_budget is None:
            return []
        return [f"optimisation.token_budget={self.plan.token_budget}", f"optimisation.max_steps={MOST_STEPS}"]

    def vanilla_tokens(self) -> float:
        """Mean completion of the untrained model on validation problems, in tokens; measured once."""
        path = self.folder / "vanilla_tokens.json"
        if not path.exists():
            recipe = load_recipe(self.plan.recipe, self.overrides)
            problems = overthinker_problems("validation", self.plan.validation, laboratory=self.plan.recipe)
            with self.hold(VANILLA_ROW):
                model = recipe_model(recipe)
                with sampling_engine(recipe, *model) as engine:
                    measured = self.measuring.evaluation(model, problems, recipe, engine=engine)
                write_atomically(path, json.dumps(measured.mean("tokens")))
        return read_json(path, partial(from_json, float), "remove the file to measure again", SMALL)

    def place(self, row: Row, seed: int, rate: float | None) -> Path:
        """The folder of a run; only the first seed of a method is trained with several learning rates."""
        tried = f"-rate-{rate:g}" if rate is not None and row.kind == "method" and seed == row.seeds[0] else ""
        return self.folder / "runs" / f"{row.name}-seed-{seed}{tried}"

    def _train(self, row: Row, seed: int, rate: float | None) -> job.RunResult:
        place = self.place(row, seed, rate)
        if (place / job.LAST).exists():  # nothing to train, so no model is loaded
            self._clean(place)
            return job.RunResult(place, True, read_evaluation(place / job.BEFORE), read_evaluation(place / job.AFTER))
        begun = (place / "recipe.yaml").exists()
        if row.budget_of and not begun:
            other = self.rows[row.budget_of]
            with self.hold(other):
                self._train(other, seed, None)
        named = f"{row.title}, seed {seed}" + ("" if rate is None else f", learning rate {rate:g}")
        result = job.train(
            None if begun else self.recipe(row, seed, rate),
            place,
            resume=begun,
            progress=lambda line: self.progress(f"{named}: {line}"),
            progress_every=self.progress_every,
        )
        if not result.finished:
            line = f"{row.title} was stopped and saved in {place}: run the same command to go on"
            raise RunStopped(line, result.signal)
        self._clean(place)
        return result

    def _clean(self, place: Path) -> None:
        """Remove what only serves to resume a run, of one that has ended; a kill may have come before or amid it."""
        with Writer.in_folder(place):
            shutil.rmtree(place / "checkpoints", ignore_errors=True)

    # ---- measuring ---------------------------------------------------------------------------------------------------

    def _trained(self, row: Row, seed: int, rate: float | None) -> Measured:
        self._train(row, seed, rate)
        place = self.place(row, seed, rate)
        recipe = load_recipe(place / "recipe.yaml")
        return self.measuring.measured(place, recipe, lambda: load_model(place / "model", dtype=recipe.model.dtype))

    def _untrained(self, row: Row) -> Measured:
        recipe = load_recipe(self.plan.recipe, [*self.overrides, *row.overrides])
        settings = None if row.inference == "plain" else recipe.rollout.settings
        if settings is not None and row.inference == "budget":
            settings = dataclasses.replace(settings, max_probes=0)
        with self.hold(row):
            place = self.folder / "runs" / row.name
            return self.measuring.measured(place, recipe, lambda: recipe_model(recipe), settings)


def training_seconds(place: Path) -> float:
    """Seconds that a run took, over all its sittings, and those that an earlier run had spared it: no row is cheaper
    for being trained later.
    """
    noted = read_environment(place / "environment.json")
    return sum(noted.get("seconds", {}).values()) + sum(noted.get("reused", {}).values())


class _Clock:
    """Estimates the time left, and begins no row that would probably end after the hours allowed.

    Attributes:
        trained: Trainings that this process has finished; another one may have done some of the rest.
    """

    def __init__(self, hours: float, progress: Progress) -> None:
        self.started = time.monotonic()
        self.limit = 3600 * hours
        self.progress = progress
        self.first = self.left = self.trained = 0

    def report(self, line: str) -> None:
        self.progress(line + (f" | {self.left} trainings left{self._estimate()}" if self.left else ""))

    def check(self, left: int, row: int) -> None:
        """Note how many trainings are left, and how many of them the next row needs.

        Raises:
            InterruptedError: The next row would probably end after the hours allowed.
        """
        self.first, self.left = max(self.first, left), left
        spent = time.monotonic() - self.started
        if spent + row * self._seconds_each(self.trained) > self.limit:
            raise InterruptedError(
                f"stopped after {duration(spent)}: the next row would not end within {duration(self.limit)}; run the "
                "same command to go on"
            )

    def _seconds_each(self, trainings: int) -> float:
        """Seconds for each of so many trainings since the start; 0 for none."""
        return (time.monotonic() - self.started) / trainings if trainings else 0.0

    def _estimate(self) -> str:
        each = self._seconds_each(self.first - self.left)
        return f", about {duration(self.left * each)}" if each else ""
