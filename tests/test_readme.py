"""The README says what the recorded run measured, and its examples run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from stepgrpo_lab.cli import build_parser
from stepgrpo_lab.report import headline_svg, summary_markdown
from stepgrpo_lab.statistics import Interval

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "data" / "results" / "overthinker"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_table_is_the_recorded_run_s() -> None:
    assert summary_markdown(RECORDED).strip() in README


def test_the_headline_is_the_recorded_one() -> None:
    folder = ROOT / "data" / "results" / "headline"
    table = (folder / "headline.md").read_text(encoding="utf-8").strip()
    assert table in README
    rows = json.loads((folder / "headline.json").read_text())["rows"]
    for name, row in rows.items():
        shown = f"| {name} | {Interval(**row['token_ratio']) * 100} % | {Interval(**row['accuracy_points'])} points |"
        assert shown in table


def test_the_picture_is_the_recorded_run_s() -> None:
    [name] = re.findall(r"!\[[^\]]*\]\((\S+\.svg)\)", README)
    assert (ROOT / name).read_text(encoding="utf-8") == headline_svg(RECORDED)


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
