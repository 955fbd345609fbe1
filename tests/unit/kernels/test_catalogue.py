"""All shaders: names of their own, made of every piece there is, and run by some plan."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.kernels.every_shader import distinct_plans, forms
from tests.unit.kernels.planning import LAYOUTS
from tools.codegen.shaders import WEBGPU_SHADERS, executorch_shaders
from wgpu_q4.kernels import (
    LINEAR_KERNELS,
    Layout,
    all_shaders,
    matrix_shaders,
    parse_bindings,
    piece_names,
    portable_shaders,
    read_piece,
)
from wgpu_q4.kernels.text import code_of


def test_every_shader_has_a_name_of_its_own() -> None:
    names = [shader.name for shader in all_shaders()]
    assert len(set(names)) == len(names) > 250


def test_every_portable_shader_is_one_that_a_plan_runs() -> None:
    assert {plan.shader.name for plan in forms().values()} == {
        shader.name for shader in portable_shaders()
    }
    assert not {shader.name for shader in portable_shaders()} & {s.name for s in matrix_shaders()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_form_of_a_kernel_is_one_that_a_plan_runs(layout: Layout) -> None:
    """Rows of x at once, tiles, and x quantized here or before, for each layout."""
    seen: dict[str, set[Any]] = {}
    for plan in distinct_plans():
        for kernel in LINEAR_KERNELS:
            if plan.shader.name.startswith(f"linear_q4gsw_{kernel}_{layout}_f"):
                form = plan.constants.get("X_ROWS", plan.constants.get("TILE_M"))
                prepared = "linear/gemv_integers/integers_before" in plan.shader.pieces
                seen.setdefault(kernel, set()).add((form, prepared))
    few = {(rows, False) for rows in (1, 2, 4, 8)}
    here_and_before = {(1, False)} | {(rows, True) for rows in (1, 2, 4, 8)}
    integers = here_and_before if layout == "rows" else {(None, False), (None, True)}
    expected = {
        "gemv": {(None, False)},
        "gemv_wide": few,
        "gemv_wide_subnormal": few,
        "gemv_int16": integers,
        "gemv_int8": integers,
        "gemm": {(32, False), (64, False), (128, False)},
        "gemm_int8": {(64, False), (128, False)},
    }
    assert set(LINEAR_KERNELS) - set(expected) == {"gemm_matrix", "gemv_registers"}
    names = [name for name, kernel in LINEAR_KERNELS.items() if layout in kernel.layouts]
    assert seen == {name: expected[name] for name in names if name in expected}


def test_a_shader_binds_what_its_pieces_declare() -> None:
    for shader in all_shaders():
        numbers = [binding.number for binding in shader.bindings]
        names = [binding.name for binding in shader.bindings]
        assert numbers == sorted(set(numbers)), f"{shader.name}: a number twice, or out of order"
        assert len(set(names)) == len(names), f"{shader.name}: a name twice"
        declared = sorted(parse_bindings(shader.source), key=lambda binding: binding.number)
        assert declared == list(shader.bindings)
        assert code_of(shader.source).count("@compute") == 1


def test_every_piece_is_part_of_a_shader() -> None:
    shaders = (*all_shaders(), *executorch_shaders(), *WEBGPU_SHADERS)
    assert {piece for shader in shaders for piece in shader.pieces} == set(piece_names())


def test_a_shader_is_its_pieces_one_after_the_other() -> None:
    for shader in all_shaders():
        texts = [read_piece(piece) for piece in shader.pieces]
        places = [shader.source.index(text) for text in texts]
        assert places == sorted(places)
        lines = sum(len(text.splitlines()) for text in texts)
        assert len(shader.source.splitlines()) <= lines + 3 * len(texts)
