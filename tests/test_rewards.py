"""The step-aware reward against the paper's numbers, and what must follow from its formula."""

from __future__ import annotations

import math
import pickle
import random
import statistics
from collections.abc import Sequence
from itertools import compress, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.method.boxes import extract_boxed
from stepgrpo_lab.method.records import Outcome
from stepgrpo_lab.method.rewards import (
    GroupReward,
    StepAwareReward,
    group_advantages,
    group_mean_steps,
    grouped,
    is_informative,
    outcome_rewards,
    step_aware_rewards,
)

CORRECT, STEPS, FORMATTED = [True, True, True, False, False], [2, 4, 6, 3, 9], [True] * 5
GOLDEN_REWARDS = [1.207953, 1.0, 0.792047, 0.1, 0.1]

members = st.lists(st.tuples(st.booleans(), st.integers(1, 200)), min_size=1, max_size=12)


def columns(group: Sequence[tuple[bool, int]]) -> tuple[list[bool], list[int], list[bool]]:
    return [c for c, _ in group], [k for _, k in group], [True] * len(group)


def test_golden_rewards_of_the_paper() -> None:
    assert group_mean_steps(CORRECT, STEPS) == 4
    assert step_aware_rewards(CORRECT, STEPS, FORMATTED) == pytest.approx(GOLDEN_REWARDS, abs=5e-7)


@pytest.mark.parametrize(
    ("eps", "golden"),
    [(1e-6, [1.1041, 0.6998, 0.2956, -1.0497, -1.0497]), (1e-4, [1.1039, 0.6997, 0.2955, -1.0495, -1.0495])],
)
def test_golden_advantages_for_both_eps(eps: float, golden: list[float]) -> None:
    rewards = step_aware_rewards(CORRECT, STEPS, FORMATTED)
    assert group_advantages(rewards, eps=eps) == pytest.approx(golden, abs=5e-5)


def test_eps_is_trls_by_default() -> None:
    assert group_advantages(GOLDEN_REWARDS) == group_advantages(GOLDEN_REWARDS, eps=1e-4)


@pytest.mark.parametrize(
    ("step_beta", "eps", "golden", "tolerance"),
    [
        (0.5, 1e-6, [1.2496, 0.6623, 0, -0.6623, -1.2496], 5e-5),
        (0.05, 1e-6, [1.2496, 0.6623, 0, -0.6623, -1.2496], 5e-4),
        (0.05, 1e-4, [1.2421, 0.6583, 0, -0.6583, -1.2421], 5e-5),
    ],
)
def test_golden_advantages_where_all_are_correct(
    step_beta: float, eps: float, golden: list[float], tolerance: float
) -> None:
    rewards = step_aware_rewards([True] * 5, [2, 3, 4, 5, 6], [True] * 5, step_beta=step_beta)
    assert group_advantages(rewards, eps=eps) == pytest.approx(golden, abs=tolerance)


@given(members)
def test_correct_earns_within_its_bounds_and_wrong_at_most_a_tenth(group: list[tuple[bool, int]]) -> None:
    correct, steps, formatted = columns(group)
    for is_correct, reward in zip(correct, step_aware_rewards(correct, steps, formatted), strict=True):
        if is_correct:
            assert 0.55 - 1e-12 <= reward <= 0.9 * (1 + 0.5 * math.tanh(1)) + 0.1 + 1e-12 < 1.343
        else:
            assert reward == pytest.approx(0.1)


def test_the_upper_bound_is_nearly_reached() -> None:
    rewards = step_aware_rewards([True] * 12, [1] + [10_000] * 11, [True] * 12)
    assert rewards[0] == pytest.approx(1.3427, abs=1e-3)


@given(members, st.floats(0.05, 1), st.floats(0, 0.99), st.sampled_from(["correct", "all"]), st.booleans())
def test_correct_always_beats_wrong(
    group: list[tuple[bool, int]], step_alpha: float, step_beta: float, mean_over: str, step_reward: bool
) -> None:
    correct, steps, formatted = columns(group)
    rewards = step_aware_rewards(
        correct,
        steps,
        formatted,
        step_alpha=step_alpha,
        step_beta=step_beta,
        mean_over=mean_over,  # type: ignore[arg-type]
        step_reward=step_reward,
    )
    right, wrong = list(compress(rewards, correct)), list(compress(rewards, [not c for c in correct]))
    assert not right or not wrong or min(right) > max(wrong)


@given(st.integers(1, 500), st.lists(st.integers(1, 500), max_size=7))
def test_a_single_correct_member_has_factor_one(own_steps: int, wrong_steps: list[int]) -> None:
    size = 1 + len(wrong_steps)
    rewards = step_aware_rewards([True] + [False] * (size - 1), [own_steps, *wrong_steps], [True] * size)
    assert rewards[0] == pytest.approx(1.0, abs=1e-12)


@given(members, st.data())
def test_wrong_members_never_get_a_length_signal(group: list[tuple[bool, int]], data: st.DataObject) -> None:
    correct, steps, formatted = columns(group)
    other_steps = [k if c else data.draw(st.integers(1, 200)) for c, k in group]
    assert step_aware_rewards(correct, steps, formatted) == step_aware_rewards(correct, other_steps, formatted)


@given(st.lists(st.integers(1, 12), min_size=2, max_size=8).filter(is_informative), st.floats(0.1, 0.9))
def test_beta_is_inert_in_an_all_correct_group_unless_the_std_is_left_out(steps: list[int], step_beta: float) -> None:
    right = [True] * len(steps)
    weak = step_aware_rewards(right, steps, right, step_beta=0.05)
    strong = step_aware_rewards(right, steps, right, step_beta=step_beta)
    assert group_advantages(weak, eps=1e-6) == pytest.approx(group_advantages(strong, eps=1e-6), abs=1e-2)
    ratio = max(group_advantages(strong, scale="none")) / max(group_advantages(weak, scale="none"))
    assert ratio == pytest.approx(step_beta / 0.05)


@given(members.filter(lambda group: len(group) > 1), st.randoms())
def test_members_may_be_permuted(group: list[tuple[bool, int]], rng: random.Random) -> None:
    shuffled = list(group)
    rng.shuffle(shuffled)
    before = dict(zip(group, step_aware_rewards(*columns(group)), strict=True))
    after = step_aware_rewards(*columns(shuffled))
    assert after == [before[member] for member in shuffled]
    by_member = dict(zip(group, group_advantages([before[member] for member in group]), strict=True))
    assert group_advantages(after) == pytest.approx([by_member[member] for member in shuffled])


def test_the_format_term_is_really_zero_without_a_box() -> None:
    assert step_aware_rewards([False, True], [1, 1], [False, True]) == pytest.approx([0.0, 1.0])


def test_mean_over_all_uses_every_member() -> None:
    assert group_mean_steps(CORRECT, STEPS, "all") == statistics.fmean(STEPS)
    expected = 0.9 * (1 - 0.5 * math.tanh((2 - 4.8) / 4.8)) + 0.1
    assert step_aware_rewards(CORRECT, STEPS, FORMATTED, mean_over="all")[0] == pytest.approx(expected)


def test_mean_steps_is_undefined_where_nobody_is_correct() -> None:
    assert group_mean_steps([False, False], [2, 4]) is None
    assert step_aware_rewards([False, False], [2, 4], [True, False]) == pytest.approx([0.1, 0.0])


def test_without_step_reward_it_is_correctness_and_format() -> None:
    assert step_aware_rewards(CORRECT, STEPS, FORMATTED, step_reward=False) == pytest.approx([1, 1, 1, 0.1, 0.1])


def test_penalize_wrong_gives_wrong_members_a_length_signal() -> None:
    rewards = step_aware_rewards(CORRECT, STEPS, FORMATTED, penalize_wrong=True)
    expected = [0.1 - 0.9 * 0.5 * math.tanh((k - 4) / 4) for k in (3, 9)]
    assert rewards == pytest.approx([*GOLDEN_REWARDS[:3], *expected], abs=5e-7)
    failed_fast, failed_slowly = step_aware_rewards([False, False], [1, 5], [True, True], penalize_wrong=True)
    assert failed_fast == pytest.approx(0.1 + 0.45 * math.tanh(2 / 3))
    assert failed_slowly == pytest.approx(0.1 - 0.45 * math.tanh(2 / 3))


def test_advantages_by_scale() -> None:
    rewards = [1.0, 0.0, 0.5]
    assert group_advantages(rewards, scale="none") == pytest.approx([0.5, -0.5, 0.0])
    assert group_advantages(rewards, scale="batch", batch_std=0.25, eps=0) == pytest.approx([2, -2, 0])
    assert group_advantages(rewards, eps=0) == pytest.approx([1, -1, 0])


@pytest.mark.parametrize("scale", ["group", "none"])
def test_a_group_of_equal_rewards_has_exactly_no_advantage(scale: str) -> None:
    assert not is_informative([0.1] * 3)
    assert group_advantages([0.1] * 3, scale=scale) == [0.0, 0.0, 0.0]  # type: ignore[arg-type]


def test_grouped_cuts_in_order() -> None:
    assert grouped(range(6), 3) == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ValueError, match="7 completions do not divide into groups of 3"):
        grouped(range(7), 3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think>\\boxed{7}", True),
        ("<think>\\boxed{7}</think> 7", False),
        ("\\boxed{7}", False),
        ("<think></think>\\boxed{ }", False),
        ("<think></think>\\boxed{7", False),
    ],
)
def test_format_needs_a_box_after_the_close(text: str, expected: bool) -> None:
    assert (extract_boxed(text) is not None) is expected


def test_the_reward_object_is_the_function_with_its_settings() -> None:
    reward: GroupReward = StepAwareReward(step_beta=0.3, mean_over="all")
    expected = step_aware_rewards(CORRECT, STEPS, FORMATTED, step_beta=0.3, mean_over="all")
    assert reward(CORRECT, STEPS, FORMATTED, [10] * 5) == expected
    assert pickle.loads(pickle.dumps(reward))(CORRECT, STEPS, FORMATTED, [10] * 5) == expected


def shortest_correct_wins(
    correct: Sequence[bool], steps: Sequence[int], formatted: Sequence[bool], tokens: Sequence[int]
) -> list[float]:
    """A reward of one's own: 1 for the shortest correct answer, 0.5 for the other correct ones."""
    shortest = min(compress(tokens, correct), default=0)
    return [(1.0 if n == shortest else 0.5) if c else 0.0 for c, n in zip(correct, tokens, strict=True)]


def test_a_reward_of_ones_own_fits_the_protocol() -> None:
    reward: GroupReward = shortest_correct_wins
    rewards = reward([True, True, False], [1, 2, 1], [True] * 3, [80, 50, 20])
    assert rewards == [0.5, 1.0, 0.0]
    assert group_advantages(rewards, eps=0) == pytest.approx([0, 1, -1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_alpha": 1.1}, "step_alpha is 1.1; it must lie in"),
        ({"step_alpha": math.nan}, "step_alpha is nan"),
        ({"step_beta": 1.0}, "step_beta is 1.0; it must lie in"),
        ({"step_beta": -0.1}, "step_beta is -0.1"),
        ({"mean_over": "wrong"}, "mean_over is 'wrong'; use 'correct' or 'all'"),
        ({"penalize_wrong": True, "step_reward": False}, "set step_reward=True"),
    ],
)
def test_bad_settings_are_refused_by_function_and_object(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        step_aware_rewards(CORRECT, STEPS, FORMATTED, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        StepAwareReward(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("correct", "steps", "formatted", "message"),
    [
        ([True], [1, 2], [True], "steps has 2 entries but correct has 1"),
        ([True], [1], [True, True], "formatted has 2 entries but correct has 1"),
        ([], [], [], "the group is empty"),
        ([True], [0], [True], "steps contains 0; a completion has at least 1 step"),
        ([True, True], [2, float("nan")], [True, True], "steps contains nan; a completion has at least 1 step"),
    ],
)
def test_bad_groups_are_refused(correct: list[bool], steps: list[int], formatted: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        step_aware_rewards(correct, steps, formatted)


@pytest.mark.parametrize(
    ("rewards", "arguments", "message"),
    [
        ([1.0], {}, "at least 2 rewards"),
        ([1.0, math.nan], {}, "must be finite"),
        ([1.0, 0.0], {"scale": "std"}, "scale is 'std'; use"),
        ([1.0, 0.0], {"scale": "batch"}, "needs batch_std"),
    ],
)
def test_bad_advantage_arguments_are_refused(rewards: list[float], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group_advantages(rewards, **arguments)  # type: ignore[arg-type]


def test_group_order_cannot_change_the_mean() -> None:
    means = {group_mean_steps([True] * 4, order) for order in permutations([1, 3, 7, 10])}
    assert means == {5.25}


def test_outcomes_are_rewarded_as_their_parts() -> None:
    outcomes = [Outcome(True, True, 2, 20), Outcome(True, True, 6, 60), Outcome(False, False, 3, 30)]
    expected = step_aware_rewards([True, True, False], [2, 6, 3], [True, True, False])
    assert outcome_rewards(StepAwareReward(), outcomes) == expected
    assert outcome_rewards(lambda correct, steps, formatted, tokens: tokens, outcomes) == [20.0, 60.0, 30.0]
    with pytest.raises(ValueError, match="returned 1 rewards for a group of 3"):
        outcome_rewards(lambda correct, steps, formatted, tokens: [1.0], outcomes)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_arrays_and_tensors_are_rewarded_like_lists(kind: str) -> None:
    library = pytest.importorskip(kind)
    make = library.array if kind == "numpy" else library.tensor
    group = ([True, True, False], [2, 5, 3], [True, False, True])
    rewards = step_aware_rewards(*map(make, group))
    assert rewards == step_aware_rewards(*group)
    assert group_advantages(make(rewards)) == pytest.approx(group_advantages(rewards), rel=1e-6)
