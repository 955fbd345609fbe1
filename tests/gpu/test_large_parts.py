"""The matrices of Gemma 3 1B and 4B, which WebGPU's 128 MiB a binding do not hold."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import assert_same_bits, bindings_of, random_x
from wgpu_q4 import Q4Weight, argmax, embedding, linear, reference
from wgpu_q4.ops import linear_transposed


@pytest.mark.parametrize(
    ("vocab", "embed_dim", "parts"), [(262_144, 1152, 2), (262_208, 2560, 3)], ids=["1B", "4B"]
)
def test_a_matrix_of_gemma(vocab: int, embed_dim: int, parts: int) -> None:
    """Rows at both ends of each part, and some between, against float64."""
    rng = np.random.default_rng(5)
    packed = np.frombuffer(rng.bytes(vocab * embed_dim // 2), np.uint8).reshape(vocab, -1)
    scales = rng.random((vocab, embed_dim // 32), np.float32) + np.float32(0.5)
    weight = Q4Weight(packed, scales.astype(np.float16))
    with bindings_of(1 << 27) as context:
        resident = context.weight(weight)
        ends = np.cumsum([part.shape.vocab for part in resident.parts])
        assert (len(ends), ends[-1]) == (parts, vocab)
        ids = np.concatenate([[0], ends - 1, ends[:-1], rng.integers(0, vocab, 200), [0, 0]])
        x = random_x(1, embed_dim)
        rows, logits, best = embedding(ids, weight), linear(x, weight), argmax(x, weight)
        y = np.zeros((1, vocab), np.float32)
        some = np.unique(ids)
        y[:, some] = random_x(1, some.size)
        sums = linear_transposed(y, weight)
    assert_same_bits(rows, reference.embedding(ids, weight))
    sampled = Q4Weight(packed[some], weight.scales[some])
    errors = np.abs(logits[:, some] - reference.linear(x, sampled))
    assert (errors <= reference.linear_bound(x, sampled)).all()
    np.testing.assert_array_equal(best, logits.argmax(-1))
    # The other numbers of y are zero: adding them rounds nothing.
    errors = np.abs(sums - reference.linear_transposed(y[:, some], sampled))
    assert (errors <= reference.linear_transposed_bound(y[:, some], sampled)).all()
