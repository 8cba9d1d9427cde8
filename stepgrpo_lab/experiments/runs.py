"""Carries out the rows of the comparison: trains, chooses learning rates, measures. What is done is not done again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from stepgrpo_lab.engines.models import load_model
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.experiments.measuring import Measured, Measuring
from stepgrpo_lab.experiments.plan import MOST_STEPS, Plan, chosen_rate, validation_score
from stepgrpo_lab.experiments.reproduce import pooled
from stepgrpo_lab.experiments.results import RowResult, SeedResult, mean_structure, measure
from stepgrpo_lab.experiments.rows import ROWS, STEP_GRPO, VANILLA, Row, find_rows
from stepgrpo_lab.overthinker.tasks import overthinker_problems
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.recipes.building import recipe_model, recipe_rollout_settings
from stepgrpo_lab.run import job as run
from stepgrpo_lab.run.folder import write_atomically
from stepgrpo_lab.training.metrics import run_curves, run_decoded_tokens

Tell = Callable[[str], None]

CURVES = (
    "validation/accuracy",
    "validation/tokens",
    "exits/natural",
    "exits/early",
    "exits/near_budget",
    "exits/budget",
    "exits/none",
)
"""The metrics of training that a record keeps, step by step."""


class Runs:
    """The runs of a comparison, in one folder.

    Args:
        folder: Receives ``runs/`` (a run folder each) and ``rows/`` (a result each).
        plan: What is spent on every row.
        rows: The table that vanilla and Step-GRPO are taken from.
        overrides: Changes to the recipe of every row; a row's own changes come after them.
        tell: Receives one line at a time.
        tell_every: Steps between two lines of a training.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        *,
        rows: Sequence[Row] = ROWS,
        overrides: Sequence[str] = (),
        tell: Tell = lambda line: None,
        tell_every: int = 1,
    ) -> None:
        self.folder, self.plan, self.overrides = folder, plan, list(overrides)
        self.tell, self.tell_every = tell, tell_every
        self.vanilla, self.step_grpo = (find_rows([name], rows)[0] for name in (VANILLA, STEP_GRPO))
        self.measuring = Measuring(plan, tell)
        self._locks: dict[str, FileLock] = {}

    # ---- a row -------------------------------------------------------------------------------------------------------

    def finished(self, row: Row) -> RowResult | None:
        """The result of a row that is done."""
        path = self._result_path(row)
        return RowResult.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def hold(self, row: Row) -> FileLock:
        """A lock on what belongs to a row, so that processes which share the folder do not do the same work.

        The operating system frees it when its process ends, however it ends. Entering it raises
        :class:`filelock.Timeout` at once where another process is in it.
        """
        path = self._result_path(row).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._locks.setdefault(row.name, FileLock(path, timeout=0))

    def carry_out(self, row: Row) -> RowResult:
        """Train and measure what is left of a row.

        Raises:
            InterruptedError: Ctrl-C ended a run early; call again to go on.
            filelock.Timeout: Another process is at this row, or at one whose figures it needs.
        """
        with self.hold(row):
            return self.finished(row) or self._carry_out(row)

    def _carry_out(self, row: Row) -> RowResult:
        vanilla = self._untrained(self.vanilla)
        if row.kind == "untrained":
            scores: dict[float, float] = {}
            parts = {0: self._untrained(row)}
        else:
            scores = self.rate_scores(row)
            parts = {seed: self._trained(row, seed, chosen_rate(scores)) for seed in row.seeds}
        rate = chosen_rate(scores) if scores else None
        result = RowResult(
            name=row.name,
            title=row.title,
            kind=row.kind,
            expectation=row.expectation,
            published=row.published,
            test=measure(vanilla.test, pooled([part.test for part in parts.values()])),
            harder=measure(vanilla.harder, pooled([part.harder for part in parts.values()])),
            seeds=[self._seed_result(row, seed, rate, part) for seed, part in parts.items()],
            structure=mean_structure([part.structure for part in parts.values()]),
            learning_rate=rate,
            rates={f"{tried:g}": score for tried, score in scores.items()} if row.kind == "method" else {},
        )
        path = self._result_path(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(dataclasses.asdict(result), indent=1) + "\n")
        return result

    def rate_scores(self, row: Row) -> dict[float, float]:
        """Learning rate -> score on validation problems; all but the methods take Step-GRPO's rate alone."""
        if row.kind != "method":
            scores = self.rate_scores(self.step_grpo)
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

    def left(self, row: Row) -> set[Path]:
        """The folders of the trainings that a row still needs, those that choose its learning rate among them."""
        if row.kind == "untrained" or self._result_path(row).exists():
            return set()
        rates = self.plan.learning_rates
        places = {self.place(row, seed, rate) for seed in row.seeds for rate in rates}
        if row.kind != "method" and not self._result_path(self.step_grpo).exists():
            places |= {self.place(self.step_grpo, self.step_grpo.seeds[0], rate) for rate in rates}
        return {place for place in places if not (place / "model").is_dir()}

    def _result_path(self, row: Row) -> Path:
        return self.folder / "rows" / f"{row.name}.json"

    def _seed_result(self, row: Row, seed: int, rate: float | None, part: Measured) -> SeedResult:
        correct, tokens = (part.test.column(name) for name in ("correct", "tokens"))
        place = self.folder / "runs" / row.name if rate is None else self.place(row, seed, rate)
        return SeedResult(
            seed=seed,
            accuracy=_mean(correct),
            tokens=_mean(tokens),
            tokens_fed=part.tokens_fed,
            decoded_tokens=run_decoded_tokens(place),
            seconds=round(training_seconds(place) + part.seconds, 1),
            curves=run_curves(place, CURVES),
        )

    # ---- training ----------------------------------------------------------------------------------------------------

    def recipe(self, row: Row, seed: int, rate: float) -> Recipe:
        """A run's recipe. What it calls its test problems are validation problems: no run sees the others."""
        plan = self.plan
        spent = (
            [f"optimisation.max_steps={plan.proof_steps}"]
            if row.kind == "proof"
            else [f"optimisation.token_budget={plan.token_budget}", f"optimisation.max_steps={MOST_STEPS}"]
        )
        keys = [
            "data.test=overthinker:validation",
            f"data.counts.test={plan.validation}",
            f"data.counts.validation={plan.curves}",
            "evaluation.samples=1",
            "optimisation.save_every=20",
            *spent,
            *self.overrides,
            *row.overrides,
            f"optimisation.learning_rate={rate}",
            f"seed={seed}",
        ]
        if row.source_tokens:
            keys.append(f"reward.length_scale={self.vanilla_tokens() / row.source_tokens:.4g}")
        return dataclasses.replace(load_recipe("overthinker", keys), name=row.name, description=row.title)

    def vanilla_tokens(self) -> float:
        """Mean completion of the untrained model on validation problems, in tokens; measured once."""
        path = self.folder / "vanilla_tokens.json"
        if not path.exists():
            recipe = load_recipe("overthinker", self.overrides)
            problems = overthinker_problems("validation", self.plan.validation)
            with self.hold(self.vanilla):
                measured = self.measuring.evaluation(recipe_model(recipe), problems, recipe)
                write_atomically(path, json.dumps(_mean(measured.column("tokens"))))
        return float(json.loads(path.read_text(encoding="utf-8")))

    def place(self, row: Row, seed: int, rate: float) -> Path:
        """The folder of a run; only the first seed of a method is trained with several learning rates."""
        name = f"{row.name}-seed-{seed}"
        return (
            self.folder / "runs" / (f"{name}-rate-{rate:g}" if row.kind == "method" and seed == row.seeds[0] else name)
        )

    def _train(self, row: Row, seed: int, rate: float) -> run.RunResult:
        place = self.place(row, seed, rate)
        if (place / run.AFTER).exists():  # nothing to do, so no model is loaded
            return run.RunResult(place, True, *(_evaluation(place / name) for name in (run.BEFORE, run.AFTER)))
        begun = (place / "recipe.yaml").exists()
        result = run.train(
            None if begun else self.recipe(row, seed, rate),
            place,
            resume=begun,
            progress=lambda line: self.tell(f"{row.title}, seed {seed}, learning rate {rate:g}: {line}"),
            progress_every=self.tell_every,
        )
        if not result.finished:
            raise InterruptedError(f"{row.title} was stopped and saved in {place}: run the same command to go on")
        shutil.rmtree(place / "checkpoints", ignore_errors=True)  # a finished run is not resumed
        return result

    # ---- measuring ---------------------------------------------------------------------------------------------------

    def _trained(self, row: Row, seed: int, rate: float) -> Measured:
        self._train(row, seed, rate)
        place, recipe = self.place(row, seed, rate), self.recipe(row, seed, rate)
        return self.measuring.measured(place, recipe, lambda: load_model(place / "model", dtype=recipe.model.dtype))

    def _untrained(self, row: Row) -> Measured:
        recipe = load_recipe("overthinker", [*self.overrides, *row.overrides])
        settings = None if row.inference == "plain" else recipe_rollout_settings(recipe)
        if settings is not None and row.inference == "budget":
            settings = dataclasses.replace(settings, max_probes=0)
        with self.hold(row):
            place = self.folder / "runs" / row.name
            return self.measuring.measured(place, recipe, lambda: recipe_model(recipe), settings)


def _evaluation(path: Path) -> Evaluation:
    return Evaluation.from_dict(json.loads(path.read_text(encoding="utf-8")))


def _mean(column: Sequence[Sequence[float]]) -> float:
    return sum(map(sum, column)) / sum(map(len, column))


def training_seconds(place: Path) -> float:
    """Seconds that a run took, over all its sittings."""
    path = place / "environment.json"
    return sum(json.loads(path.read_text(encoding="utf-8"))["seconds"].values()) if path.exists() else 0.0
