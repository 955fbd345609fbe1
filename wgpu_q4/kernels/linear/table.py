"""The kernels, and the table of measurements that chooses one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wgpu_q4.errors import KernelError
from wgpu_q4.kernels.linear.gemm import GEMM
from wgpu_q4.kernels.linear.gemm_integers import GEMM_INT8
from wgpu_q4.kernels.linear.gemv import GEMV
from wgpu_q4.kernels.linear.gemv_integers import GEMV_INT8, GEMV_INT16
from wgpu_q4.kernels.linear.gemv_registers import GEMV_REGISTERS
from wgpu_q4.kernels.linear.gemv_wide import GEMV_WIDE, GEMV_WIDE_SUBNORMAL
from wgpu_q4.kernels.linear.matrix_units import GEMM_MATRIX
from wgpu_q4.kernels.linear.record import LinearKernel, Measured
from wgpu_q4.kernels.options import Accuracy

LINEAR_KERNELS: Mapping[str, LinearKernel] = {
    kernel.name: kernel
    for kernel in (
        GEMV,
        GEMV_WIDE,
        GEMV_WIDE_SUBNORMAL,
        GEMV_REGISTERS,
        GEMV_INT16,
        GEMV_INT8,
        GEMM,
        GEMM_INT8,
        GEMM_MATRIX,
    )
}
"""Every kernel by its name."""


def linear_kernel(name: str) -> LinearKernel:
    """Return the kernel of that name.

    Raises:
        KernelError: there is none; names those that there are.
    """
    if name not in LINEAR_KERNELS:
        raise KernelError(f"kernel must be one of {', '.join(LINEAR_KERNELS)}, not {name!r}")
    return LINEAR_KERNELS[name]


@dataclass(frozen=True, eq=False)
class Choice:
    """A row of the table: a kernel, and the measurement that chooses it."""

    kernel: LinearKernel
    measured: Measured

    @property
    def because(self) -> str:
        """What was measured."""
        return self.measured.because

    @property
    def accuracies(self) -> tuple[Accuracy, ...]:
        """The accuracies for which the kernel is chosen."""
        return self.measured.accuracies or self.kernel.accuracies


_BY_PREFERENCE = (
    GEMV_INT8,
    GEMM_INT8,
    GEMV_INT16,
    GEMV_REGISTERS,
    GEMV_WIDE_SUBNORMAL,
    GEMV_WIDE,
    GEMV,
    GEMM,
)
_REST = tuple(Choice(kernel, row) for kernel in _BY_PREFERENCE for row in kernel.measured)

TABLE: tuple[Choice, ...] = (
    *(Choice(GEMM_MATRIX, row) for row in GEMM_MATRIX.measured),
    *(choice for choice in _REST if choice.measured.software),
    *(choice for choice in _REST if not choice.measured.software),
)
"""The rows of the table; the first that fits is taken. The kernel on matrix units comes first, then
the kernels that are fast on a processor, then the others, from the least exact to the plainest."""
