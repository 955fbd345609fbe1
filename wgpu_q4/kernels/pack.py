"""The packing of rows into blocks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape, fold
from wgpu_q4.kernels.options import BLOCKS, Layout
from wgpu_q4.kernels.pieces import check_choice
from wgpu_q4.kernels.wgsl import Shader

_BLOCK_PAIRS_PER_WORKGROUP = 64


@cache
def pack_shader(target: Layout) -> Shader:
    """Return the packing of rows, linear convention, into blocks in a buffer or a texture.

    Raises:
        KernelError: ``target`` is no layout of blocks.
    """
    check_choice("target of packing", target, BLOCKS)
    return Shader(
        f"pack_q4_linear_weight_{target}",
        (
            "shape/overrides",
            "weight/rows",
            f"pack/target_{target.removeprefix('blocks_')}",
            "pack/pack_q4_linear_weight",
            "pack/grid_flat",
        ),
        f"rows of the weight to {target}",
    )


def plan_pack(shape: MatrixShape, layout: Layout, limits: Mapping[str, int]) -> Dispatch:
    """Return the dispatch that packs rows into blocks in ``layout``."""
    pairs = shape.embed_dim // 8 * -(-shape.vocab // 8)
    return Dispatch(
        pack_shader(layout),
        shape.constants,
        fold(-(-pairs // _BLOCK_PAIRS_PER_WORKGROUP), limits),
    )
