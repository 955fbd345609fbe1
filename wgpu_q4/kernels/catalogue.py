"""All shaders of this package."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import get_args

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels.embedding import embedding_shader
from wgpu_q4.kernels.linear import (
    MatrixTile,
    halve_x_shader,
    linear_kernels,
    linear_shader,
    matrix_shader,
    preparation_shader,
)
from wgpu_q4.kernels.options import Layout, OutputDtype, Storage
from wgpu_q4.kernels.pack import pack_shader
from wgpu_q4.kernels.pieces import ways_to_convert
from wgpu_q4.kernels.probe import PROBE_HALVES
from wgpu_q4.kernels.reduction import Entries, Reduce, reduction_shader
from wgpu_q4.kernels.wgsl import Shader


def all_shaders() -> Iterator[Shader]:
    """Every shader that this package can run on any device."""
    layouts: tuple[Layout, ...] = get_args(Layout)
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
    storages: tuple[Storage, ...] = get_args(Storage)
    for layout, scales, output, storage in product(layouts, dtypes, outputs, storages):
        for halves in ways_to_convert("float16" in (scales, output)):
            yield embedding_shader(layout, scales, output, storage, halves)
    yield pack_shader("blocks_buffer")
    yield pack_shader("blocks_texture2d")
    yield PROBE_HALVES
    yield preparation_shader("transpose_x", "rows")
    for order in ("rows", "blocks_buffer"):
        yield preparation_shader("quantize_x", order)
        yield preparation_shader("quantize_columns", order)
    for reduce, entries in product(get_args(Reduce), get_args(Entries)):
        yield reduction_shader(reduce, entries)
    for layout, scales, bias in product(layouts, dtypes, (False, True)):
        names = (name for name in linear_kernels(layout) if name != "gemm_matrix")
        for name, halves in product(names, ways_to_convert(scales == "float16")):
            yield linear_shader(name, layout, scales, bias, halves)
            if name in ("gemv_int16", "gemv_int8"):
                yield linear_shader(name, layout, scales, bias, halves, prepared=True)


def matrix_shaders() -> Iterator[Shader]:
    """Those for devices with matrix units, and the one that prepares x for them."""
    yield from map(halve_x_shader, ways_to_convert(True))
    tiles: tuple[MatrixTile, ...] = get_args(MatrixTile)
    layouts: tuple[Layout, ...] = ("rows", "blocks_buffer")
    dtypes: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
    for tile, layout, scales, bias in product(tiles, layouts, dtypes, (False, True)):
        for halves in ways_to_convert(scales == "float16"):
            yield matrix_shader(tile, layout, scales, bias, halves)
