"""The matrices of a decoder on the device, and what a kernel binds of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wgpu_q4.decoder.affine import GROUP, AffineMatrix
from wgpu_q4.decoder.limits import check_binding
from wgpu_q4.decoder.weights import LayerMatrix
from wgpu_q4.device.residents import exponent_of
from wgpu_q4.device.upload import upload
from wgpu_q4.errors import FormatError
from wgpu_q4.kernels.decoder import Matrix
from wgpu_q4.kernels.dispatch import MatrixShape
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from wgpu_q4.device import Context


class DeviceMatrix(NamedTuple):
    """A matrix on the device.

    Attributes:
        matrix: its shape and type.
        bindings: its buffers, by the names of the kernels' bindings.
        exponent: as in `wgpu_q4.device.DeviceWeight`.
        first_row: of a part of a matrix: the row of the whole that is the first one here.
    """

    matrix: Matrix
    bindings: dict[str, Any]
    exponent: int = 0
    first_row: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers."""
        return sum(int(buffer.size) for buffer in self.bindings.values())


def shape_of(matrix: LayerMatrix) -> Matrix:
    """Return the shape and the type of a matrix on the host."""
    vocab, embed_dim = matrix.shape
    if isinstance(matrix, Q4Weight):
        scales = "float16" if matrix.scales.dtype == np.float16 else "float32"
        shape = MatrixShape(vocab, embed_dim, matrix.group_size, scales)  # type: ignore[arg-type]
        return Matrix(shape, "q4gsw")
    shape = MatrixShape(vocab, embed_dim, GROUP, "float16")
    if isinstance(matrix, AffineMatrix):
        return Matrix(shape, "affine4" if matrix.bits == 4 else "affine8")
    return Matrix(shape, "float16")


def check_matrix(weight: Q4Weight, name: str) -> None:
    """Raise unless the decoder's kernels can read ``weight``.

    Raises:
        FormatError: K or G is no multiple of 32.
    """
    embed_dim, group_size = weight.shape[1], weight.group_size
    if embed_dim % 32 or group_size % 32:
        raise FormatError(
            f"the decoder needs K and G multiples of 32 in {name}, not {embed_dim} and {group_size}"
        )


def shared_matrix(context: Context, weight: Q4Weight) -> tuple[DeviceMatrix, ...]:
    """Return the device's one copy of ``weight``, which `wgpu_q4.embedding` and others read too.

    It has several parts if one binding does not hold it (`wgpu_q4.device.parts`).
    """
    resident = context.weight(weight)
    resident.readers.add("decoder")
    made = []
    for part in resident.parts:
        bound = part.bindings(context, weight, "rows")
        bindings = {name: bound[name] for name in ("t_weight", "t_scales")}
        matrix = Matrix(part.shape, "q4gsw")
        made.append(DeviceMatrix(matrix, bindings, resident.exponent, part.first_row))
    return tuple(made)


def own_matrix(context: Context, label: str, matrix: LayerMatrix) -> DeviceMatrix:
    """Return a new copy of ``matrix``, which belongs to the caller.

    Raises:
        DeviceLimitError: it is larger than a binding may be.
    """
    exponent = 0
    if isinstance(matrix, Q4Weight):
        check_matrix(matrix, label)
        if context.matrix_units:
            exponent = exponent_of(matrix.scales)
        check_binding(context, label, matrix.packed.nbytes)
        bindings = {
            "t_weight": upload(context, label, matrix.packed_as("linear")),
            "t_scales": upload(context, f"scales of {label}", matrix.scales),
        }
    elif isinstance(matrix, AffineMatrix):
        check_binding(context, label, matrix.packed.nbytes)
        bindings = {
            "t_weight": upload(context, label, matrix.packed),
            "t_pairs": upload(context, f"scales and offsets of {label}", matrix.pairs),
        }
    else:
        check_binding(context, label, matrix.nbytes)
        bindings = {"t_weight": upload(context, label, matrix)}
    return DeviceMatrix(shape_of(matrix), bindings, exponent)
