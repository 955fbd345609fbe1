"""What the tests of plans share: devices' limits, shapes, and the jobs that kernels can do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import prod
from typing import get_args

from wgpu_q4.kernels import (
    LINEAR_KERNELS,
    MATRIX_UNITS,
    Accuracy,
    Dispatch,
    HalfSupport,
    Layout,
    LinearPlan,
    MatrixShape,
    MatrixUnits,
    plan_linear,
)

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
ACCURACIES: tuple[Accuracy, ...] = get_args(Accuracy)
INTEGER_GEMVS = ("gemv_int16", "gemv_int8")
EXACT_WIDE = ("gemv_wide", "gemv_wide_subnormal")


def limits(
    *,
    workgroup_bytes: int = 16384,
    invocations: int = 256,
    width: int | None = None,
    workgroups: int = 65535,
) -> dict[str, int]:
    """A device's limits; by default those that WebGPU grants everywhere."""
    return {
        "max-storage-buffer-binding-size": 1 << 27,
        "max-compute-workgroup-storage-size": workgroup_bytes,
        "max-compute-invocations-per-workgroup": invocations,
        "max-compute-workgroup-size-x": invocations if width is None else width,
        "max-compute-workgroups-per-dimension": workgroups,
    }


WEBGPU = limits()
LLVMPIPE = limits(workgroup_bytes=32768, invocations=1024)
SWIFTSHADER = limits(workgroup_bytes=32768)
H200 = limits(workgroup_bytes=49152, invocations=1024)
DEVICES = (WEBGPU, LLVMPIPE, SWIFTSHADER, H200)
FEW_WORKGROUPS = limits(workgroups=100)

NONE = HalfSupport()
SUBNORMALS = HalfSupport(subnormals=True)
ROUNDING = HalfSupport(rounding=True)
NATIVE = HalfSupport(subnormals=True, rounding=True)
ARITHMETIC = HalfSupport(subnormals=True, rounding=True, arithmetic=True)

LLAMA = MatrixShape(128256, 2048, 32, "float16")
SHAPES = [
    LLAMA,
    MatrixShape(49152, 576, 32, "float16"),  # SmolLM2-135M: 18 chunks of 32, no power of two
    MatrixShape(1, 8, 8, "float32"),  # the smallest there is
    MatrixShape(13, 24, 8, "float16"),
    MatrixShape(257, 72, 24, "float32"),
    MatrixShape(101, 96, 32, "float16"),
    MatrixShape(7, 4096, 128, "float16"),  # fewer rows than a strip of blocks has
]
LENGTHS = [*range(32, 2049, 32), 3072, 4096, 5120, 7168, 8192, 11008, 14336, 16384]
"""K of what kernels for chunks of 32 columns read, up to the longest of any model here."""


def linear(
    shape: MatrixShape = LLAMA,
    rows: int = 1,
    layout: Layout = "rows",
    device: Mapping[str, int] = WEBGPU,
    support: HalfSupport = SUBNORMALS,
    kernel: str | None = None,
    accuracy: Accuracy = "exact",
    units: Collection[MatrixUnits] = (),
    *,
    bias: bool = False,
    software: bool = False,
    subgroup: int = 0,
) -> LinearPlan:
    """Return the plan of a product, by default of one row with Llama's matrix.

    A kernel that is asked for by name gets the half-precision arithmetic and subgroups it needs.
    """
    if kernel is not None and LINEAR_KERNELS[kernel].needs_subgroups:
        support, subgroup = ARITHMETIC, 32
    return plan_linear(
        *(shape, rows, layout, bias, device, support, kernel, accuracy, units, software),
        subgroup=subgroup,
    )


def jobs(
    shape: MatrixShape, rows: int, device: Mapping[str, int] = WEBGPU
) -> Iterator[tuple[str, Layout]]:
    """Yield every kernel that can do the shape, with every layout that it reads."""
    for name, kernel in LINEAR_KERNELS.items():
        if kernel.most_rows is not None and rows > kernel.most_rows:
            continue
        bytes_needed = 24064 if name == "gemm_matrix" else 0
        wide = shape.embed_dim % 32 == 0 and shape.group_size % 32 == 0
        if device["max-compute-workgroup-storage-size"] >= bytes_needed and (
            wide or name in ("gemv", "gemm")
        ):
            for layout in kernel.layouts:
                yield name, layout


def every_plan(
    shape: MatrixShape, rows: int, device: Mapping[str, int] = WEBGPU, *, bias: bool = False
) -> Iterator[LinearPlan]:
    """Yield the plan of each of `jobs`, on a device that has matrix units."""
    for kernel, layout in jobs(shape, rows, device):
        yield linear(shape, rows, layout, device, kernel=kernel, units=[MATRIX_UNITS], bias=bias)


def dispatches(plan: LinearPlan) -> list[Dispatch]:
    """Return the product, and what prepares x for it."""
    return [plan.product, *([] if plan.preparation is None else [plan.preparation])]


def check_grid(dispatch: Dispatch, needed: int, device: Mapping[str, int] = WEBGPU) -> None:
    """Require workgroups for all, none twice but for the last row of a folded grid."""
    x, y, z = dispatch.workgroups
    assert z == 1
    assert max(x, y) <= device["max-compute-workgroups-per-dimension"]
    assert needed <= prod((x, y)) < needed + y, f"{dispatch.shader.name}: {x} × {y} for {needed}"
