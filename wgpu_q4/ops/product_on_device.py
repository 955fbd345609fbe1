"""The matrix product on device arrays, which `linear`, `argmax` and `top_k` share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import ArrayLike, refuse_gradient
from wgpu_q4.device.array import DeviceArray
from wgpu_q4.device.context import Context
from wgpu_q4.device.pipelines import Step
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.kernels import Accuracy
from wgpu_q4.ops.arguments import check_floats
from wgpu_q4.ops.forced import current_choices
from wgpu_q4.ops.on_device import ArrayWorkspace, check_out, context_of, in_turns, rows_of
from wgpu_q4.ops.product import check_how, check_shapes
from wgpu_q4.ops.product_steps import (
    How,
    Operands,
    best_steps,
    logits_steps,
    plan_of_reduction,
    rows_at_a_time,
)
from wgpu_q4.weight import Q4Weight


class DeviceProduct(NamedTuple):
    """``x · Wᵀ + bias`` on device arrays, its arguments checked.

    Attributes:
        context: that of the device.
        how: the weight, the accuracy and the choices.
        given: the device arrays that it reads, by the names of the arguments.
        leading: the shape of x without its last dimension.
        bias: float32 ``[V]`` on the host, or a device array ``[V]``, or None.
    """

    context: Context
    how: How
    given: Mapping[str, DeviceArray]
    leading: tuple[int, ...]
    bias: NDArray[np.float32] | DeviceArray | None

    @property
    def rows(self) -> DeviceArray:
        """x as ``[M, K]``."""
        return self.given["x"].reshape(-1, self.how.weight.shape[1])


def check_device_product(
    x: DeviceArray,
    weight: Q4Weight,
    bias: ArrayLike | DeviceArray | None,
    device: Any,
    accuracy: Accuracy,
) -> DeviceProduct:
    """Check the arguments of a product, which are those of `wgpu_q4.linear`, and its errors."""
    how = check_how(weight, accuracy, current_choices())
    given = {"x": x}
    added: NDArray[np.float32] | DeviceArray | None = None
    if isinstance(bias, DeviceArray):
        added = given["bias"] = bias
    elif bias is not None:
        refuse_gradient(bias, "bias")
        added = check_floats(bias, "bias")
    for name, array in given.items():
        if array.dtype.kind != "f":
            raise TypeError(f"{name} must be float32 or float16, not {array.dtype}")
    check_shapes(weight, x.shape, None if added is None else added.shape)
    return DeviceProduct(context_of(given, device), how, given, x.shape[:-1], added)


def logits_on_device(product: DeviceProduct, reader: str, out: DeviceArray | None) -> DeviceArray:
    """Return the logits ``[..., V]`` in the dtype of x.

    Args:
        product: the product to compute.
        reader: the op, for `DeviceWeight.readers`.
        out: where to write them, or None.
    """
    context, how, x = product.context, product.how, product.given["x"]
    shape = (*product.leading, how.weight.shape[0])
    check_out(out, shape, (x.dtype.name,), product.given)
    with context.lock, context.guard, context.guard.busy:
        work = ArrayWorkspace(context, product.given)
        result = work.result(out, shape, x.dtype.name)
        if not result.size:
            return result
        resident = context.weight(how.weight)
        resident.readers.add(reader)
        part = resident.parts[0]
        rows, logits = product.rows, result.reshape(-1, shape[-1])
        for some in in_turns(rows_at_a_time(context, resident, None, 0), rows, logits):
            before, operands = _operands(work, resident, product, rows, some)
            target, after = work.from_floats("logits", logits, some, part)
            work.run([*before, *logits_steps(work, resident, how, operands, target), *after])
    return result


def best_ids_on_device(product: DeviceProduct, reader: str, out: DeviceArray | None) -> DeviceArray:
    """Return the id of the largest logit of each row of x; see `logits_on_device`."""
    context, how = product.context, product.how
    check_out(out, product.leading, ("int32", "uint32"), product.given)
    with context.lock, context.guard, context.guard.busy:
        work = ArrayWorkspace(context, product.given)
        result = work.result(out, product.leading, "int32")
        if not result.size:
            return result
        resident = context.weight(how.weight)
        resident.readers.add(reader)
        rows, ids = product.rows, result.reshape(-1, 1)
        for some in in_turns(rows_at_a_time(context, resident, "argmax", 1), rows, ids):
            before, operands = _operands(work, resident, product, rows, some)
            plan = plan_of_reduction(context, resident, len(some), "argmax", 1, "ids")
            kept = {"t_out": rows_of(ids, some)}
            work.run([*before, *best_steps(work, resident, how, operands, plan, kept)])
    return result


def top_k_on_device(
    product: DeviceProduct,
    reader: str,
    kept: int,
    out: tuple[DeviceArray, DeviceArray] | None,
) -> tuple[DeviceArray, DeviceArray]:
    """Return the ``kept`` largest logits of each row of x, and their ids.

    Args:
        product: the product to compute.
        reader: the op, for `DeviceWeight.readers`.
        kept: how many.
        out: where to write them, or None.
    """
    context, how, dtype = product.context, product.how, product.given["x"].dtype.name
    shape = (*product.leading, kept)
    out_values, out_ids = (None, None) if out is None else _pair(out)
    check_out(out_values, shape, (dtype,), product.given, "out.values")
    written = {} if out_values is None else {"out.values": out_values}
    check_out(out_ids, shape, ("int32", "uint32"), {**product.given, **written}, "out.ids")
    with context.lock, context.guard, context.guard.busy:
        work = ArrayWorkspace(context, product.given)
        result = work.result(out_values, shape, dtype), work.result(out_ids, shape, "int32")
        if not result[0].size:
            return result
        resident = context.weight(how.weight)
        resident.readers.add(reader)
        part, rows = resident.parts[0], product.rows
        values, ids = (array.reshape(-1, kept) for array in result)
        for some in in_turns(rows_at_a_time(context, resident, "top_k", kept), rows, values, ids):
            before, operands = _operands(work, resident, product, rows, some)
            plan = plan_of_reduction(context, resident, len(some), "top_k", kept, "values_and_ids")
            target, after = work.from_floats("values", values, some, part)
            left = {"t_out": target, "t_out_ids": rows_of(ids, some)}
            steps = best_steps(work, resident, how, operands, plan, left)
            work.run([*before, *steps, *after])
    return result


def _pair(out: object) -> tuple[DeviceArray, DeviceArray]:
    if not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"out must be a TopK of two device arrays, not {type(out).__name__}")
    return out


def _operands(
    work: ArrayWorkspace,
    resident: DeviceWeight,
    product: DeviceProduct,
    x: DeviceArray,
    rows: range,
) -> tuple[list[Step], Operands]:
    """Return some rows of x and the bias as float32, and the steps that make them."""
    part, bias = resident.parts[0], product.bias
    steps, values = work.floats("x", x, rows, part)
    added: Any = None
    if isinstance(bias, DeviceArray):
        more, added = work.floats("bias", bias.reshape(1, -1), range(1), part)
        steps += more
    elif bias is not None:
        added = work.scratch.input("bias", bias, in_ranges=len(resident.parts) > 1)
    return steps, Operands(values, len(rows), added)
