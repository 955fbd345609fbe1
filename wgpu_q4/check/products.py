"""Checks of ``linear`` and what follows from it, against the bounds of `wgpu_q4.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import Q4Weight, argmax, forced, linear, reference, top_k
from wgpu_q4.check.finding import NotHereError, Outcome
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


@dataclass(frozen=True)
class Product:
    """``linear`` with one kernel, or with the one that is chosen for an accuracy.

    Attributes:
        shape: V, K, G.
        scales: the dtype of the scales.
        rows: the rows of x.
        bias: True to add a bias.
        layout: of the weight.
        kernel: its name, or None.
        accuracy: where ``kernel`` is None.
    """

    shape: Shape
    scales: ScalesDtype
    rows: int
    bias: bool
    layout: Layout
    kernel: str | None = None
    accuracy: Accuracy = "exact"

    @property
    def op(self) -> str:
        """Return ``"linear"``."""
        return "linear"

    @property
    def title(self) -> str:
        """Return one line that no other check has."""
        vocab, embed_dim, group_size = self.shape
        return (
            f"linear, {self.kernel or self.accuracy}, {self.layout}, {self.scales} scales, "
            f"[{vocab},{embed_dim}] g{group_size}, {self.rows} rows{', bias' * self.bias}"
        )

    def run(self, context: Context) -> Outcome:
        """Compute the product and compare it.

        Raises:
            NotHereError: the device does not have the kernel.
        """
        weight, x = _weight(self.shape, self.scales), _x(self.rows, self.shape[1])
        bias = _bias(self.shape[0]) if self.bias else None
        try:
            with forced(layout=self.layout, kernel=self.kernel):
                found = linear(*(x, weight, bias, context.device), accuracy=self.accuracy)
        except ValueError as error:  # the plan refuses the kernel
            raise NotHereError(str(error)) from error
        exact = reference.linear(x, weight, bias)
        return _compare(found, exact, self._bound(x, weight, bias))

    def _bound(
        self, x: NDArray[Any], weight: Q4Weight, bias: NDArray[Any] | None
    ) -> NDArray[np.float64]:
        if self.kernel == "gemm_matrix":
            return reference.matrix_units_bound(x, weight, bias)
        if self.kernel is not None:
            return reference.linear_bound(x, weight, bias, LINEAR_KERNELS[self.kernel].integer_bits)
        if self.accuracy == "exact":
            return reference.linear_bound(x, weight, bias)
        # The kernel that is chosen may round x to integers, or both factors to half precision.
        bits = {"fast": 16, "int8": 8}[self.accuracy]
        return np.maximum(
            reference.linear_bound(x, weight, bias, bits),
            reference.matrix_units_bound(x, weight, bias),
        )


@dataclass(frozen=True)
class Best:
    """``argmax`` (``k`` is None) or ``top_k``.

    Attributes:
        shape: V, K, G.
        rows: the rows of x.
        k: how many logits are kept, or None.
        ties: True for a matrix of zeros: all logits of a row are equal, so the lowest ids win.
        nan: True for a bias with one NaN, which counts as the largest logit.
    """

    shape: Shape
    rows: int
    k: int | None = None
    ties: bool = False
    nan: bool = False

    @property
    def op(self) -> str:
        """Return the name of the function."""
        return "argmax" if self.k is None else "top_k"

    @property
    def title(self) -> str:
        """Return one line that no other check has."""
        vocab, embed_dim, group_size = self.shape
        return (
            f"{self.op}{'' if self.k is None else f' of {self.k}'}, [{vocab},{embed_dim}] "
            f"g{group_size}, {self.rows} rows{', equal logits' * self.ties}{', a NaN' * self.nan}"
        )

    def run(self, context: Context) -> Outcome:
        """Reduce the logits on the device and compare ids and values."""
        weight, x = _weight(self.shape, "float16"), _x(self.rows, self.shape[1])
        bias = _bias(self.shape[0])
        if self.ties:
            weight, bias = Q4Weight(weight.packed, 0 * weight.scales), 0 * bias
        if self.nan:
            bias[self.shape[0] // 2] = np.nan
        exact = reference.linear(x, weight, bias)
        bound = reference.linear_bound(x, weight, bias)
        if self.k is None:
            ids = argmax(x, weight, bias, context.device)[:, None]
            values = None
        else:
            values, ids = top_k(x, weight, self.k, bias, context.device)
        wrong = self._wrong_ids(ids, exact, bound)
        if wrong or values is None:
            return Outcome(wrong)
        there = np.take_along_axis(exact, ids, 1), np.take_along_axis(bound, ids, 1)
        return _compare(values, *there)

    def _wrong_ids(
        self, ids: NDArray[np.int64], exact: NDArray[np.float64], bound: NDArray[np.float64]
    ) -> str:
        """Return what is wrong with the ids ``[rows, k]``, or an empty string."""
        vocab = self.shape[0]
        if ((ids < 0) | (ids >= vocab)).any():
            return f"an id is outside the vocabulary of {vocab}: {ids.min()} to {ids.max()}"
        if self.ties and (ids != np.arange(ids.shape[1])).any():
            return f"equal logits must give the lowest ids, not {ids[0, :8].tolist()}"
        if self.nan and (ids[:, 0] != vocab // 2).any():
            return f"the NaN at {vocab // 2} must come first, not {ids[:, 0].tolist()[:8]}"
        for row, kept in enumerate(ids):
            if len(np.unique(kept)) != len(kept):
                return f"row {row} has an id twice"
            others = np.setdiff1d(np.arange(vocab), kept)
            # Each logit may be off by its bound, so only a larger gap proves the order wrong.
            low = np.nan_to_num(exact[row, kept] + bound[row, kept], nan=np.inf).min()
            high = np.nan_to_num(exact[row, others] - bound[row, others], nan=np.inf).max(
                initial=-np.inf
            )
            if low < high:
                return f"row {row} leaves out a logit of at least {high:.9g} for one of {low:.9g}"
        return ""


@dataclass(frozen=True)
class Transposed:
    """``linear_transposed``.

    Attributes:
        shape: V, K, G.
        scales: the dtype of the scales.
        rows: the rows of y.
    """

    shape: Shape
    scales: ScalesDtype
    rows: int

    @property
    def op(self) -> str:
        """Return ``"linear_transposed"``."""
        return "linear_transposed"

    @property
    def title(self) -> str:
        """Return one line that no other check has."""
        vocab, embed_dim, group_size = self.shape
        shape = f"[{vocab},{embed_dim}] g{group_size}"
        return f"linear_transposed, {self.scales} scales, {shape}, {self.rows} rows"

    def run(self, context: Context) -> Outcome:
        """Compute the product and compare it."""
        weight, y = _weight(self.shape, self.scales), _x(self.rows, self.shape[0])
        found = linear_transposed(y, weight, context.device)
        bound = reference.linear_transposed_bound(y, weight)
        return _compare(found, reference.linear_transposed(y, weight), bound)


def products() -> Iterator[Product | Best | Transposed]:
    """Yield the checks: each kernel in each layout, the chosen kernels, and the reductions."""
    for layout in get_args(Layout):
        for name, kernel in LINEAR_KERNELS.items():
            if layout not in kernel.layouts:
                continue
            short = _ODD if kernel.multiple == 8 else _SHORT
            for long, scales, rows, bias in _GEMM if name.startswith("gemm") else _GEMV:
                yield Product(_LONG if long else short, scales, rows, bias, layout, name)
    for accuracy in get_args(Accuracy):
        for rows in (1, 70):
            yield Product(_LONG, "float16", rows, False, "rows", accuracy=accuracy)
    # One part of the rows of the weight, and several.
    for shape in (_ODD, _TALL):
        for scales in get_args(ScalesDtype):
            yield Transposed(shape, scales, 5)
    for k in (None, 1, 40, 1000):
        yield Best(_TALL, 5, k)
    for k in (None, 40):
        yield Best(_LONG, 1, k)
        yield Best(_TALL, 2, k, ties=True)
        yield Best(_TALL, 2, k, nan=True)


def _compare(
    found: NDArray[Any], exact: NDArray[np.float64], bound: NDArray[np.float64]
) -> Outcome:
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
