"""The README says what the recorded run measured, and its examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stepgrpo_lab.authoring.overthinker.card import LEAST_CUT_COST_TRAINED
from stepgrpo_lab.cli import build_parser
from stepgrpo_lab.evaluation.results import Evaluation
from stepgrpo_lab.experiments._measure import measure_run
from stepgrpo_lab.experiments.pictures import draw_record
from stepgrpo_lab.experiments.record import load_record
from stepgrpo_lab.experiments.tables import headline_markdown

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "data" / "results" / "overthinker"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_recorded_run_is_the_headline_s_first_row() -> None:
    before, after = (
        Evaluation.from_dict(json.loads((RECORDED / f"evaluation_{when}.json").read_text(encoding="utf-8")))
        for when in ("before", "after")
    )
    assert measure_run(before, after) == load_record("headline").runs["Step-GRPO, seed 0"].test


def test_tables_are_those_of_the_records() -> None:
    """``stepgrpo compare NAME --published`` prints them."""
    tables = dict(re.findall(r"<!-- table: ([\w-]+) -->\n(.*?)\n<!-- /table -->", README, flags=re.DOTALL))
    assert set(tables) == {"overthinker-2"}
    for name, table in tables.items():
        assert table == headline_markdown(load_record(name)), name


def test_pictures_are_there_and_the_drawn_ones_are_the_records() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\((?!http)([^)\s]+)\)", README)
    assert len(pictures) >= 3 and all((ROOT / picture).is_file() for picture in pictures)
    for name, path in (("all", "comparison/comparison.svg"), ("overthinker-2", "overthinker-2.svg")):
        assert (RECORDED.parent / path).read_text(encoding="utf-8") == draw_record(load_record(name))


def test_the_readme_s_readings_of_the_second_laboratory_hold() -> None:
    record = load_record("overthinker-2")
    rows = {row.name: row for row in record.rows}
    vanilla, step = rows["vanilla"], rows["step-grpo"]
    assert (round(100 * vanilla.test.accuracy.estimate), round(vanilla.test.tokens.estimate)) == (73, 84)
    assert round(100 * vanilla.habits["flips"]) == 17
    assert step.test.accuracy_points.low > 0 and step.test.token_ratio.high < 0.7
    against = next(each for each in record.contrasts if each.before == "GRPO").test
    assert 0.2 <= 1 - against.token_ratio.estimate <= 0.3 and round(against.accuracy_points.estimate) == -3
    assert against.parts["chain"].accuracy_points.high < 0 < against.parts["search"].accuracy_points.low
    published = rows["every-member-probed"]
    assert round(100 * published.test.token_ratio.estimate) == 86
    assert published.test.token_ratio.high > rows["grpo"].test.token_ratio.low
    over = next(each for each in record.contrasts if each.before == published.title).test.accuracy_points
    assert round(over.estimate) == -2 and over.high < 0


def test_what_is_said_of_the_other_methods_in_the_second_laboratory_holds() -> None:
    record = load_record("overthinker-2")
    rows = {row.title: row for row in record.rows}
    against = {each.before: each.test for each in record.contrasts if each.after == "Step-GRPO"}

    def over(title: str) -> tuple[float, float, float]:
        points = against[title].accuracy_points
        return round(points.estimate, 1), round(points.low, 1), round(points.high, 1)

    assert over("without dynamic rollout") == (2.0, 0.4, 3.7)
    assert 0 in against["without dynamic rollout"].parts["search"].accuracy_points
    assert over("GRPO + length penalty") == (-0.1, -1.7, 1.6)
    assert round(100 * against["GRPO + length penalty"].token_ratio.estimate) == 110
    assert over("DEER + SFT") == (-4.9, -6.5, -3.4)
    accuracies = {title: row.test.accuracy_points.estimate for title, row in rows.items()}
    assert max(accuracies, key=accuracies.__getitem__) == "DEER + SFT"
    assert rows["DEER + SFT"].learning_rate == 2e-4 and rows["on-policy SFT"].learning_rate == 5e-5
    assert round(accuracies["on-policy SFT"], 1) == -8.4
    surer = {title: rows[title].calibration for title in ("vanilla", "Step-GRPO", "GRPO")}
    assert [round(100 * each["stated"]) for each in surer.values()] == [50, 53, 56]
    assert [round(100 * each["right"]) for each in surer.values()] == [46, 45, 45]
    assert [round(each["ece"], 3) for each in surer.values()] == [0.05, 0.086, 0.111]


def test_the_mechanism_that_the_records_page_tells_holds() -> None:
    rows = {row.name: row for row in load_record("overthinker-2").rows}
    habits = {name: rows[name].habits for name in ("vanilla", "step-grpo", "grpo")}

    def percent(figure: str) -> list[float]:
        return [round(100 * each[figure], 1) for each in habits.values()]

    assert percent("flips") == [16.6, 3.9, 3.5]
    assert percent("false_rejects") == [12.9, 1.2, 0.0]
    assert percent("false_accepts") == [7.2, 0.0, 0.0]
    assert [round(each["leap"], 2) for each in habits.values()] == [0.59, 0.60, 0.59]
    assert [round(habits[name]["derivations"], 1) for name in ("step-grpo", "grpo")] == [2.2, 2.9]
    cuts = {
        name: [[round(-run.first_cut[family].estimate) for run in rows[name].seeds] for family in ("chain", "search")]
        for name in ("step-grpo", "grpo")
    }
    assert [(min(seeds), max(seeds)) for seeds in cuts["step-grpo"]] == [(39, 45), (23, 27)]
    assert [(min(seeds), max(seeds)) for seeds in cuts["grpo"]] == [(48, 51), (14, 25)]


def test_the_readings_of_the_comparison_hold() -> None:
    rows = {row.name: row for row in load_record("all").rows}
    trained = [row for row in rows.values() if row.kind == "method"]
    assert rows["vanilla"].test.accuracy.low == 1
    shown = [*trained, rows["deer"], rows["think-budget"]]
    assert all(0 in row.harder.accuracy_points for row in shown)
    assert min(trained, key=lambda row: row.test.tokens.estimate).name == "step-grpo"
    assert max(trained, key=lambda row: row.test.accuracy_points.estimate).name == "deer-sft"
    step, penalty = rows["step-grpo"], rows["length-penalty"]
    assert all(row.structure["all"]["oracle_saves"] < 0.02 for row in (step, penalty))
    assert 1.5 < penalty.test.accuracy_points.estimate / step.test.accuracy_points.estimate < 2.5
    assert step.test.accuracy_points.low < penalty.test.accuracy_points.high
    kept = {name: row.test.token_ratio for name, row in rows.items()}
    assert kept["no-step-reward"].low > 1
    assert max(kept[name].high for name in ("no-dynamic-rollout", "close-masked")) < 0.45
    assert kept["every-member-probed"].low > 0.7
    assert step.test.accuracy_points.low < rows["no-dynamic-rollout"].test.accuracy_points.estimate
    assert rows["s-grpo"].learning_rate == min(map(float, rows["s-grpo"].rates))
    assert max(run.accuracy for run in rows["s-grpo"].seeds) - min(run.accuracy for run in rows["s-grpo"].seeds) > 0.1


def test_the_headline_holds() -> None:
    """At most half of the tokens; accuracy above -2 points for each seed and above -1 over all of them."""
    row = load_record("headline").row("Step-GRPO")
    assert row.test.token_ratio.high <= 0.5
    assert row.test.accuracy_points.low > -1
    for run in row.seeds:
        assert run.test.token_ratio.estimate <= 0.5
        assert run.test.accuracy_points.low > -2


def test_needed_steps_are_needed_after_training() -> None:
    for name, run in load_record("fairness").runs.items():
        assert run.first_cut
        for family, change in run.first_cut.items():
            assert -change.estimate >= LEAST_CUT_COST_TRAINED, (name, family)


def test_the_recorded_run_is_the_shipped_recipe_s() -> None:
    from stepgrpo_lab.recipes import load_recipe

    assert load_recipe(RECORDED / "recipe.yaml") == load_recipe("overthinker")


def test_python_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    for example in blocks("python"):
        exec(compile(example.replace('"test", 100', '"test", 4'), "README.md", "exec"), {})


def test_commands_exist() -> None:
    lines = [line.strip() for block in blocks("bash") for line in block.splitlines() if "stepgrpo " in line[:11]]
    assert len(lines) > 4
    for line in lines:
        build_parser().parse_args(line.split("#")[0].split()[1:])
