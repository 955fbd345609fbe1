"""Rows of the residual stream, gated linear units, and the end of a step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.decoder.shapes import Activation, Source, float_bits
from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape, fold
from wgpu_q4.kernels.options import Halves
from wgpu_q4.kernels.pieces import halves_suffix, scales_pieces, weight_pieces
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_INVOCATIONS = 256
_SAID: Mapping[Source, str] = {
    "embedding": "begun with an embedding",
    "add": "with a layer's part added",
    "add_normed": "with a layer's normalized part added",
}

ADVANCE = Shader("decoder_advance", ("decoder/advance",), "a decoder's step ends: the id is next")
"""Bindings: ``t_ids``, ``t_choice``, ``t_state``."""

CHOOSE_BEST = Shader(
    "decoder_choose_best",
    ("decoder/choose_best",),
    "a greedy step ends: the id of the largest logit is next",
)


def plan_choose_best(count: int, capacity: int) -> Dispatch:
    """Return the dispatch that ends a greedy step.

    Args:
        count: the entries that the head left.
        capacity: positions that the cache holds.
    """
    needs = {"t_ids": (capacity + 1) * 4, "t_in": count * 8, "t_state": 8}
    return Dispatch(CHOOSE_BEST, {"COUNT": count, "CAPACITY": capacity}, (1, 1, 1), needs)


@cache
def norm_shader(
    source: Source, scales: ScalesDtype = "float16", halves: Halves = "native"
) -> Shader:
    """Return the kernel that updates and normalizes rows of the residual stream.

    Args:
        source: what is done to a row first.
        scales: the dtype of the embedding's scales.
        halves: how they are converted.
    """
    embedding = (*scales_pieces(scales, halves), *weight_pieces("rows"))
    pieces = (
        *(embedding if source == "embedding" else ()),
        "shape/overrides",
        "decoder/state",
        "decoder/order",
        f"decoder/source_{source}",
        "decoder/norm_rows",
    )
    kind = f"_{scales}_scales" if source == "embedding" else ""
    return Shader(
        f"decoder_norm_{source}{kind}{halves_suffix(pieces)}",
        pieces,
        f"rows of a decoder's residual stream, {_SAID[source]}, and their norm",
    )


def plan_norm(
    source: Source,
    shape: MatrixShape,
    rows: int,
    epsilon: float,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    *,
    factor: float = 1.0,
    chunked: bool = False,
    last_row: bool = False,
    first_row: int = 0,
) -> Dispatch:
    """Return the dispatch that updates and normalizes up to ``rows`` rows of K columns.

    Args:
        source: what is done to a row first.
        shape: that of the embedding, or of a part of it.
        rows: the most rows there may be.
        epsilon: what is added to the mean of the squares.
        limits: the device's limits.
        half_support: what its half-precision functions do.
        factor: what embeddings are multiplied by.
        chunked: True for the order of x that `plan_gemv` reads.
        last_row: True to make the last row alone.
        first_row: of a part of the embedding: the row of the whole that is the first one there.
            The first part runs first, and makes zeros of other parts' rows.
    """
    shader = norm_shader(source, shape.scales, half_support.halves)
    if source != "embedding":
        shader = norm_shader(source)
    constants = {
        **shape.constants,
        "EPSILON": float_bits(epsilon),
        "CHUNKED": int(chunked),
        "LAST_ROW": int(last_row),
    }
    if source == "embedding":
        constants |= {"FACTOR": float_bits(factor)} | (
            {"FIRST_ROW": first_row} if first_row else {}
        )
    return Dispatch(shader, constants, fold(1 if last_row else rows, limits))


@cache
def glu_shader(activation: Activation) -> Shader:
    """Return the gated linear unit of many rows."""
    return Shader(
        f"decoder_glu_{activation}",
        ("decoder/state", f"decoder/{activation}", "decoder/glu_rows"),
        f"rows of a gated linear unit: {activation} of the gate, times up",
    )


def plan_glu(activation: Activation, width: int, rows: int, limits: Mapping[str, int]) -> Dispatch:
    """Return the dispatch of the gated linear unit of up to ``rows`` rows of ``width`` columns."""
    workgroups = -(-rows * width // 4 // _INVOCATIONS)
    return Dispatch(glu_shader(activation), {"WIDTH": width}, fold(workgroups, limits))
