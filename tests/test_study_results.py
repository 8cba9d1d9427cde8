"""Records of studies: read back whole, told as a table and as a picture."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from stepgrpo_lab.evaluation.results import Comparison
from stepgrpo_lab.evaluation.statistics import Interval
from stepgrpo_lab.experiments.study_results import RowResult, StudyResult, load_study, signals_markdown, study_markdown
from stepgrpo_lab.experiments.study_svg import draw_study


def comparison(ratio: float, points: float) -> Comparison:
    figures = Interval(points, points - 1, points + 1), Interval(ratio, ratio - 0.1, ratio + 0.1), Interval(-3, -4, -2)
    return Comparison(10, *figures, families={"chain": Comparison(5, *figures)})


def row(ratio: float, points: float, last: float) -> RowResult:
    curves = {"validation/tokens": [[0, 100.0], [10, last]], "validation/rollout_tokens": [[0, 40.0], [10, 35.0]]}
    signals = {"exits/early": 0.5, "groups/mixed": 0.25, "advantage/forced": -0.1, "advantage/natural": 0.2}
    curves |= {key: [[step, value * (1 + (step > 10))] for step in range(1, 21)] for key, value in signals.items()}
    return RowResult(comparison(ratio, points), 1_230_000, {"chain": Interval(-50, -55, -45)}, curves)


def study() -> StudyResult:
    rows = {
        "half, seed 0": row(0.4, 0.5, 44.0),
        "half, seed 1": row(0.42, -0.5, 46.0),
        "all, seed 0": row(0.9, 0.0, 90.0),
        "all, seed 1": row(0.92, 0.2, 92.0),
    }
    return StudyResult(rows, {"half": comparison(0.41, 0.0), "all": comparison(0.91, 0.1)})


def test_a_study_is_read_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps(dataclasses.asdict(study())))
    assert load_study(path) == study()


@pytest.mark.parametrize("text", ["", "[]", '{"rows": {}}', '{"rows": {"a": {}}, "pooled": {}}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"study\.json is not the record of a study"):
        load_study(path)


def test_the_table_has_a_line_for_each_row_and_each_pooled_method() -> None:
    lines = study_markdown(study()).splitlines()
    assert len(lines) == 2 + 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| half, all seeds | 41.0 [31.0, 51.0] % | 0.0 [-1.0, 1.0] points |")
    assert lines[4].endswith("| 1.23 million | -50.0 [-55.0, -45.0] points |")


def test_signals_are_means_over_the_first_and_the_last_steps() -> None:
    lines = signals_markdown(study()).splitlines()
    assert lines[2] == "| half | first 10 | 50 % | 25 % | -0.10 | +0.20 |"
    assert lines[3] == "| half | last 10 | 100 % | 50 % | -0.20 | +0.40 |"
    assert len(lines) == 6
    without = dataclasses.replace(study().rows["half, seed 0"], curves={})
    with pytest.raises(ValueError, match="no training curves"):
        signals_markdown(StudyResult({"half, seed 0": without}, {"half": comparison(1, 0)}))


def test_the_picture_shows_methods_and_the_gap() -> None:
    headline = StudyResult({"GRPO, seed 0": row(1.1, 0.0, 110.0), **study().rows}, {"half": comparison(0.41, 0.0)})
    picture = draw_study(headline, study())
    words = re.findall(r">([^<>]+)</text>", picture)
    assert {"untrained", "half", "all", "GRPO"} <= set(words)
    assert {"plain decoding 45", "plain decoding 91", "truncated rollout 35"} <= set(words)
    assert "half: 41.0 [31.0, 51.0] % of the tokens" in picture
    with pytest.raises(ValueError, match="needs two methods"):
        draw_study(headline, headline)
