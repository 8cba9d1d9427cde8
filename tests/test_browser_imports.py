"""The package where a browser would run it: without torch, NumPy, YAML and the rest, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgrpo_lab.course._browser import ABSENT
from stepgrpo_lab.evaluation import _without_numpy
from stepgrpo_lab.evaluation.statistics import Interval, calibration, seeds_bootstrap
from stepgrpo_lab.site.lite import browser_notebooks

ROOT = Path(__file__).parents[1]

BLOCKED = f"""
import sys
from importlib.abc import MetaPathFinder


class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted({*ABSENT, "nbformat", "markupsafe", "regex", "sympy"})!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)


sys.meta_path.insert(0, Absent())
"""

WIDGETS = """
from stepgrpo_lab import widgets

for name in widgets.__all__:
    if name != "LiveDashboard":
        widget = getattr(widgets, name)()
        print(name, len(widget.sentence) > 20 and widget.view is not None)
"""

NOTEBOOK = """
import contextlib, io, json, sys
from IPython.core.interactiveshell import InteractiveShell

sys.platform = "emscripten"
shell = InteractiveShell.instance()
shell.display_pub.publish = lambda *arguments, **options: None
found = {"ran": 0, "skipped": {}, "failed": {}}
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        written = io.StringIO()
        with contextlib.redirect_stdout(written), contextlib.redirect_stderr(written):
            result = shell.run_cell("".join(cell["source"]), store_history=True)
        found["ran"] += 1
        if not result.success:
            found["failed"][cell["id"]] = repr(result.error_in_exec or result.error_before_exec)
        elif "Skipped: " in written.getvalue():
            found["skipped"][cell["id"]] = written.getvalue()
print(json.dumps(found))
"""


def lean(program: str, *arguments: str) -> str:
    """What a program prints where nothing heavy can be imported."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STEPGRPO_FAST": "1", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_widget_but_the_dashboard_starts() -> None:
    lines = lean(WIDGETS).splitlines()
    assert len(lines) == 6
    assert all(line.endswith(" True") for line in lines)


def test_the_public_names_of_records_and_the_method_can_be_had() -> None:
    names = ("Problem", "ExitRule", "TrajectoryMachine", "StepAwareReward", "load_survey", "try_rule", "label_steps")
    lean(f"import stepgrpo_lab as lab; [getattr(lab, name) for name in {names}]")


@pytest.mark.parametrize("notebook", browser_notebooks(ROOT), ids=lambda path: path.stem)
def test_a_notebook_runs_to_its_end_and_skips_what_needs_torch(notebook: Path) -> None:
    found = json.loads(lean(NOTEBOOK, str(notebook)).splitlines()[-1])
    assert found["failed"] == {}
    assert len(found["skipped"]) < found["ran"] / 2
    needed = {line.split(" needs ")[1].split(",")[0] for line in found["skipped"].values() if " needs " in line}
    assert needed <= {"torch", "transformers"}


def test_only_what_is_absent_is_passed_over() -> None:
    program = NOTEBOOK.replace('json.load(open(sys.argv[1], encoding="utf-8"))["cells"]', "CELLS").replace(
        'sys.platform = "emscripten"', "from stepgrpo_lab.course import _browser"
    )
    sources = [
        "1",
        "import torch\nlost = 1",
        "print(lost)",
        "print(never_defined)",
        "import torhc",
        "kept = 5\nkept",
        "assert kept == 5",
        "old = 1",
        "old = 2; import numpy",
        "old",
    ]
    cells = [{"cell_type": "code", "id": str(place), "source": [source]} for place, source in enumerate(sources)]
    program = f"CELLS = {cells!r}\n" + program.replace(
        "found = {", "_browser.make_ready(shell)\n_browser.make_ready(shell)\nfound = {", 1
    )
    found = json.loads(lean(program).splitlines()[-1])
    assert set(found["skipped"]) == {"1", "2", "8", "9"}  # the last one must not go on with the value before
    assert set(found["failed"]) == {"3", "4"}


VALUES = st.lists(st.floats(0.5, 100), min_size=2, max_size=30)


@given(VALUES, st.sampled_from(["difference", "ratio"]), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_intervals_without_numpy_are_those_with_it_but_for_the_draws(
    values: list[float], statistic: str, seeds: int
) -> None:
    runs = [[value * (1 + 0.2 * ((place + seed) % 3)) for place, value in enumerate(values)] for seed in range(seeds)]
    by_numpy, wide, narrow = (
        seeds_bootstrap(runs, values, statistic=statistic, level=level, seed=1) for level in (0.95, 0.995, 0.8)
    )
    plain = Interval(*_without_numpy.resample(runs, [values], statistic, 10_000, 0.95, 1))
    assert plain.estimate == pytest.approx(by_numpy.estimate)
    slack = 1e-9 * max(1.0, abs(plain.estimate))  # few problems have few means, so a bound may jump to the next one
    assert wide.low - slack <= plain.low <= narrow.low + slack
    assert narrow.high - slack <= plain.high <= wide.high + slack


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40), st.integers(1, 12), st.booleans())
@settings(max_examples=50, deadline=None)
def test_bins_without_numpy_are_those_with_it(answers: list[tuple[float, bool]], bins: int, equal_mass: bool) -> None:
    stated, right = zip(*answers, strict=True)
    rows = calibration(stated, right, bins, equal_mass=equal_mass).bins
    plain = _without_numpy.bin_answers(stated, right, bins, equal_mass)
    assert [(row.low, row.high, row.count) for row in rows] == [
        (pytest.approx(low), pytest.approx(high), len(inside)) for low, high, inside in plain
    ]


@pytest.mark.parametrize("values", [[], [[[]]], [[]], [[float("nan")]], [[1.0], [1.0, 2.0]]])
def test_without_numpy_values_that_mean_nothing_are_refused(values: list[list[float]]) -> None:
    with pytest.raises(ValueError):
        _without_numpy.resample(values, [], "difference", 10, 0.95, 0)
