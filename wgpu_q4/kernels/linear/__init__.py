"""``x · Wᵀ``: the kernels, the table that chooses one, and the dispatches that run it."""

from wgpu_q4.kernels.linear.plan import LinearPlan, plan_linear
from wgpu_q4.kernels.linear.shaders import (
    INTEGER_BITS,
    ROUNDING,
    LinearKernel,
    MatrixTile,
    halve_x_shader,
    linear_kernels,
    linear_shader,
    matrix_shader,
    preparation_shader,
)
from wgpu_q4.kernels.linear.table import (
    LAST_GEMV_ROWS,
    TABLE,
    UNCHECKED,
    Choice,
    choose_linear,
)

__all__ = [
    "INTEGER_BITS",
    "LAST_GEMV_ROWS",
    "ROUNDING",
    "TABLE",
    "UNCHECKED",
    "Choice",
    "LinearKernel",
    "LinearPlan",
    "MatrixTile",
    "choose_linear",
    "halve_x_shader",
    "linear_kernels",
    "linear_shader",
    "matrix_shader",
    "plan_linear",
    "preparation_shader",
]
