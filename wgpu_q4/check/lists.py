"""The lists of cases: ExecuTorch's own, and the corners that these miss."""

from __future__ import annotations

from itertools import product
from typing import Any

from wgpu_q4.check.cases import Case, WeightKind
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import OutputDtype, Storage


def upstream_cases() -> list[Case]:
    """Return the 34 cases of ExecuTorch's own test of the op."""
    small = {
        "A": (16, 32, 32, (4,)),
        "B": (32, 64, 32, (2, 3)),
        "C": (100, 128, 32, (4, 8)),
        "D": (50, 64, 64, (2, 4)),
    }
    large = (128256, 2048, 32, (1, 2047))
    outputs: tuple[OutputDtype, ...] = ("float16", "float32")
    storages: tuple[Storage, ...] = ("buffer", "texture3d")

    def case(shape: tuple[int, int, int, tuple[int, ...]], **more: Any) -> Case:
        return Case("upstream", *shape, **more)

    blocks = "linear_texture2d"
    linear = [
        case(small["A"], weight=blocks, output="float16"),
        case(small["B"], weight=blocks, output="float16"),
        case(small["C"], weight=blocks, output="float16"),
        case(small["A"], weight=blocks),
        case(small["A"], weight=blocks, storage="texture3d", output="float16"),
        case(large, weight=blocks),
    ]
    flat = [
        case(small[letter], output=output, storage=storage)
        for letter, output, storage in product("ABCD", outputs, storages)
    ]
    float_scales = [
        *(
            case(small[letter], output=output, scales="float32")
            for letter, output in product("ABC", outputs)
        ),
        *(
            case(small["A"], output=output, storage="texture3d", scales="float32")
            for output in outputs
        ),
    ]
    scales: tuple[ScalesDtype, ...] = ("float16", "float32")
    model = [case(large, output=output, scales=dtype) for output, dtype in product(outputs, scales)]
    return [*linear, *flat, *float_scales, *model]


def all_kernels() -> list[tuple[WeightKind, ScalesDtype, Storage, OutputDtype]]:
    """Return the 24 variants of ExecuTorch's embedding kernel."""
    weights: tuple[WeightKind, ...] = ("flat", "linear_buffer", "linear_texture2d")
    scales: tuple[ScalesDtype, ...] = ("float16", "float32")
    storages: tuple[Storage, ...] = ("buffer", "texture3d")
    outputs: tuple[OutputDtype, ...] = ("float16", "float32")
    return list(product(weights, scales, storages, outputs))


def corner_cases() -> list[Case]:
    """Return cases that ExecuTorch's test lacks.

    Their shapes are few: each shape costs a WebGPU pipeline.
    """
    cases: list[Case] = []

    def add(
        note: str,
        shape: tuple[int, int, int, tuple[int, ...]],
        kernel: tuple[WeightKind, ScalesDtype, Storage, OutputDtype],
        **more: Any,
    ) -> None:
        weight, scales, storage, output = kernel
        cases.append(
            Case(
                "corners",
                *shape,
                weight=weight,
                scales=scales,
                storage=storage,
                output=output,
                seed=len(cases) + 1,
                note=note,
                **more,
            )
        )

    # 22 rows: the last block of 8 is not full.  Three groups of 32 to a row: every other row starts
    # in the middle of a word of half scales.  Ids of rank 3, no extent a multiple of 4.
    for kernel in all_kernels():
        add("every kernel, ids of rank 3, V % 8 ≠ 0", (22, 96, 32, (2, 3, 5)), kernel)
    blocks_texture: tuple[Any, ...] = ("linear_texture2d", "float16", "texture3d", "float16")
    blocks_buffer: tuple[Any, ...] = ("linear_buffer", "float32", "buffer", "float32")
    flat_texture: tuple[Any, ...] = ("flat", "float32", "texture3d", "float32")
    flat_buffer: tuple[Any, ...] = ("flat", "float16", "buffer", "float16")
    four = (blocks_texture, blocks_buffer, flat_texture, flat_buffer)
    for kernel in four:
        add("ids of rank 1", (22, 96, 32, (7,)), kernel)
        add("ids of rank 2", (22, 96, 32, (3, 6)), kernel)
        add("shrunk ids", (22, 96, 32, (2, 2, 3)), kernel, recorded_shape=(3, 4, 9))
        add("shrunk ids", (22, 96, 32, (2, 5)), kernel, recorded_shape=(4, 8))
        add("one row, one group", (1, 32, 32, (3,)), kernel)
        add("group = row, an odd number of scales", (13, 128, 128, (2, 5)), kernel)
        add("two groups in a row of 64", (13, 128, 64, (9,)), kernel)
        add("first and last row", (22, 96, 32, (2, 3, 5)), kernel, id_kind="ends")
        add("ids outside the vocabulary", (22, 96, 32, (2, 3, 5)), kernel, id_kind="outside")
        add("one id everywhere", (22, 96, 32, (4, 9)), kernel, id_kind="repeated")
    halves: tuple[Any, ...] = ("linear_buffer", "float16", "buffer", "float16")
    floats: tuple[Any, ...] = ("flat", "float32", "buffer", "float32")
    mixed: tuple[Any, ...] = ("flat", "float32", "buffer", "float16")
    mixed_texture: tuple[Any, ...] = ("flat", "float32", "texture3d", "float16")
    for kernel in (halves, floats, mixed, blocks_texture):
        for kind in ("zero", "subnormal", "largest"):
            add("extreme scales", (22, 96, 32, (2, 3, 5)), kernel, scale_kind=kind)
    for kernel in (mixed, mixed_texture):
        add("rounding to half", (22, 96, 32, (2, 3, 5)), kernel, scale_kind="ties")
    for weight, (vocab, embed_dim) in product(
        ("linear_buffer", "linear_texture2d"), ((16, 64), (21, 96), (1, 32))
    ):
        cases.append(
            Case(
                "corners",
                vocab,
                embed_dim,
                32,
                op="pack",
                weight=weight,  # type: ignore[arg-type]
                seed=len(cases) + 1,
                note="rows into blocks",
            )
        )
    return cases
