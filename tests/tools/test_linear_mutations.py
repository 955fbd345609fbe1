"""A wrong character in a WGSL piece of `linear` turns red what the piece reaches, and nothing else.

Every case is one of exact integers (`tests.products`), so a result is right to the bit or wrong.  A
changed piece may point outside a buffer: the kernels run with wgpu's checks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.cases import WIDE, Shape
from tests.products import integer_weight, integer_x
from wgpu_q4 import kernels, linear, reference
from wgpu_q4.device import context_for, request_device
from wgpu_q4.kernels import HalfSupport, Layout, LinearKernel, MatrixShape, plan_linear

# x is staged in two slices; a workgroup takes several tiles of the weight.
SLICES, TILES, STRIPS = Shape(3, 6400, 64), Shape(210_000, 32, 32), Shape(4200, 32, 32)


@dataclass(frozen=True)
class Case:
    """A matrix product."""

    kernel: LinearKernel
    layout: Layout
    rows: int
    shape: Shape = WIDE

    @property
    def is_16_bit(self) -> bool:
        return self.kernel == "gemv_int16"

    def pieces(self, device: Any) -> set[str]:
        """Of the product and of what prepares x for it."""
        context = context_for(device)
        shape = MatrixShape(
            self.shape.vocab, self.shape.embed_dim, self.shape.group_size, "float16"
        )
        plan = plan_linear(
            shape,
            self.rows,
            self.layout,
            False,
            context.limits,
            context.half_support,
            self.kernel,
        )
        dispatches = [plan.product, plan.preparation]
        return {piece for one in dispatches if one is not None for piece in one.shader.pieces}


CASES = [
    Case("gemv_wide", "rows", 1),
    Case("gemv_wide", "rows", 3),
    Case("gemv_wide", "rows", 17),
    Case("gemv_wide", "rows", 2, SLICES),
    Case("gemv_wide_subnormal", "rows", 3),
    Case("gemv_int16", "rows", 1),
    Case("gemv_int16", "rows", 3),
    Case("gemv_int16", "blocks_buffer", 1),
    Case("gemv_int16", "blocks_buffer", 3),
    Case("gemv_int8", "rows", 1),
    Case("gemv_int8", "rows", 1, TILES),
    Case("gemv_int8", "rows", 9),
    Case("gemv_int8", "blocks_buffer", 1),
    Case("gemv_int8", "blocks_buffer", 1, STRIPS),
    Case("gemv_int8", "blocks_buffer", 3),
    Case("gemm", "rows", 13),
    Case("gemm", "rows", 70),
    Case("gemm", "blocks_buffer", 13),
    Case("gemm_int8", "rows", 13),
    Case("gemm_int8", "rows", 100),
    Case("gemm_int8", "blocks_buffer", 100),
]


def always(_: Case) -> bool:
    return True


def several_rows(case: Case) -> bool:
    return case.rows > 1


def several_chunks(case: Case) -> bool:
    return case.shape.embed_dim > 32


def of_16_bits(case: Case) -> bool:
    return case.is_16_bit


def of_8_bits(case: Case) -> bool:
    return not case.is_16_bit


@dataclass(frozen=True)
class Mutation:
    """``old`` becomes ``new`` in a piece, where it stands once.

    Attributes:
        reaches: which of the cases that have the piece must turn red, and no others.
    """

    piece: str
    old: str
    new: str
    reaches: Callable[[Case], bool] = always

    def __str__(self) -> str:
        return f"{self.piece.removeprefix('linear/')}: {self.old} -> {self.new}"


MUTATIONS = [
    # What x is rounded to.
    Mutation("linear/common/quantize", "first_half = -8 *", "first_half = -7 *"),
    Mutation(
        "linear/common/quantize",
        "second_half = -8 * sum_of(a2 + b2",
        "second_half = -8 * sum_of(a2",
    ),
    Mutation("linear/common/quantize", "round(values * steps)", "trunc(values * steps * 0.999)"),
    Mutation(
        "linear/common/quantize",
        "vec4<u32>(bytes(first), bytes(second), high_bytes(first), high_bytes(second))",
        "vec4<u32>(high_bytes(first), high_bytes(second), bytes(first), bytes(second))",
        of_16_bits,
    ),
    Mutation("linear/common/quantize", "(values + 128)", "(values + 127)", of_16_bits),
    Mutation(
        "linear/common/quantize", "select(127.0, 32512.0,", "select(126.0, 32512.0,", of_8_bits
    ),
    Mutation("linear/common/integers_order_rows", "low.yw, high.yw", "low.yw, high.xz"),
    Mutation("linear/common/integers_order_blocks", "return high;", "return low;"),
    # Where it is kept.
    Mutation("linear/gemv_integers/quantize_x", "(row * 2u * PLANES + v)", "(row * PLANES + v)"),
    Mutation(
        "linear/gemv_integers/quantize_x",
        "t_out_scales[row * (embed_dim() / 32u)",
        "t_out_scales[row",
    ),
    Mutation("linear/gemv_integers/quantize_x", "min(row, sizes.x - 1u)", "min(row, sizes.x - 2u)"),
    Mutation("linear/gemm_integers/quantize_columns", "chunk * 8u + 4u * v", "chunk * 8u + 2u * v"),
    Mutation(
        "linear/gemm_integers/quantize_columns",
        "t_out_scales[chunk * sizes.y",
        "t_out_scales[chunk",
    ),
    Mutation(
        "linear/gemm_integers/quantize_columns", "min(row, sizes.x - 1u)", "min(row, sizes.x - 2u)"
    ),
    Mutation(
        "linear/gemv_integers/integers_before", "(row * 2u * PLANES + v)", "(row * PLANES + v)"
    ),
    Mutation(
        "linear/gemv_integers/integers_before", "(row, w / 2u,", "(row, (w + 1u) / 2u,", of_8_bits
    ),
    Mutation(
        "linear/gemv_integers/integers_before", "both.xy, both.zw", "both.zw, both.xy", of_8_bits
    ),
    Mutation(
        "linear/gemv_integers/integers_here",
        "return vectors[v * CHUNKS + chunk]",
        "return vectors[v * CHUNKS + chunk + 1u]",
    ),
    Mutation(
        "linear/gemv_integers/integers_here", "(row, w / 2u,", "(row, (w + 1u) / 2u,", of_8_bits
    ),
    Mutation("linear/gemv_integers/integers_here", "chunk = lane;", "chunk = lane + 1u;"),
    Mutation(
        "linear/gemv_integers/integers_here",
        "* CHUNKS + chunk) * 8u",
        "* CHUNKS + chunk) * 7u",
        several_chunks,
    ),
    # Products and sums.
    Mutation("linear/gemv_integers/gemv_rows", " + bitcast<i32>(x.y)", ""),
    Mutation(
        "linear/gemv_integers/gemv_rows",
        "counts.high << vec4<u32>(8u)",
        "counts.high << vec4<u32>(7u)",
        of_16_bits,
    ),
    Mutation(
        "linear/gemv_integers/gemv_rows",
        "load_words(x_row + 1u, w",
        "load_words(x_row, w",
        several_rows,
    ),
    Mutation(
        "linear/gemv_integers/gemv_rows",
        "load_words(x_row + 7u, w",
        "load_words(x_row + 6u, w",
        lambda case: case.rows > 7,
    ),
    Mutation(
        "linear/gemv_integers/gemv_rows",
        "load_scale_words(x_row + 2u",
        "load_scale_words(x_row + 1u",
        lambda case: case.rows > 2,
    ),
    Mutation(
        "linear/gemv_integers/gemv_rows",
        "* TILES + i) * outputs",
        "+ i) * outputs",
        lambda case: case.shape == TILES,
    ),
    Mutation(
        "linear/gemv_integers/gemv_blocks",
        "scale_of_x.z, scale_of_x.w",
        "scale_of_x.y, scale_of_x.w",
    ),
    Mutation(
        "linear/gemv_integers/gemv_blocks",
        "sums.high << vec4<u32>(8u)",
        "sums.high << vec4<u32>(7u)",
        of_16_bits,
    ),
    Mutation("linear/gemv_integers/gemv_blocks", "2u * (part % 2u) + 1u", "2u * (part % 2u)"),
    Mutation(
        "linear/gemv_integers/gemv_blocks", "(8u * strip + 4u, group)", "(8u * strip + 3u, group)"
    ),
    Mutation(
        "linear/gemv_integers/gemv_blocks",
        "* TILES + i) * teams",
        "+ i) * teams",
        lambda case: case.shape == STRIPS,
    ),
    Mutation(
        "linear/gemv_integers/gemv_blocks",
        "* INVOCATIONS + output / 8u * TEAM",
        "* INVOCATIONS + output / 8u",
    ),
    Mutation("linear/gemv/team", "last_row = vocab() - 1u", "last_row = vocab() - 2u"),
    Mutation(
        "linear/gemv/team",
        "store_row(sums.second, m + 1u",
        "store_row(sums.second, m + 2u",
        several_rows,
    ),
    Mutation(
        "linear/gemv/team", "first_slot = lane / 4u * TEAM", "first_slot = lane / 4u * (TEAM - 1u)"
    ),
    Mutation(
        "linear/gemv/team",
        "group = chunk * 32u / group_size()",
        "group = chunk * 31u / group_size()",
        several_chunks,
    ),
    # The wide GEMV.
    Mutation("linear/gemv/gemv_wide", "x1 = x_tile[at + SLICE]", "x1 = x_tile[at + 2u * SLICE]"),
    Mutation(
        "linear/gemv/gemv_wide",
        "at + 8u * SLICE, (*parts).second",
        "at + 7u * SLICE, (*parts).second",
        several_rows,
    ),
    Mutation(
        "linear/gemv/gemv_wide",
        "min(first_m + row, sizes.x - 1u)",
        "min(row, sizes.x - 1u)",
        lambda case: case.rows > 8,
    ),
    Mutation(
        "linear/gemv/gemv_wide",
        "load_rows(row, first_chunk + chunk)",
        "load_rows(row, chunk)",
        lambda case: case.shape == SLICES,
    ),
    Mutation("linear/gemv/gemv_wide", "word * 2u + 1u) * SLICE", "word * 2u) * SLICE"),
    Mutation("linear/gemv/nibbles_integer", "return high * UNSHIFT", "return low * UNSHIFT"),
    Mutation(
        "linear/gemv/nibbles_subnormal",
        "vec4<f32>(low.x, high.x, low.z, high.z)",
        "vec4<f32>(low.x, high.x, high.z, low.z)",
    ),
    # The tiles.
    Mutation("linear/common/gemm_tile", "n + TILE_N / 2u, right", "n + TILE_N / 4u, right"),
    Mutation(
        "linear/common/gemm_tile",
        "m + TILE_M / 2u + 1u",
        "m + TILE_M / 2u + 2u",
        lambda case: case.rows > 65,
    ),
    Mutation("linear/gemm/gemm", "min(column, embed_dim() - 1u)", "min(column, embed_dim() - 2u)"),
    Mutation("linear/gemm/gemm", "x_tile[lane + 3u * TILE_M]", "x_tile[lane + 2u * TILE_M]"),
    Mutation(
        "linear/gemm/transpose_x", "vec4<f32>(a.x, b.x, c.x, d.x)", "vec4<f32>(b.x, a.x, c.x, d.x)"
    ),
    Mutation("linear/gemm/stage_rows", "[i % 4u] = high.x", "[i % 4u] = high.y"),
    Mutation("linear/gemm/stage_blocks", "(8u * strip + 4u, group)", "(8u * strip + 3u, group)"),
    Mutation(
        "linear/gemm_integers/gemm",
        "far = TILE_M / 2u + m",
        "far = TILE_M / 4u + m",
        lambda case: case.rows > 64,
    ),
    Mutation(
        "linear/gemm_integers/gemm",
        "word = min(chunk, last) * WORDS",
        "word = min(chunk, last - 1u) * WORDS",
    ),
    Mutation(
        "linear/gemm_integers/gemm",
        "x_tile[lane + TILE_M] = fetched.b",
        "x_tile[lane + TILE_M] = fetched.a",
    ),
    Mutation(
        "linear/gemm_integers/stage_rows",
        "weight_tile[at][i % 4u] = word &",
        "weight_tile[at][i % 4u] = (word >> 1u) &",
    ),
    Mutation("linear/gemm_integers/stage_rows", "* 4u + i / TILE_N", "* 3u + i / TILE_N"),
    Mutation(
        "linear/gemm_integers/stage_blocks", "block >> vec4<u32>(4u)", "block >> vec4<u32>(5u)"
    ),
    Mutation("linear/gemm_integers/stage_blocks", "lane / WORDS * 2u", "lane / WORDS"),
]


@cache
def given(case: Case) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """x and the exact result."""
    x = integer_x(case.rows, case.shape, case.kernel)
    return x, reference.linear(x, integer_weight(case.shape, "float16"))


@pytest.fixture
def pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the WGSL, which is what kernels are made of."""
    copy = tmp_path / "wgsl"
    shutil.copytree(kernels.source_folder(), copy)
    monkeypatch.setenv(kernels.SOURCE_VARIABLE, str(copy))
    monkeypatch.setenv("WGPU_Q4_SHADER_CHECKS", "1")
    kernels.read_piece.cache_clear()
    yield copy
    kernels.read_piece.cache_clear()


def device_of_all() -> Any:
    """A new device, which has compiled nothing; one that flushes subnormals has a case less."""
    return request_device(implementation="wgpu")


def red(cases: list[Case], device: Any) -> set[Case]:
    """Those that come out wrong."""
    found = set()
    for case in cases:
        x, expected = given(case)
        weight = integer_weight(case.shape, "float16")
        result = linear(x, weight, device=device, layout=case.layout, kernel=case.kernel)
        if not np.array_equal(result, expected):
            found.add(case)
    return found


def runnable(support: HalfSupport) -> list[Case]:
    return [case for case in CASES if support.subnormals or case.kernel != "gemv_wide_subnormal"]


def test_unchanged_pieces_are_green(pieces: Path) -> None:
    device = device_of_all()
    assert red(runnable(context_for(device).half_support), device) == set()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_a_wrong_character_is_red(mutation: Mutation, pieces: Path) -> None:
    file = pieces / f"{mutation.piece}.wgsl"
    text = file.read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, f"{mutation.piece} has changed: choose another place"
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    device = device_of_all()
    support = context_for(device).half_support
    reached = [
        case
        for case in runnable(support)
        if mutation.piece in case.pieces(device)
        and (case.shape == WIDE or mutation.reaches is not always)  # the others take long
    ]
    if mutation.piece == "linear/gemv/nibbles_subnormal" and not support.subnormals:
        assert reached == []
        return
    expected = {case for case in reached if mutation.reaches(case)}
    assert expected, "no case has this piece"
    assert red(reached, device) == expected


def test_every_piece_of_a_product_is_mutated() -> None:
    """Each body, that is: what converts scales or nibbles has mutations in `test_mutations.py`."""
    here = {mutation.piece for mutation in MUTATIONS}
    device = device_of_all()
    bodies = {piece for case in CASES for piece in case.pieces(device)}
    bodies = {piece for piece in bodies if piece.startswith("linear/")}
    if not context_for(device).half_support.subnormals:
        bodies.add("linear/gemv/nibbles_subnormal")
    assert here == bodies - {"linear/common/bias_none", "linear/common/exact_f32"}
