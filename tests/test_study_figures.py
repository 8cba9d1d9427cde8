"""Studies as figures, as means over seeds and in the explorer, on studies small enough to reckon by hand."""

from __future__ import annotations

import pytest

from stepgrpo_lab.evaluation.results import Comparison
from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.experiments.study_results import (
    RowResult,
    StudyResult,
    mean_curves,
    methods,
    recorded_studies,
    rows_of,
    study_changes,
)
from stepgrpo_lab.viz.plots_study import SIGNALS, method_curves
from stepgrpo_lab.widgets import StudyExplorer


def comparison(ratio: float, points: float = 0.0, **families: Comparison) -> Comparison:
    return Comparison(
        10, Interval(points, points - 1, points + 1), Interval(ratio, ratio, ratio), Interval(0, 0, 0), families
    )


def row(ratio: float, tokens: list[float], **families: Comparison) -> RowResult:
    curves = {"tokens": [[step, value] for step, value in enumerate(tokens, start=1)]}
    return RowResult(comparison(ratio, **families), 2_000_000, curves=curves)


STUDY = StudyResult(
    {
        "ours, seed 0": row(0.5, [90.0, 80.0, 70.0], easy=comparison(0.4), hard=comparison(0.6, -2.0)),
        "ours, seed 1": row(0.7, [70.0, 40.0], easy=comparison(0.3), hard=comparison(0.9)),
        "<b>theirs</b>, seed 0": row(1.0, [100.0], easy=comparison(1.0), hard=comparison(1.0)),
    },
    {"ours": comparison(0.6, easy=comparison(0.35), hard=comparison(0.75))},
)


def test_curves_are_averaged_over_the_steps_that_all_seeds_have() -> None:
    curves = mean_curves(STUDY)
    assert curves["ours"] == {"tokens": [[1, 80.0], [2, 60.0]]}
    assert curves["<b>theirs</b>"] == {"tokens": [[1, 100.0]]}
    assert methods(STUDY) == list(curves)
    assert [result.comparison.token_ratio.estimate for result in rows_of(STUDY, "ours")] == [0.5, 0.7]


def test_a_metric_that_one_seed_lacks_is_left_out() -> None:
    first, second = row(0.5, [90.0]), row(0.5, [80.0])
    second.curves["accuracy"] = [[1, 0.5]]
    study = StudyResult({"ours, seed 0": first, "ours, seed 1": second}, {})
    assert set(mean_curves(study)["ours"]) == {"tokens"}


def test_every_panel_has_a_line_for_each_method() -> None:
    curves = {"a": {"exits/early": [[1, 0.5], [2, 0.25]]}, "b": {"advantage/forced": [[1, -0.5]]}}
    figure = method_curves(curves, SIGNALS)
    assert len(figure.data) == 2 * len(SIGNALS)
    assert list(figure.data[0].y) == [50.0, 25.0]  # a share becomes per cent
    assert list(figure.data[5].y) == [-0.5] and figure.data[5].name == "b"
    assert [trace.name for trace in figure.data if trace.showlegend] == ["a", "b"]
    with pytest.raises(ValueError, match="no run holds a curve of exits/early"):
        method_curves({"a": {"tokens": [[1, 2.0]]}}, SIGNALS)


def test_a_study_is_shown_run_by_run_or_pooled() -> None:
    alone = study_changes(STUDY)
    assert [point["name"] for point in alone] == list(STUDY.rows)
    together = study_changes(STUDY, pooled=True)
    assert [point["name"] for point in together] == ["ours, all seeds", "<b>theirs</b>, seed 0"]
    assert [point["token_ratio"].estimate for point in together] == [0.6, 1.0]
    hard = study_changes(STUDY, family="hard")
    assert [point["token_ratio"].estimate for point in hard] == [0.6, 0.9, 1.0]
    with pytest.raises(ValueError, match="no family 'odd': the study has easy, hard"):
        study_changes(STUDY, family="odd")


def test_the_explorer_tells_what_it_shows() -> None:
    explorer = StudyExplorer({"own": STUDY}, family="hard")
    assert explorer.families == ["all families", "easy", "hard"]
    assert explorer.table_rows[0] == [
        "ours, seed 0",
        "60.0 [60.0, 60.0] %",
        "-2.0 [-3.0, -1.0] points",
        "2.00 million",
    ]
    assert explorer.sentence.startswith("Study own, hard. ours, seed 0: 60.0 [60.0, 60.0] % of the tokens")
    explorer.pooled = True
    assert [row[0] for row in explorer.table_rows] == ["ours, all seeds", "<b>theirs</b>, seed 0"]
    assert explorer.table_rows[0][3] == ""  # of several runs
    [figure] = explorer.figures()
    assert list(figure.data[0].x) == [75.0]
    assert "<b>" not in explorer.body() + "".join(trace.name for trace in figure.data)


def test_the_explorer_shows_the_recorded_studies() -> None:
    explorer = StudyExplorer()
    assert list(explorer.studies) == list(recorded_studies()) and explorer.study == "headline"
    explorer.study = "internalisation"
    assert "every member probed, seed 2" in explorer.sentence and "Is the exit learnt" in explorer.sentence


def test_what_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="no studies to show"):
        StudyExplorer({})
    with pytest.raises(ValueError, match="study is 'none'; use one of own"):
        StudyExplorer({"own": STUDY}, study="none")
    with pytest.raises(ValueError, match="family is 'odd'"):
        StudyExplorer({"own": STUDY}, family="odd")


def test_a_study_of_many_runs_stays_legible() -> None:
    explorer = StudyExplorer(study="sweep")
    assert explorer.sentence.count("% of the tokens") == 2 and "16 runs" in explorer.sentence
    [figure] = explorer.figures()
    assert [trace.text[0] for trace in figure.data][:3] == ["1", "2", "3"]
    assert figure.data[0].name == "the recipe, seed 0"
    assert "1. the recipe, seed 0" in explorer.body()
