"""The comparison: its declared rows, its choices, what it leaves behind, and that nothing is done twice."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from hypothesis import given
from hypothesis import strategies as st
from tiny import save_tiny, tiny_overrides

from stepgrpo_lab.cli import main
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.experiments.compare import compare_methods, write_comparison
from stepgrpo_lab.experiments.measuring import harder_problems
from stepgrpo_lab.experiments.picture import CLEARANCE, REACHES, draw_comparison, label_places
from stepgrpo_lab.experiments.plan import Plan, chosen_rate, validation_score
from stepgrpo_lab.experiments.results import (
    ComparisonRecord,
    Measurement,
    RowResult,
    SeedResult,
    measure,
    published_comparison,
    verdicts,
)
from stepgrpo_lab.experiments.rows import ROWS, Published, Row, find_rows
from stepgrpo_lab.experiments.runs import Runs
from stepgrpo_lab.experiments.tables import (
    KINDS,
    Table,
    comparison_markdown,
    comparison_tables,
    headline_markdown,
    share,
)
from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.overthinker.tasks import LEVELS, overthinker_problems
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.recipes.building import recipe_reward
from stepgrpo_lab.run import job as run

PLAN = Plan(token_budget=3000, learning_rates=(1e-4, 1e-3), validation=4, test=6, harder=4, samples=2, proof_steps=1)


# ---- the declared rows -----------------------------------------------------------------------------------------------


def test_the_table_has_every_row_that_the_comparison_is_about() -> None:
    kinds = {kind: [row.name for row in ROWS if row.kind == kind] for kind in {row.kind for row in ROWS}}
    assert kinds["untrained"] == ["vanilla", "deer", "think-budget"]
    assert set(kinds["method"]) == {
        *("grpo", "length-penalty", "soft-overlong", "grpo-lambda", "s-grpo", "deer-sft", "step-grpo"),
    }
    assert set(kinds["ablation"]) == {
        *("no-step-reward", "no-dynamic-rollout", "mean-over-all", "close-masked", "every-member-probed"),
    }
    assert set(kinds["proof"]) == {"kimi", "l1-exact", "l1-max", "shorter-better", "thinkprune"}
    assert len({row.name for row in ROWS}) == len({row.title for row in ROWS}) == len(ROWS)
    assert {len(row.seeds) for row in ROWS if row.kind in ("method", "ablation")} == {3}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_is_a_recipe(row: Row, tmp_path: Path) -> None:
    (tmp_path / "vanilla_tokens.json").write_text("110.0")
    recipe = Runs(tmp_path, Plan()).recipe(row, 2, 3e-4)
    assert (recipe.seed, recipe.optimisation.learning_rate) == (2, 3e-4)
    assert recipe.data.test == "overthinker:validation"  # no run sees a test problem
    if row.kind in ("method", "ablation", "setting"):
        assert recipe.optimisation.token_budget == Plan().token_budget
    plain = load_recipe("overthinker")
    assert recipe.data.train == plain.data.train and recipe.model == plain.model
    recipe_reward(recipe.reward)


def test_no_row_repeats_another_training(tmp_path: Path) -> None:
    (tmp_path / "vanilla_tokens.json").write_text("110.0")
    runs = Runs(tmp_path, Plan())
    recipes = [
        dataclasses.replace(runs.recipe(row, 0, 1e-4), name="", description="")
        for row in ROWS
        if row.kind != "untrained"
    ]
    assert all(recipe not in recipes[:index] for index, recipe in enumerate(recipes))


def test_the_trainings_left_include_those_that_choose_the_learning_rate(tmp_path: Path) -> None:
    runs, rows = Runs(tmp_path, Plan()), {row.name: row for row in ROWS}
    left = {name: {place.name for place in runs.left(row)} for name, row in rows.items()}
    choosing = {f"step-grpo-seed-0-rate-{rate:g}" for rate in Plan().learning_rates}
    assert left["vanilla"] == left["deer"] == set()
    assert left["step-grpo"] == choosing | {"step-grpo-seed-1", "step-grpo-seed-2"}
    assert left["threshold-0.9"] == choosing | {"threshold-0.9-seed-0"}
    for name in choosing:
        (tmp_path / "runs" / name / "model").mkdir(parents=True)
    assert {place.name for place in runs.left(rows["close-masked"])} == {
        f"close-masked-seed-{seed}" for seed in (0, 1, 2)
    }


def test_a_finished_row_remembers_how_its_learning_rate_was_chosen(tmp_path: Path) -> None:
    runs, rows = Runs(tmp_path, Plan()), {row.name: row for row in ROWS}
    one = Interval(1.0, 1.0, 1.0)
    done = dataclasses.replace(result(one, one, Published()), rates={"5e-05": 1.0, "0.0001": 4.5, "0.0002": 2.0})
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "step-grpo.json").write_text(json.dumps(dataclasses.asdict(done)))
    assert runs.rate_scores(rows["step-grpo"]) == {5e-5: 1.0, 1e-4: 4.5, 2e-4: 2.0}
    assert runs.rate_scores(rows["threshold-0.9"]) == {1e-4: 4.5}
    assert {place.name for place in runs.left(rows["threshold-0.9"])} == {"threshold-0.9-seed-0"}


def test_rows_are_found_by_name() -> None:
    assert [row.name for row in find_rows(["grpo", "deer"])] == ["deer", "grpo"]
    assert find_rows([]) == list(ROWS)
    with pytest.raises(ValueError, match="no row 'gpro': choose from vanilla, deer"):
        find_rows(["gpro"])


def test_the_command_lists_rows_and_refuses_unknown_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["compare", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [row.name for row in ROWS]
    assert main(["compare", "--row", "gpro", "--output", str(tmp_path / "out")]) == 2
    assert "no row 'gpro'" in capsys.readouterr().err and not (tmp_path / "out").exists()

    def planned(folder: Path, names: list[str], *, plan: Plan, **_: Any) -> ComparisonRecord:
        assert (folder, names, plan.hours) == (tmp_path / "out", ["grpo"], 2.5)
        return ComparisonRecord([result(Interval(0, 0, 0), Interval(1, 1, 1), Published())], plan)

    monkeypatch.setattr("stepgrpo_lab.experiments.compare.compare_methods", planned)
    assert main(["compare", "--row", "grpo", "--hours", "2.5", "--output", str(tmp_path / "out")]) == 0
    assert "| X | 100 % [100, 100] | +0.0 [+0.0, +0.0] points |" in capsys.readouterr().out


def test_harder_problems_are_harder_than_all_training() -> None:
    problems = harder_problems(5)
    assert len(problems) == 5 == len({problem.id for problem in problems})
    assert {problem.family for problem in problems} == set(LEVELS)
    assert all((problem.level or 0) > max(LEVELS[problem.family]) for problem in problems)
    trained = {problem.level for problem in overthinker_problems("train", 200)}
    assert max(level for level in trained if level) < max(problem.level or 0 for problem in problems)


# ---- choices ---------------------------------------------------------------------------------------------------------


def evaluation(correct: list[bool], tokens: list[int], families: list[str] | None = None) -> Evaluation:
    outcomes = [[Outcome(c, c, 2, t, close="natural")] for c, t in zip(correct, tokens, strict=True)]
    ids = [f"p{index}" for index in range(len(correct))]
    return Evaluation(ids, families or ["a"] * len(ids), [1] * len(ids), outcomes)


def test_a_point_of_accuracy_is_worth_a_tenth_of_the_tokens() -> None:
    before = evaluation([True] * 10, [100] * 10)
    assert validation_score(before, before) == 0
    assert validation_score(before, evaluation([True] * 10, [50] * 10)) == 5
    assert validation_score(before, evaluation([True] * 9 + [False], [50] * 10)) == -5
    with pytest.raises(ValueError, match="not finished"):
        validation_score(before, None)


def test_the_best_rate_is_chosen_and_of_equals_the_smallest() -> None:
    assert chosen_rate({1e-4: -1.0, 2e-4: 3.0, 4e-4: 2.0}) == 2e-4
    assert chosen_rate({4e-4: 3.0, 2e-4: 3.0}) == 2e-4


def result(points: Interval, ratio: Interval, published: Published) -> RowResult:
    one = Interval(1.0, 1.0, 1.0)
    measured = Measurement(5, 1, one, one, one, one, one, points, ratio)
    return RowResult("x", "X", "method", "", published, measured, measured, [SeedResult(0, 1, 1, 1)], {})


@pytest.mark.parametrize(
    ("points", "ratio", "published", "expected"),
    [
        ((2, 1.5, 3), (0.6, 0.5, 0.7), Published(2.2, 0.68), {"accuracy": "agrees", "tokens": "agrees"}),
        ((1, 0.5, 2), (0.6, 0.55, 0.65), Published(2.2, 0.68), {"accuracy": "weaker", "tokens": "stronger"}),
        ((-1, -2, -0.5), (1.1, 1.05, 1.2), Published(2.2, 0.68), {"accuracy": "disagrees", "tokens": "disagrees"}),
        ((0, -2, 1), (1.0, 0.4, 1.1), Published(-1.5, 0.5), {"accuracy": "undecided", "tokens": "undecided"}),
        ((-0.2, -0.4, 0), (0.36, 0.35, 0.37), Published(-7.3, 0.79), {"accuracy": "weaker", "tokens": "stronger"}),
        ((0, -1, 1), (0.5, 0.4, 0.6), Published(0.0, None), {"accuracy": "agrees"}),
        ((3, 2, 4), (0.5, 0.4, 0.6), Published(0.0, None), {"accuracy": "disagrees"}),
        ((3, 2, 4), (0.5, 0.4, 0.6), Published(-5.8, None), {"accuracy": "disagrees"}),
        ((3, 2, 4), (0.5, 0.4, 0.6), Published(), {}),
    ],
)
def test_verdicts_follow_the_intervals(points: Any, ratio: Any, published: Published, expected: dict[str, str]) -> None:
    assert verdicts(result(Interval(*points), Interval(*ratio), published)) == expected


# ---- figures and tables ----------------------------------------------------------------------------------------------


def test_a_measurement_is_paired_with_vanilla_overall_and_in_parts() -> None:
    vanilla = evaluation([True, True, False, True], [100, 100, 50, 50], ["a", "a", "b", "b"])
    after = evaluation([True, True, True, True], [50, 50, 50, 50], ["a", "a", "b", "b"])
    measured = measure(vanilla, after)
    assert measured.accuracy.estimate == 1 and measured.accuracy_points.estimate == 25
    assert measured.token_ratio.estimate == pytest.approx(200 / 300)
    assert set(measured.parts) == {"a", "a, level 1", "b", "b, level 1"}
    assert measured.parts["a"].token_ratio == Interval(0.5, 0.5, 0.5)
    assert measured.parts["b, level 1"].accuracy_points.estimate == 50
    assert measured.closed.estimate == 1
    assert Measurement.from_json(json.loads(json.dumps(dataclasses.asdict(measured)))) == measured


def test_a_cell_stays_in_its_place() -> None:
    text = Table("", ["a", "b"], [["x|y", "line\nbreak"]]).markdown()
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| x\\|y | line break |"]


# ---- the whole thing, tiny -------------------------------------------------------------------------------------------

NAMES = ["vanilla", "deer", "think-budget", "length-penalty", "step-grpo", "no-step-reward", "threshold-0.9", "l1-max"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], ComparisonRecord, list[str]]:
    folder = tmp_path_factory.mktemp("comparison")
    model = save_tiny(tmp_path_factory.mktemp("model"))
    overrides = tiny_overrides(model, **{"optimisation.max_steps": 2, "optimisation.token_budget": "null"})
    overrides = [key for key in overrides if "counts.test" not in key]
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stepgrpo_lab.experiments.rows.SEEDS", (0, 1))
        record = compare_methods(folder, NAMES, plan=PLAN, overrides=overrides, progress=lines.append)
    return folder, overrides, record, lines


def test_the_record_holds_every_row_with_both_sets_of_problems(compared: Any) -> None:
    folder, _, record, _ = compared
    assert [row.name for row in record.rows] == NAMES
    rows = {row.name: row for row in record.rows}
    for row in record.rows:
        assert (row.test.problems, row.harder.problems) == (6, 4)
        assert row.test.samples == 2 * len(row.seeds)
        assert {"all"} < set(row.structure) and {"needed", "malformed"} < set(row.structure["all"])
    assert rows["vanilla"].test.token_ratio == Interval(1, 1, 1) and rows["vanilla"].learning_rate is None
    assert len(rows["step-grpo"].seeds) == len(rows["no-step-reward"].seeds) == 2
    assert len(rows["threshold-0.9"].seeds) == len(rows["l1-max"].seeds) == 1
    assert set(rows["step-grpo"].rates) == {"0.0001", "0.001"} and rows["l1-max"].rates == {}
    assert rows["threshold-0.9"].learning_rate == rows["step-grpo"].learning_rate
    assert all(seed.decoded_tokens > 0 for seed in rows["step-grpo"].seeds)
    assert "validation/accuracy" in rows["step-grpo"].seeds[0].curves
    # Probes cost tokens, at inference too; a think budget costs none.
    assert rows["deer"].seeds[0].tokens_fed >= rows["deer"].seeds[0].tokens
    assert rows["think-budget"].seeds[0].tokens_fed == rows["think-budget"].seeds[0].tokens
    assert rows["think-budget"].test.tokens.estimate <= rows["vanilla"].test.tokens.estimate
    stored = ComparisonRecord.from_json(json.loads((folder / "comparison.json").read_text()))
    assert stored == record


def test_a_finished_run_keeps_no_checkpoints(compared: Any) -> None:
    folder = compared[0]
    runs = sorted(path.name for path in (folder / "runs").iterdir() if (path / "model").is_dir())
    assert runs == [
        "l1-max-seed-0",
        *("length-penalty-seed-0-rate-0.0001", "length-penalty-seed-0-rate-0.001", "length-penalty-seed-1"),
        *("no-step-reward-seed-0", "no-step-reward-seed-1"),
        *("step-grpo-seed-0-rate-0.0001", "step-grpo-seed-0-rate-0.001", "step-grpo-seed-1"),
        "threshold-0.9-seed-0",
    ]
    assert not list(folder.glob("runs/*/checkpoints"))
    recipe = load_recipe(folder / "runs" / "l1-max-seed-0" / "recipe.yaml")
    vanilla = json.loads((folder / "vanilla_tokens.json").read_text())
    assert recipe.reward.length_scale == pytest.approx(vanilla / 5000, rel=1e-3)


def test_what_is_done_is_not_done_again(compared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, overrides, record, _ = compared

    def untouched(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished row was carried out again")

    monkeypatch.setattr(run, "train", untouched)
    monkeypatch.setattr("stepgrpo_lab.experiments.measuring.evaluate", untouched)
    assert compare_methods(folder, NAMES, plan=PLAN, overrides=overrides) == record
    (folder / "rows" / "length-penalty.json").unlink()
    monkeypatch.undo()
    monkeypatch.setattr("stepgrpo_lab.experiments.rows.SEEDS", (0, 1))
    monkeypatch.setattr(run._Run, "_train", untouched)
    assert compare_methods(folder, ["length-penalty"], plan=PLAN, overrides=overrides) == record


def test_a_row_that_another_process_holds_is_left_to_it(
    compared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, overrides, record, _ = compared
    others = FileLock(tmp_path / "rows" / "deer.lock")
    (tmp_path / "rows").mkdir()
    others.acquire()
    finished_while_it_waited = []

    def the_other_process_ends(seconds: float) -> None:
        finished_while_it_waited.extend(sorted(path.stem for path in (tmp_path / "rows").glob("*.json")))
        others.release()

    monkeypatch.setattr("stepgrpo_lab.experiments.compare.time.sleep", the_other_process_ends)
    lines: list[str] = []
    names = ["vanilla", "deer", "think-budget"]
    done = compare_methods(tmp_path, names, plan=PLAN, overrides=overrides, progress=lines.append)
    assert finished_while_it_waited == ["think-budget", "vanilla"]
    assert lines.count("waiting for DEER at inference: another process is at it") == 1
    assert [row.test for row in done.rows] == [row.test for row in record.rows[:3]]


def test_a_row_waits_for_the_figures_of_another(compared: Any, tmp_path: Path) -> None:
    runs = Runs(tmp_path, PLAN, overrides=compared[1])
    deer, threshold = find_rows(["deer", "threshold-0.9"])
    with FileLock(runs.hold(runs.vanilla).lock_file), pytest.raises(Timeout):
        runs.carry_out(deer)
    with FileLock(runs.hold(runs.step_grpo).lock_file), pytest.raises(Timeout):
        runs.rate_scores(threshold)
    assert not (tmp_path / "runs").exists()


def test_a_folder_keeps_its_plan(compared: Any) -> None:
    folder, overrides, *_ = compared
    assert compare_methods(folder, ["vanilla"], plan=dataclasses.replace(PLAN, hours=9), overrides=overrides).rows
    with pytest.raises(ValueError, match="was begun with another plan"):
        compare_methods(folder, ["vanilla"], plan=dataclasses.replace(PLAN, test=7), overrides=overrides)
    with pytest.raises(ValueError, match="was begun with another plan"):
        compare_methods(folder, ["vanilla"], plan=PLAN)


def test_progress_tells_what_is_left(compared: Any) -> None:
    lines = compared[3]
    assert any("Step-GRPO, seed 0, learning rate 0.001: step 2/2" in line for line in lines)
    assert any("trainings left, about" in line for line in lines)


def test_tables_and_page_say_what_the_record_says(compared: Any, tmp_path: Path) -> None:
    _, _, record, _ = compared
    markdown = comparison_markdown(record)
    for row in record.rows:
        assert f"| {row.title} | " in markdown and row.expectation in markdown
        assert f"| {share(row.test.accuracy)} |" in markdown
    for table in comparison_tables(record):
        assert all(len(cells) == len(table.head) for cells in table.rows), table.caption
    assert headline_markdown(record).count("\n") == 1 + 5  # vanilla, two untrained and two methods
    written = write_comparison(tmp_path, record)
    assert [path.suffix for path in written] == [".json", ".md", ".svg", ".html"]
    page = written[-1].read_text(encoding="utf-8")
    for name in ("tradeoff", "labels", "curves", "exits-step-grpo"):
        assert f'data-figure="{name}"' in page and f'"{name}": {{"data"' in page
    ids = re.findall(r' id="([^"]+)"', page.split("<script>")[0])
    assert len(ids) == len(set(ids)) and "figures" in ids  # the script finds its figures by this id
    assert "http://" not in page.split("<script>")[0].replace("http://www.w3.org", "")


def test_titles_are_escaped_on_the_page(compared: Any, tmp_path: Path) -> None:
    record = compared[2]
    evil = dataclasses.replace(record.rows[0], title="<script>alert(1)</script>")
    page = write_comparison(tmp_path, ComparisonRecord([evil], record.plan))[-1].read_text(encoding="utf-8")
    assert "<script>alert" not in page


def test_no_row_is_begun_that_would_end_too_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_tiny(tmp_path / "model")
    overrides = [key for key in tiny_overrides(model) if "counts.test" not in key]
    plan = dataclasses.replace(PLAN, hours=0)
    with pytest.raises(InterruptedError, match="would not end within 0 s; run the same command to go on"):
        compare_methods(tmp_path / "out", ["grpo"], plan=plan, overrides=overrides)
    assert not (tmp_path / "out" / "runs").exists()


def test_a_stopped_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_tiny(tmp_path / "model")
    overrides = tiny_overrides(model, **{"optimisation.token_budget": "null"})
    overrides = [key for key in overrides if "counts.test" not in key]
    monkeypatch.setattr("stepgrpo_lab.experiments.rows.SEEDS", (0,))

    def press_ctrl_c(line: str) -> None:
        if "step 1/4" in line:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedError, match=r"GRPO was stopped and saved in .*run the same command to go on"):
        compare_methods(tmp_path / "out", ["grpo"], plan=PLAN, overrides=overrides, progress=press_ctrl_c)
    lines: list[str] = []
    record = compare_methods(tmp_path / "out", ["grpo"], plan=PLAN, overrides=overrides, progress=lines.append)
    assert [row.name for row in record.rows] == ["grpo"]
    steps = [line for line in lines if line.startswith("GRPO, seed 0, learning rate 0.0001: step")]
    assert len(steps) == 2  # two of the four steps had been done before


def test_the_picture_names_every_row_it_draws_and_escapes_it() -> None:
    rows = [
        dataclasses.replace(result(Interval(-1, -2, 0), Interval(0.4, 0.3, 0.5), Published()), title=title, kind=kind)
        for title, kind in (("<vanilla>", "untrained"), ("M & N", "method"), ("half", "ablation"), ("s", "setting"))
    ]
    drawn = draw_comparison(ComparisonRecord(rows, PLAN))
    assert "1  &lt;vanilla&gt;" in drawn and "2  M &amp; N" in drawn and "<vanilla>" not in drawn
    assert "1  half" in drawn and "s:" not in drawn  # single seeds are in the tables alone
    assert "one thing changed" not in draw_comparison(ComparisonRecord(rows[:2], PLAN))
    with pytest.raises(ValueError, match="carry one out first"):
        draw_comparison(ComparisonRecord(rows[2:], PLAN))


@given(st.lists(st.tuples(st.floats(0, 600), st.floats(0, 300)), min_size=1, max_size=12))
def test_every_label_stands_near_its_marker(markers: list[tuple[float, float]]) -> None:
    places = label_places(markers)
    assert len(places) == len(markers)
    for marker, place in zip(markers, places, strict=True):
        assert min(REACHES) - 1e-6 <= math.dist(marker, place) <= max(REACHES) + 1e-6


def test_labels_of_a_crowd_do_not_cover_each_other_or_a_marker() -> None:
    markers = [(0.0, 0.0), (3.0, 3.0), (-8.0, 16.0), (-4.0, 34.0)]
    places = label_places(markers)
    for number, place in enumerate(places):
        others = [*markers, *places[:number], *places[number + 1 :]]
        assert min(math.dist(place, other) for other in others) >= CLEARANCE


# ---- the record that is published ------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "data" / "results" / "comparison"


def test_the_published_tables_are_made_from_the_published_record() -> None:
    record = published_comparison()
    assert (PUBLISHED / "comparison.md").read_text(encoding="utf-8") == comparison_markdown(record)
    assert (PUBLISHED / "comparison.svg").read_text(encoding="utf-8") == draw_comparison(record)
    assert headline_markdown(record) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_published_record_holds_every_declared_row_at_its_plan() -> None:
    record = published_comparison()
    declared = [(row.name, row.title, row.kind, row.expectation, row.published) for row in ROWS]
    assert [(row.name, row.title, row.kind, row.expectation, row.published) for row in record.rows] == declared
    assert record.plan == Plan()
    for row, declared_row in zip(record.rows, ROWS, strict=True):
        assert [seed.seed for seed in row.seeds] == list(declared_row.seeds)
        assert (row.test.problems, row.harder.problems) == (record.plan.test, record.plan.harder)
        assert row.test.samples == record.plan.samples * len(row.seeds)
        assert set(row.rates) == ({f"{rate}" for rate in record.plan.learning_rates} if row.kind == "method" else set())
        if row.kind in ("method", "ablation", "setting"):
            assert all(seed.decoded_tokens >= record.plan.token_budget for seed in row.seeds)


def test_the_published_record_is_written_anew_with_its_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--published", "--output", str(tmp_path / "page")]) == 0
    assert headline_markdown(published_comparison()) in capsys.readouterr().out
    for name in ("comparison.json", "comparison.md", "comparison.svg"):
        assert (tmp_path / "page" / name).read_bytes() == (PUBLISHED / name).read_bytes()
    assert (tmp_path / "page" / "comparison.html").stat().st_size > 1e6  # it brings its own drawing code
    (tmp_path / "page" / "plan.json").write_text("{}")
    assert main(["compare", "--published", "--output", str(tmp_path / "page")]) == 2
    assert "holds a comparison of its own" in capsys.readouterr().err


def test_rows_are_not_left_out_of_a_record_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--published", "--row", "grpo"])
    assert "--row: not allowed with argument --published" in capsys.readouterr().err


def test_the_heading_of_single_settings_tells_the_recipe_own() -> None:
    recipe = load_recipe("overthinker")
    own = (recipe.optimisation.group_size, recipe.rollout.exit_threshold, recipe.optimisation.scale_rewards)
    assert "groups of {}, threshold {}, {} scaling".format(*own) in KINDS["setting"]
