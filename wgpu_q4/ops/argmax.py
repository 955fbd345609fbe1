"""The id of the largest logit of each row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, HostArray, like
from wgpu_q4.kernels import Accuracy
from wgpu_q4.ops.product import best_of, check_product
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
def argmax(
    x: ArrayLike,
    weight: Q4Weight,
    bias: ArrayLike | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
) -> NDArray[np.int64] | torch.Tensor:
    """Return the id of the largest logit of each row of x: ``linear(x, weight, bias).argmax(-1)``.

    The logits stay on the device.  They are compared in float32, whatever the dtype of ``x``.  NaN
    counts as larger than all else, as for ``numpy.argmax``; among equals (−0 and 0 are) the lowest
    id is returned.

    Args:
        x, weight, bias, device, accuracy: as in `wgpu_q4.linear`.

    Returns:
        int64 ids ``x.shape[:-1]``, torch if ``x`` is, else numpy.

    Raises:
        TypeError, ValueError, RuntimeError, DeviceError: as in `wgpu_q4.linear`.
    """
    product = check_product(x, weight, bias, device, accuracy)
    entries = best_of(product, "argmax", "argmax", 1)
    ids = entries[:, 0, 1].astype(np.int64).reshape(product.leading)
    return like(ids, x)  # type: ignore[no-any-return]
