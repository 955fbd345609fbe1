"""ONNX Runtime's 4-bit matrices: the initializers of ``MatMulNBits`` and ``GatherBlockQuantized``.

Both pack ``u`` as q4gsw does, with zero point 8 unless there is an input of zero points.  Data of
ONNX's own type int4 or uint4, which ``GatherBlockQuantized`` takes too, has zero point 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, DTypeLike, to_numpy
from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.grid import Grid, hold
from wgpu_q4.foreign.integers import check_block
from wgpu_q4.format.nibbles import pack_linear, unpack
from wgpu_q4.weight import Q4Weight


def from_onnxruntime(
    data: ArrayLike,
    scales: ArrayLike,
    zero_points: ArrayLike | None = None,
    *,
    group_size: int,
    scales_dtype: DTypeLike | None = None,
    lossy: bool = False,
) -> Q4Weight:
    """Return the 4-bit matrix of a ``MatMulNBits`` or ``GatherBlockQuantized`` node.

    Args:
        data: ``B``, uint8 ``[V, K/G, G/2]``, or ``data``, uint8 ``[V, K/2]`` or ``[V, K]`` of int4
            or uint4 (as ``onnx.numpy_helper.to_array`` gives initializers).
        scales: floats ``[V, K/G]``, or flat.
        zero_points: packed two a byte like ``data``, or one for each group as int4, uint4 or
            floats; None for the default of the op.
        group_size: the node's ``block_size``; its quantized axis is the last.
        scales_dtype: float16 or float32; by default float16 if that holds each scale exactly.
        lossy: quantize again what cannot be held exactly.

    Raises:
        TypeError: an argument that is no array.
        FormatError: arrays that do not fit each other, or values that q4gsw cannot hold exactly.
    """
    found, factors = to_numpy(data, "data"), to_numpy(scales, "scales")
    vocab = found.shape[0] if found.ndim in (2, 3) else 0
    packed, zero = _packed(found.reshape(vocab, -1) if vocab else found)
    check_block(group_size)
    groups = packed.shape[1] * 2 // group_size
    if not groups or factors.size != vocab * groups or groups * group_size != packed.shape[1] * 2:
        raise FormatError(
            f"data of shape {list(found.shape)} is {packed.shape[1] * 2} values a row; in groups "
            f"of {group_size} it does not go with scales of shape {list(factors.shape)}"
        )
    zeros = None if zero == 8 else np.full((vocab, groups), float(zero))
    if zero_points is not None:
        zeros = _zeros(to_numpy(zero_points, "zero_points"), vocab, groups)
    return hold(Grid(packed, factors.reshape(vocab, groups), zeros), scales_dtype, lossy)


def _packed(data: NDArray[Any]) -> tuple[NDArray[np.uint8], int]:
    """Return the bytes ``[V, K/2]`` of ``u`` from 0 to 15, and the zero of the op's default."""
    if data.ndim != 2 or data.dtype.name not in ("uint8", "uint4", "int4"):
        raise FormatError(
            f"data must be uint8, uint4 or int4 with two or three dimensions, not {data.dtype} "
            f"{list(data.shape)}"
        )
    if data.dtype.name == "uint8":
        return data, 8
    signed = data.dtype.name == "int4"
    u = (data.astype(np.int8) + 8 * signed).astype(np.uint8)
    if u.shape[1] % 2:
        raise FormatError(f"rows have K = {u.shape[1]} values, an odd number")
    packed = np.empty((u.shape[0], u.shape[1] // 2), np.uint8)
    pack_linear(u, packed)
    return packed, 8 * signed


def _zeros(points: NDArray[Any], vocab: int, groups: int) -> NDArray[np.float64]:
    """Return the zeros ``[V, K/G]``: of each row two a byte, or one for each group."""
    each, name = vocab * groups, points.dtype.name
    if name == "uint8" and points.size == vocab * -(-groups // 2):
        return unpack(points.reshape(vocab, -1), "linear")[:, :groups].astype(np.float64)
    if points.size == each and name in ("float16", "float32", "uint4", "int4"):
        return points.reshape(vocab, groups).astype(np.float64) + 8 * (name == "int4")
    raise FormatError(
        f"zero_points must be uint8 [{vocab}, {-(-groups // 2)}], two a byte, or float16, float32, "
        f"uint4 or int4 [{vocab}, {groups}], not {name} {list(points.shape)}"
    )
