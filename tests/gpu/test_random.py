"""The ops on random matrices, layouts and inputs, against the float64 reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import Shape, assert_same_bits, random_weight
from tests.products import LAYOUTS, assert_within_bound, random_bias
from tests.strategies import shapes
from wgpu_q4 import embedding, forced, linear, reference
from wgpu_q4.format import ScalesDtype

# A new shape is a new pipeline to compile.
few = settings(max_examples=10)
layouts = st.sampled_from(LAYOUTS)
dtypes = st.sampled_from(["float16", "float32"])


@few
@given(shapes(), layouts, dtypes, dtypes, st.lists(st.integers(0, 69), min_size=1, max_size=40))
def test_embedding(
    shape: Shape, layout: Any, scales: ScalesDtype, dtype: Any, numbers: list[int]
) -> None:
    weight = random_weight(shape, scales)
    ids = np.array(numbers) % shape.vocab
    with forced(layout=layout):
        found = embedding(ids, weight, dtype)
    assert_same_bits(found, reference.embedding(ids, weight, dtype))


@few
@given(shapes(), layouts, dtypes, st.booleans(), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_linear(
    shape: Shape, layout: Any, scales: ScalesDtype, biased: bool, rows: int, seed: int
) -> None:
    weight, bias = random_weight(shape, scales), random_bias(shape) if biased else None
    x = np.random.default_rng(seed).standard_normal((rows, shape.embed_dim), np.float32)
    with forced(layout=layout):
        assert_within_bound(linear(x, weight, bias), x, weight, bias)


@few
@given(
    shapes(octets=4, octet=32),
    layouts,
    st.sampled_from(["exact", "fast", "int8"]),
    st.integers(1, 70),
    st.integers(0, 2**32 - 1),
)
def test_accuracies(shape: Shape, layout: Any, accuracy: Any, rows: int, seed: int) -> None:
    """Within the bound of 8 bits, which is the widest, where K and G are multiples of 32."""
    weight = random_weight(shape, "float16")
    x = np.random.default_rng(seed).standard_normal((rows, shape.embed_dim), np.float32)
    with forced(layout=layout):
        found = linear(x, weight, accuracy=accuracy)
    assert_within_bound(found, x, weight, None, None if accuracy == "exact" else "gemm_int8")
