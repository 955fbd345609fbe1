"""Which kernel runs, with which constants, on which grid.

This is the one place that decides.  Everything here is arithmetic on shapes and limits, so that a
decision can be read, printed and tested without a device.
"""

from wgpu_q4.plan.dispatch import MatrixShape, Plan, fold
from wgpu_q4.plan.gather import plan_embedding, plan_pack
from wgpu_q4.plan.linear import LinearPlan, plan_linear
from wgpu_q4.plan.reduce import LARGEST_TOP_K, ReducePlan, plan_reduce
from wgpu_q4.plan.table import (
    DEFAULT_LAYOUT,
    LARGEST_MAPPED_RESULT,
    LAST_GEMV_ROWS,
    TABLE,
    UNCHECKED,
    Choice,
    choose_linear,
)
from wgpu_q4.plan.traits import MATRIX_UNITS, HalfSupport, MatrixUnits

__all__ = [
    "DEFAULT_LAYOUT",
    "LARGEST_MAPPED_RESULT",
    "LARGEST_TOP_K",
    "LAST_GEMV_ROWS",
    "MATRIX_UNITS",
    "TABLE",
    "UNCHECKED",
    "Choice",
    "HalfSupport",
    "LinearPlan",
    "MatrixShape",
    "MatrixUnits",
    "Plan",
    "ReducePlan",
    "choose_linear",
    "fold",
    "plan_embedding",
    "plan_linear",
    "plan_pack",
    "plan_reduce",
]
