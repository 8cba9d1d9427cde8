"""Measures a model for the comparison: held-out problems, harder ones, and what its steps were good for."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stepgrpo_lab.evaluation.evaluating import evaluate
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.experiments.plan import Plan
from stepgrpo_lab.experiments.results import Structure
from stepgrpo_lab.method.records import Problem
from stepgrpo_lab.method.settings import RolloutSettings
from stepgrpo_lab.method.token_text import TokenText
from stepgrpo_lab.overthinker.tasks import LEVELS, overthinker_problems
from stepgrpo_lab.overthinker.verifier import structure
from stepgrpo_lab.recipes import Recipe
from stepgrpo_lab.recipes.building import recipe_markers, recipe_sampling
from stepgrpo_lab.run.folder import write_atomically

Model = tuple[Any, Any]
"""A model and its tokenizer."""


def harder_problems(count: int) -> list[Problem]:
    """Test problems that are harder than anything trained on: of each family, the level above its last, in turn.

    Example:
        >>> all(problem.level > max(LEVELS[problem.family]) for problem in harder_problems(6))
        True
    """
    families = sorted(LEVELS)
    each = [
        overthinker_problems("test", -(-count // len(families)), family=family, level=max(LEVELS[family]) + 1)
        for family in families
    ]
    return [problem for group in zip(*each, strict=True) for problem in group][:count]


@dataclass(frozen=True)
class Measured:
    """One model on both sets of problems.

    Attributes:
        test, harder: The evaluations; ``test`` keeps the text of every problem's first sample.
        structure: Steps by true label, on the test problems.
        seconds: Wall-clock time of the measurement.
    """

    test: Evaluation
    harder: Evaluation
    structure: Structure
    seconds: float

    @property
    def tokens_fed(self) -> float:
        """Tokens fed through the model for a test completion, probes included."""
        return self.test.cost.decoded_tokens / sum(map(len, self.test.outcomes))


@dataclass
class Measuring:
    """Measures models on the same problems.

    Attributes:
        plan: How many problems and samples.
        tell: Receives one line at a time.
    """

    plan: Plan
    tell: Callable[[str], None] = lambda line: None
    _problems: dict[str, list[Problem]] = field(default_factory=dict)

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
        path = place / "measured.json"
        if path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            evaluations = {name: Evaluation.from_dict(stored[name]) for name in ("test", "harder")}
            return Measured(**{**stored, **evaluations})
        self._problems = self._problems or {
            "test": overthinker_problems("test", self.plan.test),
            "harder": harder_problems(self.plan.harder),
        }
        started = time.perf_counter()
        self.tell(f"measuring {place.name} on {self.plan.test} test problems and {self.plan.harder} harder ones")
        model = load()
        test, harder = (
            self.evaluation(model, problems, recipe, self.plan.samples, settings)
            for problems in self._problems.values()
        )
        measured = Measured(
            test=test,
            harder=harder,
            structure=structure(self._problems["test"], test.texts, TokenText.from_tokenizer(model[1])),
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
    ) -> Evaluation:
        """Evaluate as the recipe says."""
        return evaluate(
            *model,
            problems,
            samples=samples,
            limit=recipe.rollout.max_tokens,
            sampling=recipe_sampling(recipe.evaluation),
            settings=settings,
            seed=recipe.seed,
            max_rows=recipe.rollout.rows,
            markers=recipe_markers(recipe),
            suffix=recipe.data.suffix,
            keep_texts=len(problems),
        )
