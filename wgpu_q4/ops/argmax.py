"""The id of the largest logit of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, HostArray, like
from wgpu_q4.device.array import DeviceArray
from wgpu_q4.kernels import Accuracy
from wgpu_q4.ops.on_device import refuse_out
from wgpu_q4.ops.product import best_of, check_product
from wgpu_q4.ops.product_on_device import best_ids_on_device, check_device_product
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    import torch


@overload
def argmax(
    x: HostArray,
    weight: Q4Weight,
    bias: ArrayLike | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
) -> NDArray[np.int64]: ...
@overload
def argmax(
    x: torch.Tensor,
    weight: Q4Weight,
    bias: ArrayLike | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
) -> torch.Tensor: ...
@overload
def argmax(
    x: DeviceArray,
    weight: Q4Weight,
    bias: ArrayLike | DeviceArray | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
    out: DeviceArray | None = None,
) -> DeviceArray: ...
def argmax(
    x: ArrayLike | DeviceArray,
    weight: Q4Weight,
    bias: ArrayLike | DeviceArray | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
    out: DeviceArray | None = None,
) -> NDArray[np.int64] | torch.Tensor | DeviceArray:
    """Return the id of the largest logit of each row of x: ``linear(x, weight, bias).argmax(-1)``.

    The logits stay on the device.  They are compared in float32, whatever the dtype of ``x``.  NaN
    counts as larger than all else, as for ``numpy.argmax``; among equals (−0 and 0 are) the lowest
    id is returned.

    Args:
        x, weight, bias, device, accuracy: as in `wgpu_q4.linear`.
        out: for device arrays: the `DeviceArray` to write to, int32 or uint32 ``x.shape[:-1]``,
            which may be the array that a recorded `wgpu_q4.embedding` reads.

    Returns:
        int64 ids ``x.shape[:-1]``, torch if ``x`` is, else numpy; int32 if ``x`` is a device array.

    Raises:
        TypeError, ValueError, RuntimeError, DeviceError: as in `wgpu_q4.linear`.
    """
    if isinstance(x, DeviceArray):
        on_device = check_device_product(x, weight, bias, device, accuracy)
        return best_ids_on_device(on_device, "argmax", out)
    refuse_out(out, "x")
    product = check_product(x, weight, bias, device, accuracy)
    entries = best_of(product, "argmax", "argmax", 1)
    ids = entries[:, 0, 1].astype(np.int64).reshape(product.leading)
    return like(ids, x)  # type: ignore[no-any-return]
