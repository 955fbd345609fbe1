"""torchao's quantized tensors, what ``torchao.quantization.quantize_`` puts in place of weights.

* ``IntxUnpackedToInt8Tensor`` (``IntxWeightOnlyConfig``): ``(q − zero_point) · scale``, one int8 a
  value.  Of 4 bits or fewer, or of more where all values fit.
* ``Int4Tensor`` (``Int4WeightOnlyConfig``, plain): ``q · scale + zero_point``, ``q`` from −8 to 7,
  two a byte, the first in the low nibble.
* ``Int4OpaqueTensor`` (for CPUs) and ``Int4TilePackedTo4dTensor`` (for CUDA): the same numbers, in
  an order that only torch's kernel knows.  Its product with the identity, scales of 1 and zero
  points of 0, gives them.

torchao is not imported here: who has such a tensor has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import DTypeLike, to_numpy
from wgpu_q4.errors import FormatError
from wgpu_q4.foreign.grid import Grid, hold, zeros_of_offsets
from wgpu_q4.format.nibbles import pack_linear
from wgpu_q4.format.parallel import for_row_ranges
from wgpu_q4.weight import Q4Weight


def from_torchao(
    tensor: Any,
    group_size: int | None = None,
    *,
    scales_dtype: DTypeLike | None = None,
    lossy: bool = False,
) -> Q4Weight:
    """Return the matrix of a torchao tensor.

    Args:
        tensor: ``[V, K]``, of one of the types that this module lists.
        group_size: the tensor's own by default, or a part of it.
        scales_dtype: float16 or float32; by default float16 if that holds each scale exactly.
        lossy: quantize again what cannot be held exactly.

    Raises:
        TypeError: no tensor of torchao, or one of another type.
        FormatError: values that q4gsw cannot hold exactly.
    """
    if not is_torchao(tensor):
        raise TypeError(f"tensor must be a tensor of torchao, not {type(tensor).__name__}")
    kind = type(tensor).__name__
    if kind not in _READERS:
        raise TypeError(
            f"a {kind} cannot be taken over; those that can are {', '.join(_READERS)}. Quantize "
            f"the float matrix with Q4Weight.quantize"
        )
    if getattr(tensor, "act_pre_scale", None) is not None:
        raise FormatError(
            f"this {kind} expects activations that are scaled first (act_pre_scale), which q4gsw "
            f"has no room for"
        )
    if tensor.ndim != 2:
        raise FormatError(f"tensor must have shape [V, K], not {list(tensor.shape)}")
    try:
        return hold(_READERS[kind](tensor), scales_dtype, lossy, group_size)
    except FormatError as error:
        raise FormatError(f"{kind} {list(tensor.shape)}: {error}") from error


def is_torchao(array: object) -> bool:
    """Tell if ``array`` is a quantized tensor of torchao."""
    return type(array).__module__.startswith("torchao.")


def _read_intx(tensor: Any) -> Grid:
    rows, _ = tensor.block_size
    qdata = to_numpy(tensor.qdata, "qdata")
    scales, zeros = to_numpy(tensor.scale, "scale"), to_numpy(tensor.zero_point, "zero_point")
    packed, wide = _pack_signed(qdata)
    if wide:
        bits = str(tensor.target_dtype).removeprefix("torch.")
        raise FormatError(
            f"{wide:,} of its {qdata.size:,} values are {bits} numbers beyond −8…7: quantize "
            f"tensor.dequantize() anew"
        )
    spread = zeros.astype(np.float64) + 8
    return Grid(packed, np.repeat(scales, rows, axis=0), np.repeat(spread, rows, axis=0))


def _pack_signed(values: NDArray[np.int8]) -> tuple[NDArray[np.uint8], int]:
    """Return ``values + 8`` two a byte, and how many of ``values`` are not from −8 to 7."""
    vocab, embed_dim = values.shape
    if embed_dim % 2:
        raise FormatError(f"rows have K = {embed_dim} values, an odd number")
    packed = np.empty((vocab, embed_dim // 2), np.uint8)
    wide = np.zeros(vocab, np.int64)

    def pack(start: int, stop: int) -> None:
        u: NDArray[np.uint8] = (values[start:stop] + np.int8(8)).view(
            np.uint8
        )  # beyond int8 it wraps, to above 15
        wide[start:stop] = (u > 15).sum(axis=1)
        pack_linear(u & np.uint8(15), packed[start:stop])

    for_row_ranges(vocab, embed_dim, pack)
    return packed, int(wide.sum())


def _read_int4(tensor: Any) -> Grid:
    scales, offsets = to_numpy(tensor.scale, "scale").T, to_numpy(tensor.zero_point, "zero_point").T
    # A signed nibble and one that counts from 8 differ in its highest bit.
    packed = to_numpy(tensor.qdata, "qdata").view(np.uint8) ^ np.uint8(0x88)
    return Grid(packed, scales, zeros_of_offsets(scales, offsets, at=8))


def _read_opaque(tensor: Any) -> Grid:
    torch: Any = sys.modules["torch"]
    if getattr(tensor, "act_mapping_type", None) is not None:
        raise FormatError("it is packed for 8-bit activations, in an order that no op gives back")
    on_cpu = tensor.qdata.device.type == "cpu"
    aten = torch.ops.aten
    multiply = aten._weight_int4pack_mm_for_cpu if on_cpu else aten._weight_int4pack_mm
    parameters = tensor.scale_and_zero  # [K/G, V, 2], both padded by the packing for CUDA
    vocab, embed_dim = tensor.shape
    padded = parameters.shape[0] * tensor.block_size[1]
    unit = torch.zeros_like(parameters)
    unit[..., 0] = 1
    packed = np.empty((vocab, embed_dim // 2), np.uint8)
    step = 256  # columns at a time: their floats take 256 · V numbers
    for start in range(0, embed_dim, step):
        stop = min(start + step, embed_dim)
        one = torch.zeros(stop - start, padded, dtype=parameters.dtype, device=parameters.device)
        one[torch.arange(stop - start), torch.arange(start, stop)] = 1
        columns = multiply(one, tensor.qdata, tensor.block_size[1], unit)[:, :vocab]
        u = to_numpy(columns.to(torch.int8), "qdata").T + np.int8(8)
        pack_linear(u.astype(np.uint8), packed[:, start // 2 : stop // 2])
    parts = to_numpy(parameters[: embed_dim // tensor.block_size[1], :vocab], "scale_and_zero")
    scales, offsets = parts[..., 0].T, parts[..., 1].T
    return Grid(packed, scales, zeros_of_offsets(scales, offsets, at=8))


_READERS: dict[str, Callable[[Any], Grid]] = {
    "IntxUnpackedToInt8Tensor": _read_intx,
    "Int4Tensor": _read_int4,
    "Int4OpaqueTensor": _read_opaque,
    "Int4TilePackedTo4dTensor": _read_opaque,
}
