"""The course's tools: setup, predictions, checks, source on show, and how notebooks are built and linted."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stepgrpo_lab import course, group_advantages
from stepgrpo_lab.authoring.notebooks import building, linting
from stepgrpo_lab.authoring.notebooks.building import (
    COMPARED,
    Lesson,
    find_lessons,
    fingerprint,
    notebook_path,
    split_solution,
)
from stepgrpo_lab.authoring.notebooks.linting import drift, lint, unknown_keywords
from stepgrpo_lab.course import _environment as environment
from stepgrpo_lab.course import _guessing, _predictions, checks
from stepgrpo_lab.course.checks import exercise, expect
from stepgrpo_lab.widgets._base import FIGURES_MIME, VIEW_MIME

QUESTIONS = itertools.count()

SCRIPT = '''# ---
# jupyter:
#   stepgrpo:
#     title: Doubling
#     minutes: 5
#     hardware: any CPU
# ---

# %% [markdown]
# ## Objectives

# %%
from stepgrpo_lab import course
from stepgrpo_lab.course import checks
saved = course.predict("How much?", unit="%")

# %% tags=["exercise"]
def double(x):
    """Twice x."""
    # BEGIN SOLUTION
    # STUB: return None  # your code here
    return 2 * x
    # END SOLUTION

# %% tags=["check"]
double(2)

# %%
saved.compare(2 * 17)

# %% tags=["result", "nbval-check-output"]
2 * 21

# %% tags=["torch"]
import torch

# %%
course.score()
'''
PROJECT = '[project]\nname = "stepgrpo-lab"\n[project.urls]\nRepository = "https://github.com/someone/lab"\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with one lesson."""
    (tmp_path / "notebooks" / "sources").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "notebooks" / "sources" / "03_doubling.py").write_text(SCRIPT)
    return tmp_path


@pytest.fixture
def lesson(root: Path) -> Lesson:
    [found] = find_lessons(root)
    return found


def code(notebook: nbformat.NotebookNode, tag: str) -> list[str]:
    return [cell.source for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def test_one_script_makes_the_exercise_and_its_twin(lesson: Lesson) -> None:
    exercises, solved = lesson.build(solved=False), lesson.build(solved=True)
    assert code(exercises, "exercise") == ['def double(x):\n    """Twice x."""\n    return None  # your code here']
    assert code(solved, "exercise") == ['def double(x):\n    """Twice x."""\n    return 2 * x']
    for notebook in (exercises, solved):
        nbformat.validate(notebook)
        assert code(notebook, "check") == code(notebook, COMPARED)[:1] == ["double(2)"]
        assert code(notebook, "torch") == ["import torch"]
        assert notebook.metadata.kernelspec.name == "python3"
        assert all("SOLUTION" not in cell.source and "STUB" not in cell.source for cell in notebook.cells)
    assert exercises == lesson.build(solved=False)


def test_title_badge_and_setup_come_from_one_address(lesson: Lesson) -> None:
    for solved, folder in ((False, "notebooks"), (True, "notebooks/solutions")):
        title, setup = lesson.build(solved=solved).cells[:2]
        assert f"github/someone/lab/blob/main/{folder}/03_doubling.ipynb" in title.source
        assert title.source.startswith("# 03 · Doubling") and "5 minutes · any CPU" in title.source
        assert 'address = "https://github.com/someone/lab"' in setup.source
        assert 'f"{address}/archive/refs/' in setup.source and '"stepgrpo-lab[colab] @ {archive}"' in setup.source
        assert max(map(len, setup.source.splitlines())) <= linting.LINE_LENGTH


def test_the_setup_cell_runs_again_and_again_without_installing(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(course.FAST_VARIABLE, raising=False)
    source = lesson.build(solved=False).cells[1].source.replace("%pip", "raise SystemExit  #")
    for _ in range(2):
        names: dict[str, object] = {}
        exec(source, names)  # our own text
        assert isinstance(names["setup"], course.Lab)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (SCRIPT.replace("#     minutes: 5\n", ""), "no stepgrpo: minutes"),
        (SCRIPT.replace(' tags=["exercise"]', ""), "tagged exercise"),
        (SCRIPT.replace("    # END SOLUTION\n", ""), "no counterpart"),
    ],
)
def test_a_wrong_script_is_named(root: Path, script: str, complaint: str) -> None:
    (root / "notebooks" / "sources" / "03_doubling.py").write_text(script)
    with pytest.raises(ValueError, match=complaint):
        find_lessons(root)[0].build(solved=False)


def test_a_folder_without_scripts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="notebooks/sources"):
        find_lessons(tmp_path)


@pytest.mark.parametrize("project", [None, "", "[project]\nname = 'mine'", "not toml ["])
def test_a_folder_of_ones_own_builds_notebooks_too(root: Path, project: str | None) -> None:
    (root / "pyproject.toml").unlink()
    if project is not None:
        (root / "pyproject.toml").write_text(project)
    [lesson] = find_lessons(root)
    title, setup = lesson.build(solved=False).cells[:2]
    assert "colab" not in title.source and title.source.splitlines()[-1].startswith("5 minutes")
    assert "https://github.com/stepgrpo-lab/stepgrpo-lab" in setup.source


def test_a_project_of_ones_own_has_its_badges_and_this_package(root: Path) -> None:
    (root / "pyproject.toml").write_text(PROJECT.replace("stepgrpo-lab", "my-course"))
    title, setup = find_lessons(root)[0].build(solved=False).cells[:2]
    assert "github/someone/lab/blob" in title.source
    assert "someone" not in setup.source and "https://github.com/stepgrpo-lab/stepgrpo-lab" in setup.source


def test_a_notebook_of_which_text_alone_changed_keeps_its_outputs(
    root: Path, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = list[str]()

    def run(notebook: nbformat.NotebookNode, **_: object) -> None:
        ran.append(notebook.cells[0].source)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs = [nbformat.v4.new_output("stream", text=cell.source)]
        notebook.metadata["stepgrpo"]["executed"] = fingerprint(notebook)

    monkeypatch.setattr(building, "execute", run)
    before = [nbformat.read(path, as_version=4) for path in building.build_notebooks(root, keep_outputs=True)]
    assert len(ran) == 2
    lesson.path.write_text(SCRIPT.replace("any CPU", "a slow CPU"))
    after = [nbformat.read(path, as_version=4) for path in building.build_notebooks(root, keep_outputs=True)]
    assert len(ran) == 2 and all("a slow CPU" in notebook.cells[0].source for notebook in after)
    for old, new in zip(before, after, strict=True):
        assert [cell.get("outputs") for cell in new.cells] == [cell.get("outputs") for cell in old.cells]
    lesson.path.write_text(SCRIPT.replace("2 * 21", "3 * 14"))
    building.build_notebooks(root, keep_outputs=True)
    assert len(ran) == 4


def test_cells_of_exercises_carry_what_nbgrader_reads(lesson: Lesson) -> None:
    graded = [cell.metadata["nbgrader"] for cell in lesson.build(solved=False).cells if "nbgrader" in cell.metadata]
    assert [(about["grade"], about["solution"], about.get("points")) for about in graded] == [
        (False, True, None),
        (True, False, 1),
    ]
    assert len({about["grade_id"] for about in graded}) == 2


def test_a_solution_without_stub_leaves_a_place_to_write() -> None:
    cell = "x = 1\n# BEGIN SOLUTION\ny = 2\n# END SOLUTION\nz = 3"
    assert split_solution(cell, solved=False) == "x = 1\n...  # your code here\nz = 3"
    assert split_solution(cell, solved=True) == "x = 1\ny = 2\nz = 3"


def test_notebooks_are_chosen_by_number_or_name(lesson: Lesson) -> None:
    assert building.chosen([lesson], ["03"]) == building.chosen([lesson], ["03_doubling"]) == [lesson]
    assert building.chosen([lesson], []) == [lesson]
    with pytest.raises(ValueError, match="no notebook '04'; there are 03_doubling"):
        building.chosen([lesson], ["04"])


def test_built_notebooks_are_run_and_written_and_do_not_drift(
    root: Path, lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(course.__file__).parents[2]))  # where the package is not installed
    written = building.build_notebooks(root, fast=True)
    assert written == [notebook_path(root, lesson, solved=solved) for solved in (False, True)]
    for path, solved in zip(written, (False, True), strict=True):
        notebook = nbformat.read(path, as_version=4)
        assert list(drift(notebook, lesson, solved)) == []
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        counts = [place if cell.outputs else None for place, cell in enumerate(code, start=1)]
        assert [cell.execution_count for cell in code] == counts  # nbval compares only cells that were run
        outputs = [cell.outputs for cell in notebook.cells if COMPARED in cell.metadata.get("tags", [])]
        shown = [[output.data["text/plain"] for output in kept] for kept in outputs]
        assert shown == ([["4"], ["42"]] if solved else [[]])
        assert ("34" in nbformat.writes(notebook)) == solved  # the outcome of the prediction
        setup = notebook.cells[1]
        assert setup.outputs == []  # it tells of the machine


def test_drift_and_stale_outputs_are_found(lesson: Lesson) -> None:
    notebook = lesson.build(solved=False)
    notebook.metadata["stepgrpo"]["executed"] = fingerprint(notebook)
    assert list(drift(notebook, lesson, False)) == []
    assert [finding[:12] for finding in drift(notebook, lesson, True)] == ["differs from", "its metadata"]
    notebook.cells[-1]["source"] += "\n1"
    assert ["differs" in finding or "stale" in finding for finding in drift(notebook, lesson, False)] == [True, True]


def test_outputs_keep_what_teaches_and_nothing_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "picture", lambda figure: f"drawn {figure['data']}")
    new = nbformat.v4.new_output
    outputs = [
        new("stream", name="stderr", text="a warning"),
        new("stream", name="stdout", text="kept"),
        new("display_data", data={building.FIGURE_MIME: {"data": 1, "layout": 2}, "text/html": "x" * 10_000}),
        new(
            "execute_result",
            data={
                building.WIDGET_MIME: {},
                FIGURES_MIME: [{"data": 3}],
                "text/html": "static",
                "text/plain": "W at 0x7f00",
            },
        ),
    ]
    printed, figure, drawn, widget = building._kept(outputs)
    assert drawn.data["image/png"] == "drawn 3"
    assert printed.text == "kept"
    assert figure.data == {"image/png": "drawn 1", "text/plain": "Figure"}
    assert widget.data == {"text/html": "static", "text/plain": "W"}


def good_notebook() -> nbformat.NotebookNode:
    """A notebook that keeps to every rule."""
    text, run = nbformat.v4.new_markdown_cell, nbformat.v4.new_code_cell
    result = nbformat.v4.new_output("execute_result", data={"text/plain": "red"})
    cells = [
        run("import stepgrpo_lab", metadata={"tags": ["setup"]}),
        text("## Objectives"),
        run("saved = course.predict('?', None)\nsaved.compare(len(saved))"),
        *(run("x", metadata={"tags": ["exercise"]}) for _ in range(2)),
        *(run("y", metadata={"tags": ["check", COMPARED]}, outputs=[result], execution_count=1) for _ in range(2)),
        text("<summary>Hint</summary> <summary>Hint</summary>"),
        text("## What can go wrong: all"),
        text("## Summary and next"),
        run("course.score()"),
    ]
    for place, cell in enumerate(cells):
        cell["id"] = f"c{place}"
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": building.KERNEL | {}})


def test_a_good_notebook_has_no_findings() -> None:
    assert list(lint(good_notebook())) == []


@pytest.mark.parametrize(
    ("place", "change", "finding"),
    [
        (2, {"source": "x = predict(1)\nx.compare(y)" + "\n1" * 21}, "23 lines"),
        (2, {"source": "x = predict(); x.compare(y)  # " + "x" * 80}, "a line of"),
        (1, {"source": "## Objectives " + "word " * 140}, "words"),
        (5, {"outputs": []}, "has no output stored"),
        (5, {"execution_count": None}, "no execution count"),
        (0, {"metadata": {}}, "must be the setup"),
        (8, {"source": "nothing"}, "What can go wrong"),
        (4, {"metadata": {}}, "1 exercises and 2 checks"),
        (7, {"source": "no hint"}, "without a hint"),
        (2, {"source": "found"}, "needs a prediction"),
        (2, {"source": "saved = course.predict('?')"}, "1 times and compared 0 times"),
        (2, {"source": "saved = course.predict('?')\nsaved.compare(x)\nsaved.compare(x)"}, "compared 2 times"),
        (2, {"source": "course.predict('?').compare(x)"}, "without a name"),
        (2, {"source": "saved = course.predict('?')\nsaved.compare(34)"}, "gives its outcome away"),
        (2, {"source": "saved = course.predict('?')\nsaved.compare(-round(3.4))"}, "gives its outcome away"),
        (2, {"source": "x = 'wider'\nsaved = course.predict('?')\nsaved.compare(x)"}, "gives its outcome away"),
        (10, {"source": "found"}, "must end with course.score()"),
        (3, {"source": "import torch", "metadata": {"tags": ["exercise", "torch"]}}, "imports torch outside"),
        (2, {"source": "import trl\nx = predict()\nx.compare(y)\ntrl.GRPOConfig(learning_rat=1)"}, "'learning_rat'"),
    ],
)
def test_each_rule_of_the_lint_finds_its_breach(place: int, change: dict[str, object], finding: str) -> None:
    notebook = good_notebook()
    notebook.cells[place].update(change)
    assert any(finding in found for found in lint(notebook)), list(lint(notebook))


@pytest.mark.parametrize(
    "computed",
    [
        "100 * kept",
        "'wider' if low > high else 'narrower'",
        "course.sealed('x')",
        "round(total, 1)",
        "total",
        "rows[0]",
    ],
)
def test_an_outcome_that_is_computed_or_sealed_is_no_finding(computed: str) -> None:
    notebook = good_notebook()
    loop = "total = 0\nfor row in rows:\n    total += row"
    notebook.cells[2].source = f"saved = course.predict('?')\n{loop}\nsaved.compare({computed})"
    assert list(lint(notebook)) == []


@pytest.mark.parametrize("cell", [{"source": "saved.compare(x)"}, {"source": "x", "metadata": {"tags": ["result"]}}])
def test_an_outcome_in_an_exercise_notebook_is_found(cell: dict[str, Any]) -> None:
    output = nbformat.v4.new_output("execute_result", data={"text/plain": "34"})
    cells = [nbformat.v4.new_code_cell(**cell, outputs=[output], execution_count=1)]
    for solved in (False, True):
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"stepgrpo": {"solved": solved}})
        assert any("shows its outcome" in finding for finding in lint(notebook)) != solved


def test_another_kernel_is_found() -> None:
    notebook = good_notebook()
    notebook.metadata["kernelspec"]["name"] = "conda-env-me"
    assert "its kernel must be python3" in list(lint(notebook))


def test_keywords_that_do_not_exist_are_found() -> None:
    sources = [
        "%pip install x\nimport stepgrpo_lab as lab\nfrom stepgrpo_lab import widgets, step_aware_rewards as reward",
        "reward([], [], [], step_gamma=1)\nlab.group_advantages([], step=1)\nwidgets.StepInspector(treshold=1)",
        "reward([], [], [], step_beta=1)\nwidgets.StepInspector(threshold=1)\nprint(nothing=1)\nlab.missing(x=1)",
    ]
    assert list(unknown_keywords(sources)) == [
        "reward has no keyword 'step_gamma'",
        "lab.group_advantages has no keyword 'step'",
        "widgets.StepInspector has no keyword 'treshold'",
    ]


def test_a_missing_notebook_is_named(root: Path) -> None:
    assert linting.lint_course(root) == [
        f"notebooks/{folder}03_doubling.ipynb is missing: run `stepgrpo notebooks build 03`"
        for folder in ("", "solutions/")
    ]


def asked(**how: Any) -> course.Prediction:
    """A prediction with a question of its own."""
    return course.predict(f"What comes out ({next(QUESTIONS)})?", **how)


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        (34, 34),
        ("34", 34),
        ("34%", 34),
        (" 34 % ", 34),
        ("about 34 percent", 34),
        (0.34, 34),
        ("0.34", 34),
        ("0,34", 34),
        ("1/2", 50),
        ("34,5", 34.5),
        ("0.5 %", 0.5),
        ("1,000", 1000),
        ("−3", -3),
        (np.float32(34), 34),
        (np.array([34]), 34),
        (torch.tensor(34.0), 34),
        ("between 3 and 5", None),
        ("a third", None),
        ("", None),
        ("1/0", None),
        ("1e999", None),
        (True, None),
        (float("nan"), None),
        ([1, 2], None),
        (torch.tensor([1.0, 2.0]), None),
    ],
)
def test_a_percentage_is_understood_as_it_is_said(said: Any, understood: float | None) -> None:
    prediction = asked(unit="%")
    prediction.guess = said
    assert prediction.guess == (None if understood is None else pytest.approx(understood))
    assert bool(prediction.note) == (understood is None or (understood >= 34 and said in (0.34, "0.34", "0,34", "1/2")))


@settings(deadline=None)
@given(st.one_of(st.text(), st.floats(), st.integers(), st.none(), st.lists(st.integers()), st.binary()))
def test_nothing_that_a_learner_enters_raises(said: Any) -> None:
    for how in ({"unit": "%"}, {"choices": ("yes", "no")}, {"low": 0, "high": 5}, {}):
        prediction = course.predict("Anything?", said, **how)  # type: ignore[arg-type]
        assert repr(prediction) and prediction._repr_mimebundle_()
        outcome = "yes" if "choices" in how else 3
        assert repr(prediction.compare(outcome)) and repr(course.score())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said", ["less likely", "Less likely", " less  likely. ", "LESS-LIKELY", "less", "'less likely'"]
)
def test_a_choice_is_understood_as_it_is_said(said: str) -> None:
    prediction = asked(choices=("likelier", "less likely"))
    prediction.guess = said
    assert prediction.guess == "less likely" and prediction.note == ""
    prediction.guess = "perhaps"
    assert prediction.guess == "less likely" and "likelier, less likely" in prediction.note
    assert prediction.compare("less likely").verdict == "right"
    assert prediction.compare("likelier").verdict == "surprise"
    with pytest.raises(ValueError, match="not among the choices"):
        prediction.compare("maybe")


@pytest.mark.parametrize(
    ("how", "guess", "outcome", "verdict"),
    [
        ({"unit": "%"}, 34, 34, "right"),
        ({"unit": "%"}, 38, 34, "close"),
        ({"unit": "%"}, 39, 34, "close"),
        ({"unit": "%"}, 47, 34, "near"),
        ({"unit": "%"}, 90, 34, "surprise"),
        ({"unit": "%"}, None, 34, None),
        ({"low": 0, "high": 20}, 9, 10, "close"),
        ({"low": 0, "high": 20}, 8, 10, "near"),
        ({"low": 0, "high": 20}, 4, 10, "surprise"),
        ({}, 95, 100, "close"),
        ({}, "ten", 10, None),
        ({}, "ten", "Ten", "right"),
    ],
)
def test_a_guess_is_judged_on_the_scale_of_its_question(
    how: Any, guess: Any, outcome: Any, verdict: str | None
) -> None:
    comparison = asked(**how, guess=guess).compare(outcome)
    assert comparison.verdict == verdict
    assert comparison.close == (None if verdict is None else verdict in ("right", "close"))
    assert asked(**how, guess=guess).compare(outcome, tolerance=1e9).verdict in (None, "right", "close")


def test_the_old_forms_of_a_prediction_still_work() -> None:
    assert course.predict("How many?", None).guess is None
    assert course.predict("How many?", 50, unit="%").guess == 50
    assert course.predict("Longer?", "yes", choices=("yes", "no")).guess == "yes"
    assert course.predict("Anything?", "an answer").guess == "an answer"


def test_a_question_asked_again_keeps_its_guess_unless_it_changes() -> None:
    asked_first = course.predict("The same?", unit="%")
    asked_first.guess = "0.5 %"
    assert course.predict("The same?", unit="%").guess == 0.5
    assert course.predict("The same?", choices=("yes", "no")).guess is None
    assert [kept.guess for kept in course.predictions() if kept.question == "The same?"] == [None]


def test_the_score_counts_what_was_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_predictions, "_compared", {})
    assert "No prediction" in repr(course.score())
    for guess in (34, 37, 45, 90, None):
        asked(unit="%", guess=guess).compare(34)
    asked(unit="%", guess=34)  # never compared
    assert course.score() == course.Score(right=2, near=1, surprises=1, unanswered=1)
    assert "4 of 5" in repr(course.score()) and "1 unanswered" in repr(course.score())


def test_what_is_guessed_with_a_control_is_the_guess() -> None:
    slider = asked(unit="%")
    shown = slider._repr_mimebundle_()
    assert VIEW_MIME in shown and slider.question in shown["text/plain"]
    view = slider._view
    assert view is not None
    view.control.value = 20
    assert slider.guess == 20 and "20" in view.said.value
    view.keep.click()
    assert view.control.disabled
    view.keep.click()
    assert not view.control.disabled
    slider.guess = 70
    assert view.control.value == 70
    buttons = asked(choices=("yes", "no"))
    buttons._repr_mimebundle_()
    assert buttons._view is not None and buttons.guess is None
    buttons._view.control.value = "no"
    assert buttons.guess == "no"


def test_a_slider_that_is_left_alone_is_kept_as_it_stands() -> None:
    slider = asked(low=0, high=1)
    slider._repr_mimebundle_()
    assert slider._view is not None and slider.guess is None
    slider._view.keep.click()
    assert slider.guess == 0.5


def test_without_ipywidgets_a_prediction_says_how_to_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_guessing, "find_spec", lambda name: None)
    shown = asked(unit="%")._repr_mimebundle_()
    assert VIEW_MIME not in shown and ".guess = 34" in shown["text/plain"]
    assert "&lt;b&gt;" in course.predict("<b>", None)._repr_mimebundle_()["text/html"]


@given(st.text())
def test_a_sealed_outcome_can_be_opened_and_not_read(text: str) -> None:
    closed = course.seal(text)
    assert course.sealed(closed) == text and (len(text) < 4 or text not in closed)


def test_what_was_never_sealed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"course\.seal"):
        course.sealed("narrower")


@exercise("00.9", "well done")
def doubling(solution: object) -> None:
    """Twice a number."""
    expect(solution(2), 4, "double(2)", hint="Multiply.")  # type: ignore[operator]


def test_a_check_returns_red_or_green(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(checks.STRICT_VARIABLE, raising=False)
    assert repr(doubling(lambda x: 2 * x)) == "✔ Exercise 00.9 solved: well done"
    assert repr(doubling(lambda x: x)).endswith("double(2) gives 2; expected 4. Multiply.")
    assert "gives nothing yet" in doubling(lambda x: None).message
    assert "your code raised ZeroDivisionError" in doubling(lambda x: x / 0).message
    assert "write the body first" in doubling(lambda x: (_ for _ in ()).throw(NotImplementedError)).message
    assert "&lt;script&gt;" in checks.CheckResult("1", False, "<script>")._repr_html_()


def test_a_strict_check_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(checks.STRICT_VARIABLE, "1")
    assert doubling(lambda x: 2 * x).passed
    with pytest.raises(checks.Unsolved, match=r"double\(2\) gives 2"):
        doubling(lambda x: x)


@pytest.mark.parametrize(
    ("actual", "expected", "same"),
    [
        (0.1 + 0.2, 0.3, True),
        (True, 1, False),
        (1, True, True),
        ([1, 2.0000000001], [1, 2], True),
        ((1, 2), [1, 2, 3], False),
        ("12", ["1", "2"], False),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": 1.0}, {"b": 1}, False),
        (float("nan"), float("nan"), True),
        ("1", 1, False),
        (None, 0, False),
        ({1, 2}, {1, 2}, True),
    ],
)
def test_values_are_held_against_each_other_by_kind(actual: object, expected: object, same: bool) -> None:
    if same:
        expect(actual, expected, "it")
    else:
        with pytest.raises(checks.Unsolved):
            expect(actual, expected, "it")


def test_tensors_count_as_numbers_and_lists() -> None:
    import torch

    expect(torch.tensor(2.0), 2, "it")
    expect(torch.tensor([1.0, 2.0]), [1, 2], "it")


def test_source_is_shown_without_its_docstring_and_in_a_fence_that_holds() -> None:
    source = course.source_of(group_advantages)
    assert source.name == "stepgrpo_lab.method.rewards.group_advantages"
    assert '"""' not in source.code and "return" in source.code
    compile(source.code, "shown", "exec")
    assert '"""' in course.source_of(group_advantages, docstring=True).code
    fenced = course.Source("x", "a = '```'")._repr_markdown_()
    assert fenced.startswith("````python\n") and fenced.endswith("\n````")
    with pytest.raises(TypeError, match="no source to show"):
        course.source_of(len)


def test_fast_mode_follows_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, fast in (("", False), ("0", False), ("1", True)):
        monkeypatch.setenv(course.FAST_VARIABLE, value)
        assert course.fast_mode() is fast
    assert course.setup().size(2000, 50) == 50
    monkeypatch.setenv(course.FAST_VARIABLE, "yes")
    with pytest.raises(ValueError, match="STEPGRPO_FAST is 'yes'"):
        course.setup()


def test_the_lab_tells_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_gpu_name", lambda: "Tesla <T4>")
    lab = course.setup()
    assert "Tesla <T4>" in repr(lab) and "Tesla &lt;T4&gt;" in lab._repr_html_()
    assert lab.versions["torch"] != "missing"
    assert environment._version("no-such-package") == "missing"


def test_the_lab_says_what_is_missing_for_widgets_that_move(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "pip install" not in repr(course.setup())
    monkeypatch.setattr(environment, "find_spec", lambda name: None if name == "anywidget" else name)
    assert "anywidget missing: pip install 'stepgrpo-lab[notebooks]'" in repr(course.setup())


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_precision_follows_the_compute_capability(
    capability: tuple[int, int], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert course.setup().precision == precision
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert course.setup().precision == "float32"


def test_the_marks_of_scripts_are_what_the_guide_says() -> None:
    assert (building.BEGIN, building.END, building.STUB) == ("# BEGIN SOLUTION", "# END SOLUTION", "# STUB:")
