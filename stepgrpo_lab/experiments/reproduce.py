"""Published results that anyone can run again: ``stepgrpo reproduce headline``, and the other :data:`STUDIES`.

Every trained model is measured by plain decoding, against the untrained one on the same held-out problems.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgrpo_lab.evaluation.results import Comparison, Evaluation, compare
from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.experiments.studies import STUDIES, Row, Study
from stepgrpo_lab.experiments.study_results import RowResult, StudyResult, load_study, study_markdown
from stepgrpo_lab.experiments.study_svg import draw_study
from stepgrpo_lab.method.settings import cut_at_first_marker, rollout_settings
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.recipes.building import recipe_markers, recipe_sampling
from stepgrpo_lab.run import job as run
from stepgrpo_lab.run.folder import write_atomically
from stepgrpo_lab.training.metrics import run_curves, run_decoded_tokens

Tell = Callable[[str], None]

MOST_STEPS = 1000
"""A run with a token budget ends with it; this many steps are never reached."""

CURVES = (
    "accuracy",
    "tokens",
    "exits/early",
    "groups/mixed",
    "advantage/natural",
    "advantage/forced",
    "validation/accuracy",
    "validation/tokens",
    "validation/rollout_accuracy",
    "validation/rollout_tokens",
    "validation/first_cut_accuracy",
    "validation/first_probe_ece",
)
"""The metrics of training that a study's record keeps, step by step."""


def reproduce(
    name: str,
    folder: str | Path,
    *,
    study: Study | None = None,
    only: str | None = None,
    overrides: Sequence[str] = (),
    progress: Tell = lambda line: None,
    progress_every: int = 1,
) -> StudyResult:
    """Carry out a study's runs, or what is left of them, and compare.

    Args:
        name: One of :data:`STUDIES`; names the files that are written.
        folder: Receives one run folder for each row, ``NAME.json`` and ``NAME.md`` (and ``headline.svg``, once the
            studies "headline" and "internalisation" are done); what is done there is not done again, and a run cut off
            is resumed.
        study: Another study than the one of that name.
        only: Carry out this row alone, and write no comparison.
        overrides: Changes to the recipe of every row, as for ``stepgrpo train --set``.
        progress: Receives one line at a time.
        progress_every: Steps between two lines.

    Raises:
        ValueError: No such study or row.
        InterruptedError: Ctrl-C ended a run early; call again to go on.

    Example:
        >>> reproduce("headline", "runs/reproduce").pooled["Step-GRPO"]  # doctest: +SKIP
    """
    if study is None:
        if name not in STUDIES:
            raise ValueError(f"no study {name!r}: choose one of {', '.join(STUDIES)}")
        study = STUDIES[name]
    names = [row.name for row in study.rows]
    if only is not None and only not in names:
        raise ValueError(f"study {name!r} has no row {only!r}: choose one of {', '.join(names)}")
    runs = _Runs(study, Path(folder), overrides, progress, progress_every)
    results = [runs.carry_out(row) for row in study.rows if only in (None, row.name)]
    done = dict(zip(names if only is None else [only], results, strict=True))
    result = StudyResult(
        {row: runs.measured(finished) for row, finished in done.items()},
        _pooled_by_method(study.rows, results) if only is None else {},
    )
    if only is None:
        write_atomically(Path(folder) / f"{name}.json", json.dumps(dataclasses.asdict(result), indent=1) + "\n")
        write_atomically(Path(folder) / f"{name}.md", study_markdown(result) + "\n")
        _draw(Path(folder))
    return result


def _draw(folder: Path) -> None:
    """The picture of the headline, once both studies that it shows are there."""
    headline, internalisation = folder / "headline.json", folder / "internalisation.json"
    if headline.exists() and internalisation.exists():
        write_atomically(folder / "headline.svg", draw_study(load_study(headline), load_study(internalisation)))


@dataclass(frozen=True)
class _Runs:
    study: Study
    folder: Path
    overrides: Sequence[str]
    tell: Tell
    tell_every: int

    def carry_out(self, row: Row) -> run.RunResult:
        place = self._place(row)
        done = (place / "recipe.yaml").exists()
        result = run.train(
            None if done else self._recipe(row),
            place,
            resume=done,
            progress=lambda line: self.tell(f"{row.name}: {line}"),
            progress_every=self.tell_every,
        )
        if not result.finished:
            raise InterruptedError(f"{row.name} was stopped and saved in {place}: run the same command to go on")
        return result

    def _place(self, row: Row) -> Path:
        """Runs measured on other problems are other runs."""
        return self.folder / self.study.split / re.sub(r"[^a-z0-9.]+", "-", row.name.lower()).strip("-")

    def _recipe(self, row: Row) -> Recipe:
        measured = [f"data.test=overthinker:{self.study.split}", f"data.counts.test={self.study.problems}"]
        recipe = load_recipe("overthinker", [*measured, *row.overrides, *self.overrides])
        if row.budget_of is not None:
            [model_row] = [other for other in self.study.rows if other.name == row.budget_of]
            optimisation = dataclasses.replace(
                recipe.optimisation,
                max_steps=MOST_STEPS,
                token_budget=run_decoded_tokens(self._place(model_row)),
                save_every=20 * recipe.optimisation.steps_per_rollout,
            )
            recipe = dataclasses.replace(recipe, optimisation=optimisation)
        return dataclasses.replace(recipe, seed=row.seed)

    def measured(self, result: run.RunResult) -> RowResult:
        return RowResult(
            compare(result.before, finished(result)),
            run_decoded_tokens(result.folder),
            self._first_cut(result) if self.study.first_cut else {},
            run_curves(result.folder, CURVES),
        )

    def _first_cut(self, result: run.RunResult) -> dict[str, Interval]:
        """Plain decoding against a cut at the first marker, per family, in points."""
        path = result.folder / "evaluation_first_cut.json"
        if path.exists():
            cut = Evaluation.from_dict(json.loads(path.read_text(encoding="utf-8")))
        else:
            cut = _evaluate_first_cut(result)
            write_atomically(path, json.dumps(cut.to_dict()))
        families = compare(finished(result), cut).families
        return {family: comparison.accuracy_points for family, comparison in families.items()}


def _evaluate_first_cut(result: run.RunResult) -> Evaluation:
    from stepgrpo_lab.engines.models import load_model
    from stepgrpo_lab.evaluation.evaluating import evaluate
    from stepgrpo_lab.recipes.building import recipe_problems

    recipe = load_recipe(result.folder / "recipe.yaml")
    markers = recipe_markers(recipe)
    return evaluate(
        *load_model(result.folder / "model", dtype=recipe.model.dtype),
        recipe_problems(recipe.data.test, recipe.data.counts.test),
        limit=recipe.rollout.max_tokens,
        sampling=recipe_sampling(recipe.evaluation),
        settings=cut_at_first_marker(rollout_settings(recipe.rollout.preset, markers=markers)),
        seed=recipe.seed,
        max_rows=recipe.rollout.rows,
        markers=markers,
    )


def finished(result: run.RunResult) -> Evaluation:
    """The evaluation after training.

    Raises:
        ValueError: The run is not finished.
    """
    if result.after is None:
        raise ValueError(f"the run in {result.folder} is not finished: resume it first")
    return result.after


def _pooled_by_method(rows: Sequence[Row], results: Sequence[run.RunResult]) -> dict[str, Comparison]:
    methods: dict[str, list[run.RunResult]] = {}
    for row, result in zip(rows, results, strict=True):
        methods.setdefault(row.method, []).append(result)
    return {
        method: compare(pooled([run.before for run in runs]), pooled([finished(run) for run in runs]))
        for method, runs in methods.items()
        if len(runs) > 1
    }


def pooled(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Several evaluations of the same problems as one: their samples side by side, problem by problem.

    Raises:
        ValueError: The evaluations are of different problems.
    """
    first = evaluations[0]
    if any(evaluation.problem_ids != first.problem_ids for evaluation in evaluations):
        raise ValueError("the evaluations are of different problems: pool evaluations of the same ones")
    outcomes: list[list[Any]] = [
        [sample for samples in rows for sample in samples]
        for rows in zip(*(evaluation.outcomes for evaluation in evaluations), strict=True)
    ]
    return Evaluation(first.problem_ids, first.families, first.levels, outcomes, settings=first.settings)
