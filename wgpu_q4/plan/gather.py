"""The embedding, and the packing of rows into blocks."""

from __future__ import annotations

from collections.abc import Mapping

from wgpu_q4 import kernels
from wgpu_q4.kernels import Layout, OutputDtype, Storage
from wgpu_q4.plan.dispatch import MatrixShape, Plan, fold
from wgpu_q4.plan.traits import HalfSupport

_EMBEDDING_UNITS_PER_WORKGROUP = 256
_PACK_BLOCK_PAIRS_PER_WORKGROUP = 64


def plan_embedding(
    shape: MatrixShape,
    ids: int,
    layout: Layout,
    output: OutputDtype,
    storage: Storage,
    limits: Mapping[str, int],
    half_support: HalfSupport,
) -> Plan:
    """The embedding of ``ids`` ids (at least one)."""
    variant = kernels.embedding(layout, shape.scales, output, storage, half_support.halves)
    columns = 8 if "embedding/grid_octets" in variant.pieces else 4
    units = ids * (shape.embed_dim // columns)
    workgroups = fold(-(-units // _EMBEDDING_UNITS_PER_WORKGROUP), limits)
    return Plan(variant, shape.constants, workgroups)


def plan_pack(shape: MatrixShape, layout: Layout, limits: Mapping[str, int]) -> Plan:
    """Rows into blocks."""
    pairs = shape.embed_dim // 8 * -(-shape.vocab // 8)
    return Plan(
        kernels.pack_blocks(layout),
        shape.constants,
        fold(-(-pairs // _PACK_BLOCK_PAIRS_PER_WORKGROUP), limits),
    )
