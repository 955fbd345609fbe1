"""Products with a matrix that has offsets, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from wgpu_q4.decoder import AffineMatrix
from wgpu_q4.decoder.matrices import own_matrix
from wgpu_q4.device import Context
from wgpu_q4.device.pipelines import Step
from wgpu_q4.device.upload import upload
from wgpu_q4.kernels import HalfSupport
from wgpu_q4.kernels.decoder import plan_gemm, plan_gemv

SHAPES = ((1, 32), (37, 96), (331, 1056), (1031, 64))
"""Rows are prime or one, so that no team and no tile is full; chunks are 1 to 33."""

Case = tuple[tuple[int, int], HalfSupport | None]
CASES: list[Case] = [(shape, None) for shape in SHAPES]
CASES += [((37, 96), HalfSupport(subnormals=True)), ((37, 96), HalfSupport())]
"""With the half precision that the device has, and with less."""

Floats = NDArray[np.float32]


def random_matrix(bits: int, shape: tuple[int, int]) -> AffineMatrix:
    rng = np.random.default_rng(shape[0])
    vocab, embed_dim = shape
    packed = np.frombuffer(rng.bytes(vocab * embed_dim * bits // 8), np.uint8)
    pairs = rng.standard_normal((vocab, embed_dim // 32, 2)).astype(np.float16)
    pairs[::3, :, 0] = np.float16(3e-6)  # subnormal
    return AffineMatrix(packed.reshape(vocab, -1), pairs)


def bound(matrix: AffineMatrix, x: Floats) -> NDArray[np.float64]:
    """Return how far a product in float32 may be from the exact one.

    A value is made of two: scale · (q − centre), and offset + centre · scale. No product of x and
    one of these is part of more than K / 32 + 60 sums and products in a row, each of which is off
    by 2⁻²⁴ of its size: 16 of a chunk, 3 of its sums and its scale, one for each chunk, and at most
    2 · 16 where a team's sums are added up.
    """
    numbers = np.float64(8 if matrix.bits == 4 else 128)
    scales, offsets = np.repeat(matrix.pairs.astype(np.float64), 32, axis=1).transpose(2, 0, 1)
    whole = matrix.dequantize().astype(np.float64)
    centres = offsets + numbers * scales
    sizes = np.abs(whole - centres) + np.abs(centres)
    roundings = (x.shape[1] / 32 + 60) * 2.0**-24
    allowed: NDArray[np.float64] = np.abs(x).astype(np.float64) @ sizes.T * roundings
    return allowed


def run(context: Context, steps: list[Step], out: Any, shape: tuple[int, ...]) -> Floats:
    found = np.empty(shape, np.float32)
    context.run(steps, out, found)
    return found


KINDS = ((0, True, False), (100, True, True), (0, False, False))
"""An offset of x; whether the teams are those of a processor, and whether subgroups are used."""


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("shape", "support"), CASES)
def test_one_row(
    bits: int, shape: tuple[int, int], support: HalfSupport | None, context: Context
) -> None:
    """x has a common offset in one case: the sum of x is then what matters."""
    matrix, (vocab, embed_dim) = random_matrix(bits, shape), shape
    rng = np.random.default_rng(1)
    with context.lock, context.guard, context.guard.busy:
        device = own_matrix(context, "a matrix", matrix)
        out = upload(context, "out", np.zeros(vocab, np.float32))
        for offset, software, by_subgroup in KINDS:
            x = rng.standard_normal((1, embed_dim), np.float32) + np.float32(offset)
            chunked = x.reshape(-1, 8, 4).swapaxes(0, 1)
            plan = plan_gemv(
                *(device.matrix, "store", context.limits, support or context.half_support),
                software=software,
                subgroup=context.subgroup_size if by_subgroup else 0,
            )
            given = {"t_x": upload(context, "x", chunked), "t_out": out, **device.bindings}
            found = run(context, [context.pipelines.step(plan.dispatch, given)], out, (1, vocab))
            exact = x.astype(np.float64) @ matrix.dequantize().astype(np.float64).T
            assert (np.abs(found - exact) <= bound(matrix, x)).all()


@pytest.mark.parametrize("by_lanes", [False, True], ids=["tiles", "lanes"])
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("shape", SHAPES)
def test_many_rows(bits: int, shape: tuple[int, int], by_lanes: bool, context: Context) -> None:
    """A pass for 40 rows that has 37; a processor with subgroups of 8 lanes computes by lanes."""
    matrix, (vocab, embed_dim) = random_matrix(min(bits, 8), shape), shape
    held = matrix if bits < 16 else matrix.dequantize().astype(np.float16)
    rows, most = 37, 40
    x = np.random.default_rng(1).standard_normal((rows, embed_dim), np.float32)
    bias = np.random.default_rng(2).standard_normal(vocab, np.float32)
    with context.lock, context.guard, context.guard.busy:
        device = own_matrix(context, "a matrix", held)
        plan = plan_gemm(
            *(device.matrix, most, True, context.limits, context.half_support),
            software=by_lanes,
            subgroup=context.subgroup_size,
        )
        assert (plan.preparation is None) == by_lanes == ("lanes" in plan.kernel)
        out = upload(context, "out", np.zeros((most, vocab), np.float32))
        sizes = np.array([rows, plan.padded_rows, 0, 0], np.int32)
        given = {
            "t_x": upload(context, "x", np.pad(x, ((0, most - rows), (0, 0)))),
            "t_bias": upload(context, "bias", bias),
            "sizes": upload(context, "sizes", sizes, "UNIFORM"),
            **device.bindings,
        }
        steps = []
        if plan.preparation is not None:
            ready = upload(context, "x prepared", np.zeros(plan.x_bytes // 4, np.float32))
            steps.append(context.pipelines.step(plan.preparation, {**given, "t_out": ready}))
            given["t_x"] = ready
        steps.append(context.pipelines.step(plan.product, {**given, "t_out": out}))
        found = run(context, steps, out, (most, vocab))
    values = matrix.dequantize() if isinstance(held, AffineMatrix) else held
    exact = x.astype(np.float64) @ values.astype(np.float64).T + bias
    allowed = bound(matrix, x) + 2.0**-22 * np.abs(bias)
    assert (np.abs(found[:rows] - exact) <= allowed).all()
    assert not found[rows:].any()
