"""Heads made ready for attention, and attention over the cache."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from wgpu_q4.kernels.decoder.shapes import CacheDtype, HeadShape, float_bits, two_halves_pieces
from wgpu_q4.kernels.dispatch import Dispatch, fold
from wgpu_q4.kernels.options import Halves
from wgpu_q4.kernels.pieces import halves_suffix
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_LANES = 128
_LANES_ON_PROCESSOR = 64


@cache
def heads_shader(normed: bool, dtype: CacheDtype, halves: Halves = "native") -> Shader:
    """Return the kernel that rotates queries and keys and fills the cache.

    Args:
        normed: True if each head is normalized first.
        dtype: of the cache.
        halves: how half-precision numbers are converted.
    """
    kind = "normed" if normed else "plain"
    pieces = (
        *((f"half/{halves}",) if dtype == "float16" else ()),
        f"decoder/cache/write_{dtype}",
        "decoder/head_shape",
        "decoder/state",
        f"decoder/heads_{kind}",
        "decoder/heads",
    )
    name = f"decoder_heads_{kind}_{dtype}_cache{halves_suffix(pieces)}"
    said = "normalized and " if normed else ""
    return Shader(name, pieces, f"queries and keys {said}rotated, {dtype} cache filled")


def plan_heads(
    shape: HeadShape,
    rows: int,
    scale: float,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    epsilon: float | None = None,
) -> Dispatch:
    """Return the dispatch that makes the heads of up to ``rows`` rows ready.

    Args:
        shape: the heads and their cache.
        rows: the most rows there may be.
        scale: what queries are multiplied by.
        limits: the device's limits.
        half_support: what its half-precision functions do.
        epsilon: what the heads' norm adds to the mean of the squares; None for no norm.
    """
    shader = heads_shader(epsilon is not None, shape.cache, _halves(shape, half_support))
    constants = {**shape.constants, "SCALE": float_bits(scale)}
    if epsilon is not None:
        constants["EPSILON"] = float_bits(epsilon)
    workgroups = rows * (shape.heads + 2 * shape.kv_heads)
    return Dispatch(shader, constants, fold(workgroups, limits))


@cache
def attention_shader(
    dtype: CacheDtype, capped: bool, sliced: bool, half_support: HalfSupport
) -> Shader:
    """Return the attention of one query head over the cache.

    Args:
        dtype: of the cache.
        capped: True if scores are capped softly.
        sliced: True if several workgroups share the positions.
        half_support: what the device's half-precision functions do.
    """
    pieces = (
        *(two_halves_pieces(half_support) if dtype == "float16" else ()),
        f"decoder/cache/read_{dtype}",
        "decoder/head_shape",
        "decoder/state",
        f"decoder/cap_{'soft' if capped else 'none'}",
        *(("decoder/attention_slice",) if sliced else ("decoder/order", "decoder/attention_whole")),
        "decoder/attention",
    )
    words = "_capped" if capped else "", "_sliced" if sliced else "", halves_suffix(pieces)
    said = "a slice of the" if sliced else "the"
    return Shader(
        f"decoder_attention_{dtype}_cache{''.join(words)}",
        pieces,
        f"attention over {said} positions in a {dtype} cache{', scores capped' if capped else ''}",
    )


MERGE = Shader(
    "decoder_merge",
    ("decoder/head_shape", "decoder/state", "decoder/order", "decoder/merge"),
    "the slices of attention put together",
)


def plan_attention(
    shape: HeadShape,
    rows: int,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    *,
    window: int = 0,
    cap: float | None = None,
    slices: int = 1,
    chunked: bool = False,
    software: bool = False,
) -> tuple[Dispatch, ...]:
    """Return the dispatches of attention for up to ``rows`` rows: one, or slices and their merge.

    Args:
        shape: the heads and their cache.
        rows: the most rows there may be.
        limits: the device's limits.
        half_support: what its half-precision functions do.
        window: positions that a row sees, itself included; 0 for all.
        cap: the number c of scores capped as c · tanh(x / c); None for none.
        slices: parts of the positions, each with a workgroup of its own.
        chunked: True for the order of x that `plan_gemv` reads.
        software: True if the device runs on the processor.
    """
    shader = attention_shader(shape.cache, cap is not None, slices > 1, half_support)
    constants = {
        **shape.constants,
        "LANES": _LANES_ON_PROCESSOR if software else _LANES,
        "WINDOW": window,
    }
    if cap is not None:
        constants["SOFT_CAP"] = float_bits(cap)
    grid = fold(rows * shape.heads * slices, limits)
    if slices == 1:
        constants["CHUNKED"] = int(chunked)
        return (Dispatch(shader, constants, grid),)
    constants["SLICES"] = slices
    merged = {**shape.constants, "SLICES": slices, "CHUNKED": int(chunked)}
    merge = Dispatch(MERGE, merged, fold(rows * shape.heads, limits))
    return Dispatch(shader, constants, grid), merge


def _halves(shape: HeadShape, half_support: HalfSupport) -> Halves:
    return half_support.halves if shape.cache == "float16" else "native"
