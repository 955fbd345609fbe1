"""Checks of ``linear`` and what follows from it, against the bounds of `wgpu_q4.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import Q4Weight, argmax, forced, linear, reference, top_k
from wgpu_q4.check.finding import Check, NotHereError, Outcome
from wgpu_q4.device import Context
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import LINEAR_KERNELS, Accuracy, Layout
from wgpu_q4.ops import linear_transposed

Shape = tuple[int, int, int]

# V is prime; three chunks of 32 columns leave a lane of four idle.
_SHORT: Shape = (101, 96, 32)
# Lanes take several turns along a row, a group lies in several lanes.
_LONG: Shape = (131, 2048, 128)
# The last strip of blocks is partly padding; K is neither 16 nor 32 times anything.
_ODD: Shape = (13, 24, 8)
# More logits than a workgroup reduces at once.
_TALL: Shape = (3001, 96, 32)

# Whether the matrix is long, its scales, rows of x, a bias.  A GEMV takes up to 8 rows at a time;
# a GEMM takes tiles of 32, 64 or 128 rows.  Each line is one more pipeline for each kernel.
_GEMV: tuple[tuple[bool, ScalesDtype, int, bool], ...] = (
    (True, "float16", 1, False),
    (True, "float32", 3, True),
    (False, "float16", 1, False),
    (False, "float32", 9, True),
)
_GEMM: tuple[tuple[bool, ScalesDtype, int, bool], ...] = (
    (True, "float16", 70, True),
    (True, "float32", 5, True),
    (False, "float16", 70, False),
    (False, "float32", 40, False),
)

_BITS = {"exact": None, "fast": 16, "int8": 8}
"""Of the integers to which the kernel chosen for an accuracy may round x."""


def product(
    shape: Shape,
    scales: ScalesDtype,
    rows: int,
    bias: bool,
    layout: Layout,
    kernel: str | None = None,
    accuracy: Accuracy = "exact",
) -> Check:
    """Return the check of ``linear`` with a kernel, or with the one chosen for an accuracy."""

    def run(context: Context) -> Outcome:
        weight, x = _weight(shape, scales), _x(rows, shape[1])
        added = _bias(shape[0]) if bias else None
        try:
            with forced(layout=layout, kernel=kernel):
                found = linear(x, weight, added, context.device, accuracy=accuracy)
        except ValueError as error:  # the plan refuses the kernel
            raise NotHereError(str(error)) from error
        bits = LINEAR_KERNELS[kernel].integer_bits if kernel else _BITS[accuracy]
        bound = reference.linear_bound(x, weight, added, bits)
        if kernel == "gemm_matrix" or (kernel is None and accuracy != "exact"):
            # Both factors may have been rounded to half precision, or x to integers.
            halves = reference.matrix_units_bound(x, weight, added)
            bound = halves if kernel else np.maximum(bound, halves)
        return compare(found, reference.linear(x, weight, added), bound)

    how = f"{kernel or accuracy}, {layout}, {scales} scales"
    return Check("linear", f"linear, {how}, {_size(shape)}, {rows} rows{', bias' * bias}", run)


def best(
    shape: Shape, rows: int, k: int | None = None, ties: bool = False, nan: bool = False
) -> Check:
    """Return the check of ``argmax`` (``k`` is None) or ``top_k``.

    Args:
        shape: V, K, G.
        rows: the rows of x.
        k: how many logits are kept, or None.
        ties: True for a matrix of zeros: all logits of a row are equal, so the lowest ids win.
        nan: True for a bias with one NaN, which counts as the largest logit.
    """

    def run(context: Context) -> Outcome:
        weight, x, bias = _weight(shape, "float16"), _x(rows, shape[1]), _bias(shape[0])
        if ties:
            weight, bias = Q4Weight(weight.packed, 0 * weight.scales), 0 * bias
        if nan:
            bias[shape[0] // 2] = np.nan
        exact = reference.linear(x, weight, bias)
        bound = reference.linear_bound(x, weight, bias)
        if k is None:
            ids, values = argmax(x, weight, bias, context.device)[:, None], None
        else:
            values, ids = top_k(x, weight, k, bias, context.device)
        wrong = wrong_ids(ids, exact, bound, ties, nan)
        if wrong or values is None:
            return Outcome(wrong)
        return compare(values, *(np.take_along_axis(all_, ids, 1) for all_ in (exact, bound)))

    op, name = ("argmax", "argmax") if k is None else ("top_k", f"top_k of {k}")
    special = ", equal logits" * ties + ", a NaN" * nan
    return Check(op, f"{name}, {_size(shape)}, {rows} rows{special}", run)


def wrong_ids(
    ids: NDArray[np.int64],
    exact: NDArray[np.float64],
    bound: NDArray[np.float64],
    ties: bool = False,
    nan: bool = False,
) -> str:
    """Return what is wrong with the ids ``[rows, k]`` of logits, or an empty string."""
    vocab = exact.shape[1]
    if ((ids < 0) | (ids >= vocab)).any():
        return f"an id is outside the vocabulary of {vocab}: {ids.min()} to {ids.max()}"
    if ties and (ids != np.arange(ids.shape[1])).any():
        return f"equal logits must give the lowest ids, not {ids[0, :8].tolist()}"
    if nan and (ids[:, 0] != vocab // 2).any():
        return f"the NaN at {vocab // 2} must come first, not {ids[:, 0].tolist()[:8]}"
    # Each logit may be off by its bound, so only a larger gap proves the order wrong.
    least, most = (np.nan_to_num(exact + off, nan=np.inf) for off in (-bound, bound))
    for row, kept in enumerate(ids):
        if len(np.unique(kept)) != len(kept):
            return f"row {row} has an id twice"
        low = most[row, kept].min()
        high = np.delete(least[row], kept).max(initial=-np.inf)
        if low < high:
            return f"row {row} leaves out a logit of at least {high:.9g} for one of {low:.9g}"
    return ""


def transposed(shape: Shape, scales: ScalesDtype, rows: int) -> Check:
    """Return the check of ``linear_transposed``."""

    def run(context: Context) -> Outcome:
        weight, y = _weight(shape, scales), _x(rows, shape[0])
        found = linear_transposed(y, weight, context.device)
        bound = reference.linear_transposed_bound(y, weight)
        return compare(found, reference.linear_transposed(y, weight), bound)

    title = f"linear_transposed, {scales} scales, {_size(shape)}, {rows} rows"
    return Check("linear_transposed", title, run)


def _size(shape: Shape) -> str:
    vocab, embed_dim, group_size = shape
    return f"[{vocab},{embed_dim}] g{group_size}"


def products() -> Iterator[Check]:
    """Yield the checks: each kernel in each layout, the chosen kernels, and the reductions."""
    for layout in get_args(Layout):
        for name, kernel in LINEAR_KERNELS.items():
            if layout not in kernel.layouts:
                continue
            short = _ODD if kernel.multiple == 8 else _SHORT
            for long, scales, rows, bias in _GEMM if name.startswith("gemm") else _GEMV:
                few = rows if kernel.most_rows is None else min(rows, kernel.most_rows)
                yield product(_LONG if long else short, scales, few, bias, layout, name)
    for accuracy in get_args(Accuracy):
        for rows in (1, 70):
            yield product(_LONG, "float16", rows, False, "rows", accuracy=accuracy)
    # One part of the rows of the weight, and several.
    for shape in (_ODD, _TALL):
        for scales in get_args(ScalesDtype):
            yield transposed(shape, scales, 5)
    for k in (None, 1, 40, 1000):
        yield best(_TALL, 5, k)
    for k in (None, 40):
        yield best(_LONG, 1, k)
        yield best(_TALL, 2, k, ties=True)
        yield best(_TALL, 2, k, nan=True)


def compare(found: NDArray[Any], exact: NDArray[np.float64], bound: NDArray[np.float64]) -> Outcome:
    """Return how a result compares with the exact one, each value of which has its bound."""
    if found.shape != exact.shape:
        return Outcome(f"the result has shape {found.shape}, not {exact.shape}")
    both_nan = np.isnan(exact) & np.isnan(found)
    errors = np.where(both_nan, 0, np.abs(found.astype(np.float64) - exact))
    # A NaN on one side only is no agreement; a bound of 0 allows no error.
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(errors == 0, 0, errors / bound)
    shares = np.nan_to_num(shares, nan=np.inf)
    place = np.unravel_index(int(shares.argmax()), shares.shape)
    share, beyond = float(shares[place]), int((shares > 1).sum())
    if not beyond:
        return Outcome(share=share)
    return Outcome(
        f"{beyond} of {shares.size} values are beyond the bound; the worst, at "
        f"{[int(axis) for axis in place]}, is {found[place]:.9g}, not {exact[place]:.9g} ± "
        f"{bound[place]:.2g}",
        share=share if np.isfinite(share) else None,
    )


@lru_cache(maxsize=4)
def _weight(shape: Shape, scales: ScalesDtype) -> Q4Weight:
    vocab, embed_dim, group_size = shape
    random = np.random.default_rng([1, *shape])
    packed = random.integers(0, 256, (vocab, embed_dim // 2), np.uint8)
    factors = random.uniform(0.5, 2, (vocab, embed_dim // group_size))
    factors *= random.choice([-0.01, 0.01], factors.shape)
    return Q4Weight(packed, factors.astype(scales))


def _x(rows: int, embed_dim: int) -> NDArray[np.float32]:
    """Return random activations whose rows differ in size."""
    random = np.random.default_rng(2)
    x = random.standard_normal((rows, embed_dim)) * np.exp2(random.uniform(-6, 6, (rows, 1)))
    return x.astype(np.float32)


def _bias(vocab: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal(vocab).astype(np.float32)
