"""Records of experiments: read back whole, as tables, pictures and in the explorer; and those that are published."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from statistics import fmean

import pytest

from stepgrpo_lab.cli import main
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.experiments._measure import calibration_at_first_marker
from stepgrpo_lab.experiments._page import record_page
from stepgrpo_lab.experiments.pictures import draw_record, record_figures
from stepgrpo_lab.experiments.plan import EXPERIMENTS, Plan
from stepgrpo_lab.experiments.record import (
    Measurement,
    Record,
    RowResult,
    SeedResult,
    changes,
    load_record,
    mean_curves,
    read_record,
    shipped_records,
)
from stepgrpo_lab.experiments.rows import Published
from stepgrpo_lab.experiments.tables import (
    KINDS,
    headline_markdown,
    record_markdown,
    record_tables,
    signals_markdown,
)
from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.viz.plots_study import SIGNALS, method_curves
from stepgrpo_lab.widgets import StudyExplorer

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "data" / "results"


def changed(ratio: float, points: float = 0.0, **families: Measurement) -> Measurement:
    return Measurement(
        10, 1, Interval(points, points - 1, points + 1), Interval(ratio, ratio, ratio), parts=dict(families)
    )


def run(seed: int, ratio: float, tokens: list[float], **families: Measurement) -> SeedResult:
    signals = {"exits/early": 0.5, "groups/mixed": 0.25, "advantage/forced": -0.1, "advantage/natural": 0.2}
    curves = {key: [[step, value * (1 + (step > 10))] for step in range(1, 21)] for key, value in signals.items()}
    curves["tokens"] = [[step, value] for step, value in enumerate(tokens, start=1)]
    cut = {"hard": Interval(-50.0, -55.0, -45.0)}
    return SeedResult(seed, decoded_tokens=2_000_000, curves=curves, test=changed(ratio, **families), first_cut=cut)


def row(title: str, test: Measurement, *seeds: SeedResult, kind: str = "method") -> RowResult:
    return RowResult(re.sub(r"\W+", "-", title), title, kind, "", Published(), test, list(seeds))


OURS = row(
    "ours",
    changed(0.6, easy=changed(0.35), hard=changed(0.75)),
    run(0, 0.5, [90.0, 80.0, 70.0], easy=changed(0.4), hard=changed(0.6, -2.0)),
    run(1, 0.7, [70.0, 40.0], easy=changed(0.3), hard=changed(0.9)),
)
THEIRS = row(
    "<b>theirs</b>",
    changed(1.0, easy=changed(1.0), hard=changed(1.0)),
    run(0, 1.0, [100.0], easy=changed(1.0), hard=changed(1.0)),
)
RECORD = Record([row("plain", changed(1.0), SeedResult(0), kind="untrained"), OURS, THEIRS], Plan(harder=0), "headline")


def test_a_record_is_read_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(RECORD.text())
    assert read_record(path) == RECORD
    assert "[1, 90.0]" in RECORD.text()  # a point of a curve stays on its line


@pytest.mark.parametrize("text", ["", "[]", '{"rows": {}}', '{"rows": [{}], "plan": {"learning_rates": []}}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"record\.json"):
        read_record(path)


def test_rows_and_runs_are_found_by_title_and_seed() -> None:
    assert RECORD.row("ours") is OURS and list(RECORD.pooled) == ["ours"]
    assert list(RECORD.runs) == ["ours, seed 0", "ours, seed 1", "<b>theirs</b>, seed 0"]
    assert [result.seed for result in RECORD.row("ours").seeds] == [0, 1]
    with pytest.raises(ValueError, match="no row 'odd'"):
        RECORD.row("odd")


# ---- over training ---------------------------------------------------------------------------------------------------


def test_curves_are_averaged_over_the_steps_that_all_seeds_have() -> None:
    curves = mean_curves(RECORD)
    assert list(curves) == ["ours", "<b>theirs</b>"]
    assert curves["ours"]["tokens"] == [[1, 80.0], [2, 60.0]]
    assert curves["<b>theirs</b>"]["tokens"] == [[1, 100.0]]


def test_a_metric_that_one_seed_lacks_is_left_out() -> None:
    first, second = run(0, 0.5, [90.0]), run(1, 0.5, [80.0])
    second.curves["accuracy"] = [[1, 0.5]]
    del second.curves["exits/early"]
    curves = mean_curves(Record([row("ours", changed(0.5), first, second)], Plan()))
    assert set(first.curves) - set(curves["ours"]) == {"exits/early"} and "accuracy" not in curves["ours"]


def test_signals_are_means_over_the_first_and_the_last_steps() -> None:
    lines = signals_markdown(RECORD).splitlines()
    assert lines[2:] == [  # one seed of theirs is no mean
        "| ours | first 10 | 50 % | 25 % | -0.10 | +0.20 |",
        "| ours | last 10 | 100 % | 50 % | -0.20 | +0.40 |",
    ]
    without = dataclasses.replace(OURS, seeds=[dataclasses.replace(each, curves={}) for each in OURS.seeds])
    with pytest.raises(ValueError, match="no training curves"):
        signals_markdown(Record([without], Plan()))


def test_every_panel_has_a_line_for_each_method() -> None:
    curves = {"a": {"exits/early": [[1, 0.5], [2, 0.25]]}, "b": {"advantage/forced": [[1, -0.5]]}}
    figure = method_curves(curves, SIGNALS)
    assert len(figure.data) == 2 * len(SIGNALS)
    assert list(figure.data[0].y) == [50.0, 25.0]  # a share becomes per cent
    assert list(figure.data[5].y) == [-0.5] and figure.data[5].name == "b"
    assert [trace.name for trace in figure.data if trace.showlegend] == ["a", "b"]
    with pytest.raises(ValueError, match="exits/early"):
        method_curves({"a": {"tokens": [[1, 2.0]]}}, SIGNALS)


# ---- tables and pictures ---------------------------------------------------------------------------------------------


def test_a_table_has_a_line_for_each_row_and_each_run_and_no_empty_column() -> None:
    tables = {table.caption: table for table in record_tables(RECORD)}
    assert [line[0] for line in tables[KINDS["method"]].rows] == ["ours", "<b>theirs</b>"]
    assert tables[KINDS["method"]].head == ["", "seeds", "points", "compression rate"]
    [seeds] = [table for caption, table in tables.items() if caption.startswith("Seed by seed")]
    assert [line[:2] for line in seeds.rows] == [["plain", "0"], ["ours", "0"], ["ours", "1"], ["<b>theirs</b>", "0"]]
    assert seeds.rows[1][-2:] == ["2.00 million", "-50.0 [-55.0, -45.0] points"]
    assert "| ours | 2 | 60 % [60, 60] | +0.0 [-1.0, +1.0] points |" in headline_markdown(RECORD)


def test_a_record_of_changes_alone_has_a_picture_figures_and_a_page() -> None:
    assert set(record_figures(RECORD)) == {"rollouts", "signals", *(f"exits-{each.name}" for each in RECORD.trained)}
    page = record_page(RECORD).split("<script>")[0]
    assert 'data-figure="signals"' in page and "<b>theirs" not in page
    assert "ours: 60.0 [60.0, 60.0] % of the tokens" in draw_record(RECORD)


# ---- the explorer ----------------------------------------------------------------------------------------------------


def test_a_record_is_shown_run_by_run_or_pooled() -> None:
    assert [point["name"] for point in changes(RECORD)] == list(RECORD.runs)
    together = changes(RECORD, pooled=True)
    assert [point["name"] for point in together] == ["ours, all seeds", "<b>theirs</b>, seed 0"]
    assert [point["token_ratio"].estimate for point in together] == [0.6, 1.0]
    hard = changes(RECORD, family="hard")
    assert [point["token_ratio"].estimate for point in hard] == [0.6, 0.9, 1.0]
    with pytest.raises(ValueError, match="no family 'odd'"):
        changes(RECORD, family="odd")
    means = dataclasses.replace(OURS, seeds=[dataclasses.replace(each, test=None) for each in OURS.seeds])
    assert [point["name"] for point in changes(Record([means], Plan()))] == ["ours, all seeds"]


def test_the_explorer_says_what_it_shows() -> None:
    explorer = StudyExplorer({"own": RECORD}, family="hard")
    assert explorer.families == ["all families", "easy", "hard"]
    assert explorer.table_rows[0] == [
        "ours, seed 0",
        "60.0 [60.0, 60.0] %",
        "-2.0 [-3.0, -1.0] points",
        "2.00 million",
    ]
    assert explorer.sentence.startswith("Study own, hard. ours, seed 0: 60.0 [60.0, 60.0] % of the tokens")
    assert "over problems." in explorer.body()
    explorer.pooled = True
    assert [line[0] for line in explorer.table_rows] == ["ours, all seeds", "<b>theirs</b>, seed 0"]
    assert explorer.table_rows[0][3] == ""  # of several runs
    [figure] = explorer.figures()
    assert list(figure.data[0].x) == [75.0]
    assert "<b>" not in explorer.body() + "".join(trace.name for trace in figure.data)


def test_the_explorer_shows_the_recorded_experiments() -> None:
    explorer = StudyExplorer()
    assert list(explorer.studies) == list(shipped_records()) and explorer.study == "headline"
    explorer.study = "internalisation"
    assert "every member probed, seed 2" in explorer.sentence and "Is the exit learned" in explorer.sentence


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no records to show"):
        StudyExplorer({})
    with pytest.raises(ValueError, match="study is 'none'; use one of own"):
        StudyExplorer({"own": RECORD}, study="none")
    with pytest.raises(ValueError, match="family is 'odd'"):
        StudyExplorer({"own": RECORD}, family="odd")


def test_a_record_of_many_runs_stays_legible() -> None:
    explorer = StudyExplorer(study="sweep")
    assert explorer.sentence.count("% of the tokens") == 2 and "16 runs" in explorer.sentence
    [figure] = explorer.figures()
    assert [trace.text[0] for trace in figure.data][:3] == ["1", "2", "3"]
    assert figure.data[0].name == "the recipe, seed 0"
    assert "1. the recipe, seed 0" in explorer.body()


# ---- what is published -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["headline", "internalisation", "fairness", "sweep"])
def test_the_published_records_hold_their_declared_rows(name: str) -> None:
    record, declared = load_record(name), [each for each in EXPERIMENTS[name].rows if each.kind != "untrained"]
    found = [(each.name, each.title, each.kind, tuple(run.seed for run in each.seeds)) for each in record.trained]
    assert found == [(each.name, each.title, each.kind, each.seeds) for each in declared]
    assert {each.test.problems for each in record.rows} == {EXPERIMENTS[name].plan.test}
    assert record.text() == (RESULTS / f"{name}.json").read_text(encoding="utf-8")
    if name != "headline":  # its question is answered by the comparison; notebooks read single runs of it
        assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == record_markdown(record)


@pytest.mark.parametrize("name", ["overthinker-2", "sweep-2"])
def test_the_records_of_the_second_laboratory_hold_whole_rows(name: str) -> None:
    """Its rows are many; those that are done hold every declared seed."""
    record, declared = load_record(name), {each.name: each for each in EXPERIMENTS[name].rows}
    assert record.plan == EXPERIMENTS[name].plan
    for each in record.rows:
        row = declared[each.name]
        assert (each.title, each.kind, tuple(run.seed for run in each.seeds)) == (row.title, row.kind, row.seeds)
        assert each.test.problems == record.plan.test
    assert record.text() == (RESULTS / f"{name}.json").read_text(encoding="utf-8")
    assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == record_markdown(record)


def test_the_second_headline_compares_step_grpo_with_grpo() -> None:
    record = load_record("overthinker-2")
    rows = {each.name: each for each in record.rows}
    assert {len(rows[name].seeds) for name in ("step-grpo", "grpo")} == {5}
    against = next(each for each in record.contrasts if (each.after, each.before) == ("Step-GRPO", "GRPO"))
    gained = against.test.accuracy_points
    assert gained.low <= against.seeds.estimate <= gained.high
    means = {name: fmean(run.accuracy for run in rows[name].seeds) for name in ("step-grpo", "grpo")}
    assert gained.estimate == pytest.approx(100 * (means["step-grpo"] - means["grpo"]))


def test_the_published_comparison_holds_every_declared_row_at_its_plan() -> None:
    record, rows = load_record("all"), EXPERIMENTS["all"].rows
    declared = [(each.name, each.title, each.kind, each.expectation, each.published) for each in rows]
    assert [(each.name, each.title, each.kind, each.expectation, each.published) for each in record.rows] == declared
    assert record.plan == Plan()
    for result, each in zip(record.rows, rows, strict=True):
        assert tuple(seed.seed for seed in result.seeds) == each.seeds
        assert result.harder is not None
        assert (result.test.problems, result.harder.problems) == (record.plan.test, record.plan.harder)
        assert result.test.samples == record.plan.samples * len(result.seeds)
        grid = {f"{rate}" for rate in record.plan.learning_rates}
        assert set(result.rates) == (grid if result.kind == "method" else set())
        if result.kind in ("method", "ablation", "setting"):
            assert all(seed.decoded_tokens >= record.plan.token_budget for seed in result.seeds)


def test_first_trial_answers_are_counted_run_by_run_and_averaged() -> None:
    def cut(*answers: tuple[float, bool]) -> Evaluation:
        outcomes = [[Outcome(right, True, steps=1, tokens=9, close="forced")] for _, right in answers]
        names = [str(place) for place in range(len(answers))]
        return Evaluation(names, ["chain"] * len(names), [1] * len(names), outcomes, trial_answers=list(answers))

    sure, modest = cut((0.9, False)), cut((0.5, True), (0.5, False), (0.5, True), (0.5, False))
    assert calibration_at_first_marker([modest]) == pytest.approx({"stated": 0.5, "right": 0.5, "ece": 0.0})
    # Each run counts alike, however many of its thoughts met a marker.
    assert calibration_at_first_marker([sure, modest]) == pytest.approx({"stated": 0.7, "right": 0.25, "ece": 0.45})
    assert calibration_at_first_marker([]) is None


def test_a_published_record_is_written_anew_with_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--published", "--output", str(tmp_path / "page")]) == 0
    assert headline_markdown(load_record("all")) in capsys.readouterr().out
    for name in ("comparison.json", "comparison.md", "comparison.svg"):
        assert (tmp_path / "page" / name).read_bytes() == (RESULTS / "comparison" / name).read_bytes()
    assert (tmp_path / "page" / "comparison.html").stat().st_size > 1e6  # it brings its own drawing code
    (tmp_path / "page" / "plan.json").write_text("{}")
    assert main(["compare", "--published", "--output", str(tmp_path / "page")]) == 2
    assert str(tmp_path / "page") in capsys.readouterr().err


def test_a_part_of_the_comparison_is_written_from_its_record(tmp_path: Path) -> None:
    assert main(["compare", "ablations", "--published", "--output", str(tmp_path)]) == 0
    part = json.loads((tmp_path / "ablations.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in part["rows"]] == [each.name for each in EXPERIMENTS["ablations"].rows]


def test_rows_are_not_left_out_of_a_record_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--published", "--row", "grpo"])
    assert "--row" in capsys.readouterr().err


def test_the_heading_of_single_settings_says_the_recipe_own() -> None:
    recipe = load_recipe("overthinker")
    own = (recipe.optimisation.group_size, recipe.rollout.exit_threshold, recipe.optimisation.scale_rewards)
    assert "groups of {}, threshold {}, {} scaling".format(*own) in KINDS["setting"]
