"""Activations times a 4-bit matrix."""

from __future__ import annotations

from operator import index
from typing import TYPE_CHECKING, Any, get_args, overload

from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, HostArray, like_floats
from wgpu_q4.device.array import DeviceArray
from wgpu_q4.device.context import context_for
from wgpu_q4.kernels import Accuracy
from wgpu_q4.ops.arguments import check_option, check_weight
from wgpu_q4.ops.forced import current_choices
from wgpu_q4.ops.on_device import refuse_out
from wgpu_q4.ops.product import check_product, logits_of
from wgpu_q4.ops.product_on_device import check_device_product, logits_on_device
from wgpu_q4.ops.product_steps import plan_for
from wgpu_q4.weight import Q4Weight

if TYPE_CHECKING:
    import torch


@overload
def linear(
    x: HostArray,
    weight: Q4Weight,
    bias: ArrayLike | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
) -> NDArray[Any]: ...
@overload
def linear(
    x: torch.Tensor,
    weight: Q4Weight,
    bias: ArrayLike | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
) -> torch.Tensor: ...
@overload
def linear(
    x: DeviceArray,
    weight: Q4Weight,
    bias: ArrayLike | DeviceArray | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
    out: DeviceArray | None = None,
) -> DeviceArray: ...
def linear(
    x: ArrayLike | DeviceArray,
    weight: Q4Weight,
    bias: ArrayLike | DeviceArray | None = None,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
    out: DeviceArray | None = None,
) -> NDArray[Any] | torch.Tensor | DeviceArray:
    """Return ``x · Wᵀ + bias``, the weight dequantized on the fly.

    Args:
        x: ``[..., K]``, float32 or float16 (torch: bfloat16 too); numpy, torch, a list of floats,
            or a device array.
        weight: ``[V, K]``; the copy on the device is shared with `wgpu_q4.embedding`.
        bias: ``[V]`` of a dtype that ``x`` may have, or None; a device array only if ``x`` is one.
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.
        accuracy: ``"exact"`` accumulates in float32 and meets its summation bound.  ``"fast"``
            also allows to round x to 16 bits, or x and the weight to half precision, and
            ``"int8"`` x to 8 bits, where a device is faster with that (`wgpu_q4.reference` gives
            each bound).  x must be finite for both, and nobody checks a device array.
        out: for device arrays: the `DeviceArray` to write to, of the result's shape and dtype.

    Returns:
        The logits, ``x.shape[:-1] + (V,)`` in the dtype of ``x``, torch or a device array if ``x``
        is, else numpy.
        float32 is within float32's summation error of the exact result, for nonzero ``|x|`` from
        1e-30 to 1e30 (products are scaled after they are summed, so they must stay in float32's
        range); other dtypes are rounded from it.

    Raises:
        TypeError: an argument of the wrong kind or dtype.
        ValueError: shapes or an ``out`` that do not fit, or an accuracy that does not exist.
        RuntimeError: torch expects a gradient of ``x`` or ``bias``.
        DeviceError: no adapter, or a limit of the device is exceeded; device arrays that are on
            several devices, freed, or not computed yet.
    """
    if isinstance(x, DeviceArray):
        on_device = check_device_product(x, weight, bias, device, accuracy)
        return logits_on_device(on_device, "linear", out)
    refuse_out(out, "x")
    product = check_product(x, weight, bias, device, accuracy)
    logits = logits_of(product, "linear")
    return like_floats(logits.reshape(*product.leading, product.vocab), x)  # type: ignore[no-any-return]


def kernel_for(
    weight: Q4Weight,
    rows: int = 1,
    bias: bool = False,
    device: Any = None,
    *,
    accuracy: Accuracy = "exact",
) -> str:
    """Return the name of the kernel that `wgpu_q4.linear` runs for so many rows of x.

    The name is one that `wgpu_q4.forced` takes.

    Args:
        weight: ``[V, K]``; its copy on the device is made if there is none.
        rows: rows of x, at least 1.
        bias: whether a bias is added.
        device: a ``GPUDevice``, part of an adapter's name, or None for the best adapter.
        accuracy: as in `wgpu_q4.linear`.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an option that does not exist, no rows, or a forced kernel that cannot run.
        DeviceError: no adapter, or a limit of the device is exceeded.
    """
    check_weight(weight)
    check_option("accuracy", accuracy, get_args(Accuracy))
    if index(rows) < 1:
        raise ValueError(f"rows must be at least 1, not {rows}")
    context = context_for(device)
    shape = context.weight(weight).parts[0].shape
    plan = plan_for(context, shape, index(rows), bias, accuracy, current_choices())
    return plan.kernel
