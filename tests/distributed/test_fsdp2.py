"""FSDP2 on CPUs: the rollout holds the whole weights, and one update is that of one process."""

from __future__ import annotations

import numpy as np
import pytest

from distributed.launching import needs_gloo, run_together
from distributed.sharding import LIMITS, Sharded, collective_rollout, roll_out_and_update

pytestmark = needs_gloo()


@pytest.fixture(scope="module")
def alone() -> Sharded:
    [seen] = run_together(roll_out_and_update, count=1)
    return seen


CHOICES = {True: [False, True, True], False: [False, False, False], None: [False, True, True]}
"""``reshard_after_forward`` of the layers -> what root and layers then do; the root's own is torch's choice."""


@pytest.fixture(scope="module", params=CHOICES, ids=["reshard", "keep", "torch's choice"])
def pair(request: pytest.FixtureRequest) -> list[Sharded]:
    return run_together(roll_out_and_update, request.param)


def test_ranks_finish_rollouts_of_unequal_lengths(alone: Sharded, pair: list[Sharded]) -> None:
    assert pair[0].completions + pair[1].completions == alone.completions
    assert [len(row) for row in alone.completions] == list(LIMITS)
    assert 5 * pair[0].passes < pair[1].passes


def test_weights_are_whole_inside_and_shards_again_outside(
    alone: Sharded, pair: list[Sharded], request: pytest.FixtureRequest
) -> None:
    [whole] = set(alone.local)
    for seen in pair:
        sharded, inside, after = seen.local
        assert inside == whole and sharded == after < 0.6 * whole
        during, restored = seen.reshards
        assert not any(during)
        assert restored == CHOICES[request.node.callspec.params["pair"]]


def test_an_engine_is_handed_whole_weights(alone: Sharded, pair: list[Sharded]) -> None:
    assert pair[0].handed.keys() == alone.handed.keys() != set()
    for name, weights in alone.handed.items():
        assert np.array_equal(pair[0].handed[name], weights)


def test_one_update_is_that_of_one_process(alone: Sharded, pair: list[Sharded]) -> None:
    for seen in pair:
        difference = sum(float(np.square(value - alone.weights[name]).sum()) for name, value in seen.weights.items())
        assert difference**0.5 < 1e-5 * alone.moved
    assert alone.moved > 0.1


def test_a_broken_gradient_in_one_shard_is_seen_by_all(alone: Sharded, pair: list[Sharded]) -> None:
    assert [seen.finite for seen in (alone, *pair)] == [(True, False)] * 3


def test_weights_gathered_in_16_bits_train_masters_in_32() -> None:
    pair = run_together(roll_out_and_update, True, True)
    assert all(seen.finite == (True, False) for seen in pair)
    assert pair[0].passes < pair[1].passes
    assert all(np.array_equal(value, pair[1].weights[name]) for name, value in pair[0].weights.items())
    low_bits = [(value.view(np.uint32) & 0xFFFF).any() for value in pair[0].weights.values() if value.ndim == 2]
    assert all(low_bits)  # a weight that had been rounded to bf16 would have none


def test_without_gathering_the_ranks_wait_for_each_other() -> None:
    # The reason for all this; should torch ever change it, the gathering can go. A rank that waits sees the other's end
    # where that comes before its own time limit.
    with pytest.raises(AssertionError, match=r"rank 1: (.|\n)*([Tt]imed out|closed by peer)"):
        run_together(collective_rollout)
