"""The package as a whole: its public names, what importing it costs, which floor each module lives on, its data."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

import stepgrpo_lab
from stepgrpo_lab import paths

PACKAGE = Path(stepgrpo_lab.__file__).parent

PUBLIC_NAMES = " ".join(
    [
        "__version__ data_path",
        "Cost Outcome Probe Problem Step Trajectory from_json to_json",
        "TokenText MARKER_SETS MarkerScanner MarkerSegmenter Segmenter resolve_markers",
        "BatchReward GroupReward GRPOLambdaReward OutcomeReward StepAwareReward",
        "format_ok group_advantages step_aware_rewards",
        "Grader extract_boxed load_problems write_problems",
        "PRESETS RolloutSettings TrajectoryMachine probed_members rollout_settings",
        "SampleKey Sampling LockstepEngine",
        "label_steps load_overthinker overthinker_problems",
        "evaluate paired_bootstrap StepGRPOConfig StepGRPOTrainer load_recipe",
    ]
).split()

# A module imports only from its own floor or from those below it. A package stands for all that it holds.
FLOORS = {
    1: (
        "paths records token_text steps confidence rewards baselines group_rewards grading grading_worker problems"
        " problem_files processes"
    ),
    2: ("rollout presets sampling trial_answer replay exit_rules losses toy_policy"),
    3: ("engines models tokenizer_checks prompts policy_loss"),
    4: (
        "training evaluation evaluation_records statistics overthinker svg plot_style validation run_metrics"
        " analysis benchmarks recordings selection checkpoints"
    ),
    5: (
        "recipes scaling run run_evaluation run_files run_trainers plots plots_rollout plots_group plots_loss"
        " plots_tradeoff reproduce studies study_results study_svg comparison checks course report report_files"
        " report_html report_pages report_svg widgets cli __main__ plots_steps plots_toy plots_probe plots_study quiet"
        " plots_memory"
    ),
}
FLOOR_OF_ROOM = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}


def module_name(path: Path) -> str:
    """Dotted name below the package: ``engines/lockstep.py`` -> ``engines.lockstep``, the package itself -> ``""``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def is_type_checking_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported_modules(name: str, *, for_types: bool = True) -> set[str]:
    """The package's own modules that a module imports anywhere, inside functions too.

    A public name taken from ``stepgrpo_lab`` counts as an import of the module that defines it. ``for_types`` tells
    whether the imports under ``if TYPE_CHECKING:`` count.
    """
    found = set()
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    if not for_types:
        tree.body = [node for node in tree.body if not is_type_checking_block(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), f"stepgrpo_lab.{package}".rstrip("."))
            homes = stepgrpo_lab._MODULE_OF_NAME if base == "stepgrpo_lab" else {}
            for alias in node.names:
                target = f"{base}.{homes.get(alias.name, alias.name)}"
                found.add(target if target.removeprefix("stepgrpo_lab.") in MODULES else base)
    own = {target.removeprefix("stepgrpo_lab.") for target in found if target.startswith("stepgrpo_lab.")}
    return own & (set(MODULES) - {name})


def imported_by_a_fresh_interpreter(statement: str) -> set[str]:
    """Top-level modules that a new Python process holds after running one statement."""
    program = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_public_names_are_the_agreed_ones() -> None:
    assert sorted(stepgrpo_lab.__all__) == sorted(PUBLIC_NAMES)
    assert set(PUBLIC_NAMES) <= set(dir(stepgrpo_lab))


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_public_name_resolves(name: str) -> None:
    assert getattr(stepgrpo_lab, name) is not None


def test_no_public_name_is_also_a_module() -> None:
    # Importing the module would silently replace the name on the package.
    assert sorted(set(PUBLIC_NAMES) & {name.partition(".")[0] for name in MODULES}) == []


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"stepgrpo_lab.*no attribute 'step_aware_reward'"):
        _ = stepgrpo_lab.step_aware_reward


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "numpy",
        "plotly",
        "bitsandbytes",
        "vllm",
        "math_verify",
    }
    assert not heavy & imported_by_a_fresh_interpreter("import stepgrpo_lab")


@pytest.mark.parametrize("name", [name for name in MODULES if FLOOR_OF_ROOM.get(name, 5) <= 2])
def test_lower_floors_import_no_torch(name: str) -> None:
    assert "torch" not in imported_by_a_fresh_interpreter(f"import stepgrpo_lab.{name}")


@pytest.mark.parametrize("name", [name for name in MODULES if name])
def test_module_imports_from_no_higher_floor(name: str) -> None:
    def floor(module: str) -> int:
        room = module.partition(".")[0]
        assert room in FLOOR_OF_ROOM, f"{module} has no floor yet: add {room} to FLOORS"
        return FLOOR_OF_ROOM[room]

    higher = [target for target in imported_modules(name) if floor(target) > floor(name)]
    assert not higher, f"{name} (floor {floor(name)}) imports {higher} from above"


def test_imports_form_no_cycle() -> None:
    list(TopologicalSorter({name: imported_modules(name, for_types=False) for name in MODULES}).static_order())


def test_import_reader_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "room.py"
    path.write_text(
        "import json, stepgrpo_lab.a\n"
        "from statistics import mean\n"
        "from stepgrpo_lab import b, Problem\n"
        "from .c import x\n"
        "def f():\n"
        "    from ..d import y\n"
        "if TYPE_CHECKING:\n"
        "    from .e import z\n",
        encoding="utf-8",
    )
    names = ["a", "b", "engines.c", "d", "engines.e", "records", "engines.room", "json", "statistics"]
    monkeypatch.setattr(sys.modules[__name__], "MODULES", dict.fromkeys(names, path))
    assert imported_modules("engines.room", for_types=False) == {"a", "b", "engines.c", "d", "records"}
    assert imported_modules("engines.room") == {"a", "b", "engines.c", "d", "engines.e", "records"}


def test_data_path_finds_the_data() -> None:
    readme = paths.data_path("README.md")
    assert readme.is_absolute()
    assert readme.read_text(encoding="utf-8").startswith("# Data")
    assert paths.data_path() == readme.parent


def test_data_path_prefers_the_data_inside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "stepgrpo_lab"
    for folder in (package / "data", tmp_path / "data"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(paths, "_PACKAGE", package)
    assert paths.data_path() == package / "data"
    (package / "data").rmdir()
    assert paths.data_path() == tmp_path / "data"


def test_missing_data_names_the_file_and_the_remedy() -> None:
    with pytest.raises(FileNotFoundError, match=r"no data/overthinker/no-such-file at .*git checkout -- data"):
        paths.data_path("overthinker", "no-such-file")
