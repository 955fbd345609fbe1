"""The kernels on a random weight with the shape of a real tied matrix, each measured alone."""

from __future__ import annotations

import math
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import Q4Weight
from wgpu_q4.bench import accounting
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.timing import DeviceTimer, Work
from wgpu_q4.device import DeviceWeight
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.kernels import (
    DEFAULT_LAYOUT,
    Accuracy,
    Layout,
    LinearPlan,
    MatrixShape,
    OutputDtype,
    plan_embedding,
    plan_linear,
)
from wgpu_q4.ops.product_steps import linear_steps

_ROTATED_BYTES = 256 << 20
"""Inputs rotate over about this many bytes, several times a large cache."""

_MOST_COPIES = 64
_ROWS_FROM_MEMORY = 64
"""Rows of x from which arithmetic bounds a product, so that one copy of the weight is enough."""


def random_weight(shape: MatrixShape) -> Q4Weight:
    """Return a weight with any nibbles, and scales from 0.5 to 1.5."""
    random = np.random.default_rng(0)
    packed = random.integers(0, 256, (shape.vocab, shape.embed_dim // 2), np.uint8)
    groups = shape.embed_dim // shape.group_size
    scales = random.uniform(0.5, 1.5, (shape.vocab, groups)).astype(shape.scales)
    return Q4Weight(packed, scales)


def kernel_name(plan: LinearPlan, layout: Layout) -> str:
    """Return the part of a kernel's name that says how the kernel works."""
    return plan.product.shader.name.removeprefix("linear_q4gsw_").partition(f"_{layout}")[0]


class Jobs:
    """Measures kernels on one weight and one device."""

    def __init__(self, timer: DeviceTimer, weight: Q4Weight) -> None:
        self.timer, self.context, self.weight = timer, timer.context, weight
        self.resident: DeviceWeight = self.context.weight(weight)
        """The copy on the device that the calls use too."""
        self.shape: MatrixShape = self.resident.shape
        self._copies: dict[Layout, list[DeviceWeight]] = {}
        self._random = np.random.default_rng(0)

    def embedding(
        self, ids: int, layout: Layout = DEFAULT_LAYOUT, output: OutputDtype = "float32"
    ) -> Result:
        """Measure the lookup of ``ids`` random ids in a weight that no cache holds."""
        context, shape, clock = self.context, self.shape, self.timer.clock
        out_bytes = ids * shape.embed_dim * (2 if output == "float16" else 4)
        out = self.result_buffer(out_bytes, f"the result of {ids} ids")
        device = context.limits, context.half_support
        plan = plan_embedding(shape, ids, layout, output, "buffer", *device)
        sizes = self._sizes(shape.embed_dim, ids, 1, 1)
        bindings = self.bindings(self.resident, layout)

        def variant() -> Work:
            chosen = self._random.integers(0, shape.vocab, ids, dtype=np.int32)
            id_buffer = context.create_buffer("ids", chosen.nbytes, "STORAGE", "COPY_DST")
            context.write(id_buffer, chosen)
            resources = {**bindings, "t_out": out, "t_indices": id_buffer, "out_sizes": sizes}
            return [context.pipelines.step(plan, resources)]

        timing = self.timer.measure([variant() for _ in range(8)])
        moved = accounting.embedding_bytes(shape, ids, layout, output)
        detail = {"layout": layout, "dtype": output}
        return Result("wgpu_q4", "embedding", ids, timing, clock, shape, detail, moved)

    def plan(self, rows: int, layout: Layout, accuracy: Accuracy) -> LinearPlan:
        """Return what runs for a product on this device."""
        context = self.context
        return plan_linear(
            *(self.shape, rows, layout, False, context.limits, context.half_support),
            accuracy=accuracy,
            matrix_units=context.matrix_units,
            software=context.is_software,
            subgroup=context.subgroup_size,
        )

    def accuracies(self, rows: int, layout: Layout) -> list[Accuracy]:
        """Return the accuracies for which different kernels run."""
        plans: dict[object, Accuracy] = {}
        for accuracy in get_args(Accuracy):
            plans.setdefault(self.plan(rows, layout, accuracy).product.key, accuracy)
        return list(plans.values())

    def linear(
        self,
        rows: int,
        layout: Layout = DEFAULT_LAYOUT,
        accuracy: Accuracy = "exact",
        cached: bool = False,
    ) -> Result:
        """Measure ``x · Wᵀ``; copies of the weight rotate, so that it comes from memory.

        Args:
            rows: the rows of x.
            layout: of the weight on the device.
            accuracy: of the product.
            cached: read one copy of the weight only, from a cache if it fits one.
        """
        context, shape, clock = self.context, self.shape, self.timer.clock
        plan = self.plan(rows, layout, accuracy)
        x = self._random.standard_normal((rows, shape.embed_dim), dtype=np.float32)
        x_buffer = context.create_buffer("x", x.nbytes, "STORAGE", "COPY_DST")
        context.write(x_buffer, x)
        out = self.result_buffer(rows * shape.vocab * 4, f"the result of {rows} rows")
        sizes = self._sizes(rows, plan.padded_rows, self.resident.exponent)

        def variant(resident: DeviceWeight) -> Work:
            bindings = self.bindings(resident, layout)
            resources = {**bindings, "t_out": out, "t_x": x_buffer, "sizes": sizes}
            return linear_steps(Workspace(context), plan, resources, None)

        rotate = rows < _ROWS_FROM_MEMORY and not cached
        copies = self._in_rotation(layout) if rotate else [self.resident]
        timing = self.timer.measure([variant(copy) for copy in copies])
        detail = {"layout": layout, "accuracy": accuracy, "kernel": kernel_name(plan, layout)}
        moved = accounting.linear_bytes(shape, rows, layout)
        flops = accounting.linear_flops(shape, rows)
        return Result("wgpu_q4", "linear", rows, timing, clock, shape, detail, moved, flops)

    def _in_rotation(self, layout: Layout) -> list[DeviceWeight]:
        """Return copies of the weight in ``layout`` that together are too large for a cache."""
        if layout not in self._copies:
            self._copies.clear()  # one layout at a time: the other's memory may be needed
            count = min(_MOST_COPIES, math.ceil(_ROTATED_BYTES / self.weight.nbytes))
            others = (DeviceWeight(self.context, self.weight) for _ in range(count - 1))
            self._copies[layout] = [self.resident, *others]
        return self._copies[layout]

    def bindings(self, resident: DeviceWeight, layout: Layout) -> dict[str, Any]:
        """Return what a kernel binds of a copy of the weight.

        Raises:
            ValueError: the device holds the weight in parts, and one kernel reads one part.
        """
        if len(resident.parts) > 1:
            raise ValueError(
                f"the weight takes {len(resident.parts)} bindings here; a kernel is measured on one"
            )
        return resident.parts[0].bindings(self.context, self.weight, layout)

    def result_buffer(self, nbytes: int, what: str) -> Any:
        """Return a new buffer for a result.

        Raises:
            ValueError: one binding cannot have so many bytes.
        """
        if nbytes > self.context.largest_binding:
            raise ValueError(f"{what} takes {nbytes:,} bytes, more than one binding may have")
        return self.context.create_buffer("out", nbytes, "STORAGE", "COPY_SRC")

    def _sizes(self, *values: int) -> Any:
        buffer = self.context.create_buffer("sizes", 16, "UNIFORM", "COPY_DST")
        padded: NDArray[np.int32] = np.zeros(4, np.int32)
        padded[: len(values)] = values
        self.context.write(buffer, padded)
        return buffer
