"""Rows shared out among holders, and the best of what each holder keeps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.reductions import best, shuffled, with_at
from wgpu_q4.ops.shares import best_of_all, share_out


@given(st.integers(1, 300), st.integers(1, 40))
def test_every_row_has_one_holder(vocab: int, count: int) -> None:
    shares = share_out(vocab, count)
    assert len(shares) == count
    assert [row for share in shares for row in share] == list(range(vocab))
    sizes = [len(share) for share in shares]
    assert sizes == sorted(sizes, reverse=True), "the first one is the largest"
    assert sizes[0] - sizes[-1] < 16
    assert all(share.start % 8 == 0 for share in shares if share)


def test_some_hold_nothing() -> None:
    assert [len(share) for share in share_out(11, 4)] == [8, 3, 0, 0]
    assert [len(share) for share in share_out(257, 3)] == [88, 88, 81]


def test_the_best_of_all_are_those_of_the_whole() -> None:
    """Of floats of every kind, many of them equal, from holders in any order."""
    logits = with_at(shuffled(101), np.nan, 5, 6, 90)
    order = np.random.default_rng(0).permutation(101)
    ids = np.broadcast_to(order, logits.shape)
    for k in (1, 7, 101):
        values, found = best_of_all(logits[:, order], ids, k)
        np.testing.assert_array_equal(found, best(logits, k))
        assert found.dtype == np.int64
        expected = np.take_along_axis(logits, found, 1)
        assert values.tobytes() == expected.tobytes(), "another bit pattern than the logit's"


def test_places_without_a_candidate_lose_to_minus_infinity() -> None:
    values = np.array([[np.nan, -np.inf, 3, -np.inf]], np.float32)
    ids = np.array([[-1, 9, -1, 4]], np.int32)
    kept, found = best_of_all(values, ids, 2)
    assert found.tolist() == [[4, 9]]
    assert kept.tolist() == [[-np.inf, -np.inf]]
