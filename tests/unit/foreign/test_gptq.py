"""GPTQ's matrices.

No implementation of GPTQ installs without CUDA; the oracle is the published layout, written out in
loops over single values and float64.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.foreign import from_gptq

V, K, G = 24, 64, 32


def gptq(
    zero: int, version: Literal["gptq", "gptq_v2"]
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return the arrays of a checkpoint and the matrix ``[V, K]`` that they stand for."""
    rng = np.random.default_rng(3)
    q, scales = rng.integers(0, 16, (V, K)), rng.uniform(0.1, 1, (V, K // G)).astype(np.float16)
    qweight, qzeros = np.zeros((K // 8, V), np.uint32), np.zeros((K // G, V // 8), np.uint32)
    matrix = np.zeros((V, K))
    stored = zero - 1 if version == "gptq" else zero
    for row in range(V):
        for column in range(K):
            qweight[column // 8, row] |= np.uint32(q[row, column]) << np.uint32(4 * (column % 8))
            scale = np.float64(scales[row, column // G])
            matrix[row, column] = (int(q[row, column]) - zero) * scale
        for group in range(K // G):
            qzeros[group, row // 8] |= np.uint32(stored) << np.uint32(4 * (row % 8))
    arrays = {"qweight": qweight.view(np.int32), "qzeros": qzeros.view(np.int32)}
    return {**arrays, "scales": scales.T.copy()}, matrix


@pytest.mark.parametrize("zero", [8, 7])
@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
def test_zero_points_in_both_versions(zero: int, version: Any) -> None:
    arrays, matrix = gptq(zero, version)
    in_order = np.arange(K, dtype=np.int32) // G
    for g_idx in (None, in_order):
        weight = from_gptq(**arrays, g_idx=g_idx, checkpoint_format=version)
        np.testing.assert_array_equal(weight.dequantize(), matrix)
        assert weight.group_size == G
        assert weight.scales.dtype == np.float16


def test_the_versions_differ_by_one() -> None:
    arrays, _ = gptq(8, "gptq")
    assert arrays["qzeros"][0, 0] == 0x77777777
    weight = from_gptq(**arrays, checkpoint_format="gptq_v2")
    assert (weight.scales < 0).any(), "a zero point of 7 is −7…8, which needs a negative scale"


def test_a_zero_point_that_does_not_fit() -> None:
    arrays, matrix = gptq(3, "gptq")
    with pytest.raises(FormatError, match="48 of its 48 groups hold values beyond −8…7"):
        from_gptq(**arrays)
    assert np.abs(from_gptq(**arrays, lossy=True).dequantize() - matrix).max() < 1


def test_activation_order_is_refused() -> None:
    arrays, _ = gptq(8, "gptq")
    g_idx = np.arange(K, dtype=np.int32) // G
    g_idx[[0, -1]] = g_idx[[-1, 0]]
    with pytest.raises(FormatError, match="2 of 64 columns are in another group"):
        from_gptq(**arrays, g_idx=g_idx)


def test_arrays_that_do_not_fit() -> None:
    arrays, _ = gptq(8, "gptq")
    with pytest.raises(FormatError, match=r"beside qweight \[8, 24\] there must be scales"):
        from_gptq(arrays["qweight"], arrays["qzeros"][:, :-1], arrays["scales"])
    with pytest.raises(FormatError, match="must be 'gptq' or 'gptq_v2', not 'v2'"):
        from_gptq(**arrays, checkpoint_format="v2")  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="qweight must be int32, not int64"):
        from_gptq(arrays["qweight"].astype(np.int64), arrays["qzeros"], arrays["scales"])
