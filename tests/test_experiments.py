"""Experiments: their declared rows, their choices, what they leave behind, and that nothing is done twice."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
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
from stepgrpo_lab.experiments._measure import harder_problems, measure, measure_run
from stepgrpo_lab.experiments._page import write_record
from stepgrpo_lab.experiments.pictures import CLEARANCE, REACHES, draw_record, label_places
from stepgrpo_lab.experiments.plan import (
    ALL,
    EXPERIMENTS,
    Experiment,
    Plan,
    chosen_rate,
    find_experiment,
    validation_score,
)
from stepgrpo_lab.experiments.record import (
    Measurement,
    Record,
    RowResult,
    SeedResult,
    read_record,
    verdicts,
)
from stepgrpo_lab.experiments.rows import ROWS, Published, Row, find_rows
from stepgrpo_lab.experiments.run import Runs, run_experiment
from stepgrpo_lab.experiments.tables import (
    KINDS,
    Table,
    conditions,
    headline_markdown,
    record_markdown,
    record_tables,
    scope,
    share,
)
from stepgrpo_lab.method.records import Outcome, from_json
from stepgrpo_lab.overthinker.tasks import OVERTHINKER, overthinker_problems
from stepgrpo_lab.recipes import load_recipe
from stepgrpo_lab.recipes._building import recipe_reward
from stepgrpo_lab.run import job as run
from stepgrpo_lab.training.metrics import read_metrics

PLAN = Plan(token_budget=3000, learning_rates=(1e-4, 1e-3), validation=4, test=6, harder=4, samples=2, proof_steps=1)


def few(*seeds: int, plan: Plan = PLAN) -> Experiment:
    """All rows, those with several seeds with these ones."""
    rows = (dataclasses.replace(row, seeds=seeds) if len(row.seeds) > 1 else row for row in ROWS)
    return Experiment(ALL, "", tuple(rows), plan)


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


@pytest.mark.parametrize("name", ["headline", "internalisation", "fairness", "sweep", "sweep-2"])
def test_every_run_of_an_experiment_is_a_recipe_of_its_own(name: str) -> None:
    experiment = find_experiment(name)
    home = experiment.plan.recipe
    recipes = [
        (dataclasses.replace(load_recipe(home, row.overrides), seed=seed), row.budget_of is None, row.kind)
        for row in experiment.rows
        for seed in row.seeds
        if row.kind != "untrained"
    ]
    assert all(first != second for first, second in itertools.combinations(recipes, 2))
    names = [row.name for row in experiment.rows]
    assert len(set(names)) == len({row.title for row in experiment.rows}) == len(names)
    assert names[0] == "vanilla"  # what everything is paired with
    assert all(row.budget_of in (None, *names[:place]) for place, row in enumerate(experiment.rows))


def test_only_validation_problems_choose() -> None:
    splits = {name: each.plan.split for name, each in EXPERIMENTS.items()}
    assert splits == {name: "validation" if name.startswith("sweep") else "test" for name in splits}


def test_experiments_that_share_a_folder_share_plan_and_runs() -> None:
    plans: dict[str, Plan] = {}
    seen: dict[tuple[str, str], Row] = {}
    for experiment in EXPERIMENTS.values():
        assert plans.setdefault(experiment.folder, experiment.plan) == experiment.plan
        for row in experiment.rows:
            assert seen.setdefault((experiment.folder, row.name), row) == row


def test_a_budget_comes_from_the_grid_s_plan_or_from_a_row() -> None:
    controlled = find_experiment("headline").rows
    with pytest.raises(ValueError, match="'own'"):
        Experiment("own", "", controlled, Plan())
    with pytest.raises(ValueError, match="no experiment 'own'"):
        find_experiment("own")


@pytest.mark.parametrize(
    ("row", "plan"),
    [(row, find_experiment(name).plan) for name in (ALL, "overthinker-2") for row in find_experiment(name).rows],
    ids=lambda value: value.name if isinstance(value, Row) else value.recipe,
)
def test_every_row_is_a_recipe(row: Row, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "vanilla_tokens.json").write_text("80.0")
    recipe = Runs(tmp_path, plan).recipe(row, 2, 3e-4)
    assert (recipe.seed, recipe.optimisation.learning_rate) == (2, 3e-4)
    assert recipe.data.test == f"{plan.recipe}:validation"  # no run sees a test problem
    if row.kind in ("method", "ablation", "setting"):
        assert recipe.optimisation.token_budget == plan.token_budget
    plain = load_recipe(plan.recipe)
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


def test_the_command_lists_tables_and_rows_and_refuses_unknown_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    declared = [[f"{each.name}:", *(row.name for row in each.rows)] for each in EXPERIMENTS.values()]
    assert listed == [word for words in declared for word in words]
    assert main(["compare", "--row", "gpro", "--output", str(tmp_path / "out")]) == 2
    assert main(["compare", "headline", "--row", "s-grpo", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "no row 'gpro'" in error and "no row 's-grpo'" in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "name", "folder", "rows", "hours", "overrides"),
    [
        (["compare"], "all", "runs/comparison", [], 6.0, []),
        (["compare", "ablations", "--row", "close-masked"], "ablations", "runs/comparison", ["close-masked"], 6.0, []),
        (["compare", "sweep", "--hours", "2.5", "--output", "o", "--set", "a.b=1"], "sweep", "o", [], 2.5, ["a.b=1"]),
        (["reproduce", "headline"], "headline", "runs/recipe", [], 6.0, []),
        (
            ["reproduce", "fairness", "--row", "length penalty, seed 0"],
            "fairness",
            "runs/recipe",
            ["length-penalty"],
            6.0,
            [],
        ),
    ],
)
def test_the_command_runs_a_table(
    arguments: list[str],
    name: str,
    folder: str,
    rows: list[str],
    hours: float,
    overrides: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def planned(experiment: Experiment, place: Path, names: list[str], **options: Any) -> Record:
        asked = (experiment.name, place, names, options["hours"], options["overrides"])
        assert asked == (name, Path(folder), rows, hours, overrides)
        return Record([result(Interval(0, 0, 0), Interval(1, 1, 1), Published())], experiment.plan)

    monkeypatch.setattr("stepgrpo_lab.experiments.run.run_experiment", planned)
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "| X | 1 | 100 % [100, 100] | +0.0 [+0.0, +0.0] points |" in printed.out
    assert ("stepgrpo compare" in printed.err) == (arguments[0] == "reproduce")


def test_harder_problems_are_harder_than_all_training() -> None:
    problems = harder_problems(5)
    assert len(problems) == 5 == len({problem.id for problem in problems})
    levels = OVERTHINKER.level_weights
    assert {problem.family for problem in problems} == set(levels)
    assert all((problem.level or 0) > max(levels[problem.family]) for problem in problems)
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
    measured = Measurement(5, 1, points, ratio, one, one, one, one, one)
    return RowResult("x", "X", "method", "", published, measured, [SeedResult(0, 1, 1, 1)], measured)


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
    assert from_json(Measurement, json.loads(json.dumps(dataclasses.asdict(measured)))) == measured


def test_several_runs_are_measured_together_and_their_intervals_cover_the_seeds() -> None:
    vanilla = evaluation([True] * 4, [100] * 4, ["a", "a", "b", "b"])
    runs = [evaluation([True] * 4, [tokens] * 4, ["a", "a", "b", "b"]) for tokens in (20, 40, 60)]
    measured = measure(vanilla, *runs)
    assert measured.samples == 3 and measured.parts["a"].samples == 3
    assert measured.token_ratio == Interval(pytest.approx(0.4), pytest.approx(0.2), pytest.approx(0.6))
    assert (measured.tokens.low, measured.tokens.high) == (pytest.approx(20), pytest.approx(60))
    alone = measure_run(vanilla, runs[0])
    assert alone.token_ratio == Interval(0.2, 0.2, 0.2) and alone.accuracy is None
    assert set(alone.parts) == {"a", "b"}


def test_a_cell_stays_in_its_place() -> None:
    text = Table("", ["a", "b"], [["x|y", "line\nbreak"]]).markdown()
    assert text.splitlines() == ["| a | b |", "| --- | --- |", "| x\\|y | line break |"]


# ---- the whole thing, tiny -------------------------------------------------------------------------------------------

NAMES = ["vanilla", "deer", "think-budget", "length-penalty", "step-grpo", "no-step-reward", "threshold-0.9", "l1-max"]


def tiny(folder: Path, **changes: Any) -> list[str]:
    """Changes to every row's recipe, with a tiny model in this folder."""
    changes = {"optimisation.max_steps": 2, "optimisation.token_budget": "null", **changes}
    return [key for key in tiny_overrides(save_tiny(folder), **changes) if "counts.test" not in key]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], Record, list[str]]:
    folder = tmp_path_factory.mktemp("comparison")
    overrides = tiny(tmp_path_factory.mktemp("model"))
    lines: list[str] = []
    record = run_experiment(few(0, 1), folder, NAMES, overrides=overrides, progress=lines.append)
    return folder, overrides, record, lines


def test_the_record_holds_every_row_with_both_sets_of_problems(compared: Any) -> None:
    folder, _, record, _ = compared
    assert [row.name for row in record.rows] == NAMES
    rows = {row.name: row for row in record.rows}
    for row in record.rows:
        assert (row.test.problems, row.harder.problems) == (6, 4)
        assert row.test.samples == 2 * len(row.seeds)
        assert [seed.seed for seed in row.seeds] == ([0, 1] if row.kind in ("method", "ablation") else [0])
        assert row.covers == ("problems and seeds" if len(row.seeds) > 1 else "problems")
        assert all(seed.test is not None and set(seed.test.parts) == {"chain", "search"} for seed in row.seeds)
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
    stored = read_record(folder / "comparison.json")
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
        raise AssertionError("a finished row was run again")

    monkeypatch.setattr(run, "train", untouched)
    monkeypatch.setattr("stepgrpo_lab.experiments._measure.evaluate", untouched)
    assert run_experiment(few(0, 1), folder, NAMES, overrides=overrides) == record
    (folder / "rows" / "length-penalty.json").unlink()
    monkeypatch.undo()
    monkeypatch.setattr(run._Run, "_train", untouched)
    assert run_experiment(few(0, 1), folder, ["length-penalty"], overrides=overrides) == record


def test_what_a_kill_left_beside_a_finished_run_is_cleared(compared: Any) -> None:
    folder, overrides, record, _ = compared
    first, second = (folder / "runs" / f"length-penalty-seed-{seed}" for seed in ("0-rate-0.001", "1"))
    for name in ("completions.jsonl", "report.html"):  # killed right after evaluation_after.json
        (first / name).unlink()
    for place in (first, second):
        (place / "checkpoints" / "checkpoint-2").mkdir(parents=True)
        (place / ".writer.lock").touch()
    (folder / "rows" / "length-penalty.json").unlink()
    assert run_experiment(few(0, 1), folder, ["length-penalty"], overrides=overrides) == record
    assert not list(folder.glob("runs/*/checkpoints")) and not list(folder.glob("runs/*/.writer.*"))
    assert (first / "completions.jsonl").exists() and (first / "report.html").exists()


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

    monkeypatch.setattr("stepgrpo_lab.experiments.run.time.sleep", the_other_process_ends)
    lines: list[str] = []
    names = ["vanilla", "deer", "think-budget"]
    done = run_experiment(few(0, 1), tmp_path, names, overrides=overrides, progress=lines.append)
    assert finished_while_it_waited == ["think-budget", "vanilla"]
    assert sum("waiting for DEER at inference" in line for line in lines) == 1
    assert [row.test for row in done.rows] == [row.test for row in record.rows[:3]]


def test_a_row_waits_for_the_figures_of_another(compared: Any, tmp_path: Path) -> None:
    runs = Runs(tmp_path, PLAN, overrides=compared[1])
    vanilla, deer, step_grpo, threshold = find_rows(["vanilla", "deer", "step-grpo", "threshold-0.9"])
    with FileLock(runs.hold(vanilla).lock_file), pytest.raises(Timeout):
        runs.run(deer)
    with FileLock(runs.hold(step_grpo).lock_file), pytest.raises(Timeout):
        runs.rate_scores(threshold)
    assert not (tmp_path / "runs").exists()


def test_a_folder_keeps_its_plan(compared: Any) -> None:
    folder, overrides, *_ = compared
    kept = json.loads((folder / "plan.json").read_text())
    for name in ("split", "first_cut"):  # what version 0.1 did not write
        del kept[name]
    (folder / "plan.json").write_text(json.dumps({**kept, "hours": 0}))
    assert run_experiment(few(0, 1), folder, ["vanilla"], hours=9, overrides=overrides).rows
    for plan, changes in ((dataclasses.replace(PLAN, test=7), overrides), (PLAN, [])):
        with pytest.raises(ValueError, match="another plan"):
            run_experiment(few(0, 1, plan=plan), folder, ["vanilla"], overrides=changes)


def test_progress_tells_what_is_left(compared: Any) -> None:
    lines = compared[3]
    assert any("Step-GRPO, seed 0, learning rate 0.001: step 2/2" in line for line in lines)
    assert any("trainings left, about" in line for line in lines)


def test_tables_and_page_say_what_the_record_says(compared: Any, tmp_path: Path) -> None:
    _, _, record, _ = compared
    markdown = record_markdown(record)
    for row in record.rows:
        assert f"| {row.title} | " in markdown and row.expectation in markdown
        assert f"| {share(row.test.accuracy)} |" in markdown
    for table in record_tables(record):
        assert all(len(cells) == len(table.head) for cells in table.rows), table.caption
    assert headline_markdown(record).count("\n") == 1 + 5  # vanilla, two untrained and two methods
    written = write_record(tmp_path, record)
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
    page = write_record(tmp_path, Record([evil], record.plan))[-1].read_text(encoding="utf-8")
    assert "<script>alert" not in page


def test_a_table_says_how_many_seeds_it_has_and_what_its_intervals_cover(compared: Any) -> None:
    record = compared[2]
    assert "problems and seeds; those of a row with one seed cover problems only" in scope(record)
    several = [row for row in record.rows if len(row.seeds) > 1]
    assert scope(Record(several, PLAN)).endswith("over problems and seeds.")
    old = [dataclasses.replace(row, covers="problems") for row in record.rows]
    assert "do not cover the training seed" in conditions(Record(old, PLAN))
    [methods] = [table for table in record_tables(record) if table.caption == KINDS["method"]]
    assert [line[methods.head.index("seeds")] for line in methods.rows] == ["2", "2"]


def test_no_row_is_begun_that_would_end_too_late(tmp_path: Path) -> None:
    overrides = tiny(tmp_path / "model")
    with pytest.raises(InterruptedError, match="run the same command to go on"):
        run_experiment(few(0), tmp_path / "out", ["grpo"], hours=0, overrides=overrides)
    assert not (tmp_path / "out" / "runs").exists()


def test_a_stopped_run_is_resumed(tmp_path: Path) -> None:
    overrides = tiny(tmp_path / "model", **{"optimisation.max_steps": 4})

    def press_ctrl_c(line: str) -> None:
        if "step 1/4" in line:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(InterruptedError, match=r"saved in .*run the same command to go on"):
        run_experiment(few(0), tmp_path / "out", ["grpo"], overrides=overrides, progress=press_ctrl_c)
    lines: list[str] = []
    record = run_experiment(few(0), tmp_path / "out", ["grpo"], overrides=overrides, progress=lines.append)
    assert [row.name for row in record.rows] == ["grpo"]
    steps = [line for line in lines if line.startswith("GRPO, seed 0, learning rate 0.0001: step")]
    assert len(steps) == 2  # two of the four steps had been done before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="something else"):
        run_experiment(few(0), tmp_path, ["vanilla"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_recipe_that_cannot_be_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no_such_key"):
        run_experiment(few(0), tmp_path / "out", ["grpo"], overrides=["optimisation.no_such_key=1"])
    assert not (tmp_path / "out").exists()


def test_a_control_decodes_as_many_tokens_as_what_it_is_held_against(tmp_path: Path) -> None:
    overrides = tiny(tmp_path / "model")
    plan = dataclasses.replace(find_experiment("fairness").plan, validation=4, curves=4, test=6)
    headline, fairness = (dataclasses.replace(find_experiment(name), plan=plan) for name in ("headline", "fairness"))
    alone = run_experiment(headline, tmp_path / "out", ["grpo"], overrides=overrides)
    assert [row.name for row in alone.rows] == ["grpo"]  # though the run that sets its budget was trained for it
    assert (tmp_path / "out" / "headline.html").exists()
    lines: list[str] = []
    record = run_experiment(fairness, tmp_path / "out", ["step-grpo"], overrides=overrides, progress=lines.append)
    assert [row.name for row in record.rows] == ["step-grpo", "grpo"]  # tables in one folder share its runs
    assert not any("seed 0: step" in line for line in lines)
    runs = record.runs
    assert list(runs) == ["Step-GRPO, seed 0", "Step-GRPO, seed 1", "Step-GRPO, seed 2", "GRPO, seed 0"]
    budget, spent = (runs[name].decoded_tokens for name in ("Step-GRPO, seed 0", "GRPO, seed 0"))
    metrics = read_metrics(tmp_path / "out" / "runs" / "grpo-seed-0" / "metrics.jsonl")
    decoded = [row["cost/decoded_tokens"] for row in metrics if "cost/decoded_tokens" in row]
    assert sum(decoded[:-1]) < budget <= sum(decoded) == spent
    ours = runs["Step-GRPO, seed 0"]
    assert {"validation/tokens", "validation/rollout_tokens", "validation/first_cut_accuracy"} <= set(ours.curves)
    assert ours.test is not None and set(ours.first_cut) == set(ours.test.parts)
    assert record.rows[0].learning_rate is None and record.rows[0].harder is None


def test_the_picture_names_every_row_it_draws_and_escapes_it() -> None:
    rows = [
        dataclasses.replace(result(Interval(-1, -2, 0), Interval(0.4, 0.3, 0.5), Published()), title=title, kind=kind)
        for title, kind in (("<vanilla>", "untrained"), ("M & N", "method"), ("half", "ablation"), ("s", "setting"))
    ]
    drawn = draw_record(Record(rows, PLAN))
    assert "1  &lt;vanilla&gt;" in drawn and "2  M &amp; N" in drawn and "<vanilla>" not in drawn
    assert "1  half" in drawn and "s:" not in drawn  # single seeds are in the tables alone
    assert "one thing changed" not in draw_record(Record(rows[:2], PLAN))
    with pytest.raises(ValueError, match="run one first"):
        draw_record(Record(rows[2:], PLAN))


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
