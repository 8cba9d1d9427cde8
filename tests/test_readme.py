"""The README says what the recorded run measured, and its examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stepgrpo_lab.authoring.overthinker.card import LEAST_CUT_COST_TRAINED
from stepgrpo_lab.cli import build_parser
from stepgrpo_lab.evaluation.results import Evaluation, compare
from stepgrpo_lab.experiments.picture import draw_comparison
from stepgrpo_lab.experiments.results import published_comparison
from stepgrpo_lab.experiments.studies import STUDIES
from stepgrpo_lab.experiments.study_results import load_study, signals_markdown, study_markdown
from stepgrpo_lab.experiments.study_svg import draw_study

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "data" / "results" / "overthinker"
RESULTS = ROOT / "data" / "results"
RESULTS_PAGE = (RESULTS / "README.md").read_text(encoding="utf-8")
RECORDED_STUDIES = [name for name in STUDIES if (RESULTS / f"{name}.json").exists()]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_recorded_run_is_the_headline_s_first_row() -> None:
    before, after = (
        Evaluation.from_dict(json.loads((RECORDED / f"evaluation_{when}.json").read_text(encoding="utf-8")))
        for when in ("before", "after")
    )
    assert compare(before, after) == load_study(RESULTS / "headline.json").rows["Step-GRPO, seed 0"].comparison


@pytest.mark.parametrize("name", RECORDED_STUDIES)
def test_the_studies_tables_are_the_recorded_ones(name: str) -> None:
    study = load_study(RESULTS / f"{name}.json")
    table = study_markdown(study)
    assert (RESULTS / f"{name}.md").read_text(encoding="utf-8") == table + "\n"
    assert table in (README if name in ("headline", "internalisation") else RESULTS_PAGE)
    assert list(study.rows) == [row.name for row in STUDIES[name].rows]
    assert {row.comparison.problems for row in study.rows.values()} == {STUDIES[name].problems}


def test_the_studies_that_the_readme_speaks_of_are_recorded() -> None:
    assert {"headline", "internalisation", "fairness"} <= set(RECORDED_STUDIES)


def test_the_signals_are_the_recorded_ones() -> None:
    assert signals_markdown(load_study(RESULTS / "internalisation.json")) in RESULTS_PAGE


def test_the_pictures_are_drawn_from_the_records() -> None:
    drawn = {
        "data/results/headline.svg": draw_study(
            load_study(RESULTS / "headline.json"), load_study(RESULTS / "internalisation.json")
        ),
        "data/results/comparison/comparison.svg": draw_comparison(published_comparison()),
    }
    assert re.findall(r"!\[[^\]]*\]\((\S+\.svg)\)", README) == list(drawn)
    for name, picture in drawn.items():
        assert (ROOT / name).read_text(encoding="utf-8") == picture


def test_what_is_read_from_the_comparison_stands_in_its_record() -> None:
    rows = {row.name: row for row in published_comparison().rows}
    trained = [row for row in rows.values() if row.kind == "method"]
    assert rows["vanilla"].test.accuracy.low == 1
    assert (
        f"right on {100 * rows['vanilla'].harder.accuracy.estimate:.0f} %, and no interval in the table leaves out zero"
        in README
    )
    shown = [*trained, rows["deer"], rows["think-budget"]]
    assert all(row.harder.accuracy_points.low < 0 < row.harder.accuracy_points.high for row in shown)
    assert min(trained, key=lambda row: row.test.tokens.estimate).name == "step-grpo"
    assert max(trained, key=lambda row: row.test.accuracy_points.estimate).name == "deer-sft"
    for name in ("step-grpo", "length-penalty"):
        assert f"{100 * rows[name].structure['all']['oracle_saves']:.0f} %" == "1 %"
    step, penalty = (rows[name].test.accuracy_points for name in ("step-grpo", "length-penalty"))
    assert f"for {-penalty.estimate:.1f} points instead of {-step.estimate:.1f}; their intervals overlap" in README
    assert step.low < penalty.high
    no_reward, no_rollout, masked = (
        rows[name].test for name in ("no-step-reward", "no-dynamic-rollout", "close-masked")
    )
    assert f"the rollout alone leaves {100 * no_reward.token_ratio.estimate:.0f} % of the tokens" in README
    lost = f"{100 * no_rollout.token_ratio.estimate:.0f} % and loses {-no_rollout.accuracy_points.estimate:.1f} points"
    assert f"the reward alone reaches {lost}" in README
    assert f"close masked it is {100 * masked.token_ratio.estimate:.0f} %" in README
    first, second, third = (f"{100 * seed.accuracy:.1f}" for seed in rows["s-grpo"].seeds)
    assert f"{first}, {second} and {third} % right" in README
    assert rows["s-grpo"].learning_rate == min(map(float, rows["s-grpo"].rates))


def test_what_the_results_page_reads_from_single_settings_stands_in_the_record() -> None:
    rows = {row.name: row for row in published_comparison().rows}
    page = " ".join(RESULTS_PAGE.split())

    def lost(name: str) -> str:
        return f"{-rows[name].test.accuracy_points.estimate:.1f}"

    def kept(name: str) -> str:
        return f"{100 * rows[name].test.token_ratio.estimate:.0f}"

    fed = rows["deer"].seeds[0]
    betas = [kept(f"scale-none-beta-{beta}") for beta in (0.1, 0.5, 0.9)]
    for said in (
        f"GRPO loses {lost('grpo')} points and the soft overlong punishment {lost('soft-overlong')}, "
        f"at {kept('grpo')} and {kept('soft-overlong')} %",
        f"keeps {fed.tokens:.0f} tokens of a completion and feeds {fed.tokens_fed:.0f}",
        f"Penalizing wrong answers loses {lost('wrong-penalized')} points",
        "0.1 keeps {} % of the tokens, 0.5 and 0.9 keep {} and {} %".format(*betas),
        f"Groups of 4 lose {lost('group-size-4')} points at {kept('group-size-4')} %",
        f"reach {kept('group-size-16')} %",
        f"lose {lost('threshold-0.9')} and {lost('threshold-0.98')} points",
        f"{kept('preset-paper')} % of the tokens, {lost('preset-paper')} points lost",
    ):
        assert said in page


def test_the_headline_holds() -> None:
    """At most half of the tokens; accuracy above -2 points for each seed and above -1 over all of them."""
    study = load_study(RESULTS / "headline.json")
    whole = study.pooled["Step-GRPO"]
    assert whole.token_ratio.high <= 0.5
    assert whole.accuracy_points.low > -1
    for name, row in study.rows.items():
        if name.startswith("Step-GRPO"):
            assert row.comparison.token_ratio.estimate <= 0.5
            assert row.comparison.accuracy_points.low > -2


def test_needed_steps_are_needed_after_training() -> None:
    for name, row in load_study(RESULTS / "fairness.json").rows.items():
        for family, change in row.first_cut.items():
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
