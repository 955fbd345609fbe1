"""``x · Wᵀ``: a record for each kernel, and the table, made of them, that chooses one."""

from wgpu_q4.kernels.linear.choose import choose_linear, plan_linear
from wgpu_q4.kernels.linear.job import LinearPlan
from wgpu_q4.kernels.linear.record import LinearKernel
from wgpu_q4.kernels.linear.table import LINEAR_KERNELS, TABLE, Choice, linear_kernel
from wgpu_q4.kernels.linear.team import LAST_GEMV_ROWS

__all__ = [
    "LAST_GEMV_ROWS",
    "LINEAR_KERNELS",
    "TABLE",
    "Choice",
    "LinearKernel",
    "LinearPlan",
    "choose_linear",
    "linear_kernel",
    "plan_linear",
]
