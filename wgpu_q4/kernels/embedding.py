"""The embedding: rows of the matrix by id."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import get_args

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape, fold
from wgpu_q4.kernels.options import Halves, Layout, OutputDtype, Storage
from wgpu_q4.kernels.pieces import check_choice, halves_suffix, scales_pieces, weight_pieces
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_VECTORS_PER_WORKGROUP = 256


@cache
def embedding_shader(
    layout: Layout,
    scales: ScalesDtype,
    output: OutputDtype = "float32",
    storage: Storage = "buffer",
    halves: Halves = "native",
    of_part: bool = False,
) -> Shader:
    """Return the lookup of rows by id; ids and result are both in buffers or both in 3-D textures.

    Args:
        layout, scales: of the weight.
        output: the dtype of the result.
        storage: where ids and result are.
        halves: how half-precision numbers are converted.
        of_part: True for a weight that is one part of the matrix: the lookup leaves alone what the
            ids of other parts get.  Ids and result are in buffers then.

    Raises:
        KernelError: there is no such layout, dtype or storage.
    """
    check_choice("storage", storage, ("buffer",) if of_part else get_args(Storage))
    check_choice("dtype of the result", output, get_args(OutputDtype))
    half = "half" if output == "float16" else "float"
    where = "part" if of_part else storage
    result, grid = f"embedding/output_{where}_{half}", "embedding/vectors_of_four"
    if (storage, output) == ("buffer", "float16"):
        result, grid = f"embedding/output_{where}_half_wide", "embedding/vectors_of_eight"
    pieces = (
        *scales_pieces(scales, halves),
        *((f"half/{halves}",) if output == "float16" else ()),
        "shape/overrides",
        *weight_pieces(layout),
        f"embedding/place_{storage}",
        f"embedding/indices_{where}",
        result,
        "embedding/embedding_q4gsw",
        "embedding/grid_flat",
        grid,
    )
    return Shader(
        f"embedding_q4gsw_{layout}_{scales}_scales_{where}_{half}{halves_suffix(pieces)}",
        tuple(dict.fromkeys(pieces)),
        f"rows of {'a part' if of_part else 'the matrix'} by id: weight in {layout}, {scales} "
        f"scales, {output} result in {'a buffer' if storage == 'buffer' else 'a texture'}",
    )


def plan_embedding(
    shape: MatrixShape,
    ids: int,
    layout: Layout,
    output: OutputDtype,
    storage: Storage,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    of_part: bool = False,
    grouped: bool = False,
) -> Dispatch:
    """Return the dispatch that looks ``ids`` ids (at least one) up.

    ``shape`` is that of the part if ``of_part`` (see `embedding_shader`), and ``grouped`` says that
    all ids are of that part.
    """
    shader = embedding_shader(layout, shape.scales, output, storage, half_support.halves, of_part)
    columns = 8 if "embedding/vectors_of_eight" in shader.pieces else 4
    vectors = ids * (shape.embed_dim // columns)
    workgroups = fold(-(-vectors // _VECTORS_PER_WORKGROUP), limits)
    constants = {**shape.constants, "GROUPED": 1} if grouped else shape.constants
    return Dispatch(shader, constants, workgroups)
