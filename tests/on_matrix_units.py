"""What only a device with matrix units can show: ``make matrix-units``, which fails without one.

No software driver has them, so ``make test`` leaves this out (its name does not begin with test_),
and runs the kernel emulated instead (`test_matrix_units.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.gpu.test_matrix_units import CASES, Case, matrix_of
from wgpu_q4 import Q4Weight, forced, linear, reference, request_device
from wgpu_q4.device import context_for
from wgpu_q4.kernels import MATRIX_UNITS, Layout, matrix_shaders

ROWS = (1, 5, 16, 17, 32, 33, 64, 65, 128, 130, 300)
SHAPES = [(257, 96, 32), (1000, 64, 64), (1, 32, 32), (517, 2048, 32), (131, 2080, 32)]
LAYOUTS: list[Layout] = ["rows", "blocks_buffer"]


@pytest.fixture(scope="module")
def device() -> Any:
    found = request_device(implementation="wgpudawn")
    context = context_for(found)
    assert MATRIX_UNITS in context.matrix_units, (
        f"{context.adapter_summary} has no matrix units that the kernel is written for; it has "
        f"{sorted(map(str, context.matrix_units)) or 'none that Dawn offers'}"
    )
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_accuracy_fast(device: Any, case: Case) -> None:
    weight, x, bias = matrix_of(case)
    with forced(layout=case[5]):
        result = linear(x, weight, bias, device, accuracy="fast")
    wrong = np.abs(result - reference.linear(x, weight, bias))
    assert (wrong <= reference.matrix_units_bound(x, weight, bias)).all()
    assert context_for(device).pipelines.kernels & {shader.name for shader in matrix_shaders()}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scales_dtype", ["float16", "float32"])
@pytest.mark.parametrize(("vocab", "embed_dim", "group"), SHAPES)
def test_ragged(
    device: Any, vocab: int, embed_dim: int, group: int, scales_dtype: str, layout: Layout
) -> None:
    rng = np.random.default_rng(5)
    packed = rng.integers(0, 256, (vocab, embed_dim // 2), np.uint8)
    scales = rng.uniform(-2, 2, (vocab, embed_dim // group)).astype(scales_dtype)
    weight = Q4Weight(packed, scales)
    for rows in ROWS:
        x = rng.standard_normal((rows, embed_dim)).astype(np.float32)
        bias = rng.standard_normal(vocab).astype(np.float32) if rows % 2 else None
        with forced(layout=layout, kernel="gemm_matrix"):
            result = linear(x, weight, bias, device)
        wrong = np.abs(result - reference.linear(x, weight, bias))
        bound = reference.matrix_units_bound(x, weight, bias)
        assert (wrong <= bound).all(), f"{rows} rows: {(wrong / bound).max()} of the bound"


def test_zeros_stay_zeros(device: Any) -> None:
    """A weight of n = 8, and a row of zeros."""
    weight = Q4Weight(np.full((40, 32), 0x88, np.uint8), np.ones((40, 2), np.float16))
    x = np.full((9, 64), 1e20, np.float32)
    with forced(kernel="gemm_matrix"):
        assert not linear(x, weight, device=device).any()
    other = Q4Weight(np.full((40, 32), 0xF1, np.uint8), np.ones((40, 2), np.float16))
    with forced(kernel="gemm_matrix"):
        assert not linear(np.zeros_like(x), other, device=device).any()
