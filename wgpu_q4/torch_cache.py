"""A cache from torch tensors to `Q4Weight`, so that a custom op uploads a matrix once.

A custom op is called with the same tensors again and again.  The cache keeps their `Q4Weight` as
long as the storage of the packed tensor lives, and no longer: it holds the storage weakly, and the
weight reads the storage's memory without owning it.

Requires torch.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wgpu_q4.arrays import to_numpy
from wgpu_q4.format import Convention
from wgpu_q4.weight import Q4Weight

_View = tuple[object, ...]


@dataclass
class _Matrices:
    """The matrices made of one view of a packed storage: one for each different set of scales."""

    weights: list[Q4Weight] = field(default_factory=list)
    owning: list[ref[Q4Weight]] = field(default_factory=list)
    """Matrices that own the memory of the packed tensor (`remember`): held weakly, for they would
    keep its storage alive, and with it this entry."""
    known: list[tuple[ref[Any], _View, ref[Q4Weight]]] = field(default_factory=list)
    """Scales seen, by storage and view, with the matrix that they gave."""


_cache: WeakKeyDictionary[Any, dict[_View, _Matrices]] = WeakKeyDictionary()
_lock = RLock()


def resident_weight(
    packed: Tensor, scales: Tensor, convention: Convention, *, transposed: bool
) -> Q4Weight:
    """Return the matrix of two tensors: the same object for the same storage and equal scales.

    If a tensor is changed in place and torch counts the change (``tensor._version``), the result is
    a new matrix.  A change through ``.data`` or numpy is not counted and goes unseen.

    Args:
        packed: uint8 ``[V, K/2]``.
        scales: ``[V, K/G]``, or ``[K/G, V]`` if ``transposed``.
        convention: the nibble order of ``packed``.
        transposed: True if the scales are ``[K/G, V]``.

    Raises:
        FormatError: what `Q4Weight` refuses.
    """
    packed, scales = packed.detach(), scales.detach()
    storage, scales_storage = packed.untyped_storage(), scales.untyped_storage()
    with _lock:
        matrices = _matrices(storage, packed, convention)
        matrices.known = [known for known in matrices.known if known[0]() is not None]
        scales_view = (version_of(scales), transposed, *_place(scales))
        for owner, view, known in matrices.known:
            found = known()
            if found is not None and owner() is scales_storage and view == scales_view:
                return found
        weight = _matching(matrices, packed, scales.t() if transposed else scales, convention)
        matrices.known.append((ref(scales_storage), scales_view, ref(weight)))
        return weight


def remember(packed: Tensor, weight: Q4Weight) -> None:
    """Make `resident_weight` return ``weight``, while it lives, for ``packed`` and its scales.

    Args:
        packed: a tensor on the memory of ``weight.packed``.
        weight: the matrix.
    """
    packed = packed.detach()
    with _lock:
        matrices = _matrices(packed.untyped_storage(), packed, weight.convention)
        if all(known() is not weight for known in matrices.owning):
            matrices.owning.append(ref(weight))


def _matrices(storage: Any, packed: Tensor, convention: Convention) -> _Matrices:
    """Return what is known of a view of a storage; older versions of it are dropped."""
    views = _cache.setdefault(storage, {})
    version = version_of(packed)
    for stale in [view for view in views if view[0] != version]:
        del views[stale]
    return views.setdefault((version, convention, *_place(packed)), _Matrices())


def _matching(
    matrices: _Matrices, packed: Tensor, scales: Tensor, convention: Convention
) -> Q4Weight:
    """Return the matrix with these scales ``[V, K/G]``, made if there is none yet."""
    # Always a copy: a view would keep the caller's scales alive as long as the weight.
    rows: NDArray[Any] = np.array(to_numpy(scales, "weight_scales"), order="C", copy=True)
    owning = [weight for known in matrices.owning if (weight := known()) is not None]
    for weight in (*owning, *matrices.weights):
        if weight.scales.dtype == rows.dtype and np.array_equal(weight.scales, rows):
            return weight
    weight = Q4Weight(_unowned(packed), rows, convention)
    matrices.weights.append(weight)
    return weight


def _unowned(packed: Tensor) -> NDArray[np.uint8]:
    """Return the bytes of a tensor, without a reference to it.

    They are a copy unless the tensor is contiguous and on the CPU.
    """
    if packed.device.type != "cpu" or not packed.is_contiguous() or not packed.numel():
        return np.array(to_numpy(packed, "weight"), order="C", copy=True)
    memory = memoryview((ctypes.c_uint8 * packed.numel()).from_address(packed.data_ptr()))
    return np.frombuffer(memory, np.uint8).reshape(tuple(packed.shape))


def _place(tensor: Tensor) -> _View:
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def version_of(tensor: Tensor) -> int:
    """torch's count of changes in place; inference tensors have none."""
    return 0 if torch.is_inference(tensor) else tensor._version
