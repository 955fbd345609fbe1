"""The lists of cases: ExecuTorch's own, and the corners that these miss."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

from wgpu_q4.arrays import FloatDtype
from wgpu_q4.check.cases import Case, WeightKind
from wgpu_q4.kernels import Storage

Kernel = tuple[WeightKind, FloatDtype, Storage, FloatDtype]

Shape = tuple[int, int, int, tuple[int, ...]]
"""V, K, G and the shape of the ids."""

_DTYPES: tuple[FloatDtype, ...] = ("float16", "float32")
_STORAGES: tuple[Storage, ...] = ("buffer", "texture3d")


def upstream_cases() -> list[Case]:
    """Return the 34 cases of ExecuTorch's own test of the op."""
    a, b = (16, 32, 32, (4,)), (32, 64, 32, (2, 3))
    c, d = (100, 128, 32, (4, 8)), (50, 64, 64, (2, 4))
    large = (128256, 2048, 32, (1, 2047))

    def case(shape: Shape, **more: Any) -> Case:
        return Case("upstream", *shape, **more)

    blocks = "linear_texture2d"
    return [
        *(case(shape, weight=blocks, output="float16") for shape in (a, b, c)),
        case(a, weight=blocks),
        case(a, weight=blocks, storage="texture3d", output="float16"),
        case(large, weight=blocks),
        *(
            case(shape, output=output, storage=storage)
            for shape, output, storage in product((a, b, c, d), _DTYPES, _STORAGES)
        ),
        *(
            case(shape, output=output, scales="float32")
            for shape, output in product((a, b, c), _DTYPES)
        ),
        *(case(a, output=output, storage="texture3d", scales="float32") for output in _DTYPES),
        *(
            case(large, output=output, scales=scales)
            for output, scales in product(_DTYPES, _DTYPES)
        ),
    ]


def all_kernels() -> list[Kernel]:
    """Return the 24 variants of ExecuTorch's embedding kernel."""
    return list(product(get_args(WeightKind), _DTYPES, _STORAGES, _DTYPES))


def corner_cases() -> list[Case]:
    """Return cases that ExecuTorch's test lacks.

    Their shapes are few: each shape costs a WebGPU pipeline.
    """
    cases: list[Case] = []

    def add(note: str, shape: Shape, kernel: Kernel, **more: Any) -> None:
        more |= dict(zip(("weight", "scales", "storage", "output"), kernel, strict=True))
        cases.append(Case("corners", *shape, seed=len(cases) + 1, note=note, **more))

    # 22 rows: the last block of 8 is not full.  Three groups of 32 to a row: every other row starts
    # in the middle of a word of half scales.  Ids of rank 3, no extent a multiple of 4.
    corner = (22, 96, 32, (2, 3, 5))
    for kernel in all_kernels():
        add("every kernel, ids of rank 3, V % 8 ≠ 0", corner, kernel)
    blocks_texture: Kernel = ("linear_texture2d", "float16", "texture3d", "float16")
    blocks_buffer: Kernel = ("linear_buffer", "float32", "buffer", "float32")
    flat_texture: Kernel = ("flat", "float32", "texture3d", "float32")
    flat_buffer: Kernel = ("flat", "float16", "buffer", "float16")
    for kernel in (blocks_texture, blocks_buffer, flat_texture, flat_buffer):
        add("ids of rank 1", (22, 96, 32, (7,)), kernel)
        add("ids of rank 2", (22, 96, 32, (3, 6)), kernel)
        add("shrunk ids", (22, 96, 32, (2, 2, 3)), kernel, recorded_shape=(3, 4, 9))
        add("shrunk ids", (22, 96, 32, (2, 5)), kernel, recorded_shape=(4, 8))
        add("one row, one group", (1, 32, 32, (3,)), kernel)
        add("group = row, an odd number of scales", (13, 128, 128, (2, 5)), kernel)
        add("two groups in a row of 64", (13, 128, 64, (9,)), kernel)
        add("first and last row", corner, kernel, id_kind="ends")
        add("ids outside the vocabulary", corner, kernel, id_kind="outside")
        add("one id everywhere", (22, 96, 32, (4, 9)), kernel, id_kind="repeated")
    halves: Kernel = ("linear_buffer", "float16", "buffer", "float16")
    floats: Kernel = ("flat", "float32", "buffer", "float32")
    mixed: Kernel = ("flat", "float32", "buffer", "float16")
    mixed_texture: Kernel = ("flat", "float32", "texture3d", "float16")
    for kernel, kind in product(
        (halves, floats, mixed, blocks_texture), ("zero", "subnormal", "largest")
    ):
        add("extreme scales", corner, kernel, scale_kind=kind)
    for kernel in (mixed, mixed_texture):
        add("rounding to half", corner, kernel, scale_kind="ties")
    for kernel, (vocab, embed_dim) in product(
        (halves, blocks_texture), ((16, 64), (21, 96), (1, 32))
    ):
        rows: Kernel = (kernel[0], "float16", "buffer", "float32")
        add("rows into blocks", (vocab, embed_dim, 32, ()), rows, op="pack")
    return cases
