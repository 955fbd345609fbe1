"""Every portable shader as some plan runs it: with the constants that a device would give it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import get_args

from tests.unit.kernels.planning import LAYOUTS, NATIVE, NONE, SUBNORMALS, dispatches
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import (
    BLOCKS,
    LINEAR_KERNELS,
    PROBE_HALVES,
    Dispatch,
    HalfSupport,
    Layout,
    MatrixShape,
    OutputDtype,
    Reduce,
    Results,
    Storage,
    plan_convert,
    plan_embedding,
    plan_linear,
    plan_pack,
    plan_reduce,
    plan_transposed,
)
from wgpu_q4.kernels.decoder import decoder_dispatches
from wgpu_q4.kernels.decoder.sampling import plan_sampling

WEBGPU_LIMITS = {
    "max-storage-buffer-binding-size": 1 << 27,
    "max-compute-workgroup-storage-size": 16384,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
    "max-compute-workgroups-per-dimension": 65535,
}
SCALES: tuple[ScalesDtype, ...] = get_args(ScalesDtype)
REDUCTIONS: tuple[tuple[Reduce, int], ...] = (
    ("argmax", 1),
    ("top_k", 1),
    ("top_k", 40),
    ("top_k", 1024),
)


def plans(limits: Mapping[str, int]) -> Iterator[Dispatch]:
    """Yield dispatches of every shader: few rows and many, K and G wide, odd and the smallest.

    1, 2, 3 and 8 rows of x are what kernels for few of them take at once; a row of K = 16384 is too
    long to be quantized in a workgroup.
    """
    sizes = [
        (50, 64, 32),
        (1, 8, 8),
        (257, 72, 24),
        (128256, 2048, 32),
        (3, 2080, 32),
        (7, 16384, 128),
    ]
    for (vocab, embed_dim, group), scales, support in product(
        sizes, SCALES, (NATIVE, SUBNORMALS, NONE)
    ):
        shape = MatrixShape(vocab, embed_dim, group, scales)
        storages: tuple[Storage, ...] = get_args(Storage)
        outputs: tuple[OutputDtype, ...] = get_args(OutputDtype)
        for layout, storage, output in product(LAYOUTS, storages, outputs):
            yield plan_embedding(shape, 7, layout, output, storage, limits, support)
            if storage == "buffer":
                yield plan_embedding(shape, 7, layout, output, storage, limits, support, True)
        for reduce, kept in REDUCTIONS:
            apart: Results = "ids" if reduce == "argmax" else "values_and_ids"
            for results, columns in product(("entries", apart), (vocab, 100 * vocab)):
                kept_of = min(kept, columns)
                yield from plan_reduce((columns,), 3, reduce, kept_of, limits, results).stages
        for layout in BLOCKS:
            yield plan_pack(shape, layout, limits)
        transposed = plan_transposed((shape,), 3, limits, support)
        yield from (step for step in (*transposed.products, transposed.add) if step is not None)
        for layout, bias, rows in product(LAYOUTS, (False, True), (1, 2, 3, 8, 40, 500)):
            for kernel in applicable(shape, layout, support):
                yield from dispatches(
                    plan_linear(shape, rows, layout, bias, limits, support, kernel)
                )
    for output, support in product(get_args(OutputDtype), (NATIVE, NONE)):
        yield plan_convert(1001, output, limits, support)
    yield Dispatch(PROBE_HALVES, {}, (1, 1, 1))
    for vocab, top_k, nucleus in product((1, 5000, 128256), (None, 1, 40), (False, True)):
        yield from (
            stage.dispatch for stage in plan_sampling(vocab, 2, top_k, nucleus, limits).stages
        )
    for hidden, vocab in ((64, 50), (576, 49152), (2048, 128256)):
        yield from decoder_dispatches(limits, hidden, vocab)


def applicable(shape: MatrixShape, layout: Layout, support: HalfSupport) -> list[str]:
    """Return the kernels that do the shape on a device without matrix units."""
    return [
        name
        for name, kernel in LINEAR_KERNELS.items()
        if layout in kernel.layouts and kernel.takes(shape) and kernel.runs_on(support, ())
    ]


@cache
def distinct_plans() -> list[Dispatch]:
    """Return the dispatches that differ in more than their grid, within WebGPU's default limits."""
    return list({plan.key: plan for plan in plans(WEBGPU_LIMITS)}.values())


CODE_OF_CONSTANTS = ("X_ROWS", "PLANES", "TILE_M", "LANE_BLOCKS")
"""Constants that decide which statements there are, beside those that are sizes and counts."""


@cache
def forms() -> dict[str, Dispatch]:
    """Return each shader as the first plan runs it; and those without a bias and with scales in
    float32, which differ from the others in nothing else, with every value of
    `CODE_OF_CONSTANTS`."""
    found: dict[str, Dispatch] = {}
    for plan in distinct_plans():
        name = plan.shader.name
        deciding = [f"{k}={plan.constants[k]}" for k in CODE_OF_CONSTANTS if k in plan.constants]
        if name not in found:
            found[name] = plan
        elif deciding and not {"scales/f16", "linear/common/bias_buffer"} & set(plan.shader.pieces):
            found.setdefault(" ".join([name, *deciding]), plan)
    return found


def unchecked() -> list[Dispatch]:
    """Return the dispatches of shaders that run without bounds checks."""
    return [plan for plan in distinct_plans() if plan.needs is not None]
