"""The kernels: one room for each op, which composes its shaders and plans its dispatches.

Everything here is text and arithmetic on shapes and limits, so that a decision can be read, printed
and tested without a device.
"""

from wgpu_q4.kernels.catalogue import (
    all_shaders,
    matrix_shaders,
    optional_shaders,
    portable_shaders,
)
from wgpu_q4.kernels.convert import convert_shader, plan_convert
from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape, fold
from wgpu_q4.kernels.embedding import embedding_shader, plan_embedding
from wgpu_q4.kernels.linear import (
    LAST_GEMV_ROWS,
    LINEAR_KERNELS,
    TABLE,
    Choice,
    LinearKernel,
    LinearPlan,
    choose_linear,
    linear_kernel,
    plan_linear,
)
from wgpu_q4.kernels.options import (
    BLOCKS,
    DEFAULT_LAYOUT,
    ROWS,
    Accuracy,
    Halves,
    Layout,
    OutputDtype,
    Storage,
)
from wgpu_q4.kernels.pack import pack_shader, plan_pack
from wgpu_q4.kernels.probe import (
    PROBE_HALF_ARITHMETIC,
    PROBE_HALVES,
    PROBE_SUBGROUPS,
    PROBED_INVOCATIONS,
)
from wgpu_q4.kernels.reduction import LARGEST_TOP_K, Reduce, ReducePlan, Results, plan_reduce
from wgpu_q4.kernels.traits import MATRIX_UNITS, HalfSupport, MatrixUnits
from wgpu_q4.kernels.transposed import TransposedPlan, plan_transposed, transposed_shader
from wgpu_q4.kernels.wgsl import (
    SOURCE_VARIABLE,
    Binding,
    Shader,
    parse_bindings,
    piece_bindings,
    piece_names,
    read_piece,
    source_folder,
)

__all__ = [
    "BLOCKS",
    "DEFAULT_LAYOUT",
    "LARGEST_TOP_K",
    "LAST_GEMV_ROWS",
    "LINEAR_KERNELS",
    "MATRIX_UNITS",
    "PROBED_INVOCATIONS",
    "PROBE_HALF_ARITHMETIC",
    "PROBE_HALVES",
    "PROBE_SUBGROUPS",
    "ROWS",
    "SOURCE_VARIABLE",
    "TABLE",
    "Accuracy",
    "Binding",
    "Choice",
    "Dispatch",
    "HalfSupport",
    "Halves",
    "Layout",
    "LinearKernel",
    "LinearPlan",
    "MatrixShape",
    "MatrixUnits",
    "OutputDtype",
    "Reduce",
    "ReducePlan",
    "Results",
    "Shader",
    "Storage",
    "TransposedPlan",
    "all_shaders",
    "choose_linear",
    "convert_shader",
    "embedding_shader",
    "fold",
    "linear_kernel",
    "matrix_shaders",
    "optional_shaders",
    "pack_shader",
    "parse_bindings",
    "piece_bindings",
    "piece_names",
    "plan_convert",
    "plan_embedding",
    "plan_linear",
    "plan_pack",
    "plan_reduce",
    "plan_transposed",
    "portable_shaders",
    "read_piece",
    "source_folder",
    "transposed_shader",
]
