"""A product ``x · Wᵀ`` that is to be planned, and the plan of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from wgpu_q4.kernels.dispatch import Dispatch, MatrixShape, fold
from wgpu_q4.kernels.options import ROWS, Halves, Layout
from wgpu_q4.kernels.traits import HalfSupport
from wgpu_q4.kernels.wgsl import Shader

_PREPARED_PER_WORKGROUP = 64
"""Invocations of a workgroup of the passes that prepare x, except for matrix units."""


@dataclass(frozen=True)
class LinearPlan:
    """What runs for ``x · Wᵀ``.

    Attributes:
        kernel: the name of the kernel.
        product: the matrix product.
        preparation: the dispatch that first puts x into the form that the product reads.
        padded_rows: rows of x in that form.
        x_bytes, x_scale_bytes: what the preparation writes as ``t_out`` and ``t_out_scales``.
    """

    kernel: str
    product: Dispatch
    preparation: Dispatch | None = None
    padded_rows: int = 0
    x_bytes: int = 0
    x_scale_bytes: int = 0


@dataclass(frozen=True)
class Job:
    """A product ``x · Wᵀ`` to be planned.

    Attributes:
        shape: V, K, G and the dtype of the scales.
        rows: rows of x, at least one.
        layout: how the device holds the weight.
        bias: True if a bias is added.
        limits: the device's limits, by WebGPU's names with dashes.
        half_support: what the device's half-precision functions do.
        subgroup: lanes of its subgroups, if kernels may count on them; else 0.
        result_row: outputs in a row of the result: V, or more where the weight is one part of a
            larger matrix.
    """

    shape: MatrixShape
    rows: int
    layout: Layout
    bias: bool
    limits: Mapping[str, int]
    half_support: HalfSupport
    subgroup: int
    result_row: int

    @property
    def halves(self) -> Halves:
        """How half-precision numbers are converted."""
        return self.half_support.halves

    @property
    def chunks(self) -> int:
        """Chunks of 32 columns in a row."""
        return self.shape.embed_dim // 32

    def dispatch(
        self,
        shader: Shader,
        constants: Mapping[str, int],
        workgroups: int,
        needs: Mapping[str, int] | None = None,
    ) -> Dispatch:
        """Return a dispatch of that many workgroups, with the constants of the shape."""
        grid = fold(workgroups, self.limits)
        return Dispatch(shader, {**self.shape.constants, **constants}, grid, needs)

    def prepare(
        self, shader: Shader, invocations: int, constants: Mapping[str, int] | None = None
    ) -> Dispatch:
        """Return the dispatch of a pass that prepares x with that many ``invocations``."""
        return self.dispatch(shader, constants or {}, -(-invocations // _PREPARED_PER_WORKGROUP))

    def needs(self, x_bytes: int, x_scale_bytes: int) -> dict[str, int]:
        """Return the bytes that each buffer of the product must hold, by the binding's name.

        Args:
            x_bytes: bytes of x as a preparation left it; 0 for x as it is.
            x_scale_bytes: bytes of its scales; 0 for none.
        """
        shape = self.shape
        rows = shape.vocab if self.layout in ROWS else -(-shape.vocab // 8) * 8
        scale_bytes = shape.vocab * (shape.embed_dim // shape.group_size)
        scale_bytes *= 2 if shape.scales == "float16" else 4
        return {
            "t_out": ((self.rows - 1) * self.result_row + shape.vocab) * 4,
            "t_x": x_bytes or self.rows * shape.embed_dim * 4,
            "t_weight": rows * shape.embed_dim // 2,
            "t_scales": scale_bytes + -scale_bytes % 4,
            "sizes": 16,
            **({"t_bias": shape.vocab * 4} if self.bias else {}),
            **({"t_x_scales": x_scale_bytes} if x_scale_bytes else {}),
        }
