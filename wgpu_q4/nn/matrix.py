"""One matrix as torch tensors, and the tie between the modules that hold it."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
import torch
from torch import Tensor

from wgpu_q4.nn.tensor import Q4Tensor
from wgpu_q4.torch_cache import remember, version_of
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
        self._versions = version_of(packed), version_of(scales)
        self._tensors: dict[tuple[torch.dtype, torch.device], Q4Tensor] = {}
        remember(packed, weight)

    @property
    def is_changed(self) -> bool:
        """Whether somebody has written into the tensors, as torch's checkpoints do."""
        return (version_of(self.packed), version_of(self.scales)) != self._versions

    @property
    def is_writable(self) -> bool:
        """Whether the memory may be written to; that of a mapped file ends the process if it is."""
        array: Any = self.weight.packed
        while isinstance(array.base, np.ndarray):
            array = array.base
        return bool(array.flags.writeable)

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
            packed, scales = (
                torch.from_numpy(weight.packed),
                torch.from_numpy(weight.unchecked_scales),
            )
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
        self._saved_to: ref[Any] | None = None
        self._missing_keys: list[str] | None = None
        self._is_loaded = False
        self._absent: list[str] = []

    def put(self, matrix: Matrix) -> None:
        """Give all modules another matrix."""
        self.matrix = matrix
        for module in list(self.modules):
            module._show(matrix)

    def adopt(self, packed: Tensor, scales: Tensor) -> None:
        """Give all modules the matrix of tensors that somebody has put into one of them.

        Raises:
            FormatError: what `Q4Weight` refuses.
        """
        packed, scales = packed.cpu(), scales.cpu()
        if self.matrix.is_changed:  # the weight on this memory is known for what was there
            _live.pop(self.matrix.weight, None)
            packed, scales = packed.clone(), scales.clone()
        self.put(matrix_of_tensors(packed, scales))

    def is_new_to(self, state_dict: Any) -> bool:
        """Tell whether this is the first module that asks for a state dict, and note that it did.

        A state dict names the matrix once: under the first module.
        """
        if self._saved_to is not None and self._saved_to() is state_dict:
            return False
        # A plain dict, which a caller of module.state_dict() may bring along, takes no reference.
        self._saved_to = ref(state_dict) if isinstance(state_dict, OrderedDict) else None
        return True

    def load(self, matrix: Matrix, missing_keys: list[str]) -> bool:
        """Give all modules the matrix of a state dict, if it is the first one of this load or the
        same again.

        Args:
            matrix: what is loaded.
            missing_keys: torch's list, of which each load has its own.

        Returns:
            False if the load has brought another matrix before.
        """
        self._begin(missing_keys)
        if self._is_loaded and matrix.weight is not self.matrix.weight:
            return False
        self._is_loaded = True
        for name in self._absent:
            missing_keys.remove(name)
        self._absent = []
        self.put(matrix)
        return True

    def miss(self, names: list[str], missing_keys: list[str]) -> None:
        """Report names that a state dict lacks, unless it names the matrix elsewhere."""
        self._begin(missing_keys)
        if not self._is_loaded:
            missing_keys += names
            self._absent += names

    def _begin(self, missing_keys: list[str]) -> None:
        if self._missing_keys is not missing_keys:
            self._missing_keys, self._is_loaded, self._absent = missing_keys, False, []

    def __deepcopy__(self, memo: dict[int, Any]) -> Holder:
        return Holder(self.matrix)  # the copied modules join it

    def __reduce__(self) -> tuple[Any, ...]:
        return Holder, (self.matrix,)
