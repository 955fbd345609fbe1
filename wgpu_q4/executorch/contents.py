"""Matrices compared by their bytes: each is packed once and hashed once, whatever form it comes in.

The work is linear in the matrix, and done once for each tensor however many nodes read it.  Packing
goes by row ranges, so that the packed bytes are all that is held beyond the model's own tensors.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wgpu_q4.arrays import to_numpy
from wgpu_q4.errors import FormatError
from wgpu_q4.executorch.constants import Constants, place
from wgpu_q4.executorch.operands import Operand
from wgpu_q4.format import repack
from wgpu_q4.format.nibbles import pack_linear
from wgpu_q4.format.parallel import for_row_ranges

Key = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Content:
    """A matrix in the canonical form.

    Attributes:
        packed: uint8 ``[V, K/2]``, linear convention.
        scales: ``[V, K/G]``, contiguous.
        sha256: of the packed bytes, as `Q4Weight.sha256`.
        scales_sha256: of the bytes of the scales.
    """

    packed: NDArray[np.uint8]
    scales: NDArray[Any]
    sha256: str
    scales_sha256: str

    @property
    def key(self) -> Key:
        """A key that two matrices share if their values, scales and dtype of scales are equal."""
        return self.packed.shape, self.sha256, self.scales.dtype, self.scales_sha256

    def difference(self, other: Content) -> str:
        """Say how a matrix of the same shape differs from this one."""
        if self.sha256 != other.sha256:
            return "other values"
        if self.scales.shape != other.scales.shape:
            return "another group size"
        if self.scales.dtype != other.scales.dtype:
            return f"the same values with {other.scales.dtype} scales"
        return "the same values with other scales"


class Contents:
    """The contents of a program's matrices.  Each is read when it is first asked for."""

    def __init__(self, constants: Constants) -> None:
        self._constants = constants
        self._by_place: dict[tuple[object, ...], Content] = {}
        self._by_key: dict[Key, Content] = {}

    def tensors(self, operand: Operand) -> tuple[Tensor, Tensor]:
        """Return the tensor of the values and the tensor of the scales."""
        values = self._constants.tensor(operand.weight)
        scales = self._constants.tensor(operand.scales)
        assert values is not None  # an Operand is made of two constants
        assert scales is not None
        return values, scales

    def of(self, operand: Operand) -> Content:
        """Return the content of a matrix; equal matrices give the same object.

        Raises:
            FormatError: a value outside −8..7.
        """
        values, scales = self.tensors(operand)
        where = (operand.packing, operand.scales_transposed, *place(values), *place(scales))
        if where not in self._by_place:
            content = _read(operand, values.detach(), scales.detach())
            # Equal bytes are kept once, so that an untied copy is not held twice.
            self._by_place[where] = self._by_key.setdefault(content.key, content)
        return self._by_place[where]


def _read(operand: Operand, values: Tensor, scales: Tensor) -> Content:
    stored = to_numpy(values, operand.weight.name)
    if operand.packing == "int8":
        packed = _pack(stored, operand.weight.name)
    else:
        packed = np.ascontiguousarray(repack(stored, operand.packing, "linear"))
    factors = to_numpy(scales, operand.scales.name)
    if operand.scales_transposed:
        factors = factors.T
    factors = np.ascontiguousarray(factors.reshape(operand.shape[0], -1))
    return Content(packed, factors, _sha256(packed), _sha256(factors))


def _pack(values: NDArray[np.int8], name: str) -> NDArray[np.uint8]:
    vocab, embed_dim = values.shape
    packed = np.empty((vocab, embed_dim // 2), np.uint8)

    def pack_rows(start: int, stop: int) -> None:
        rows = values[start:stop]
        if rows.min() < -8 or rows.max() > 7:
            raise FormatError(f"{name} has values outside -8..7 in rows {start}..{stop - 1}")
        pack_linear((rows + np.int8(8)).view(np.uint8), packed[start:stop])

    for_row_ranges(vocab, embed_dim, pack_rows)
    return packed


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(array.reshape(-1).view(np.uint8).data).hexdigest()
