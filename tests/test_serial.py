"""S-GRPO's rollout: a group is one chain, cut at its exits in order, closed by force and answered."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_lockstep import logprob_gap
from test_lockstep import tiny_model as tilted_model

from stepgrpo_lab.engines.completions import Decoding
from stepgrpo_lab.engines.lockstep import LockstepEngine
from stepgrpo_lab.engines.serial import _Chain, complete_serially
from stepgrpo_lab.method.records import Trajectory
from stepgrpo_lab.method.rollout import rollout_settings
from stepgrpo_lab.method.sampling import SampleKey
from stepgrpo_lab.method.steps import MarkerSegmenter
from stepgrpo_lab.method.token_text import TokenText

LIMIT, GROUP = 64, 5
SETTINGS = rollout_settings("paper", think_budget=0.8)
DECODING = Decoding(LIMIT, SETTINGS)
CLOSE = "\n</think>\n\n"


@pytest.fixture(scope="module")
def model(byte_bpe_tokenizer: Any) -> Any:
    return tilted_model(byte_bpe_tokenizer)


@pytest.fixture(scope="module")
def prompts(byte_bpe_tokenizer: Any) -> list[list[int]]:
    return [byte_bpe_tokenizer.encode(question) for question in ("a", "What is 3 + 4?", "x" * 30)]


def groups(model: Any, tokenizer: Any, prompts: list[list[int]], max_rows: int = 64) -> list[list[Trajectory]]:
    keys = [SampleKey(0, "train", 0, sample) for sample in range(GROUP * len(prompts))]
    engine = LockstepEngine(model, tokenizer, max_rows=max_rows)
    members, cost = complete_serially(engine, prompts, DECODING, group_size=GROUP, keys=keys)
    assert cost.kept_tokens == sum(member.tokens for member in members) == cost.decoded_tokens
    assert cost.forward_passes > 0
    return [members[start : start + GROUP] for start in range(0, len(members), GROUP)]


def test_members_share_one_chain_and_exit_in_order(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    for group in groups(model, byte_bpe_tokenizer, prompts):
        *cut, chain = group
        places = []
        for member in cut:
            place = member.forced.index(True)
            places.append(place)
            assert member.completion_ids[:place] == chain.completion_ids[:place]
            assert member.logprobs[:place] == chain.logprobs[:place]
            assert member.close == "early" and member.tokens <= LIMIT
            forced = [token for token, forced in zip(member.completion_ids, member.forced, strict=True) if forced]
            assert byte_bpe_tokenizer.decode(forced) in (CLOSE, CLOSE[1:])
            assert member.text == byte_bpe_tokenizer.decode(member.completion_ids)
        assert places == sorted(places) and places[-1] < chain.tokens
        assert [member.steps for member in cut] == sorted(member.steps for member in cut)


def test_recorded_log_probabilities_are_the_models_own(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    members = [member for group in groups(model, byte_bpe_tokenizer, prompts) for member in group]
    assert logprob_gap(model, members) < 1e-4


def test_a_group_does_not_depend_on_its_batch(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    together = groups(model, byte_bpe_tokenizer, prompts)
    apart = groups(model, byte_bpe_tokenizer, prompts, max_rows=2)
    assert [[m.completion_ids for m in group] for group in apart] == [
        [m.completion_ids for m in group] for group in together
    ]
    [first] = groups(model, byte_bpe_tokenizer, prompts[:1])
    assert [m.completion_ids for m in first] == [m.completion_ids for m in together[0]]


TOY = TokenText.from_pieces([b"so", b" ", b"Wait", b"</think>", b"\n", b"\n\n", b"7"], eos_ids=[])


def chain(ids: list[int]) -> _Chain:
    record = Trajectory([6], ids, [-0.1] * len(ids), TOY.decode(ids), 1, "natural", "eos")
    return _Chain(record, SETTINGS, MarkerSegmenter("paper"), TOY)


def test_exits_stand_at_markers_first() -> None:
    ids = [0, 1, 2, 1, 0, 1, 2, 1, 0, 4, 3, 5, 6]  # so Wait so Wait so\n</think>\n\n7
    cut = chain(ids)
    assert (cut.markers, cut.end) == ([2, 6], 10)
    for seed in range(20):
        assert cut.exit_places(2, 99, random.Random(seed)) == [2, 6]
        assert cut.exit_places(1, 99, random.Random(seed))[0] in (2, 6)
        assert {2, 6} <= set(cut.exit_places(4, 99, random.Random(seed)))
        assert cut.exit_places(9, 99, random.Random(seed)) == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    # After thoughts that end in a line break the close makes no blank line.
    assert TOY.decode(cut.exit_at(10).close) == "</think>\n\n" and TOY.decode(cut.exit_at(2).close) == CLOSE


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=0, max_size=30), st.integers(1, 8), st.integers(6, 40), st.data())
def test_every_exit_leaves_room_for_an_answer(words: list[int], count: int, limit: int, data: st.DataObject) -> None:
    cut = chain([*words, 4, 3, 5, 6])
    places = cut.exit_places(count, limit, random.Random(data.draw(st.integers(0, 99))))
    assert len(places) == count and places == sorted(places)
    for place in places:
        assert 0 <= place <= cut.end and cut.exit_at(place).length < limit
    if min(cut.end, limit - 4) - 1 >= count:
        assert len(set(places)) == count


def test_wrong_numbers_of_keys_are_refused(model: Any, byte_bpe_tokenizer: Any, prompts: Any) -> None:
    engine = LockstepEngine(model, byte_bpe_tokenizer)
    keys = [SampleKey(0, "train", 0, sample) for sample in range(3)]
    with pytest.raises(ValueError, match="3 keys for 3 groups of 2"):
        complete_serially(engine, prompts, DECODING, group_size=2, keys=keys)
    with pytest.raises(ValueError, match="at least 2 each"):
        complete_serially(engine, prompts, DECODING, group_size=1, keys=keys)
