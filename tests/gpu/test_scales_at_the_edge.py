"""float32 scales as small and as large as there are: one answer, whichever kernel runs."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest

from wgpu_q4 import FormatError, Q4Weight, forced, linear, reference
from wgpu_q4.kernels import Layout

LARGEST = np.float32(np.finfo(np.float32).max) / np.float32(8)


def weight_of(scale: float) -> Q4Weight:
    """Any nibbles, scales from ``scale`` to half of it."""
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (16, 32), np.uint8)
    return Q4Weight(packed, (scale * rng.uniform(0.5, 1, (16, 2))).astype(np.float32))


@pytest.mark.parametrize("layout", get_args(Layout))
@pytest.mark.parametrize("rows", [1, 4, 40, 130])
@pytest.mark.parametrize("scale", [1e-34, 1e-35, 1e-36, 1.2e-38, 1e-40, float(LARGEST)])
def test_the_bound_holds(scale: float, rows: int, layout: Layout, device: Any) -> None:
    weight = weight_of(scale)
    large = 1e25 if scale < 1 else 1e-30
    x = np.random.default_rng(1).standard_normal((rows, 64)).astype(np.float32) * np.float32(large)
    with forced(layout=layout):
        found = linear(x, weight, device=device)
    error = np.abs(found - reference.linear(x, weight))
    assert np.all(error <= reference.linear_bound(x, weight))


def test_a_scale_whose_weights_exceed_float32_is_refused() -> None:
    packed = np.zeros((1, 4), np.uint8)
    for scale in (LARGEST, -LARGEST):
        assert np.isfinite(Q4Weight(packed, np.full((1, 1), scale, np.float32)).dequantize()).all()
        above = np.full((1, 1), np.nextafter(scale, np.float32(np.inf) * scale), np.float32)
        with pytest.raises(FormatError, match=r"scales\[0, 0\] is .*e\+37; 8 times that exceeds"):
            Q4Weight(packed, above)
