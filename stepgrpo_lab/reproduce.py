"""Published results that anyone can run again: ``stepgrpo reproduce headline``.

The headline: three seeds of Step-GRPO on the Overthinker, and plain GRPO as a control that may decode as many tokens in
training as the first of them did. Every model is measured by plain decoding on the same held-out problems.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepgrpo_lab import run
from stepgrpo_lab.evaluation_records import Comparison, Evaluation, compare
from stepgrpo_lab.recipes import Recipe, load_recipe
from stepgrpo_lab.run_files import write_text
from stepgrpo_lab.training.callbacks import read_metrics

Tell = Callable[[str], None]

TEST_PROBLEMS = 2000
MOST_CONTROL_STEPS = 1000
"""The control ends with its token budget; this many steps are never reached."""


@dataclass(frozen=True)
class Headline:
    """The headline's rows.

    Attributes:
        rows: Name of the row -> the trained model against the untrained one, on the same problems.
        decoded_tokens: Name of the row -> tokens decoded in its training rollouts, probes included.
    """

    rows: dict[str, Comparison]
    decoded_tokens: dict[str, int]

    def markdown(self) -> str:
        """The rows as a Markdown table; brackets hold 95 % intervals over problems."""
        lines = ["| trained with | tokens | accuracy | tokens decoded in training |", "| --- | --- | --- | --- |"]
        for name, row in self.rows.items():
            decoded = f"{self.decoded_tokens[name] / 1e6:.2f} million" if name in self.decoded_tokens else ""
            lines.append(f"| {name} | {row.token_ratio * 100} % | {row.accuracy_points} points | {decoded} |")
        return "\n".join(lines)


def reproduce_headline(
    folder: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    overrides: Sequence[str] = (),
    progress: Tell = lambda line: None,
    progress_every: int = 1,
) -> Headline:
    """Run the headline's four runs, or what is left of them, and compare.

    Args:
        folder: Receives one run folder each, ``headline.json`` and ``headline.md``; what is done there is not done
            again, and a run cut off is resumed.
        seeds: Seeds of the Step-GRPO runs; the control takes the first.
        overrides: Changes to the recipe, as for ``stepgrpo train --set``.
        progress: Receives one line at a time.
        progress_every: Steps between two lines.

    Raises:
        InterruptedError: Ctrl-C ended a run early; call again to go on.

    Example:
        >>> reproduce_headline("runs/headline").rows["Step-GRPO, all seeds"]  # doctest: +SKIP
    """
    folder = Path(folder)
    recipe = load_recipe("overthinker", [f"data.counts.test={TEST_PROBLEMS}", *overrides])
    results: dict[str, run.RunResult] = {}

    def carry_out(name: str, planned: Recipe) -> int:
        place = folder / name.lower().replace(" ", "-").replace(",", "")
        done = (place / "recipe.yaml").exists()
        result = run.train(
            None if done else planned,
            place,
            resume=done,
            progress=lambda line: progress(f"{name}: {line}"),
            progress_every=progress_every,
        )
        if not result.finished:
            raise InterruptedError(f"{name} was stopped and saved in {place}: run the same command to go on")
        results[name] = result
        return round(sum(row.get("cost/decoded_tokens", 0.0) for row in read_metrics(place / "metrics.jsonl")))

    names = [f"Step-GRPO, seed {seed}" for seed in seeds]
    decoded = {
        name: carry_out(name, dataclasses.replace(recipe, seed=seed)) for name, seed in zip(names, seeds, strict=True)
    }
    control = f"GRPO, seed {seeds[0]}"
    decoded[control] = carry_out(control, control_recipe(dataclasses.replace(recipe, seed=seeds[0]), decoded[names[0]]))
    rows = {name: _comparison([result]) for name, result in results.items()}
    headline = Headline({"Step-GRPO, all seeds": _comparison([results[name] for name in names]), **rows}, decoded)
    write_text(folder / "headline.json", json.dumps(dataclasses.asdict(headline), indent=1) + "\n")
    write_text(folder / "headline.md", headline.markdown() + "\n")
    return headline


def control_recipe(recipe: Recipe, token_budget: int) -> Recipe:
    """Plain GRPO: no probes, no step term, and a training that ends with its budget of decoded tokens."""
    return dataclasses.replace(
        recipe,
        description="GRPO with the same budget of decoded tokens",
        rollout=dataclasses.replace(recipe.rollout, dynamic=False),
        reward=dataclasses.replace(recipe.reward, function="correctness"),
        optimisation=dataclasses.replace(
            recipe.optimisation, max_steps=MOST_CONTROL_STEPS, token_budget=token_budget, save_every=20
        ),
    )


def _comparison(results: Sequence[run.RunResult]) -> Comparison:
    return compare(pooled([result.before for result in results]), pooled([_after(result) for result in results]))


def _after(result: run.RunResult) -> Evaluation:
    if result.after is None:
        raise ValueError(f"the run in {result.folder} is not finished")
    return result.after


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
