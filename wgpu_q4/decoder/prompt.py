"""A pass over a part of a prompt: many rows at a time, with the tiled products.

Passes are planned for a few numbers of rows.  One of them takes any prompt: what a pass has more
rows for than there are ids is computed for nothing, so a short prompt takes the smallest pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from wgpu_q4.decoder.config import Config
from wgpu_q4.decoder.layers import DeviceModel
from wgpu_q4.decoder.matrices import DeviceMatrix
from wgpu_q4.decoder.memory import Memory
from wgpu_q4.decoder.steps import Bound
from wgpu_q4.device.commands import Commands
from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels import Accuracy, plan_linear
from wgpu_q4.kernels.decoder import (
    Matrix,
    Source,
    plan_attention,
    plan_gemm,
    plan_glu,
    plan_heads,
)
from wgpu_q4.kernels.decoder.slices import SlicedPlan, plan_slices, slices_of
from wgpu_q4.kernels.linear import LinearPlan

if TYPE_CHECKING:
    from wgpu_q4.device import Context

PASS_ROWS = (32, 64, 128, 256, 512)
"""The rows of the passes; a device runs those that its decoder has memory for."""


class PromptSteps(Bound):
    """The commands of one pass.

    Attributes:
        rows: the most rows that the pass takes.
        layers: from the ids to the residual stream of the last layer, and its keys and values.
        last: from there to x of the last row, which the head reads.
    """

    def __init__(
        self,
        context: Context,
        config: Config,
        model: DeviceModel,
        memory: Memory,
        rows: int,
        accuracy: Accuracy,
    ) -> None:
        super().__init__(context, config, model, memory)
        self.rows = rows
        attended = config.heads * config.head_dim
        self._queries = memory.make("queries", memory.rows * attended * 4)
        self._accuracy = accuracy
        self._sizes: dict[tuple[int, int, int], Any] = {}
        self._plans: dict[tuple[Matrix, bool], SlicedPlan] = {}
        # As large as any product needs, so that one buffer serves them all.
        matrices = [one for layer in model.layers for one in layer.matrices]
        self._sum_bytes = max(self._plan(one, False).sum_bytes for one in matrices)
        self.layers = Commands.of(self._layers())
        self.last = Commands.of(self._last())

    def write_sizes(self, rows: int) -> None:
        """Queue the number of rows of the next pass."""
        for words, buffer in self._sizes.items():
            self._context.write(buffer, np.array([rows, *words], np.int32))

    def _layers(self) -> Iterator[Step]:
        layers, rows = self._model.layers, self.rows
        yield from self._embedding(rows, layers[0].attention_gain)
        for number, layer in enumerate(layers):
            yield from self._product(layer.qkv, self._x, layer.qkv_bias)
            yield self._heads(number)
            yield self._attention(number)
            yield from self._product(layer.output, self._attended)
            yield self._after(layer.unit_gain, layer.post_attention_gain)
            yield from self._product(layer.gate_up, self._x)
            yield self._glu()
            yield from self._product(layer.down, self._unit)
            if number + 1 < len(layers):
                yield self._after(layers[number + 1].attention_gain, layer.post_unit_gain)

    def _last(self) -> Iterator[Step]:
        gain = self._model.layers[-1].post_unit_gain
        yield self._norm(
            "add" if gain is None else "add_normed",
            self.rows,
            self._model.final_gain,
            chunked=True,
            last_row=True,
            part_gain=gain,
        )

    def _after(self, gain: Any, part_gain: Any | None) -> Step:
        source: Source = "add" if part_gain is None else "add_normed"
        return self._norm(source, self.rows, gain, part_gain=part_gain)

    def _heads(self, number: int) -> Step:
        """Return the step that makes queries ready and fills the cache."""
        config, memory, context = self._config, self._memory, self._context
        dispatch = plan_heads(
            memory.heads,
            self.rows,
            config.query_factor,
            context.limits,
            context.half_support,
            config.epsilon if config.head_norm else None,
        )
        return self._step(
            dispatch,
            t_out=self._queries,
            t_in=self._made,
            t_keys=memory.keys[number],
            t_values=memory.values[number],
            t_rope=memory.ropes[config.rope_of_layer[number]],
            t_state=memory.state,
            t_gain=self._model.layers[number].head_gains,
        )

    def _attention(self, number: int) -> Step:
        config, memory, context = self._config, self._memory, self._context
        dispatch = plan_attention(
            memory.heads,
            self.rows,
            context.limits,
            context.half_support,
            window=config.windows[number],
            cap=config.score_cap,
            software=context.is_software,
        )
        return self._step(
            dispatch,
            t_out=self._attended,
            t_in=self._queries,
            t_keys=memory.keys[number],
            t_values=memory.values[number],
            t_state=memory.state,
        )

    def _glu(self) -> Step:
        config, memory = self._config, self._memory
        plan = plan_glu(config.activation, config.intermediate, self.rows, self._context.limits)
        return self._step(plan, t_out=self._unit, t_in=self._made, t_state=memory.state)

    def _product(self, matrix: DeviceMatrix, x: Any, bias: Any | None = None) -> Iterator[Step]:
        found, memory = self._plan(matrix, bias is not None), self._memory
        plan = found.plan
        resources = {"t_x": x, "t_bias": bias, **matrix.bindings}
        resources["sizes"] = self._sizes_of(plan.padded_rows, matrix.exponent, found.slices)
        if plan.preparation is not None:
            prepared = memory.make("x prepared", plan.x_bytes)
            scales = memory.make("scales of x", max(4, plan.x_scale_bytes))
            written = {"t_out": prepared, "t_out_scales": scales}
            yield self._step(plan.preparation, **resources, **written)
            resources |= {"t_x": prepared, "t_x_scales": scales}
        if found.sums is None:
            yield self._step(plan.product, t_out=self._made, **resources)
            return
        parts = memory.make("sums of slices", self._sum_bytes)
        yield self._step(plan.product, t_out=parts, **resources)
        summed = {"t_in": parts, "t_bias": bias, "t_state": memory.state}
        yield self._step(found.sums, t_out=self._made, **summed)

    def _sizes_of(self, padded_rows: int, exponent: int, slices: int) -> Any:
        """Return the buffer of the sizes of a product, which `write_sizes` fills."""
        key = padded_rows, exponent, slices
        if key not in self._sizes:
            name = f"sizes of a pass of {self.rows} rows in {padded_rows}, {exponent}, {slices}"
            self._sizes[key] = self._memory.uniform(name)
        return self._sizes[key]

    def _plan(self, matrix: DeviceMatrix, bias: bool) -> SlicedPlan:
        """Return what runs for a product: layers of one shape share it."""
        key = matrix.matrix, bias
        if key not in self._plans:
            self._plans[key] = self._new_plan(matrix, bias)
        return self._plans[key]

    def _new_plan(self, matrix: DeviceMatrix, bias: bool) -> SlicedPlan:
        context = self._context
        plan = self._whole(matrix, bias)
        slices = slices_of(plan, matrix.matrix, self.rows, context.is_software)
        if slices == 1:
            return SlicedPlan(plan)
        plan = self._whole(matrix, False)
        return plan_slices(plan, matrix.matrix, self.rows, bias, context.limits, slices)

    def _whole(self, matrix: DeviceMatrix, bias: bool) -> LinearPlan:
        """Return a product whose tiles have a workgroup each."""
        context, shape = self._context, matrix.matrix.shape
        if matrix.matrix.type != "q4gsw":
            return plan_gemm(
                *(matrix.matrix, self.rows, bias, context.limits, context.half_support),
                software=context.is_software,
                subgroup=context.subgroup_size,
            )
        return plan_linear(
            *(shape, self.rows, "rows", bias, context.limits, context.half_support),
            accuracy=self._accuracy,
            matrix_units=context.matrix_units,
            software=context.is_software,
            subgroup=context.subgroup_size,
        )
