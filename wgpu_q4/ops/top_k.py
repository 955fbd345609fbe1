"""The largest logits of each row, and their ids."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, SupportsIndex, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, HostArray, like, like_floats
from wgpu_q4.device.array import DeviceArray
from wgpu_q4.kernels import LARGEST_TOP_K, Accuracy
from wgpu_q4.ops.on_device import refuse_out
from wgpu_q4.ops.product import best_of, check_product
from wgpu_q4.ops.product_on_device import check_device_product, top_k_on_device
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    import torch

ArrayT = TypeVar("ArrayT")


class TopK(NamedTuple, Generic[ArrayT]):
    """The largest logits of each row of x, largest first: numpy arrays, or torch tensors.

    Attributes:
        values: ``[..., k]``, in the dtype of ``x``.
        ids: ``[..., k]``, int64: the rows of the weight that gave them.
    """

    values: ArrayT
    ids: ArrayT


@overload
def top_k(
    x: HostArray,
    weight: Q4Weight,
    k: SupportsIndex,
    bias: ArrayLike | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
) -> TopK[NDArray[Any]]: ...
@overload
def top_k(
    x: torch.Tensor,
    weight: Q4Weight,
    k: SupportsIndex,
    bias: ArrayLike | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
) -> TopK[torch.Tensor]: ...
@overload
def top_k(
    x: DeviceArray,
    weight: Q4Weight,
    k: SupportsIndex,
    bias: ArrayLike | DeviceArray | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
    out: TopK[DeviceArray] | None = None,
) -> TopK[DeviceArray]: ...
def top_k(
    x: ArrayLike | DeviceArray,
    weight: Q4Weight,
    k: SupportsIndex,
    bias: ArrayLike | DeviceArray | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
    out: TopK[DeviceArray] | None = None,
) -> TopK[NDArray[Any]] | TopK[torch.Tensor] | TopK[DeviceArray]:
    """Return the ``k`` largest logits of each row of x and their ids.

    The other logits stay on the device.  They are compared in float32, whatever the dtype of ``x``.
    NaN counts as larger than all else; among equals (−0 and 0 are) the lowest id comes first.

    Args:
        x, weight, bias, device, accuracy: as in `wgpu_q4.linear`.
        k: how many, 1 to the smaller of V and 1024.
        out: for device arrays: a `TopK` of the arrays to write to, in two buffers; the ids may be
            int32 or uint32.

    Returns:
        `TopK`: ``values`` ``x.shape[:-1] + (k,)`` in the dtype of ``x``, largest first, and their
        int64 ``ids``; torch if ``x`` is, else numpy.  Device arrays have int32 ids.

    Raises:
        TypeError: ``k`` is no integer; or as in `wgpu_q4.linear`.
        ValueError: ``k`` is out of range; or as in `wgpu_q4.linear`.
        RuntimeError, DeviceError: as in `wgpu_q4.linear`.
    """
    if isinstance(x, DeviceArray):
        on_device = check_device_product(x, weight, bias, device, accuracy)
        return TopK(*top_k_on_device(on_device, "top_k", check_k(k, weight.shape[0]), out))
    refuse_out(out, "x")
    product = check_product(x, weight, bias, device, accuracy)
    kept = check_k(k, product.vocab)
    entries = best_of(product, "top_k", "top_k", kept)
    shape = (*product.leading, kept)
    values = np.ascontiguousarray(entries[..., 0]).view(np.float32).reshape(shape)
    ids = entries[..., 1].astype(np.int64).reshape(shape)
    return TopK(like_floats(values, x), like(ids, x))


def check_k(k: object, vocab: int) -> int:
    """Return ``k`` as an int in 1..min(V, `LARGEST_TOP_K`)."""
    try:
        kept = index(k)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"k must be an integer, not {type(k).__name__}") from None
    largest = min(vocab, LARGEST_TOP_K)
    if not 1 <= kept <= largest:
        reason = "the vocabulary" if largest == vocab else "the most that a workgroup sorts"
        raise ValueError(f"k must be in 1..{largest} ({reason}), not {kept}")
    return kept
