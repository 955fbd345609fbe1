"""The matrix product that `linear`, `argmax` and `top_k` share: checked and run for the host."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.arrays import is_torch, refuse_gradient
from wgpu_q4.device.context import context_for
from wgpu_q4.kernels import Accuracy, Reduce
from wgpu_q4.ops.arguments import check_floats, check_option, check_weight
from wgpu_q4.ops.forced import Choices, current_choices
from wgpu_q4.ops.product_steps import (
    How,
    Operands,
    best_steps,
    logits_steps,
    plan_of_reduction,
    rows_at_a_time,
)
from wgpu_q4.ops.reduction import entries_kept
from wgpu_q4.ops.several import Share, is_several, on_each, shares_of
from wgpu_q4.ops.shares import best_of_all
from wgpu_q4.weight import Q4Weight

_ACCURACIES: tuple[Accuracy, ...] = get_args(Accuracy)


class Product(NamedTuple):
    """``x · Wᵀ + bias``, its arguments checked.

    Attributes:
        how: the weight, the accuracy and the choices.
        rows: x as float32 ``[M, K]``.
        leading: the shape of x without its last dimension.
        vocab: V.
        bias: float32 ``[V]`` or None.
        device: as in `wgpu_q4.linear`.
    """

    how: How
    rows: NDArray[np.float32]
    leading: tuple[int, ...]
    vocab: int
    bias: NDArray[np.float32] | None
    device: Any


def check_product(
    x: object, weight: Q4Weight, bias: object, device: Any, accuracy: Accuracy
) -> Product:
    """Check the arguments of a product, which are those of `wgpu_q4.linear`, and its errors."""
    how = check_how(weight, accuracy, current_choices())
    refuse_gradient(x, "x")
    if is_torch(x):
        refuse_gradient(bias, "bias")
    values = check_floats(x, "x")
    check_shapes(weight, values.shape, None)
    kernel = how.choices.kernel
    rounds_x = accuracy != "exact" or (kernel is not None and kernel.rounds_x)
    if rounds_x and not np.isfinite(values).all():
        raise ValueError("x holds infinities or NaN, which cannot be rounded: use accuracy='exact'")
    added = None if bias is None else check_floats(bias, "bias")
    if added is not None:
        check_shapes(weight, values.shape, added.shape)
    vocab, embed_dim = weight.shape
    rows, leading = values.reshape(-1, embed_dim), values.shape[:-1]
    return Product(how, rows, leading, vocab, added, device)


def check_how(weight: Q4Weight, accuracy: Accuracy, choices: Choices) -> How:
    """Return the weight and the choices of a product; raise what `wgpu_q4.linear` raises."""
    check_weight(weight)
    check_option("accuracy", accuracy, _ACCURACIES)
    return How(weight, accuracy, choices)


def check_shapes(weight: Q4Weight, x: tuple[int, ...], bias: tuple[int, ...] | None) -> None:
    """Raise `ValueError` unless the shapes of x and of the bias, if there is one, fit a weight."""
    vocab, embed_dim = weight.shape
    if not x or x[-1] != embed_dim:
        raise ValueError(
            f"x must have shape [..., {embed_dim}] for a weight of {vocab} × {embed_dim}, "
            f"not {list(x)}"
        )
    if bias is not None and bias != (vocab,):
        raise ValueError(f"bias must have shape [{vocab}], not {list(bias)}")


def logits_of(product: Product, reader: str) -> NDArray[np.float32]:
    """Run a product and return its logits ``[M, V]``.

    Args:
        product: the product to compute.
        reader: the op, for `DeviceWeight.readers`.
    """
    result: NDArray[np.float32] = np.empty((len(product.rows), product.vocab), np.float32)
    _run(product, reader, None, 0, result)
    return result


def best_of(product: Product, reader: str, reduce: Reduce, kept: int) -> NDArray[np.uint32]:
    """Run a product and return the best of its logits: ``[M, kept, 2]``, their bits and ids.

    The logits stay on the device.

    Args:
        product: the product to compute.
        reader: the op, for `DeviceWeight.readers`.
        reduce: the reduction.
        kept: how many logits it keeps of each row.
    """
    result: NDArray[np.uint32] = np.empty((len(product.rows), kept, 2), np.uint32)
    _run(product, reader, reduce, kept, result)
    return result


def _run(
    product: Product, reader: str, reduce: Reduce | None, kept: int, result: NDArray[Any]
) -> None:
    """Fill ``result`` with the logits, or with the best of them if there is a ``reduce``."""
    if not result.size:
        return
    if is_several(product.device):
        _run_on_each(product, reader, reduce, kept, result)
        return
    context = context_for(product.device)
    with context.lock, context.guard, context.guard.busy:
        resident = context.weight(product.how.weight)
        resident.readers.add(reader)
        at_a_time = rows_at_a_time(context, resident, reduce, kept)
        for start in range(0, len(result), at_a_time):
            x, out = product.rows[start : start + at_a_time], result[start : start + at_a_time]
            work, several = context.workspace, len(resident.parts) > 1
            operands = Operands(
                *(work.scratch.input("x", x), len(x)),
                None
                if product.bias is None
                else work.scratch.input("bias", product.bias, in_ranges=several),
            )
            if reduce is None:
                last = work.scratch.result("linear", out.nbytes, in_ranges=several)
                steps = logits_steps(work, resident, product.how, operands, last)
            else:
                reduction = plan_of_reduction(context, resident, len(x), reduce, kept)
                entries = entries_kept(work, reduction)
                steps = best_steps(work, resident, product.how, operands, reduction, entries)
                last = entries["t_out"]
            context.run(steps, last, out)


def _run_on_each(
    product: Product, reader: str, reduce: Reduce | None, kept: int, result: NDArray[Any]
) -> None:
    """Fill ``result`` from several devices: side by side, or with the best of what each keeps."""

    def run_own(share: Share) -> NDArray[Any]:
        bias, how = product.bias, product.how._replace(weight=share.weight)
        own = product._replace(
            how=how, bias=None if bias is None else bias[share.columns], device=share.device
        )
        keeps = min(kept, len(share.rows))
        sizes = (len(share.rows),) if reduce is None else (keeps, 2)
        found = np.empty((len(result), *sizes), result.dtype)
        _run(own, reader, reduce, keeps, found)
        if reduce is not None:
            found[..., 1] += np.uint32(share.rows.start)
        return found

    found = np.concatenate(on_each(shares_of(product.how.weight, product.device), run_own), 1)
    if reduce is None:
        result[:] = found
    else:
        bits, ids = np.ascontiguousarray(found[..., 0]), found[..., 1].astype(np.int64)
        values, ids = best_of_all(bits.view(np.float32), ids, kept)
        result[..., 0], result[..., 1] = values.view(np.uint32), ids
