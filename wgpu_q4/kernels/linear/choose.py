"""``x · Wᵀ``: which kernel multiplies, and the dispatches that run it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from wgpu_q4.kernels.dispatch import MatrixShape
from wgpu_q4.kernels.linear.job import Job, LinearPlan
from wgpu_q4.kernels.linear.matrix_units import usable_units
from wgpu_q4.kernels.linear.table import TABLE, Choice, linear_kernel
from wgpu_q4.kernels.options import Accuracy, Layout
from wgpu_q4.kernels.traits import HalfSupport, MatrixUnits


def choose_linear(
    shape: MatrixShape,
    rows: int,
    layout: Layout,
    half_support: HalfSupport,
    accuracy: Accuracy = "exact",
    matrix_units: Collection[MatrixUnits] = (),
    software: bool = False,
    subgroup: int = 0,
) -> Choice:
    """Return the row of `TABLE` for ``rows`` rows of x, on a processor if ``software``.

    ``subgroup`` is the lanes of the device's subgroups, if kernels may count on them; else 0.
    """

    def fits(choice: Choice) -> bool:
        kernel, measured = choice.kernel, choice.measured
        return (
            accuracy in choice.accuracies
            and layout in measured.layouts
            and measured.first_rows <= rows
            and (measured.last_rows is None or rows <= measured.last_rows)
            and (software or not measured.software)
            and kernel.takes(shape)
            and kernel.runs_on(half_support, matrix_units, subgroup)
        )

    return next(choice for choice in TABLE if fits(choice))


def plan_linear(
    shape: MatrixShape,
    rows: int,
    layout: Layout,
    bias: bool,
    limits: Mapping[str, int],
    half_support: HalfSupport,
    kernel: str | None = None,
    accuracy: Accuracy = "exact",
    matrix_units: Collection[MatrixUnits] = (),
    software: bool = False,
    result_row: int | None = None,
    subgroup: int = 0,
) -> LinearPlan:
    """Return the dispatches of ``x · Wᵀ`` for ``rows`` rows of x (at least one).

    Args:
        shape: V, K, G and the dtype of the scales.
        rows: rows of x.
        layout: how the device holds the weight.
        bias: True if a bias is added.
        limits: the device's limits.
        half_support: what its half-precision functions do.
        kernel: the name of a kernel, instead of the choice of `TABLE`.
        accuracy: the least that the chosen kernel must reach; a more exact one may be faster.
        matrix_units: what the device's matrix units do.
        software: True if the device runs on the processor.
        result_row: outputs in a row of the result; None for V.  It is more where the weight is one
            part of a larger matrix.
        subgroup: lanes of the device's subgroups, if they are known and in order; else 0.

    Raises:
        KernelError: ``kernel`` does not exist, or cannot do this shape, layout or device.
    """
    matrix_units = usable_units(matrix_units, limits)
    if kernel is None:
        record = choose_linear(
            shape, rows, layout, half_support, accuracy, matrix_units, software, subgroup
        ).kernel
    else:
        record = linear_kernel(kernel)
        record.check(shape, rows, layout, half_support, matrix_units, subgroup)
    wide = shape.vocab if result_row is None else result_row
    return record.plan(Job(shape, rows, layout, bias, limits, half_support, subgroup, wide))
