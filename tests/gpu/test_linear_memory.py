"""The kernels of `linear` write their result and no more; results beyond a limit of the device."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases import (
    LONG,
    PRIME,
    WIDE,
    Shape,
    anew,
    assert_same_bits,
    limited_context,
    random_weight,
    random_x,
)
from tests.products import (
    INTEGER_BITS,
    LAYOUTS,
    assert_within_bound,
    every_kernel,
    integer_weight,
    integer_x,
    run,
)
from wgpu_q4 import DeviceLimitError, embedding, forced, linear, reference
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.kernels import Layout, plan_linear
from wgpu_q4.ops.product_steps import linear_steps

POISON = np.float32(12345.678)


@every_kernel
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
def test_every_kernel_writes_its_result_and_no_more(
    biased: bool, kernel: str, layout: Layout, shape: Shape, rows: int
) -> None:
    """Into a buffer twice as long as the result, where nothing was zero before."""
    context, weight = context_for(), integer_weight(shape, "float16")
    x, bias = integer_x(rows, shape, kernel), np.arange(shape.vocab, dtype=np.float32)
    if kernel == "gemv_wide_subnormal" and not context.half_support.subnormals:
        kernel = "gemv_wide"
    whole = np.full((2 * rows, shape.vocab), POISON)
    with context.lock:
        resident = context.weight(weight)
        plan = plan_linear(
            *(resident.shape, rows, layout, biased, context.limits, context.half_support, kernel),
            subgroup=context.subgroup_size,
        )
        buffers = []
        for label, values in {"out": whole, "x": x, "bias": bias}.items():
            usages = "STORAGE", "COPY_SRC", "COPY_DST"
            buffers.append(context.create_buffer(label, values.nbytes, *usages))
            context.write(buffers[-1], values)
        out, x_buffer, bias_buffer = buffers
        resources = {
            **resident.parts[0].bindings(context, weight, layout),
            "t_out": out,
            "t_x": x_buffer,
            "t_bias": bias_buffer,
            "sizes": context.scratch.sizes("test", rows, plan.padded_rows),
        }
        context.run(linear_steps(Workspace(context), plan, resources, None), out, whole)
    expected = reference.linear(x, weight, bias if biased else None)
    np.testing.assert_array_equal(whole[:rows], expected)
    assert (whole[rows:] == POISON).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_both_ops_read_the_same_two_resources(layout: Layout) -> None:
    weight = anew(random_weight(WIDE, "float16"))
    ids, x = np.arange(WIDE.vocab), random_x(1, WIDE.embed_dim)
    resident = context_for().weight(weight)
    with forced(layout=layout):
        matrix = embedding(ids, weight)
        before = resident.resources
        assert_within_bound(linear(x, weight), x, weight)
        assert_same_bits(embedding(ids, weight), matrix)
    after = resident.resources
    assert len(before) == len(after) == 2
    assert all(new is old for new, old in zip(after, before, strict=True))
    assert resident.readers == {"embedding", "linear"}


@pytest.mark.parametrize(
    ("kernel", "layout", "shape", "rows", "limit", "grid"),
    [
        # 257 outputs are 9 workgroups of 32 (rows) or 2 of 32 strips (blocks) for each row of x.
        ("gemv", "rows", PRIME, 3, 6, (6, 5, 1)),
        ("gemv", "rows_embedding", PRIME, 3, 6, (6, 5, 1)),
        ("gemv", "blocks_buffer", PRIME, 7, 4, (4, 4, 1)),
        ("gemv", "blocks_texture2d", PRIME, 7, 4, (4, 4, 1)),
        # 101 outputs are one workgroup, for each 8 of 50 rows.
        ("gemv_wide", "rows", WIDE, 50, 3, (3, 3, 1)),
        ("gemv_wide_subnormal", "rows", WIDE, 50, 3, (3, 3, 1)),
        # 257 outputs are 5 workgroups of 64.
        ("gemv_registers", "rows", Shape(257, 96, 32), 1, 3, (3, 2, 1)),
        # 257 outputs are 5 tiles.
        ("gemm", "rows", PRIME, 13, 3, (3, 2, 1)),
        ("gemm", "rows_embedding", PRIME, 13, 3, (3, 2, 1)),
        ("gemm", "blocks_buffer", PRIME, 13, 3, (3, 2, 1)),
        ("gemm", "blocks_texture2d", PRIME, 13, 3, (3, 2, 1)),
        # 101 outputs are 2 tiles, for each 128 of 300 rows, which 6 workgroups quantize.
        ("gemm_int8", "rows", Shape(101, 32, 32), 300, 3, (3, 2, 1)),
        ("gemm_int8", "rows_embedding", Shape(101, 32, 32), 300, 3, (3, 2, 1)),
        ("gemm_int8", "blocks_buffer", Shape(101, 32, 32), 300, 3, (3, 2, 1)),
        ("gemm_int8", "blocks_texture2d", Shape(101, 32, 32), 300, 3, (3, 2, 1)),
        ("gemv_int16", "rows", WIDE, 50, 3, (3, 3, 1)),
        # 13 strips of blocks are two workgroups, for each of 5 rows.
        ("gemv_int8", "blocks_buffer", WIDE, 7, 3, (3, 3, 1)),
        ("gemv_int16", "blocks_texture2d", WIDE, 7, 3, (3, 3, 1)),
    ],
)
def test_grids_are_folded(
    context: Context,
    grids: list[tuple[int, int, int]],
    monkeypatch: pytest.MonkeyPatch,
    kernel: str,
    layout: Layout,
    shape: Shape,
    rows: int,
    limit: int,
    grid: tuple[int, int, int],
) -> None:
    """Each with some workgroups too many, which have nothing to do."""
    weight, x = integer_weight(shape, "float16"), integer_x(rows, shape, kernel)
    run(kernel, layout, x, weight)  # uploads and packs, within the limits that there are
    grids.clear()
    limits = {**context.limits, "max-compute-workgroups-per-dimension": limit}
    monkeypatch.setattr(context, "limits", limits)
    for values in (x, -x):  # the second finds the results of the first in its buffers
        result = run(kernel, layout, values, weight)
        np.testing.assert_array_equal(result, reference.linear(values, weight))
    assert grid in grids
    assert max(max(x, y) for x, y, _ in grids) <= limit
    prepares = kernel.startswith("gemm") or kernel in INTEGER_BITS
    assert len(grids) == (4 if prepares else 2)


@pytest.fixture(scope="module")
def small() -> Context:
    """A device that binds 16 KiB at a time: 15 rows of 257 outputs."""
    return limited_context({"max-storage-buffer-binding-size": 16384, "max-buffer-size": 32768})


@pytest.mark.parametrize("rows", [14, 15, 16, 40])
def test_results_larger_than_a_binding(small: Context, rows: int) -> None:
    """The last chunk of 40 rows is for the GEMV, the two before it for the GEMM."""
    weight, x = integer_weight(PRIME, "float16"), integer_x(rows, PRIME)
    bias = np.arange(PRIME.vocab, dtype=np.float32)
    result = linear(x, weight, bias, small.device)
    np.testing.assert_array_equal(result, reference.linear(x, weight, bias))


def test_rows_of_the_weight_too_wide_for_a_binding(small: Context) -> None:
    weight = random_weight(LONG, "float16")
    with pytest.raises(DeviceLimitError, match="64 rows of the weight take 65,536 bytes"):
        linear(random_x(1, 2048), weight, device=small.device)


def test_rows_of_x_too_long_for_tiles(small: Context) -> None:
    """21 rows of 192 columns are 16 KiB, which the tiled kernel would pad to 32 rows."""
    shape = Shape(13, 192, 24)
    weight, x = integer_weight(shape, "float16"), integer_x(30, shape)
    result = linear(x, weight, device=small.device)
    np.testing.assert_array_equal(result, reference.linear(x, weight))
    with (
        pytest.raises(DeviceLimitError, match=r"prepared x takes 24,576 bytes .* allows 16,384"),
        forced(kernel="gemm"),
    ):
        linear(x, weight, device=small.device)


def test_a_row_larger_than_a_binding(small: Context) -> None:
    weight, x = random_weight(Shape(1, 4104, 4104), "float16"), random_x(1, 4104)
    with pytest.raises(DeviceLimitError, match="one row of x or of the result takes 16,416 bytes"):
        linear(x, weight, device=small.device)
