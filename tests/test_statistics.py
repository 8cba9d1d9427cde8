"""Intervals: goldens, the properties that make them intervals, and clear errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepgrpo_lab.evaluation import statistics
from stepgrpo_lab.evaluation.statistics import (
    Interval,
    bootstrap_mean,
    calibration,
    paired_bootstrap,
    seeds_bootstrap,
    t_interval,
)


def test_bootstrap_of_two_problems_matches_the_exact_distribution():
    # Two draws from {0, 1}: mean 0, 0.5, 1 with probability 1/4, 1/2, 1/4, so the middle 40 % is exactly 0.5.
    assert bootstrap_mean([0.0, 1.0], level=0.4) == Interval(0.5, 0.5, 0.5)
    assert bootstrap_mean([0.0, 1.0], level=0.8) == Interval(0.5, 0.0, 1.0)


def test_bootstrap_agrees_with_the_normal_interval_for_many_problems():
    values = np.random.default_rng(3).normal(5.0, 2.0, size=2_000)
    interval = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(11)
    runs = 300
    covered = sum(
        0.3 in bootstrap_mean(generator.random(80) < 0.3, resamples=400, level=0.9, seed=run) for run in range(runs)
    )
    # Standard error of the coverage: 1.7 points; the percentile bootstrap is a little too narrow at 80 problems.
    assert 0.84 <= covered / runs <= 0.95


def test_samples_are_averaged_within_a_problem_before_problems_are_drawn():
    alike = np.repeat(np.random.default_rng(0).random((40, 1)), 25, axis=1)
    wide, single = bootstrap_mean(alike), bootstrap_mean(alike[:, 0])
    assert (wide.low, wide.high) == pytest.approx((single.low, single.high))
    pooled = bootstrap_mean(alike.ravel())
    assert pooled.high - pooled.low < 0.3 * (wide.high - wide.low)


def test_pairing_cancels_the_difficulty_of_the_problems():
    generator = np.random.default_rng(5)
    difficulty = generator.normal(0, 10, size=200)
    before, after = difficulty + generator.normal(0, 1, 200), difficulty + 1 + generator.normal(0, 1, 200)
    paired = paired_bootstrap(before, after)
    shuffled = paired_bootstrap(before, generator.permutation(after))
    assert paired.estimate == pytest.approx(shuffled.estimate)
    assert paired.high - paired.low < 0.2 * (shuffled.high - shuffled.low)
    assert paired.low > 0 > shuffled.low


# ---- seeds -----------------------------------------------------------------------------------------------------------

FEW = settings(max_examples=30, deadline=None)
RUNS = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).uniform(1, 100, size=(4, 12)))
STATISTICS = st.sampled_from(["difference", "ratio"])


@given(RUNS, STATISTICS, st.integers(0, 99))
@FEW
def test_one_seed_is_the_paired_bootstrap(runs, statistic, seed):
    options = {"statistic": statistic, "resamples": 200, "seed": seed}
    alone = paired_bootstrap(runs[0], runs[1], **options)
    assert seeds_bootstrap([runs[1]], runs[0], **options) == alone
    assert seeds_bootstrap([runs[1]], resamples=200) == bootstrap_mean(runs[1], resamples=200)
    agreeing = seeds_bootstrap([runs[1]] * 3, runs[0], **options)
    assert (agreeing.low, agreeing.high) == pytest.approx((alone.low, alone.high))


@given(RUNS, STATISTICS, st.integers(0, 99))
@FEW
def test_the_same_seed_of_the_draws_gives_the_same_interval(runs, statistic, seed):
    before, *seeds = runs
    first, again = (seeds_bootstrap(seeds, before, statistic=statistic, resamples=200, seed=seed) for _ in range(2))
    assert first == again
    assert first.low <= first.estimate <= first.high
    shuffled = seeds_bootstrap(seeds[::-1], before, statistic=statistic, resamples=200, seed=seed)
    assert shuffled.estimate == pytest.approx(first.estimate)


@given(RUNS, STATISTICS, st.floats(60, 200))
@FEW
def test_seeds_that_differ_make_the_interval_wider_than_their_samples_pooled(runs, statistic, apart):
    before, *seeds = runs
    seeds = [values + number * apart for number, values in enumerate(seeds)]
    wide = seeds_bootstrap(seeds, before, statistic=statistic, resamples=500)
    pooled = paired_bootstrap(before, np.stack(seeds, axis=1), statistic=statistic, resamples=500)
    assert wide.estimate == pytest.approx(pooled.estimate)
    assert wide.high - wide.low > pooled.high - pooled.low


@given(RUNS, STATISTICS)
@FEW
def test_a_setting_of_one_run_is_its_run(runs, statistic):
    before, *seeds = runs
    options = {"statistic": statistic, "resamples": 200}
    assert seeds_bootstrap(seeds, before_seeds=[before], **options) == seeds_bootstrap(seeds, before, **options)


@given(RUNS, st.floats(20, 200))
@FEW
def test_seeds_of_what_is_held_against_widen_the_interval_too(runs, apart):
    spread = [values + number * apart for number, values in enumerate(runs[:3])]
    alone = seeds_bootstrap([runs[3]], np.mean(spread, axis=0), resamples=500)
    both = seeds_bootstrap([runs[3]], before_seeds=spread, resamples=500)
    assert both.estimate == pytest.approx(alone.estimate)
    assert both.high - both.low > alone.high - alone.low


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=8), st.lists(st.floats(-50, 50), min_size=2, max_size=8))
@example([0.0, 0.0], [0.0, 1.8e-86])
@FEW
def test_the_t_interval_turns_with_its_sides_and_narrows_with_the_level(first, second):
    forwards, backwards = t_interval(first, second), t_interval(second, first)
    assert (forwards.low, forwards.high) == pytest.approx((-backwards.high, -backwards.low), abs=1e-6)
    narrow = t_interval(first, second, level=0.5)
    assert forwards.low <= narrow.low <= narrow.estimate <= narrow.high <= forwards.high


def test_the_t_interval_of_known_numbers():
    # Student's t with 8 degrees of freedom: 2.306004; equal variances of 2.5 over five seeds.
    found = t_interval([1, 2, 3, 4, 5], [11, 12, 13, 14, 15])
    assert (found.estimate, found.high - found.estimate) == pytest.approx((-10, 2.306004), abs=1e-5)
    with pytest.raises(ValueError, match="at least two seeds"):
        t_interval([1.0], [1.0, 2.0])


def test_the_interval_over_seeds_covers_another_seed_s_truth_as_no_interval_over_problems_does():
    generator = np.random.default_rng(4)
    covered = {"seeds": 0, "problems": 0}
    for run in range(150):
        effects = generator.normal(0, 1, size=(8, 1))  # the mean over all seeds that there could be is 0
        seeds = effects + generator.normal(0, 1, size=(8, 50))
        covered["seeds"] += 0 in seeds_bootstrap(seeds, resamples=200, seed=run)
        covered["problems"] += 0 in bootstrap_mean(seeds.T, resamples=200, seed=run)
    assert covered["seeds"] > 120 > 75 > covered["problems"]


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=20), STATISTICS)
@FEW
def test_identical_inputs_have_no_width(values, statistic):
    neutral = 1.0 if statistic == "ratio" else 0.0
    assert paired_bootstrap(values, values, statistic=statistic, resamples=50) == Interval(neutral, neutral, neutral)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_bounds_surround_the_estimate_and_stay_inside_the_data(values, seed):
    interval = bootstrap_mean(values, resamples=50, seed=seed)
    slack = 1e-9 * (1 + max(map(abs, values)))
    assert min(values) - slack <= interval.low <= interval.estimate <= interval.high <= max(values) + slack


def test_ratio_is_of_the_means_and_not_the_mean_of_ratios():
    assert paired_bootstrap([100, 10], [50, 10], statistic="ratio").estimate == pytest.approx(60 / 110)


def test_the_two_sides_may_have_different_numbers_of_samples():
    interval = paired_bootstrap([[0, 1], [1, 1]], [1, 1])
    assert interval.estimate == pytest.approx(0.25)


def test_same_seed_same_interval_and_memory_blocks_do_not_change_the_width(monkeypatch):
    values = np.random.default_rng(1).random(64)
    whole = bootstrap_mean(values, seed=4)
    assert whole == bootstrap_mean(values, seed=4)
    assert whole != bootstrap_mean(values, seed=5)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 64 * 7)
    blocked = bootstrap_mean(values, seed=4)
    assert (blocked.low, blocked.high) == pytest.approx((whole.low, whole.high), abs=0.01)


def test_interval_changes_unit():
    assert Interval(0.5, 0.25, 0.75) * 100 == Interval(50, 25, 75)
    with pytest.raises(ValueError, match="positive"):
        Interval(0.5, 0.25, 0.75) * -1


def test_calibration_golden_table():
    result = calibration([0.05, 0.15, 0.92, 0.98, 1.0], [False, True, True, True, False], bins=10)
    assert [row.count for row in result.bins] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert result.bins[9].confidence == pytest.approx(2.9 / 3)
    assert result.bins[9].accuracy == pytest.approx(2 / 3)
    assert result.bins[5].confidence is None and result.bins[5].accuracy is None
    assert result.ece == pytest.approx((0.05 + 0.85 + 3 * abs(2.9 / 3 - 2 / 3)) / 5)
    assert result.count == 5


def test_calibration_puts_an_edge_where_the_table_says():
    result = calibration(np.linspace(0, 1, 11), np.ones(11, dtype=bool))
    for row in result.bins:
        assert row.confidence is not None
        assert row.low <= row.confidence <= row.high
    assert [row.count for row in result.bins] == [1] * 9 + [2]


def test_calibrated_answers_have_a_small_error_and_inflated_ones_a_large_one():
    generator = np.random.default_rng(2)
    stated = generator.random(20_000)
    correct = generator.random(20_000) < stated
    assert calibration(stated, correct).ece < 0.02
    assert calibration(np.sqrt(stated), correct).ece > 0.1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap_mean([]), "values has shape"),
        (lambda: bootstrap_mean([[1, 2], [3]]), "as many samples"),
        (lambda: bootstrap_mean([1, float("nan")]), "values holds"),
        (lambda: bootstrap_mean([1], resamples=0), "resamples is 0"),
        (lambda: bootstrap_mean([1], level=95), "level is 95"),
        (lambda: paired_bootstrap([1, 2], [1]), "after has 1, before has 2"),
        (lambda: seeds_bootstrap([]), "no seeds"),
        (lambda: seeds_bootstrap([[1, 2], [1]]), "after has 2, after has 1"),
        (lambda: paired_bootstrap([0, 2], [1, 1], statistic="ratio"), "use 'difference'"),
        (lambda: paired_bootstrap([1], [1], statistic="median"), "statistic is 'median'"),
        (lambda: calibration([0.5], [True, False]), "equally long"),
        (lambda: calibration([1.5], [True]), r"\[0, 1\]"),
        (lambda: calibration([float("nan")], [True]), r"\[0, 1\]"),
        (lambda: calibration([0.5], [2]), "True and False"),
        (lambda: calibration([0.5], [True], bins=0), "bins is 0"),
    ],
)
def test_errors_name_the_thing(call, words):
    with pytest.raises(ValueError, match=words):
        call()
