"""Every shader of a decoder, and a dispatch of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, get_args

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.decoder.attention import plan_attention, plan_heads, plan_token_attention
from wgpu_q4.kernels.decoder.gemm import plan_gemm
from wgpu_q4.kernels.decoder.gemv import plan_gemv
from wgpu_q4.kernels.decoder.rows import ADVANCE, plan_choose_best, plan_glu, plan_norm
from wgpu_q4.kernels.decoder.shapes import (
    Activation,
    CacheDtype,
    HeadShape,
    Matrix,
    Source,
    WeightType,
)
from wgpu_q4.kernels.decoder.slices import plan_sums
from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_SUPPORTS = (
    HalfSupport(subnormals=True, rounding=True),
    HalfSupport(subnormals=True),
    HalfSupport(),
)
"""Halves converted by the built-in functions; only nibbles read as halves; neither."""

_WITH_ARITHMETIC = (
    HalfSupport(subnormals=True, rounding=True, arithmetic=True),
    HalfSupport(subnormals=True, arithmetic=True),
)

_LIMITS = {
    "max-compute-workgroup-storage-size": 16384,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroups-per-dimension": 65535,
}
"""What WebGPU promises everywhere."""

_ROWS = 32
_EPSILON = 1e-5


def decoder_shaders() -> tuple[Shader, ...]:
    """Return every shader of a decoder."""
    found = (*decoder_dispatches(_LIMITS), *optional_dispatches(_LIMITS))
    return tuple(dict.fromkeys(dispatch.shader for dispatch in found))


def optional_dispatches(
    limits: Mapping[str, int], hidden: int = 2048, vocab: int = 128256
) -> Iterator[Dispatch]:
    """Yield dispatches of every shader of a decoder that needs f16 arithmetic or subgroups."""
    supports = (*_SUPPORTS, *_WITH_ARITHMETIC)
    for support, software, subgroup in product(supports, (False, True), (0, 32)):
        products = (
            *_products(limits, support, hidden, software, subgroup),
            *_heads(limits, support, hidden, vocab, software, subgroup),
        )
        yield from (found for found in products if found.shader.features)


def decoder_dispatches(
    limits: Mapping[str, int], hidden: int = 2048, vocab: int = 128256
) -> Iterator[Dispatch]:
    """Yield dispatches in which every shader of a decoder occurs that needs no optional feature.

    Args:
        limits: a device's limits.
        hidden: columns of the residual stream, a multiple of 64.
        vocab: rows of the embedding.
    """
    for support, software in product(_SUPPORTS, (False, True)):
        yield from _rows(limits, support, hidden, vocab)
        yield from _attention(limits, support, hidden, software)
        yield from _products(limits, support, hidden, software)
        yield from _heads(limits, support, hidden, vocab, software)
    yield Dispatch(ADVANCE, {}, (1, 1, 1))
    yield plan_choose_best(4008, 4096)


def _rows(
    limits: Mapping[str, int], support: HalfSupport, hidden: int, vocab: int
) -> Iterator[Dispatch]:
    sources: tuple[Source, ...] = get_args(Source)
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    activations: tuple[Activation, ...] = get_args(Activation)
    for source, scales in product(sources, dtypes):
        shape = MatrixShape(vocab, hidden, 32, scales)
        yield plan_norm(source, shape, _ROWS, _EPSILON, limits, support)
        yield plan_norm(source, shape, _ROWS, _EPSILON, limits, support, chunked=True)
    for activation in activations:
        yield plan_glu(activation, 4 * hidden, _ROWS, limits)
    for bias in (False, True):
        yield plan_sums(hidden, _ROWS, 4, bias, limits)


def _attention(
    limits: Mapping[str, int], support: HalfSupport, hidden: int, software: bool
) -> Iterator[Dispatch]:
    caches: tuple[CacheDtype, ...] = get_args(CacheDtype)
    for cache in caches:
        shape = HeadShape(hidden // 64, max(1, hidden // 256), 64, 2048, cache)
        for epsilon in (None, _EPSILON):
            yield plan_heads(shape, _ROWS, 0.125, limits, support, epsilon)
        for cap in (None, 50.0):
            yield plan_attention(shape, _ROWS, limits, support, cap=cap, software=software)
        for epsilon, cap, slices in product((None, _EPSILON), (None, 50.0), (1, 4)):
            yield from plan_token_attention(
                *(shape, 0.125, limits, support),
                epsilon=epsilon,
                cap=cap,
                slices=slices,
                software=software,
            )


def _products(
    limits: Mapping[str, int],
    support: HalfSupport,
    hidden: int,
    software: bool,
    subgroup: int = 0,
) -> Iterator[Dispatch]:
    kind: dict[str, Any] = {"software": software, "subgroup": subgroup}
    square = MatrixShape(hidden, hidden, 32, "float16")
    wide = MatrixShape(8 * hidden, hidden, 32, "float16")
    activations: tuple[Activation, ...] = get_args(Activation)
    types: tuple[WeightType, ...] = get_args(WeightType)
    for type_ in types:
        matrix, wide_matrix = Matrix(square, type_), Matrix(wide, type_)
        yield plan_gemv(matrix, "add", limits, support, **kind).dispatch
        for squares, bias in product((0, 64), (False, True)):
            yield plan_gemv(
                *(matrix, "store", limits, support),
                squares=squares,
                epsilon=_EPSILON,
                bias=bias,
                **kind,
            ).dispatch
        for squares, activation in product((0, 64), activations):
            yield plan_gemv(
                *(wide_matrix, "glu", limits, support),
                squares=squares,
                epsilon=_EPSILON,
                activation=activation,
                **kind,
            ).dispatch
        for bias, rows in product((False, True), (32, 64, 128)):
            if type_ != "q4gsw":
                yield plan_gemm(matrix, rows, bias, limits, support, **kind).product


def _heads(
    limits: Mapping[str, int],
    support: HalfSupport,
    hidden: int,
    vocab: int,
    software: bool,
    subgroup: int = 0,
) -> Iterator[Dispatch]:
    kind: dict[str, Any] = {"software": software, "subgroup": subgroup}
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    for scales, squares, cap in product(dtypes, (0, 64), (None, 30.0)):
        matrix = Matrix(MatrixShape(vocab, hidden, 32, scales), "q4gsw")
        yield plan_gemv(
            *(matrix, "best", limits, support),
            squares=squares,
            epsilon=_EPSILON,
            cap=cap,
            **kind,
        ).dispatch
