"""The stateless random numbers, and how tokens are drawn with them."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.method import sampling
from stepgrpo_lab.method.sampling import SampleKey, Sampling, uniform

KEY = SampleKey(seed=1, split="train", rollout=2, sample=3)


def test_the_mixer_is_the_published_splitmix64() -> None:
    golden, mask = sampling._GOLDEN_GAMMA, (1 << 64) - 1
    outputs = [sampling._mix((1234567 + count * golden) & mask) for count in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(), st.text(), st.integers(0), st.integers(0), st.integers(0, 100_000))
def test_every_key_and_position_gives_a_number_below_one(
    seed: int, split: str, rollout: int, sample: int, position: int
) -> None:
    key = SampleKey(seed, split, rollout, sample)
    assert 0.0 <= uniform(key, position) < 1.0
    assert uniform(key, position) == uniform(dataclasses.replace(key), position)


@pytest.mark.parametrize("change", [{"seed": 2}, {"split": "eval"}, {"rollout": 3}, {"sample": 4}, {"seed": -1}])
def test_every_part_of_the_key_matters(change: dict) -> None:
    other = dataclasses.replace(KEY, **change)
    assert not {uniform(KEY, position) for position in range(50)} & {uniform(other, position) for position in range(50)}


def test_numbers_do_not_change_between_versions() -> None:
    numbers = [round(uniform(KEY, position), 12) for position in (0, 1, 1000)]
    assert numbers == [0.113098457157, 0.821739884774, 0.538248021867]


@pytest.mark.parametrize("walk", ["position", "sample"])
def test_numbers_are_uniform_and_unrelated(walk: str) -> None:
    if walk == "position":
        numbers = [uniform(KEY, position) for position in range(20_000)]
    else:
        numbers = [uniform(dataclasses.replace(KEY, sample=sample), 7) for sample in range(20_000)]
    bins = [0] * 16
    for number in numbers:
        bins[int(16 * number)] += 1
    chi_square = sum((count - 1250) ** 2 / 1250 for count in bins)
    assert chi_square < 37.7  # 0.1 % point of 15 degrees of freedom
    assert abs(statistics.correlation(numbers[:-1], numbers[1:])) < 0.025


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", value) for value in (-0.1, float("nan"), float("inf"))),
        *(("top_p", value) for value in (0.0, 1.1)),
        *(("top_k", value) for value in (-1, 1.5, True)),
    ],
)
def test_bad_sampling_values_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Sampling(**{name: value})
