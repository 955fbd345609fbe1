"""An example of a dispatch for every shader: the matrix of Llama 3.2 1B, within WebGPU's limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import get_args

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.convert import plan_convert
from wgpu_q4.kernels.decoder.catalogue import decoder_dispatches, optional_dispatches
from wgpu_q4.kernels.decoder.sampling import plan_sampling
from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape
from wgpu_q4.kernels.embedding import plan_embedding
from wgpu_q4.kernels.linear import LINEAR_KERNELS, plan_linear
from wgpu_q4.kernels.options import BLOCKS, Layout, OutputDtype, Storage
from wgpu_q4.kernels.pack import plan_pack
from wgpu_q4.kernels.probe import PROBE_HALF_ARITHMETIC, PROBE_HALVES, PROBE_SUBGROUPS
from wgpu_q4.kernels.reduction import Reduce, Results, plan_reduce
from wgpu_q4.kernels.traits import MATRIX_UNITS, HalfSupport
from wgpu_q4.kernels.transposed import plan_transposed

_LIMITS = {
    "max-storage-buffer-binding-size": 1 << 27,
    "max-compute-workgroup-storage-size": 16384,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroups-per-dimension": 65535,
}
"""What WebGPU promises everywhere."""

_WITH_MATRIX_UNITS = {**_LIMITS, "max-compute-workgroup-storage-size": 32768}
_SUPPORTS = (HalfSupport(subnormals=True, rounding=True), HalfSupport(subnormals=True))
"""Halves converted by the built-in functions, and by integers."""

_SUBGROUP = 32

_IDS = 2048
_REDUCTIONS: tuple[tuple[Reduce, int, Results], ...] = (
    ("argmax", 1, "ids"),
    ("top_k", 40, "values_and_ids"),
)


@dataclass(frozen=True)
class Example:
    """A dispatch, and what it computes.

    Attributes:
        of: the sizes, as ``V = 128256, K = 2048, G = 32, M = 1``.
        dispatch: the constants and the grid for them.
    """

    of: str
    dispatch: Dispatch


@cache
def examples() -> Mapping[str, Example]:
    """Return an example for every shader, by its name, with few rows of x if it is made for few."""
    found: dict[str, Example] = {}
    for example in _examples():
        found.setdefault(example.dispatch.shader.name, example)
    return found


def _examples() -> Iterator[Example]:
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    shapes = [MatrixShape(128256, 2048, 32, scales) for scales in dtypes]
    yield Example("16 pairs", Dispatch(PROBE_HALVES, {}, (1, 1, 1)))
    for shape, support in product(shapes, _SUPPORTS):
        yield from _lookups(shape, support)
        yield from _products(shape, support)
        transposed = plan_transposed((shape,), 1, _LIMITS, support)
        yield Example(f"{_sizes(shape)}, one row of y", transposed.products[0])
        if transposed.add is not None:
            yield Example(f"{_sizes(shape)}, one row of y", transposed.add)
    of = _sizes(shapes[0])
    for layout in BLOCKS:
        yield Example(of, plan_pack(shapes[0], layout, _LIMITS))
    yield from _reductions(shapes[0].vocab)
    for output, support in product(outputs, _SUPPORTS):
        yield Example("4096 numbers", plan_convert(4096, output, _LIMITS, support))
    yield Example("16 words", Dispatch(PROBE_HALF_ARITHMETIC, {}, (1, 1, 1)))
    yield Example("256 invocations", Dispatch(PROBE_SUBGROUPS, {}, (1, 1, 1)))
    for dispatch in (*decoder_dispatches(_LIMITS), *optional_dispatches(_LIMITS)):
        yield Example("the shape of Llama 3.2 1B", dispatch)
    for top_k in (40, None):
        for stage in plan_sampling(shapes[0].vocab, 1, top_k, True, _LIMITS).stages:
            yield Example("128256 logits in one row, with top-p", stage.dispatch)


def _reductions(vocab: int) -> Iterator[Example]:
    """Yield those of a whole vocabulary, and those of so few logits that one dispatch will do."""
    for (reduce, kept, apart), columns in product(_REDUCTIONS, (vocab, 1000)):
        results: tuple[Results, ...] = ("entries", apart)
        for result in results:
            for stage in plan_reduce((columns,), 1, reduce, kept, _LIMITS, result).stages:
                of = f"{stage.constants['COLUMNS']} entries in one row, {kept} kept"
                yield Example(of, stage)


def _lookups(shape: MatrixShape, support: HalfSupport) -> Iterator[Example]:
    layouts: tuple[Layout, ...] = get_args(Layout)
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    storages: tuple[Storage, ...] = get_args(Storage)
    for layout, output, storage in product(layouts, outputs, storages):
        plan = plan_embedding(shape, _IDS, layout, output, storage, _LIMITS, support)
        yield Example(f"{_sizes(shape)}, {_IDS} ids", plan)
    half = MatrixShape(shape.vocab // 2, shape.embed_dim, shape.group_size, shape.scales)
    for layout, output in product(layouts, outputs):
        plan = plan_embedding(half, _IDS, layout, output, "buffer", _LIMITS, support, of_part=True)
        yield Example(f"{_sizes(half)}, a part of {shape.vocab} rows, {_IDS} ids", plan)


def _products(shape: MatrixShape, support: HalfSupport) -> Iterator[Example]:
    for kernel, bias, rows in product(LINEAR_KERNELS.values(), (False, True), (1, 2, 40, 500)):
        limits = _WITH_MATRIX_UNITS if kernel.needs_matrix_units else _LIMITS
        if kernel.most_rows is not None and rows > kernel.most_rows:
            continue
        for layout in kernel.layouts:
            plan = plan_linear(
                *(shape, rows, layout, bias, limits),
                replace(support, arithmetic=kernel.needs_arithmetic),
                kernel.name,
                matrix_units=[MATRIX_UNITS],
                subgroup=_SUBGROUP,
            )
            of = f"{_sizes(shape)}, M = {rows}"
            yield Example(of, plan.product)
            if plan.preparation is not None:
                yield Example(f"{of}, M' = {plan.padded_rows}", plan.preparation)


def _sizes(shape: MatrixShape) -> str:
    return f"V = {shape.vocab}, K = {shape.embed_dim}, G = {shape.group_size}"
