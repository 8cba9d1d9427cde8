"""How names are found: handed out lazily, for one release under the paths of 0.1 too; and what is not installed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

ROOT = "stepgrpo_lab."

# Old module -> where its names live now, most of them first; both without the package's name.
_MOVED = """
analysis -> overthinker.verifier
baselines -> method.baselines
benchmarks -> evaluation.benchmarks
checkpoints -> training._guard
checks -> course.checks
checks.backtracking -> course.checks.backtracking
checks.confidence_of_probes -> course.checks.confidence_of_probes
checks.full_run -> course.checks.full_run
checks.grpo -> course.checks.grpo
checks.overthinking -> course.checks.overthinking
checks.reading_results -> course.checks.reading_results
checks.result -> course.checks._result
checks.scaling_up -> course.checks.scaling_up
checks.semantic_steps -> course.checks.semantic_steps
checks.step_aware_reward -> course.checks.step_aware_reward
checks.tour -> course.checks.tour
checks.truncated_rollout -> course.checks.rollouts
comparison -> experiments
comparison.compare -> experiments.run experiments._page
comparison.figures -> experiments.pictures
comparison.measuring -> experiments._measure
comparison.page -> experiments._page
comparison.picture -> experiments.pictures
comparison.plan -> experiments.plan
comparison.results -> experiments.record experiments._measure
comparison.rows -> experiments.rows
comparison.runs -> experiments.run
comparison.tables -> experiments.tables
confidence -> method.confidence method.boxes
course.building -> authoring.notebooks.building
course.executing -> authoring.notebooks.building
course.full_run -> course._environment
course.linting -> authoring.notebooks.linting
course.recipe_table -> course._showing
course.scripted -> course.toys
course.source_code -> course._showing
course.tiny_policy -> course.toys
evaluation_records -> evaluation.results
exit_rules -> method.confidence recordings.schema
grading -> evaluation.grading method.boxes
grading_worker -> evaluation._grading_worker
group_rewards -> method.baselines method.rewards
losses -> method.loss method.token_loss
models -> engines.models engines.tokenizers
overthinker.build -> authoring.overthinker.build
overthinker.calibration -> authoring.overthinker.stages
overthinker.card -> authoring.overthinker.card overthinker.verifier
overthinker.fitting -> authoring.overthinker._fitting
overthinker.gates -> authoring.overthinker.card
overthinker.pretraining -> authoring.overthinker.stages
overthinker.reliability -> authoring.overthinker.card
paths -> engines.paths
plot_style -> viz._style viz.curves
plots -> viz.curves viz.tradeoff viz.completions
plots_group -> viz.groups
plots_loss -> viz.loss
plots_memory -> planning.views
plots_probe -> viz.completions
plots_rollout -> viz.completions
plots_steps -> viz.completions
plots_study -> viz.plots_study experiments.record
plots_toy -> course.toy_policy
plots_tradeoff -> viz.tradeoff
policy_loss -> method.loss
presets -> method.settings
problem_files -> evaluation.problems
problems -> evaluation.problems
processes -> engines.distributed
prompts -> engines.tokenizers
quiet -> cli.quiet
recipes.comparing -> recipes.loading
recipes.engines -> recipes._building
recipes.reward -> recipes._building
recipes.rollout_schema -> recipes.schema
recordings.costs -> recordings.measures
recordings.survey -> recordings.making
recordings.trials -> recordings.measures
records -> method.records
replay -> recordings.replay
report -> run.report
report_files -> run.folder training.metrics
report_html -> run.report viz._html evaluation.statistics
report_pages -> viz._html
report_svg -> run._report_svg
reproduce -> experiments.run
rewards -> method.rewards
rollout -> method.rollout
run_evaluation -> run._policy
run_files -> run.folder
run_metrics -> training.metrics
run_trainers -> run._policy
sampling -> method.sampling
scaling -> planning
scaling.advice -> planning.plan
scaling.components -> planning._memory
scaling.dimensions -> planning.sizes
scaling.formulas -> planning.sizes
scaling.growth -> planning.growth
scaling.hardware -> planning._memory
scaling.plan -> planning.plan
scaling.rounding -> planning.rounding
scaling.setup -> planning._memory
scaling.tables -> planning.views
selection -> evaluation.selection
statistics -> evaluation.statistics
steps -> method.steps
studies -> experiments.plan experiments.rows
study_results -> experiments.record experiments.tables
study_svg -> experiments.pictures
svg -> viz._svg
token_text -> method.token_text
tokenizer_checks -> engines.tokenizers
toy_policy -> course.toy_policy
training.rollout_hook -> training.trainer
training.whole_policy -> training._engine_weights
trial_answer -> method.rollout
validation -> evaluation.evaluating
widgets.keyboard -> widgets._base
widgets.view -> widgets._base
"""

MOVED: dict[str, tuple[str, ...]] = {
    old: tuple(new.split()) for old, new in (line.split(" -> ") for line in _MOVED.strip().splitlines())
}


class _MovedModule(ModuleType):
    """Stands at an old path and hands out names from the new ones."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for home in MOVED[self.__name__.removeprefix(ROOT)]:
                module = import_module(ROOT + home)
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Once imported, an old module hides a public name of the package that is spelled alike (``confidence``)."""
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        old = name.removeprefix(ROOT)
        if old == name or old not in MOVED:
            return None
        return ModuleSpec(name, self, is_package=any(other.startswith(old + ".") for other in MOVED))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        homes = " and ".join(ROOT + home for home in MOVED[spec.name.removeprefix(ROOT)])
        warnings.warn(f"{spec.name} has moved to {homes}", DeprecationWarning, stacklevel=2)
        return _MovedModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to execute: names are looked up when they are asked for."""


Homes = Iterable[tuple[str, Sequence[str]]]
"""Module below a package, and the names that it defines."""


def lazy_names(
    package: str, homes: Homes, *, formerly: Homes = ()
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a package that imports a module when a name of it is first used.

    Args:
        package: The package's ``__name__``.
        homes: Where its public names are defined.
        formerly: Where names are defined that were public once; using one warns.
    """
    module_of = {name: module for module, names in homes for name in names}
    old_module_of = {name: module for module, names in formerly for name in names}

    def get(name: str) -> Any:
        if name in old_module_of:
            home = f"{package}.{old_module_of[name]}"
            warnings.warn(f"{package}.{name} is {home}.{name} now", DeprecationWarning, stacklevel=2)
            return getattr(import_module(home), name)
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return sorted(module_of), get, lambda: sorted({*vars(sys.modules[package]), *module_of})


def require(purpose: str, *packages: str, install: str) -> None:
    """Check that packages are installed, without importing them: called before anything is loaded.

    Args:
        purpose: What needs them.
        packages: Their import names.
        install: What pip is to install.

    Raises:
        ImportError: One is not there; the message has the command.

    Example:
        >>> require("a time machine", "json", "flux_capacitor", install="flux-capacitor")
        Traceback (most recent call last):
        ImportError: a time machine needs flux_capacitor: pip install flux-capacitor
    """
    for package in packages:
        there = sys.modules[package] is not None if package in sys.modules else find_spec(package) is not None
        if not there:
            raise ImportError(f"{purpose} needs {package}: pip install {install}")


def serve_old_paths() -> None:
    """Make ``import stepgrpo_lab.OLD`` work, whatever was imported before."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
