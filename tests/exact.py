"""Matrix products whose every intermediate sum is exact, so that a result is right or wrong.

Weights and activations are small integers times powers of two (`tests.products`): no kernel has to
round, in whatever order it adds.  ``tests/gpu/test_exact_products.py`` runs them on the kernels as
they are; `tools.mutants` runs them on kernels with a wrong place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cases import WIDE, Shape, anew, bindings_of
from tests.products import integer_weight, integer_x
from wgpu_q4 import forced, linear, reference
from wgpu_q4.device import context_for
from wgpu_q4.kernels import LINEAR_KERNELS, Layout

# x is staged in two slices; a workgroup takes several tiles of the weight, in rows and in blocks.
SLICES, TILES, STRIPS = Shape(3, 6400, 64), Shape(210_000, 32, 32), Shape(4200, 32, 32)


@dataclass(frozen=True)
class Product:
    """``x · Wᵀ``, and a bias if ``biased``, by a named kernel from a weight in a named layout.

    The device binds ``binding`` bytes, which may leave the weight in parts.
    """

    kernel: str
    layout: Layout
    rows: int
    shape: Shape = WIDE
    biased: bool = False
    binding: int = 1 << 27

    def __str__(self) -> str:
        bias = "-bias" if self.biased else ""
        parts = "-parts" if self.in_parts else ""
        return f"{self.kernel}-{self.layout}-{self.rows}x{self.shape}{bias}{parts}"

    @property
    def in_parts(self) -> bool:
        """Tell whether the weight is larger than a binding."""
        return self.shape.vocab * self.shape.embed_dim // 2 > self.binding

    @property
    def takes_long(self) -> bool:
        """Tell whether the matrix is much larger than `WIDE`."""
        return self.shape != WIDE

    def exact(self) -> NDArray[np.float64]:
        """Return the right result."""
        return _given(self)[2]

    def runs_on(self, device: Any) -> bool:
        """Tell whether ``device`` has what the kernel needs."""
        context = context_for(device)
        kernel = LINEAR_KERNELS[self.kernel]
        return kernel.runs_on(context.half_support, (), context.subgroup_size)

    def run(self, device: Any) -> NDArray[np.float32]:
        """Return the result of the kernel on ``device``."""
        x, bias, _ = _given(self)
        weight = anew(integer_weight(self.shape, "float16"))
        with bindings_of(self.binding, device), forced(layout=self.layout, kernel=self.kernel):
            result = linear(x, weight, bias, device)
        return np.asarray(result)


@cache
def _given(
    product: Product,
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None, NDArray[np.float64]]:
    """Return x, the bias and the exact result."""
    x = integer_x(product.rows, product.shape, product.kernel)
    bias = np.arange(product.shape.vocab, dtype=np.float32) if product.biased else None
    return x, bias, reference.linear(x, integer_weight(product.shape, "float16"), bias)


PRODUCTS = (
    Product("gemv", "rows", 2, biased=True, binding=4096),
    Product("gemv", "rows", 3),
    Product("gemv", "blocks_buffer", 3),
    Product("gemv_wide", "rows", 1),
    Product("gemv_wide", "rows", 3),
    Product("gemv_wide", "rows", 3, biased=True),
    Product("gemv_wide", "rows", 17),
    Product("gemv_wide", "rows", 2, SLICES),
    Product("gemv_wide_subnormal", "rows", 3),
    Product("gemv_registers", "rows", 1),
    Product("gemv_registers", "rows", 1, SLICES, biased=True),
    Product("gemv_int16", "rows", 1),
    Product("gemv_int16", "rows", 3),
    Product("gemv_int16", "blocks_buffer", 1),
    Product("gemv_int16", "blocks_buffer", 3),
    Product("gemv_int8", "rows", 1),
    Product("gemv_int8", "rows", 1, TILES),
    Product("gemv_int8", "rows", 9),
    Product("gemv_int8", "blocks_buffer", 1),
    Product("gemv_int8", "blocks_buffer", 1, STRIPS),
    Product("gemv_int8", "blocks_buffer", 3),
    Product("gemm", "rows", 13),
    Product("gemm", "rows", 70),
    Product("gemm", "blocks_buffer", 13),
    Product("gemm_int8", "rows", 13),
    Product("gemm_int8", "rows", 100),
    Product("gemm_int8", "blocks_buffer", 100),
)
