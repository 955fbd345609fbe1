"""MLX's 4-bit matrices, as MLX 0.32.4 wrote and dequantized them.

``mlx.npz`` is what these lines gave, bfloat16 as uint16::

    w, scales, biases = mx.quantize(mx.array(matrix).astype(dtype), group_size=32, bits=4)
    values = mx.dequantize(w, scales, biases, group_size=32, bits=4)

for three matrices of 12 × 128: integers from −8 to 7, both in each group, times a scale of either
sign (in float16, and in bfloat16 with powers of two), and normally distributed numbers (float16).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from wgpu_q4.errors import FormatError
from wgpu_q4.foreign import from_mlx

with np.load(Path(__file__).parent / "mlx.npz") as loaded:
    WRITTEN: dict[str, NDArray[Any]] = dict(loaded)


def written(name: str, part: str) -> NDArray[Any]:
    array = WRITTEN[f"{name}.{part}"]
    return array.view(ml_dtypes.bfloat16) if array.dtype == np.uint16 else array


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_symmetric_matrices_are_held(name: str) -> None:
    packed, scales = written(name, "weight"), written(name, "scales")
    weight = from_mlx(packed, scales, written(name, "biases"), 32)
    values = written(name, "values").astype(np.float32)
    if name == "bfloat16":  # where nothing is rounded
        np.testing.assert_array_equal(weight.dequantize(), values)
    # MLX rounds u · scale, and the sum, to its dtype.
    rounding = 2.0**-11 * 16 * np.repeat(np.abs(scales.astype(np.float64)), 32, axis=1)
    assert (np.abs(weight.dequantize() - values) <= rounding).all()
    assert np.shares_memory(weight.packed, packed)
    assert (weight.scales < 0).any()
    assert (weight.scales > 0).any()
    assert weight.group_size == 32


def test_other_matrices_are_refused_or_quantized_again() -> None:
    packed, scales, biases = (written("asymmetric", p) for p in ("weight", "scales", "biases"))
    with pytest.raises(FormatError, match=r"24 of its 48 groups .*moves its values by .* % of"):
        from_mlx(packed, scales, biases, 32)
    weight = from_mlx(packed, scales, biases, 32, lossy=True)
    values = written("asymmetric", "values").astype(np.float64)
    off = ((weight.dequantize() - values) ** 2).mean() ** 0.5 / (values**2).mean() ** 0.5
    assert 0.03 < off < 0.15


def test_another_number_of_bits_or_group_size_is_refused() -> None:
    packed, scales, biases = (written("float16", part) for part in ("weight", "scales", "biases"))
    with pytest.raises(FormatError, match=r"in groups of 64, .* Check bits and group_size"):
        from_mlx(packed, scales, biases)
    with pytest.raises(FormatError, match="group_size must be a positive int, not 0"):
        from_mlx(packed, scales, biases, 0)
    with pytest.raises(FormatError, match="weight must be uint32, not int32"):
        from_mlx(packed.astype(np.int32), scales, biases, 32)
