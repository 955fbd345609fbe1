"""`Q4Weight`: one 4-bit matrix, held once, whatever reads it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from wgpu_q4 import format as q4gsw
from wgpu_q4 import rich
from wgpu_q4.arrays import ArrayLike, DTypeLike, is_torch, to_numpy
from wgpu_q4.format import Convention, Rule
from wgpu_q4.format.nibbles import check_convention
from wgpu_q4.format.shape import check_scales, check_shapes


class Resident(Protocol):
    """A copy of a weight on a device, as far as the weight needs to know it."""

    @property
    def nbytes(self) -> int:
        """Bytes held there."""
        ...

    def describe(self) -> str:
        """Return one line: the adapter, the layouts, the bytes, and the ops that read it."""
        ...


class Q4Weight:
    """A ``[V, K]`` matrix in 4 bits a value, with one scale for each ``G`` values of a row.

    All ops read this one object: pass it to `wgpu_q4.embedding` and to `wgpu_q4.linear`, and its
    bytes are on the host once and on each device once.  The device copies go when the weight goes.

    A weight never changes: the arrays are wrapped, not copied, and must not be written to
    afterwards.
    """

    def __init__(
        self,
        packed: ArrayLike,
        scales: ArrayLike,
        convention: Convention = "linear",
        *,
        read_scales: bool = True,
    ) -> None:
        """Wrap a packed matrix that already exists.

        Args:
            packed: uint8 ``[V, K/2]``, numpy or torch; ``K`` a multiple of 8.
            scales: float16 or float32 ``[V, K/G]``, numpy or torch; ``G`` a multiple of 8.
            convention: the nibble order of ``packed``.
            read_scales: False checks the values of the scales when they are first used, in place
                of now: all of them when `scales` is asked for (an upload does), else those of the
                rows that are looked up.  So a mapped file is not read before it is needed.

        Raises:
            TypeError: not arrays.
            FormatError: a dtype, shape, convention or scale that q4gsw does not allow.
        """
        self._convention: Convention = check_convention(convention)
        self._packed: NDArray[np.uint8] = _read_only(to_numpy(packed, "packed"))
        self._scales: NDArray[Any] = _read_only(to_numpy(scales, "scales"))
        vocab, embed_dim, group_size = check_shapes(self._packed, self._scales)
        self._shape, self._group_size = (vocab, embed_dim), group_size
        self._scales_are_checked = False
        if read_scales:
            self._check_scales()
        self.residents: WeakSet[Resident] = WeakSet()
        """The device copies; `wgpu_q4.device` adds them."""

    @classmethod
    def quantize(
        cls,
        weight: ArrayLike,
        group_size: int | None = None,
        scales_dtype: DTypeLike | None = None,
        *,
        rule: Rule = "absmax",
        importance: ArrayLike | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Q4Weight:
        """Quantize a float matrix; the rules are in `wgpu_q4.format.quantize`.

        A quantized tensor of torchao is taken over as it is; see `wgpu_q4.from_torchao`.

        Args:
            weight: ``[V, K]`` floats, numpy or torch (bfloat16 and 8 bits too).
            group_size: ``G``, a multiple of 8 that divides ``K``; 32 by default.
            scales_dtype: float16 (the default) or float32, as numpy or torch write it.
            rule: ``"absmax"``, what torchao computes, or ``"mse"``, which searches each group's
                scale for the least squared error: a seventh less, in some ten times the time.
            importance: of rule ``"mse"``, ``[K]``: how much an error in a column counts, as the
                mean square of an activation does.  None: all alike.
            progress: called with a number of rows each time that so many more are done, as the
                ``update`` of a progress bar of tqdm's is.

        Raises:
            TypeError: not a floating-point matrix.
            FormatError: shape, group or importance do not fit, a value is not finite, or a rule
                that does not exist.
        """
        if is_torch(weight) and type(weight).__module__.startswith("torchao."):
            from wgpu_q4.foreign.torchao import from_torchao

            return from_torchao(weight, group_size, scales_dtype=scales_dtype)
        floats = to_numpy(weight, "weight")
        size = 32 if group_size is None else group_size
        dtype = "float16" if scales_dtype is None else scales_dtype
        options: dict[str, Any] = {"rule": rule, "importance": importance, "progress": progress}
        return cls(*q4gsw.quantize(floats, size, dtype, **options))

    @property
    def packed(self) -> NDArray[np.uint8]:
        """uint8 ``[V, K/2]``, read-only, in the nibble order of `convention`."""
        return self._packed

    @property
    def scales(self) -> NDArray[Any]:
        """float16 or float32 ``[V, K/G]``, read-only.

        Raises:
            FormatError: a scale that q4gsw does not allow, if they were not checked before.
        """
        if not self._scales_are_checked:
            self._check_scales()
        return self._scales

    @property
    def unchecked_scales(self) -> NDArray[Any]:
        """`scales`, for a reader that takes some rows and checks them itself."""
        return self._scales

    def _check_scales(self) -> None:
        check_scales(self._scales)
        self._scales_are_checked = True

    @property
    def convention(self) -> Convention:
        """The nibble order of `packed`; see `wgpu_q4.format.nibbles`."""
        return self._convention

    @property
    def shape(self) -> tuple[int, int]:
        """``(V, K)``."""
        return self._shape

    @property
    def group_size(self) -> int:
        """``G``."""
        return self._group_size

    @property
    def nbytes(self) -> int:
        """Bytes of the packed values and the scales together."""
        return self._packed.nbytes + self._scales.nbytes

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the packed bytes in the linear convention (the scales are not in it)."""
        return hashlib.sha256(np.ascontiguousarray(self.packed_as("linear")).data).hexdigest()

    def packed_as(self, convention: Convention) -> NDArray[np.uint8]:
        """Return the packed bytes in a nibble order: ``packed`` itself, or a new array."""
        return q4gsw.repack(self.packed, self.convention, convention)

    def dequantize(self) -> NDArray[np.float32]:
        """Return the matrix as float32 ``[V, K]``."""
        return q4gsw.dequantize(self.packed, self.scales, self.convention)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> NDArray[Any]:
        """Return what numpy makes of the weight: the matrix ``[V, K]``, dequantized.

        Args:
            dtype: of the array, float32 by default.
            copy: numpy's; no memory holds the floats, so False cannot be had.

        Raises:
            ValueError: ``copy`` is False.
        """
        if copy is False:
            raise ValueError(
                "a Q4Weight holds 4-bit values: its floats cannot be had without a copy. "
                "Leave copy out, or read weight.packed and weight.scales"
            )
        return self.dequantize().astype(dtype or np.float32, copy=False)

    def same_matrix(self, other: Q4Weight) -> bool:
        """Return True if ``other`` holds the same values and scales, in either nibble order.

        The dtypes of the scales must be equal too.
        """
        if self is other:
            return True
        return (
            self.shape == other.shape
            and self.scales.dtype == other.scales.dtype
            and self.scales.shape == other.scales.shape
            and self.sha256 == other.sha256
            and self.scales.tobytes() == other.scales.tobytes()
        )

    def __copy__(self) -> Q4Weight:
        return self  # immutable: a copied model keeps sharing the matrix

    def __deepcopy__(self, memo: dict[int, Any]) -> Q4Weight:
        return self

    def __reduce__(self) -> tuple[type[Q4Weight], tuple[Any, ...]]:
        return type(self), (self.packed, self.scales, self.convention)

    def __repr__(self) -> str:
        vocab, embed_dim = self.shape
        return (
            f"Q4Weight({vocab}×{embed_dim}, group {self.group_size}, "
            f"{self._scales.dtype} scales, {self.nbytes:,} bytes)"
        )

    def facts(self) -> list[rich.Row]:
        """Return what a notebook shows of the weight, and of a module that reads it."""
        vocab, embed_dim = self.shape
        float_bytes = vocab * embed_dim * 4
        residents = [resident.describe() for resident in self.residents]
        return [
            ("shape", f"{vocab:,} × {embed_dim:,}"),
            ("group size", f"{self.group_size}, {self._scales.dtype} scales"),
            (
                "bytes",
                f"{self.packed.nbytes:,} packed + {self._scales.nbytes:,} scales "
                f"= {self.nbytes:,} ({float_bytes / self.nbytes:.1f}× smaller than float32)",
            ),
            ("tied", f"one copy serves embedding and linear; two would take {2 * self.nbytes:,}"),
            ("on devices", residents or "none yet (uploaded at first use)"),
        ]

    def _repr_html_(self) -> str:
        return rich.table("Q4Weight", self.facts())


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
