"""The package as a whole: its public names, what importing it costs, its layers, its old paths, its data."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import stepgrpo_lab
from stepgrpo_lab._imports import MOVED
from stepgrpo_lab.engines import paths
from tools import interface

PACKAGE = Path(stepgrpo_lab.__file__).parent
ROOT = PACKAGE.parent

LIGHT_FOLDERS = ("method", "recordings", "viz", "widgets")  # a browser has to import them


def module_name(path: Path) -> str:
    """Dotted name below the package: ``engines/lockstep.py`` -> ``engines.lockstep``, the package itself -> ``""``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_by_a_fresh_interpreter(statement: str) -> set[str]:
    """Top-level modules that a new Python process holds after running one statement."""
    program = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    )


def test_the_interface_changes_only_with_a_line_in_the_changelog() -> None:
    """After a change: ``python -m tools.interface``, and its fingerprint in CHANGELOG.md beside what changed."""
    text = interface.page()
    assert (ROOT / interface.PAGE).read_text(encoding="utf-8") == text
    assert f"`{interface.fingerprint(text)}`" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", stepgrpo_lab.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(stepgrpo_lab, name) is not None
    assert name in dir(stepgrpo_lab)


def test_a_public_name_of_0_1_warns_and_works() -> None:
    with pytest.warns(DeprecationWarning, match=r"stepgrpo_lab\.method\.records\.to_json"):
        assert stepgrpo_lab.to_json(stepgrpo_lab.Cost())["kept_tokens"] == 0


def python_in(path: Path) -> str:
    """The code of a notebook's script (without its IPython magics), or of the Python blocks of a Markdown page."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("%", "!")))


@pytest.mark.parametrize(
    "path",
    [*sorted((ROOT / "notebooks" / "sources").glob("*.py")), *sorted(ROOT.glob("*.md")), ROOT / "notebooks/README.md"],
    ids=lambda path: path.name,
)
def test_course_and_readme_import_public_modules_only(path: Path) -> None:
    for node in ast.walk(ast.parse(python_in(path))):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        own = [module for module in modules if module.startswith("stepgrpo_lab")]
        assert not [module for module in own if "._" in module]


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


@pytest.mark.parametrize("folder", LIGHT_FOLDERS)
def test_light_folders_import_without_numeric_libraries(folder: str) -> None:
    # The live dashboard's callback is the trainer's, and comes with it.
    names = [name for name in MODULES if name.split(".")[0] == folder and not name.endswith("dashboard_callback")]
    modules = [f"stepgrpo_lab.{name}" for name in names]
    heavy = {"torch", "transformers", "numpy", "yaml"}
    assert not heavy & imported_by_a_fresh_interpreter(f"import {', '.join(modules)}")


def test_the_top_of_the_package_holds_folders_only() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "py.typed"}


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("recipes/launching.py", "from stepgrpo_lab.cli import output"),
        ("method/steps.py", "def later():\n    from stepgrpo_lab.engines import paths"),
        ("viz/svg.py", "import numpy"),
        ("attic/__init__.py", ""),
    ],
)
def test_the_layers_contract_catches_a_planted_violation(tmp_path: Path, module: str, line: str) -> None:
    pytest.importorskip("importlinter")
    root = PACKAGE.parent
    shutil.copy(root / "pyproject.toml", tmp_path)
    shutil.copytree(PACKAGE, tmp_path / "stepgrpo_lab", ignore=shutil.ignore_patterns("__pycache__", "data"))
    planted = tmp_path / "stepgrpo_lab" / module
    planted.parent.mkdir(exist_ok=True)
    with planted.open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    lint = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert planted.stem in result.stdout or "attic" in result.stdout


@pytest.mark.parametrize(
    "statement",
    [
        "from stepgrpo_lab.rewards import StepAwareReward",
        "from stepgrpo_lab.grading import Grader, extract_boxed",
        "from stepgrpo_lab import steps; steps.MarkerSegmenter",
        "import stepgrpo_lab.scaling.formulas as f; f.__dict__",
        "from stepgrpo_lab.checks.result import CheckResult",
    ],
)
def test_module_paths_of_0_1_work_with_a_warning(statement: str) -> None:
    program = f"import warnings; warnings.simplefilter('error', DeprecationWarning); {statement}"
    refused = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "DeprecationWarning: stepgrpo_lab." in refused.stderr
    subprocess.run([sys.executable, "-W", "ignore", "-c", statement], check=True)


def test_every_old_module_path_leads_somewhere() -> None:
    for homes in MOVED.values():
        for home in homes:
            assert find_spec(f"stepgrpo_lab.{home}") is not None, home


def test_an_old_path_warns_at_the_line_that_uses_it() -> None:
    sys.modules.pop("stepgrpo_lab.rewards", None)
    with pytest.warns(DeprecationWarning, match=r"stepgrpo_lab\.method\.rewards") as caught:
        import_module("stepgrpo_lab.rewards")
    assert stepgrpo_lab.StepAwareReward is sys.modules["stepgrpo_lab.rewards"].StepAwareReward
    assert caught


def test_a_public_name_survives_its_old_module() -> None:
    statement = "import stepgrpo_lab.confidence; assert stepgrpo_lab.confidence([0.5]) == 0.5"
    subprocess.run([sys.executable, "-W", "ignore", "-c", statement], check=True)


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


def test_the_lowest_versions_are_those_of_pyproject() -> None:
    """``.ci/run lowest`` tries what pyproject.toml promises, and nothing newer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [Requirement(text) for text in project["dependencies"]]
    asked = [*needed, *(Requirement(text) for extra in ("quant", "notebooks", "test") for text in extras[extra])]
    lowest = {one.name: Version(bound.version) for one in asked for bound in one.specifier if bound.operator == ">="}
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: Version(version) for name, version in pinned.items()} == {name: lowest[name] for name in pinned}
    assert pinned.keys() >= {requirement.name for requirement in needed}
