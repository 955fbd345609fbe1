"""The records of the kernels: what cannot be composed cannot be named either."""

from __future__ import annotations

import pickle
from typing import Any, get_args

import pytest

from tests.unit.kernels.planning import H200, LAYOUTS, LLAMA, NATIVE, NONE, linear
from wgpu_q4.errors import KernelError
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import (
    LINEAR_KERNELS,
    MATRIX_UNITS,
    TABLE,
    LinearKernel,
    MatrixShape,
    embedding_shader,
    linear_kernel,
    pack_shader,
)
from wgpu_q4.kernels.linear.record import Measured
from wgpu_q4.kernels.reduction import reduction_shader

every_kernel = pytest.mark.parametrize("kernel", LINEAR_KERNELS.values(), ids=LINEAR_KERNELS)


def body(kernel: LinearKernel, layout: Any) -> str:
    """The piece with the entry point."""
    shader = kernel.shader(layout, "float16", False, form=kernel.forms[0])
    (name,) = (piece for piece in shader.pieces if piece in BODIES)
    return name


BODIES = {
    "linear/gemv/gemv_rows",
    "linear/gemv/gemv_blocks",
    "linear/gemv/gemv_wide",
    "decoder/gemv/gemv",
    "linear/gemv_integers/gemv_rows",
    "linear/gemv_integers/gemv_blocks",
    "linear/gemm/gemm",
    "linear/gemm_integers/gemm",
    "linear/matrix_units/gemm",
}


def test_a_kernel_composes_its_own_body_on_every_layout_that_it_reads() -> None:
    rows, blocks = "linear/{}/gemv_rows", "linear/{}/gemv_blocks"
    expected = {
        "gemv": {rows.format("gemv"), blocks.format("gemv")},
        "gemv_wide": {"linear/gemv/gemv_wide"},
        "gemv_wide_subnormal": {"linear/gemv/gemv_wide"},
        "gemv_registers": {"decoder/gemv/gemv"},
        "gemv_int16": {rows.format("gemv_integers"), blocks.format("gemv_integers")},
        "gemv_int8": {rows.format("gemv_integers"), blocks.format("gemv_integers")},
        "gemm": {"linear/gemm/gemm"},
        "gemm_int8": {"linear/gemm_integers/gemm"},
        "gemm_matrix": {"linear/matrix_units/gemm"},
    }
    found = {
        name: {body(kernel, layout) for layout in kernel.layouts}
        for name, kernel in LINEAR_KERNELS.items()
    }
    assert found == expected


def test_a_matrix_product_on_matrix_units_has_no_form_without_a_tile() -> None:
    """Asked for no tile, ``gemm_matrix`` once composed the pieces of ``gemv_wide``."""
    kernel = linear_kernel("gemm_matrix")
    with pytest.raises(KernelError, match=r"^gemm_matrix on rows has the form '16x64' or .*, not"):
        kernel.shader("rows", "float16", False)
    for form in kernel.forms:
        shader = kernel.shader("rows", "float16", False, form=form)
        assert f"linear/matrix_units/tile_{form}" in shader.pieces
        assert not any(piece.startswith("linear/gemv") for piece in shader.pieces)


@pytest.mark.parametrize("name", ["gemv_int16", "gemv_int8", "gemv_wide", "gemm_matrix"])
def test_wide_loads_of_the_other_nibble_order_cannot_be_named(name: str) -> None:
    """They once composed the order of ``rows`` and gave wrong results."""
    with pytest.raises(KernelError, match=rf"^{name} needs the layout 'rows'"):
        linear_kernel(name).shader("rows_embedding", "float16", False)


@every_kernel
def test_a_layout_that_a_kernel_does_not_read_is_refused_with_those_that_it_reads(
    kernel: LinearKernel,
) -> None:
    others = " or ".join(repr(layout) for layout in LAYOUTS if layout in kernel.layouts)
    wrong: list[Any] = [layout for layout in LAYOUTS if layout not in kernel.layouts]
    for layout in [*wrong, "columns"]:
        for ask in (
            lambda layout: kernel.shader(layout, "float16", False),
            kernel.reading,
            lambda layout: linear(layout=layout, kernel=kernel.name),
        ):
            with pytest.raises(KernelError) as raised:
                ask(layout)
            assert str(raised.value) == f"{kernel.name} needs the layout {others}"


def test_what_else_cannot_be_composed() -> None:
    wrong: Any = "bfloat16"
    with pytest.raises(KernelError, match=r"^gemv needs scales of float32 or float16$"):
        linear_kernel("gemv").shader("rows", wrong, False)
    with pytest.raises(KernelError, match=r"^gemv on rows has the form '', not 'prepared'$"):
        linear_kernel("gemv").shader("rows", "float16", False, form="prepared")
    with pytest.raises(KernelError, match=r"^gemv_int8 on rows has the form '' or 'prepared'"):
        linear_kernel("gemv_int8").shader("rows", "float16", False, form="32x64")
    with pytest.raises(KernelError, match=r"^kernel must be one of gemv, .*, not 'gemv_int4'$"):
        linear_kernel("gemv_int4")


@every_kernel
def test_what_a_kernel_cannot_do_is_refused(kernel: LinearKernel) -> None:
    narrow = MatrixShape(50, 64, 16, "float16")
    for layout in kernel.layouts:
        if kernel.name in ("gemv", "gemm"):
            linear(narrow, layout=layout, kernel=kernel.name)
        else:
            with pytest.raises(KernelError, match=rf"^{kernel.name} needs K and G multiples of 32"):
                linear(narrow, layout=layout, kernel=kernel.name)
    if kernel.name == "gemv_wide_subnormal":
        with pytest.raises(KernelError, match="keeps half-precision subnormals"):
            linear(kernel=kernel.name, support=NONE)
    if kernel.name == "gemm_matrix":
        with pytest.raises(KernelError, match=r"a device with matrix units .* 24,064 bytes"):
            linear(kernel=kernel.name, device=H200)


@every_kernel
def test_a_kernel_can_be_asked_for_by_name(kernel: LinearKernel) -> None:
    for layout in kernel.layouts:
        for rows in (1, 9, 500) if kernel.most_rows is None else (1,):
            plan = linear(
                *(LLAMA, rows, layout, H200, NATIVE),
                kernel=kernel.name,
                units=[MATRIX_UNITS],
            )
            assert plan.kernel == kernel.name
            assert plan.product.shader.name.startswith(f"linear_q4gsw_{kernel.name}_{layout}_")


@every_kernel
def test_a_record_says_what_its_x_is_good_for(kernel: LinearKernel) -> None:
    bits = {"gemv_int16": 16, "gemv_int8": 8, "gemm_int8": 8}
    assert kernel.integer_bits == bits.get(kernel.name)
    assert kernel.rounds_x == (kernel.name in {*bits, "gemm_matrix"})
    assert ("exact" in kernel.accuracies) != kernel.rounds_x
    assert ("fast" in kernel.accuracies) == (kernel.integer_bits != 8)
    assert "int8" in kernel.accuracies
    assert kernel.scales == get_args(ScalesDtype)


def test_a_measurement_must_be_of_what_the_kernel_reads_and_reaches() -> None:
    kernel = linear_kernel("gemv_wide")

    def with_measurement(**changes: Any) -> None:
        known: dict[str, Any] = {
            "layouts": ("rows",),
            "first_rows": 1,
            "last_rows": 8,
            "because": "1 µs",
        }
        type(kernel)(
            name="other",
            summary="",
            layouts=kernel.layouts,
            x_type="int8",
            measured=(Measured(**{**known, **changes}),),
        )

    with_measurement()
    with pytest.raises(KernelError, match="needs the layout 'rows'"):
        with_measurement(layouts=("blocks_buffer",))
    with pytest.raises(KernelError, match="rounds x to int8"):
        with_measurement(accuracies=("exact",))


def test_the_table_is_made_of_the_records() -> None:
    rows = [id(row) for kernel in LINEAR_KERNELS.values() for row in kernel.measured]
    assert sorted(id(choice.measured) for choice in TABLE) == sorted(rows)
    assert all(choice.measured in choice.kernel.measured for choice in TABLE)


def test_the_error_of_a_record_is_a_value_error_that_pickles() -> None:
    with pytest.raises(ValueError, match="needs the layout") as raised:
        linear_kernel("gemv_wide").reading("blocks_buffer")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (type(again), str(again)) == (KernelError, str(raised.value))


def test_the_other_rooms_refuse_what_they_cannot_compose() -> None:
    wrong: Any = "columns"
    with pytest.raises(KernelError, match=r"^the layout must be 'rows' or .*, not 'columns'$"):
        embedding_shader(wrong, "float32")
    with pytest.raises(KernelError, match=r"^the dtype of the scales must be .*, not 'columns'$"):
        embedding_shader("rows", wrong)
    with pytest.raises(KernelError, match=r"^the dtype of the result must be .*, not 'columns'$"):
        embedding_shader("rows", "float32", wrong)
    with pytest.raises(KernelError, match=r"^the storage must be 'buffer' or 'texture3d'"):
        embedding_shader("rows", "float32", "float32", wrong)
    with pytest.raises(KernelError, match=r"^the conversion of halves must be .*, not 'columns'$"):
        embedding_shader("rows", "float16", halves=wrong)
    with pytest.raises(KernelError, match=r"packing must be 'blocks_buffer' or .*, not 'rows'$"):
        pack_shader("rows")
    with pytest.raises(KernelError, match=r"^the reduction must be 'argmax' or 'top_k'"):
        reduction_shader(wrong, "logits")
    with pytest.raises(KernelError, match=r"reduction must be 'logits' or 'candidates'"):
        reduction_shader("argmax", wrong)
