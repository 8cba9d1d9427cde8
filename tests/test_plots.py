"""Figures show exactly their records, and tell series apart without colour."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from stepgrpo_lab.evaluation.statistics import Interval, calibration
from stepgrpo_lab.viz import completions, curves, tradeoff
from stepgrpo_lab.viz._style import INK

ROLLOUT = {"validation/rollout_tokens": 40.0, "validation/first_cut_accuracy": 0.2}
METRICS = [
    {"step": 0, "validation/accuracy": 0.8, "validation/tokens": 90.0},
    {
        "step": 1,
        "reward": 0.5,
        "steps/all": 4.0,
        "steps/correct": 3.5,
        "exits/natural": 0.25,
        "exits/early": 0.7,
        "exits/near_budget": 0.0,
        "exits/budget": 0.05,
        "groups/informative": 0.6,
        "truncated": 0.01,
        "probe/joint": 0.9,
        "probe/right": 0.75,
    },
    {"step": 2, "reward": float("nan"), "steps/all": None, "exits/natural": 0.5, "exits/early": 0.5},
    {"step": 2, "validation/accuracy": 0.9, "validation/tokens": 45.0} | ROLLOUT,
]


def drawn(figure) -> dict[str, tuple[list[float], list[float]]]:
    return {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}


def test_learning_curves_show_the_records_in_the_units_of_their_axes():
    figure = curves.learning_curves(METRICS)
    traces = drawn(figure)
    assert traces["right, plain decoding"] == ([0, 2], [80.0, 90.0])
    assert traces["tokens, plain decoding"] == ([0, 2], [90.0, 45.0])
    assert traces["tokens, truncated rollout"] == ([2], [40.0])
    assert traces["right, cut at the first marker"] == ([2], [20.0])
    assert traces["reward"] == ([1], [0.5])
    assert traces["rollout, correct"] == ([1], [3.5])
    assert traces["stated probability"] == ([1], [90.0])
    assert traces["truncated completions"] == ([1], [1.0])
    titles = [figure.layout[f"yaxis{suffix}"].title.text for suffix in ("", 2, 3, 4, 5, 6)]
    assert titles == [
        "correct (%)",
        "tokens per completion",
        "mean reward",
        "steps per completion",
        "%",
        "share (%)",
    ]


def test_learning_curves_leave_out_the_panels_without_records():
    figure = curves.learning_curves([{"step": 1, "reward": 0.5}])
    assert [annotation.text for annotation in figure.layout.annotations] == ["Training reward"]
    with pytest.raises(ValueError, match="no value that is plotted"):
        curves.learning_curves([{"step": 1, "loss": 0.1}])


def test_tradeoff_draws_both_intervals():
    figure = tradeoff.tradeoff(
        [{"name": "before", "accuracy": Interval(0.8, 0.7, 0.85), "tokens": Interval(90, 85, 99)}]
    )
    (point,) = figure.data
    assert (point.x[0], point.y[0]) == (90, 80)
    assert (point.error_x.array[0], point.error_x.arrayminus[0]) == (9, 5)
    assert point.error_y.array[0] == pytest.approx(5)
    assert point.error_y.arrayminus[0] == pytest.approx(10)
    assert point.text == ("before",)
    with pytest.raises(ValueError, match="no points"):
        tradeoff.tradeoff([])


def test_exit_reasons_stack_to_the_recorded_shares():
    figure = curves.exit_reasons(METRICS)
    traces = drawn(figure)
    assert traces["closed by itself"] == ([1, 2], [25.0, 50.0])
    assert sum(y[0] for _, y in traces.values()) == pytest.approx(100)
    assert {trace.stackgroup for trace in figure.data} == {"exits"}
    with pytest.raises(ValueError, match="exits/natural"):
        curves.exit_reasons([{"step": 1, "reward": 1.0}])


def test_reliability_diagram_shows_the_filled_bins_only():
    result = calibration([0.15, 0.95, 0.95], [False, True, False], bins=10)
    traces = drawn(completions.reliability_diagram(result))
    assert traces["correct"] == ([pytest.approx(0.15), pytest.approx(0.95)], [0.0, 50.0])
    assert traces["share of the answers"][1] == [pytest.approx(100 / 3), pytest.approx(200 / 3)]
    assert traces["calibrated"] == ([0, 1], [0, 100])


def test_reliability_lines_show_every_filled_bin():
    modest = calibration([0.1, 0.9], [True, True])
    figure = completions.reliability_lines(
        {"<b>": modest, "sure": calibration([0.95], [False])}, score="joint probability"
    )
    diagonal, first, second = figure.data
    assert (diagonal.name, second.name) == ("calibrated", "sure (ECE 0.950)")
    assert list(first.x) == [0.1, 0.9] and list(first.y) == [100.0, 100.0] and list(second.y) == [0.0]
    assert "<b>" not in first.name and first.marker.size[0] == first.marker.size[1] < second.marker.size[0]
    with pytest.raises(ValueError, match="calibrations"):
        completions.reliability_lines({})


def test_step_labels_show_the_means_and_zero_for_a_missing_label():
    figure = completions.step_labels({"before": {"needed": 2.0, "redundant": 1.5}, "after": {"needed": 2.1}})
    assert drawn(figure) == {
        "needed": (["before", "after"], [2.0, 2.1]),
        "redundant": (["before", "after"], [1.5, 0.0]),
    }
    with pytest.raises(ValueError, match="at least one run"):
        completions.step_labels({})


def test_names_of_lines_stand_above_their_panel_and_not_on_the_lines():
    figure = curves.learning_curves(METRICS)
    assert not figure.layout.showlegend
    titles = " ".join(annotation.text for annotation in figure.layout.annotations)
    panels = [trace.xaxis for trace in figure.data]
    assert all(trace.name in titles for trace in figure.data if panels.count(trace.xaxis) > 1)
    assert len(set(curves.SIGNS)) == len(curves.SIGNS) >= 5


def test_series_of_one_panel_differ_in_more_than_colour():
    lines = curves.learning_curves(METRICS).data
    for panel in {trace.xaxis for trace in lines}:
        dashes = [trace.line.dash for trace in lines if trace.xaxis == panel]
        assert len(set(dashes)) == len(dashes)
    hatches = [trace.fillpattern.shape for trace in curves.exit_reasons(METRICS).data]
    assert len(set(hatches)) == len(hatches)
    point = {"accuracy": Interval(0.8, 0.7, 0.9), "tokens": Interval(9, 8, 10)}
    shapes = [t.marker.symbol for t in tradeoff.tradeoff([{"name": str(i), **point} for i in range(6)]).data]
    assert len(set(shapes)) == 6


def contrast(first: str, second: str) -> float:
    """WCAG 2.2 contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_ink_reads_on_white_and_on_black():
    assert contrast(INK, "#ffffff") > 4.5
    assert contrast(INK, "#000000") > 4.5


def test_figures_are_json_with_a_transparent_background():
    layout = json.loads(curves.exit_reasons(METRICS).to_json())["layout"]["template"]["layout"]
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0, 0, 0, 0)"


def test_importing_the_module_does_not_import_plotly():
    code = "import sys, stepgrpo_lab.viz.curves; sys.exit('plotly' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
