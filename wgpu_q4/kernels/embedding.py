"""The embedding: rows of the matrix by id."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape, fold
from wgpu_q4.kernels.options import Halves, Layout, OutputDtype, Storage
from wgpu_q4.kernels.pieces import halves_suffix, scales_pieces, weight_pieces
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_UNITS_PER_WORKGROUP = 256


@cache
def embedding_shader(
    layout: Layout,
    scales: ScalesDtype,
    output: OutputDtype = "float32",
    storage: Storage = "buffer",
    halves: Halves = "native",
) -> Shader:
    """Rows of the matrix by id; ids and result both in buffers or both in 3-D textures."""
    half = "half" if output == "float16" else "float"
    result, grid = f"embedding/output_{storage}_{half}", "embedding/grid_quads"
    if (storage, output) == ("buffer", "float16"):
        result, grid = "embedding/output_buffer_half_wide", "embedding/grid_octets"
    pieces = (
        *scales_pieces(scales, halves),
        *((f"half/{halves}",) if output == "float16" else ()),
        "shape/overrides",
        *weight_pieces(layout),
        f"embedding/place_{storage}",
        f"embedding/indices_{storage}",
        result,
        "embedding/embedding_q4gsw",
        "embedding/grid_flat",
        grid,
    )
    return Shader(
        f"embedding_q4gsw_{layout}_{scales}_scales_{storage}_{half}{halves_suffix(pieces)}",
        tuple(dict.fromkeys(pieces)),
    )


def plan_embedding(
    shape: MatrixShape,
    ids: int,
    layout: Layout,
    output: OutputDtype,
    storage: Storage,
    limits: Mapping[str, int],
    half_support: HalfSupport,
) -> Dispatch:
    """The embedding of ``ids`` ids (at least one)."""
    shader = embedding_shader(layout, shape.scales, output, storage, half_support.halves)
    columns = 8 if "embedding/grid_octets" in shader.pieces else 4
    units = ids * (shape.embed_dim // columns)
    workgroups = fold(-(-units // _UNITS_PER_WORKGROUP), limits)
    return Dispatch(shader, shape.constants, workgroups)
