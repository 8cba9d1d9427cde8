"""The baselines against their published numbers, TRL's own where it has one, and what must follow from each."""

from __future__ import annotations

import pickle
import statistics
from collections.abc import Callable
from functools import partial
from itertools import compress, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepgrpo_lab.method.baselines import (
    THINKPRUNE_LIMITS,
    GRPOLambdaReward,
    OutcomeReward,
    correctness_rewards,
    gfpo_advantages,
    imitation_advantages,
    kimi_length_rewards,
    kimi_rewards,
    l1_exact_rewards,
    l1_max_rewards,
    length_penalty_rewards,
    penalized_groups,
    round_limit,
    scaled_tokens,
    serial_exit_rewards,
    serial_group_rewards,
    shorter_better_rewards,
    shortest_correct,
    soft_overlong_punishment,
    soft_overlong_rewards,
)
from stepgrpo_lab.method.rewards import BatchReward, GroupReward, group_advantages

Outcomes = Callable[[list[bool], list[int]], list[float]]

members = st.lists(st.tuples(st.booleans(), st.integers(1, 30_000)), min_size=1, max_size=12)

OUTCOMES: dict[str, Outcomes] = {
    "correctness": correctness_rewards,
    "length penalty": length_penalty_rewards,
    "Kimi": kimi_rewards,
    "soft overlong": soft_overlong_rewards,
    "L1-Exact": partial(l1_exact_rewards, target=2000),
    "L1-Max": partial(l1_max_rewards, target=2000),
    "ShorterBetter": shorter_better_rewards,
}


def columns(group: list[tuple[bool, int]]) -> tuple[list[bool], list[int]]:
    return [c for c, _ in group], [n for _, n in group]


# ---- golden numbers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strength", "golden"), [(0.2, [0.954579, 0.9, 0.845421]), (0.4, [0.909159, 0.8, 0.690841]), (0.0, [1, 1, 1])]
)
def test_golden_length_penalties(strength: float, golden: list[float]) -> None:
    rewards = length_penalty_rewards([True] * 3, [1000, 2000, 3000], strength=strength)
    assert rewards == pytest.approx(golden, abs=5e-7)


def test_golden_kimi_rewards() -> None:
    correct, tokens = [True, True, False, False], [1000, 2000, 3000, 1500]
    assert kimi_length_rewards(correct, tokens) == [0.5, 0, -0.5, 0]
    assert kimi_rewards(correct, tokens) == pytest.approx([1.2, 1, -0.2, 0])


def test_golden_soft_overlong_punishments() -> None:
    assert soft_overlong_punishment([16384, 17408, 18432, 20480, 20481]) == [0, -0.25, -0.5, -1, -1]


def test_golden_l1_rewards() -> None:
    assert l1_exact_rewards([True, False], [2500, 2500], target=2000) == pytest.approx([0.85, -0.15])
    assert l1_max_rewards([True, False], [2500, 2500], target=2000) == pytest.approx([0.35, 0])


def test_golden_shorter_better_rewards() -> None:
    assert shorter_better_rewards([True, True, False], [1000, 2000, 500]) == [2.0, 1.0, -0.5]
    assert shorter_better_rewards([False, False], [100, 300]) == pytest.approx([-0.1, -0.1])


def test_golden_serial_group_rewards() -> None:
    assert serial_group_rewards([False, True, False, True, True]) == [0, 1, 0, 0.5, 0.25]


def test_golden_rounds_of_thinkprune() -> None:
    assert [round_limit(step, 6) for step in range(6)] == [4000, 4000, 3000, 3000, 2000, 2000]
    assert [round_limit(step, 3, [9, 7]) for step in range(3)] == [9, 9, 7]


# ---- TRL's own -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "cache"), [(20480, 4096), (100, 20), (7, 7), (10, 1)])
def test_the_soft_overlong_punishment_is_trls(limit: int, cache: int) -> None:
    from trl.rewards import get_soft_overlong_punishment

    lengths = sorted(
        {*range(1, 12), *(limit + d for d in (-1, 0, 1)), *(limit - cache + d for d in (0, 1)), limit // 2}
    )
    theirs = get_soft_overlong_punishment(limit, cache)([[0] * length for length in lengths])
    assert soft_overlong_punishment(lengths, limit=limit, cache=cache) == pytest.approx(theirs)


# ---- what follows ----------------------------------------------------------------------------------------------------


@given(members)
def test_a_right_answer_always_beats_a_wrong_one_under_the_length_penalty(group: list[tuple[bool, int]]) -> None:
    correct, tokens = columns(group)
    rewards = length_penalty_rewards(correct, tokens)
    right, wrong = list(compress(rewards, correct)), list(compress(rewards, [not c for c in correct]))
    assert not right or not wrong or min(right) > max(wrong) == 0
    assert all(0.8 <= reward <= 1 for reward in right)


@given(members, st.data())
def test_the_length_of_wrong_answers_is_nothing_to_the_length_penalty(
    group: list[tuple[bool, int]], data: st.DataObject
) -> None:
    correct, tokens = columns(group)
    other = [n if c else data.draw(st.integers(1, 30_000)) for c, n in group]
    assert length_penalty_rewards(correct, tokens) == length_penalty_rewards(correct, other)


@given(members, st.sampled_from(["length penalty", "Kimi", "soft overlong", "L1-Max", "ShorterBetter"]))
def test_of_two_right_answers_the_shorter_never_earns_less(group: list[tuple[bool, int]], name: str) -> None:
    correct, tokens = columns(group)
    right = sorted(compress(zip(tokens, OUTCOMES[name](correct, tokens), strict=True), correct))
    assert all(first[1] >= second[1] - 1e-12 for first, second in pairwise(right))


@given(members, st.sampled_from(list(OUTCOMES)), st.randoms())
def test_members_may_be_permuted(group: list[tuple[bool, int]], name: str, rng: object) -> None:
    shuffled = list(group)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    before = dict(zip(group, OUTCOMES[name](*columns(group)), strict=True))
    assert OUTCOMES[name](*columns(shuffled)) == pytest.approx([before[member] for member in shuffled])


@given(st.lists(st.booleans(), min_size=1, max_size=10), st.integers(1, 9000), st.sampled_from(list(OUTCOMES)))
def test_equal_lengths_are_told_apart_by_correctness_alone(correct: list[bool], length: int, name: str) -> None:
    rewards = OUTCOMES[name](correct, [length] * len(correct))
    assert len({round(reward, 9) for reward in compress(rewards, correct)}) <= 1
    assert len({round(reward, 9) for reward in compress(rewards, [not c for c in correct])}) <= 1


@given(members)
def test_kimi_spreads_right_answers_over_one_and_never_praises_wrong_ones(group: list[tuple[bool, int]]) -> None:
    correct, tokens = columns(group)
    rewards = kimi_length_rewards(correct, tokens)
    assert all(-0.5 <= reward <= 0.5 for reward in rewards)
    assert all(reward <= 0 for reward in compress(rewards, [not c for c in correct]))
    if min(tokens) < max(tokens) and correct[tokens.index(min(tokens))]:
        assert max(rewards) == 0.5


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_a_serial_group_pays_less_than_two_in_all_and_most_for_the_first_right_exit(correct: list[bool]) -> None:
    rewards = serial_group_rewards(correct)
    paid = list(compress(rewards, correct))
    assert paid == sorted(paid, reverse=True) and sum(rewards) < 2
    assert sum(reward > 0 for reward in rewards) == sum(correct)


def test_the_length_penalty_uses_the_population_std_of_the_right_answers_alone() -> None:
    tokens = [100, 180, 5000]
    z = (100 - 140) / (statistics.pstdev([100, 180]) + 1e-7)
    assert z == pytest.approx(-1, abs=1e-6)
    rewards = length_penalty_rewards([True, True, False], tokens)
    assert rewards == pytest.approx([1 - 0.2 * 0.2689414, 1 - 0.2 * 0.7310586, 0])


def test_extreme_lengths_do_not_overflow() -> None:
    rewards = length_penalty_rewards([True] * 400, [1] * 399 + [10**9])
    assert 0.8 <= rewards[-1] < rewards[0] <= 1


# ---- GRPO-lambda -----------------------------------------------------------------------------------------------------


def test_the_groups_solved_best_are_penalized() -> None:
    correct = [[True, False], [True, True], [False, False], [True, True], [True, False]]
    assert penalized_groups(correct, share=0.2) == [False, True, False, False, False]
    assert penalized_groups(correct, share=0.4) == [False, True, False, True, False]
    assert penalized_groups(correct, share=0.6) == [True, True, False, True, False]
    assert not any(penalized_groups(correct, share=0.0)) and all(penalized_groups(correct, share=1.0))


@given(st.lists(st.lists(st.booleans(), min_size=4, max_size=4), min_size=1, max_size=20), st.floats(0, 1))
def test_no_group_left_alone_is_solved_better_than_a_penalized_one(correct: list[list[bool]], share: float) -> None:
    chosen = penalized_groups(correct, share=share)
    assert sum(chosen) == int(share * len(correct) + 0.5)
    best_left = max((sum(group) for group, taken in zip(correct, chosen, strict=True) if not taken), default=0)
    assert all(sum(group) >= best_left for group, taken in zip(correct, chosen, strict=True) if taken)


def test_grpo_lambda_gives_each_group_its_reward() -> None:
    reward = GRPOLambdaReward(share=0.5, strength=0.4)
    assert isinstance(reward, BatchReward)
    hard, easy = reward.rewards_of_groups([[True, False], [True, True]])
    assert hard([True, False], [1, 1], [True, True], [10, 99]) == pytest.approx([1, 0.1])
    expected = [0.9 * r + 0.1 for r in length_penalty_rewards([True, True], [10, 30], strength=0.4)]
    assert easy([True, True], [1, 1], [True, True], [10, 30]) == pytest.approx(expected)


# ---- DEER + SFT ------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(1, 9)), min_size=1, max_size=20))
def test_the_shortest_right_completion_of_each_prompt_is_kept(rows: list[tuple[str, bool, int]]) -> None:
    kept = shortest_correct(*([row[column] for row in rows] for column in range(3)))  # type: ignore[arg-type]
    assert {rows[index][0] for index in kept} == {prompt for prompt, correct, _ in rows if correct}
    assert len(kept) == len({rows[index][0] for index in kept})
    for index in kept:
        prompt, correct, tokens = rows[index]
        assert correct
        rivals = [place for place, row in enumerate(rows) if row[:2] == (prompt, True) and row[2] <= tokens]
        assert min(rivals, key=lambda place: rows[place][2]) == index


# ---- as rewards to train with ----------------------------------------------------------------------------------------


@given(members, st.sampled_from(list(OUTCOMES)), st.floats(0, 1))
def test_the_wrapper_adds_the_format_term(group: list[tuple[bool, int]], name: str, alpha: float) -> None:
    correct, tokens = columns(group)
    reward: GroupReward = OutcomeReward(OUTCOMES[name], alpha)
    boxed, bare = (reward(correct, [1] * len(group), [flag] * len(group), tokens) for flag in (True, False))
    plain = OUTCOMES[name](correct, tokens)
    assert boxed == pytest.approx([alpha * r + 1 - alpha for r in plain])
    assert [a - b for a, b in zip(boxed, bare, strict=True)] == pytest.approx([1 - alpha] * len(group))


def test_a_serial_group_takes_its_members_in_the_order_of_the_exits() -> None:
    assert serial_exit_rewards([False, True, True], [10, 20, 30]) == [0.0, 1.0, 0.5]


def test_rewards_can_be_pickled() -> None:
    reward = OutcomeReward(partial(length_penalty_rewards, strength=0.4))
    arguments = ([True, True], [1, 2], [True, True], [10, 30])
    assert pickle.loads(pickle.dumps(reward))(*arguments) == reward(*arguments)
    assert pickle.loads(pickle.dumps(GRPOLambdaReward(0.5))) == GRPOLambdaReward(0.5)


# ---- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcomes", OUTCOMES.values(), ids=OUTCOMES)
def test_bad_groups_are_refused(outcomes: Outcomes) -> None:
    with pytest.raises(ValueError, match="tokens has 1 entries but correct has 2"):
        outcomes([True, False], [3])
    with pytest.raises(ValueError, match="the group is empty"):
        outcomes([], [])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: length_penalty_rewards([True], [1], strength=1.0), r"strength is 1.0; it must lie in \[0, 1\)"),
        (lambda: soft_overlong_punishment([1], limit=10, cache=0), "use 1 <= cache <= limit"),
        (lambda: soft_overlong_punishment([1], limit=10, cache=11), "cache is 11 and limit is 10"),
        (lambda: soft_overlong_punishment([]), "the group is empty"),
        (lambda: l1_exact_rewards([True], [1], target=0), "target is 0"),
        (lambda: l1_max_rewards([True], [1], target=5, per_token=-1), "per_token is -1"),
        (lambda: l1_max_rewards([True], [1], target=5, offset=2), "offset is 2; it must lie in"),
        (lambda: shorter_better_rewards([True], [1], per_token=-0.1), "neither may be negative"),
        (lambda: serial_group_rewards([]), "the group is empty"),
        (lambda: serial_group_rewards([True], decay=0), "decay is 0; it must lie in"),
        (lambda: penalized_groups([]), "holds no group, or an empty one"),
        (lambda: penalized_groups([[True], []]), "holds no group, or an empty one"),
        (lambda: penalized_groups([[True]], share=1.5), "share is 1.5; it must lie in"),
        (lambda: GRPOLambdaReward(share=-1), "share is -1; it must lie in"),
        (lambda: OutcomeReward(step_alpha=2), "step_alpha is 2; it must lie in"),
        (lambda: round_limit(6, 6), r"step is 6; it must lie in 0\.\.5"),
        (lambda: round_limit(0, 6, []), "limits is empty"),
        (lambda: scaled_tokens(100, 0), "scale is 0; it must be greater than 0"),
    ],
)
def test_bad_settings_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_published_lengths_on_our_scale() -> None:
    assert [scaled_tokens(limit, 108 / 10_149) for limit in THINKPRUNE_LIMITS] == [43, 32, 21]
    assert scaled_tokens(3, 1e-6) == 1


# ---- advantages that a method states itself --------------------------------------------------------------------------


@given(members)
def test_imitation_keeps_the_shortest_right_member_alone(group: list[tuple[bool, int]]) -> None:
    correct, tokens = [right for right, _ in group], [length for _, length in group]
    kept = [index for index, value in enumerate(imitation_advantages(correct, tokens)) if value]
    right = [length for length, is_right in zip(tokens, correct, strict=True) if is_right]
    assert [tokens[index] for index in kept] == ([min(right)] if right else [])
    assert all(correct[index] for index in kept)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30_000)), min_size=4, max_size=12))
def test_gfpo_compares_the_shorter_half_with_itself(group: list[tuple[bool, int]]) -> None:
    correct, tokens = [right for right, _ in group], [length for _, length in group]
    advantages = gfpo_advantages(correct, tokens)
    order = sorted(range(len(group)), key=lambda member: tokens[member])
    kept, dropped = order[: len(group) // 2], order[len(group) // 2 :]
    assert [advantages[member] for member in kept] == group_advantages([float(correct[member]) for member in kept])
    assert not any(advantages[member] for member in dropped)
    with pytest.raises(ValueError, match="keep is 1"):
        gfpo_advantages(correct, tokens, keep=1)
