"""Heads made ready for attention, and attention over the cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
def attention_shader(dtype: CacheDtype, capped: bool, half_support: HalfSupport) -> Shader:
    """Return the attention of many rows over the cache.

    Args:
        dtype: of the cache.
        capped: True if scores are capped softly.
        half_support: what the device's half-precision functions do.
    """
    pieces = (
        *(two_halves_pieces(half_support) if dtype == "float16" else ()),
        f"decoder/cache/read_{dtype}",
        "decoder/head_shape",
        "decoder/state",
        f"decoder/cap_{'soft' if capped else 'none'}",
        "decoder/order",
        "decoder/attention_whole",
        "decoder/attention",
    )
    words = "_capped" if capped else "", halves_suffix(pieces)
    return Shader(
        f"decoder_attention_{dtype}_cache{''.join(words)}",
        pieces,
        f"attention of many rows over a {dtype} cache{', scores capped' if capped else ''}",
    )


def plan_attention(
    shape: HeadShape,
    rows: int,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    *,
    window: int = 0,
    cap: float | None = None,
    software: bool = False,
) -> Dispatch:
    """Return the dispatch of attention for up to ``rows`` rows, whose heads are ready.

    Args:
        shape: the heads and their cache.
        rows: the most rows there may be.
        limits: the device's limits.
        half_support: what its half-precision functions do.
        window: positions that a row sees, itself included; 0 for all.
        cap: the number c of scores capped as c · tanh(x / c); None for none.
        software: True if the device runs on the processor.
    """
    shader = attention_shader(shape.cache, cap is not None, half_support)
    constants = {**shape.constants, "LANES": _lanes(software), "WINDOW": window, "CHUNKED": 0}
    if cap is not None:
        constants["SOFT_CAP"] = float_bits(cap)
    return Dispatch(shader, constants, fold(rows * shape.heads, limits))


@dataclass(frozen=True)
class TokenForm:
    """What the attention of one row is made of.

    Attributes:
        cache: the type of the cache's numbers.
        normed: True if each head is normalized first.
        capped: True if scores are capped softly.
        sliced: True if several workgroups share the positions of a head.
    """

    cache: CacheDtype
    normed: bool = False
    capped: bool = False
    sliced: bool = False


@cache
def token_attention_shader(form: TokenForm, half_support: HalfSupport) -> Shader:
    """Return the attention of one row, which makes its heads ready and fills the cache."""
    halves: tuple[str, ...] = ()
    if form.cache == "float16":
        halves = (f"half/{half_support.halves}", *two_halves_pieces(half_support))
    whole = ("decoder/order", "decoder/attention_whole")
    pieces = (
        *halves,
        f"decoder/cache/both_{form.cache}",
        "decoder/head_shape",
        "decoder/state",
        f"decoder/heads_{'normed' if form.normed else 'plain'}",
        f"decoder/cap_{'soft' if form.capped else 'none'}",
        *(("decoder/attention_slice",) if form.sliced else whole),
        "decoder/attention_token",
    )
    pieces = tuple(dict.fromkeys(pieces))
    words = [
        "_normed" if form.normed else "",
        "_capped" if form.capped else "",
        "_sliced" if form.sliced else "",
        halves_suffix(pieces),
        "_to_store" if {"half/integer", "decoder/two_halves_native"} <= set(pieces) else "",
    ]
    said = "a slice of the positions" if form.sliced else "all positions"
    return Shader(
        f"decoder_attention_token_{form.cache}_cache{''.join(words)}",
        pieces,
        f"attention of one row over {said} in a {form.cache} cache, which it fills",
    )


MERGE = Shader(
    "decoder_merge",
    ("decoder/head_shape", "decoder/state", "decoder/order", "decoder/merge"),
    "the slices of attention put together",
)


def plan_token_attention(
    shape: HeadShape,
    scale: float,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    *,
    epsilon: float | None = None,
    window: int = 0,
    cap: float | None = None,
    slices: int = 1,
    software: bool = False,
) -> tuple[Dispatch, ...]:
    """Return the dispatches of attention for one row: one, or slices and their merge.

    The result is in the order of x that `plan_gemv` reads.

    Args:
        shape: the heads and their cache.
        scale: what queries are multiplied by.
        limits: the device's limits.
        half_support: what its half-precision functions do.
        epsilon: what the heads' norm adds to the mean of the squares; None for no norm.
        window: positions that the row sees, itself included; 0 for all.
        cap: the number c of scores capped as c · tanh(x / c); None for none.
        slices: parts of the positions, each with a workgroup of its own.
        software: True if the device runs on the processor.
    """
    form = TokenForm(shape.cache, epsilon is not None, cap is not None, slices > 1)
    constants = {
        **shape.constants,
        "LANES": _lanes(software),
        "WINDOW": window,
        "WHOLE_TILES": int(not software),
        "SCALE": float_bits(scale),
    }
    if epsilon is not None:
        constants["EPSILON"] = float_bits(epsilon)
    if cap is not None:
        constants["SOFT_CAP"] = float_bits(cap)
    columns, head_bytes = shape.heads * shape.head_dim, shape.heads * slices * 4
    needs = {
        "t_in": shape.columns * 4,
        "t_rope": shape.capacity * shape.head_dim * 4,
        "t_keys": shape.cache_bytes,
        "t_values": shape.cache_bytes,
        "t_state": 8,
        "t_out": columns * slices * 4,
        **({"t_gain": 2 * shape.head_dim * 4} if epsilon is not None else {}),
        **({"t_out_weights": 2 * head_bytes} if slices > 1 else {}),
    }
    grid = fold(shape.heads * slices, limits)
    shader = token_attention_shader(form, half_support)
    if slices == 1:
        return (Dispatch(shader, {**constants, "CHUNKED": 1}, grid, needs),)
    merged = {**shape.constants, "SLICES": slices, "CHUNKED": 1}
    merge = Dispatch(MERGE, merged, fold(shape.heads, limits))
    return Dispatch(shader, {**constants, "SLICES": slices}, grid, needs), merge


def _lanes(software: bool) -> int:
    return _LANES_ON_PROCESSOR if software else _LANES


def _halves(shape: HeadShape, half_support: HalfSupport) -> Halves:
    return half_support.halves if shape.cache == "float16" else "native"
