"""Kernels without wgpu's checks of addresses: the same bits, and no buffer that is too small."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.cases import WIDE, Shape, random_weight, random_x
from tests.products import KERNELS
from wgpu_q4 import DeviceError, forced, linear
from wgpu_q4.device import context_for, request_device
from wgpu_q4.kernels import Layout, plan_linear


@pytest.fixture(scope="module")
def devices() -> tuple[Any, Any]:
    """A device on which kernels run without checks where they may, and one on which none does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WGPU_Q4_SHADER_CHECKS", raising=False)
        unchecked = request_device(implementation="wgpu")
        assert context_for(unchecked).pipelines.checks_because == ""
        patch.setenv("WGPU_Q4_SHADER_CHECKS", "1")
        checked = request_device(implementation="wgpu")
        because = context_for(checked).pipelines.checks_because
    assert because == "WGPU_Q4_SHADER_CHECKS is set"
    return unchecked, checked


@pytest.mark.parametrize(("kernel", "layout", "shape", "rows"), KERNELS, ids=str)
def test_checked_and_unchecked_kernels_give_the_same_bits(
    devices: tuple[Any, Any], kernel: str, layout: Layout, shape: Shape, rows: int
) -> None:
    weight, x = random_weight(shape, "float16"), random_x(rows, shape.embed_dim)
    if kernel == "gemv_wide_subnormal" and not context_for(devices[0]).half_support.subnormals:
        kernel = "gemv_wide"
    with forced(layout=layout, kernel=kernel):
        unchecked, checked = (linear(x, weight, device=device) for device in devices)
    np.testing.assert_array_equal(unchecked, checked)


def test_an_unchecked_kernel_refuses_buffers_that_are_too_small() -> None:
    context, weight = context_for(), random_weight(WIDE, "float16")
    resident = context.weight(weight)
    plan = plan_linear(
        resident.shape, 3, "rows", False, context.limits, context.half_support, "gemv_wide"
    ).product
    assert plan.needs == {
        "t_out": 3 * WIDE.vocab * 4,
        "t_x": 3 * WIDE.embed_dim * 4,
        "t_weight": weight.packed.nbytes,
        "t_scales": weight.scales.nbytes + weight.scales.nbytes % 4,
        "sizes": 16,
    }
    buffers = {name: context.create_buffer("b", n, "STORAGE") for name, n in plan.needs.items()}
    buffers |= resident.parts[0].bindings(context, weight, "rows")
    for name, nbytes in plan.needs.items():
        small = context.create_buffer("small", nbytes - 4, "STORAGE")
        with pytest.raises(DeviceError, match=rf"needs {nbytes:,} bytes in {name}"):
            context.pipelines.step(plan, buffers | {name: small})
