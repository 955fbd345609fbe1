"""One matrix as torch tensors, and the tie between the modules that hold it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor

from wgpu_q4.nn.tensor import Q4Tensor
from wgpu_q4.torch_cache import remember
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    from wgpu_q4.nn.shared import Quantized


class Matrix:
    """A `Q4Weight` in the linear convention, and tensors on the same memory.

    It never changes: the tensors must not be changed in place.

    Attributes:
        weight: the matrix.
        packed: uint8 ``[V, K/2]``.
        scales: ``[V, K/G]``.
    """

    def __init__(self, weight: Q4Weight, packed: Tensor, scales: Tensor) -> None:
        self.weight, self.packed, self.scales = weight, packed, scales
        self._tensors: dict[tuple[torch.dtype, torch.device], Q4Tensor] = {}
        remember(packed, weight)

    def tensor(self, dtype: torch.dtype, device: torch.device) -> Q4Tensor:
        """Return the matrix as a tensor: the same object for the same dtype and device."""
        key = dtype, device
        if key not in self._tensors:
            self._tensors[key] = Q4Tensor(self.packed, self.scales, dtype, device)
        return self._tensors[key]

    def __reduce__(self) -> tuple[Any, ...]:
        return matrix_of_tensors, (self.packed, self.scales)


_live: WeakKeyDictionary[Q4Weight, ref[Matrix]] = WeakKeyDictionary()
"""The weights that modules hold: one `Matrix` for all modules."""


def matrix_of(weight: object) -> Matrix:
    """Return the tensors of a weight: its own memory, or a copy in the linear convention.

    Raises:
        TypeError: neither a `Q4Weight` nor the ``weight`` of a module.
    """
    if isinstance(weight, Q4Tensor):
        weight = weight.q4weight
    if not isinstance(weight, Q4Weight):
        raise TypeError(f"weight must be a Q4Weight, not {type(weight).__name__}")
    if weight.convention != "linear":
        weight = interned(Q4Weight(weight.packed_as("linear"), weight.scales, "linear"))
    known = _live.get(weight)
    found = None if known is None else known()
    if found is None:
        with warnings.catch_warnings():
            # The arrays are read-only, which torch has no word for.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            packed, scales = torch.from_numpy(weight.packed), torch.from_numpy(weight.scales)
        found = Matrix(weight, packed, scales)
        _live[weight] = ref(found)
    return found


def matrix_of_tensors(packed: Tensor, scales: Tensor) -> Matrix:
    """Return the matrix of two tensors, of the same object if a module holds an equal one.

    Raises:
        FormatError: what `Q4Weight` refuses.
    """
    return matrix_of(interned(Q4Weight(packed.detach(), scales.detach(), "linear")))


def interned(weight: Q4Weight) -> Q4Weight:
    """Return the weight in use that holds the same matrix, else ``weight``."""
    return next((known for known in list(_live) if known.same_matrix(weight)), weight)


class Holder:
    """What ties modules: they hold one matrix, and get another one together.

    Attributes:
        matrix: what they hold.
        modules: the modules.
    """

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix
        self.modules: WeakSet[Quantized] = WeakSet()
        self._loading: list[str] | None = None

    def put(self, matrix: Matrix) -> None:
        """Give all modules another matrix."""
        self.matrix = matrix
        for module in list(self.modules):
            module._show(matrix)

    def load(self, matrix: Matrix, missing_keys: list[str]) -> bool:
        """Give all modules the matrix of a state dict, if it is the first one of this load or the
        same again.

        Args:
            matrix: what is loaded.
            missing_keys: torch's list, of which each load has its own.

        Returns:
            False if the load has brought another matrix before.
        """
        if self._loading is missing_keys and matrix.weight is not self.matrix.weight:
            return False
        self._loading = missing_keys
        self.put(matrix)
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> Holder:
        return Holder(self.matrix)  # the copied modules join it

    def __reduce__(self) -> tuple[Any, ...]:
        return Holder, (self.matrix,)
