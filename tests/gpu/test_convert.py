"""The conversions of arrays between float16 and float32, against numpy's, to the bit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wgpu_q4.device import context_for
from wgpu_q4.kernels import Halves, OutputDtype, convert_shader, plan_convert

POISON = 0xA5A5A5A5


def converted(values: NDArray[Any], to: OutputDtype, halves: Halves) -> NDArray[Any]:
    """What the kernel makes of the values; it changes nothing after them."""
    context = context_for()
    made = np.empty(values.size, to)
    words = -(-made.nbytes // 4)
    whole = np.full(words + 600, POISON, np.uint32)
    source = np.zeros(-(-values.nbytes // 4), np.uint32)
    source.view(values.dtype)[: values.size] = values
    plan = plan_convert(values.size, to, context.limits, context.half_support)
    with context.lock, context.guard, context.guard.busy:
        buffers = {"t_in": source, "t_out": whole}
        bound: dict[str, Any] = {}
        for name, data in buffers.items():
            bound[name] = context.create_buffer(
                name, data.nbytes, "STORAGE", "COPY_SRC", "COPY_DST"
            )
            context.write(bound[name], data)
        bound["sizes"] = context.scratch.sizes("test", values.size)
        plan = replace(plan, shader=convert_shader(to, halves))
        context.run([context.pipelines.step(plan, bound)], bound["t_out"], whole)
    assert (whole[words:] == POISON).all()
    return whole.view(to)[: values.size]


@pytest.mark.parametrize("halves", ["native", "integer"])
@pytest.mark.parametrize("missing", [0, 1, 513])
def test_every_half_as_a_float(halves: Halves, missing: int) -> None:
    if halves == "native" and context_for().half_support.halves != "native":
        halves = "integer"
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)[: (1 << 16) - missing]
    found, expected = converted(values, "float32", halves), values.astype(np.float32)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(found[number].view(np.uint32), expected[number].view(np.uint32))
    assert np.isnan(found[~number]).all()


@pytest.mark.parametrize("halves", ["native", "integer"])
@pytest.mark.parametrize("count", [1, 2, 511, 1024, 70001])
def test_floats_as_halves(halves: Halves, count: int) -> None:
    """Between halves, exactly between them, subnormal, and beyond the largest."""
    if halves == "native" and context_for().half_support.halves != "native":
        halves = "integer"
    rng = np.random.default_rng(count)
    some = rng.integers(0, 0x7C00, count, np.uint16).view(np.float16).astype(np.float32)
    step = np.ldexp(np.float32(1), np.maximum(np.frexp(some)[1], -13) - 11)
    values = some + step * rng.choice([0, 0.25, 0.5, 0.75, 1], count).astype(np.float32)
    values *= rng.choice([-1, 1, 2, 2**-14], count).astype(np.float32)
    values[0], values[-1] = np.inf, np.nan
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    found = converted(values, "float16", halves)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(found[number].view(np.uint16), expected[number].view(np.uint16))
    assert np.isnan(found[~number]).all()
