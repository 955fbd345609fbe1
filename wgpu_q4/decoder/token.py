"""A step of generation: from the id of one token to the logits of the next.

Each product is a GEMV, whose prologue and epilogue do what stands before and after it.  For a model
that normalizes what a layer's part computes, the sum of squares is of another vector than the one
that is added, so that norm has a dispatch of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wgpu_q4.decoder.config import Config
from wgpu_q4.decoder.layers import DeviceModel
from wgpu_q4.decoder.matrices import DeviceMatrix
from wgpu_q4.decoder.memory import Memory
from wgpu_q4.decoder.steps import Bound
from wgpu_q4.device.commands import Commands
from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels.decoder import Epilogue, GemvPlan, plan_gemv, plan_token_attention

if TYPE_CHECKING:
    from wgpu_q4.device import Context


NEAR = 512
"""Positions up to which one workgroup for each head is as fast as several and their merge."""

_TILE = 128
"""Positions that a workgroup takes at a time: a slice of one tile is done soonest."""

MOST_SLICES = 64
"""More are not worth their merge."""


def slices_for(capacity: int, software: bool) -> int:
    """Return how many workgroups share the positions of a head that looks at many."""
    return 1 if software else max(2, min(MOST_SLICES, -(-capacity // _TILE)))


class TokenSteps(Bound):
    """The commands that make the logits of one row.

    Attributes:
        near: from the id to the logits, for the first `NEAR` positions.
        far: the same for all positions: several workgroups share those that a head looks at.
        head: from x of the last row of a prompt, which is normalized already, to the logits.
        best: the buffer of the entries that the head leaves, one for each of its workgroups.
        best_count: how many there are.
    """

    def __init__(
        self, context: Context, config: Config, model: DeviceModel, memory: Memory, slices: int
    ) -> None:
        super().__init__(context, config, model, memory)
        self._square_count = 0
        self.best_count = sum(plan.workgroups for _, plan in self._head_plans())
        self.best = memory.make("best logits", 8 * self.best_count)
        self._squares = memory.make("sums of squares", 4 * config.hidden)
        self.head = Commands.of(self._head())
        self.near = Commands.of(self._token(1))
        self.far = self.near
        if slices > 1 and memory.heads.capacity > NEAR:
            self.far = Commands.of(self._token(slices))

    def at(self, position: int) -> Commands:
        """Return the commands for the row at ``position``."""
        return self.near if position < NEAR else self.far

    def _token(self, slices: int) -> Iterator[Step]:
        layers = self._model.layers
        self._square_count = 0
        yield from self._embedding(1, layers[0].attention_gain, chunked=True)
        for number, layer in enumerate(layers):
            yield self._qkv(layer.qkv, layer.qkv_bias)
            yield from self._attention(number, slices)
            yield from self._add(
                layer.output, self._attended, layer.unit_gain, layer.post_attention_gain
            )
            yield self._glu(layer.gate_up)
            last = number + 1 == len(layers)
            gain = self._model.final_gain if last else layers[number + 1].attention_gain
            yield from self._add(layer.down, self._unit, gain, layer.post_unit_gain)
        yield from self._head()

    def _attention(self, number: int, slices: int) -> Iterator[Step]:
        """Yield the steps of a layer's attention."""
        config, memory, context = self._config, self._memory, self._context
        dispatches = plan_token_attention(
            memory.heads,
            config.query_factor,
            context.limits,
            context.half_support,
            epsilon=config.epsilon if config.head_norm else None,
            window=config.windows[number],
            cap=config.score_cap,
            slices=slices,
            software=context.is_software,
        )
        bound = {
            "t_in": self._made,
            "t_keys": memory.keys[number],
            "t_values": memory.values[number],
            "t_rope": memory.ropes[config.rope_of_layer[number]],
            "t_state": memory.state,
            "t_gain": self._model.layers[number].head_gains,
        }
        if slices == 1:
            yield self._step(dispatches[0], t_out=self._attended, **bound)
            return
        size = config.heads * slices * 4
        parts = memory.make("slices of attention", size * config.head_dim)
        weights = memory.make("weights of slices", 2 * size)
        yield self._step(dispatches[0], t_out=parts, t_out_weights=weights, **bound)
        merged = {"t_in": parts, "t_weights": weights, "t_state": memory.state}
        yield self._step(dispatches[1], t_out=self._attended, **merged)

    def _plan(
        self,
        matrix: DeviceMatrix,
        epilogue: Epilogue,
        squares: int,
        bias: bool = False,
        first_entry: int = 0,
    ) -> GemvPlan:
        config, context = self._config, self._context
        return plan_gemv(
            matrix.matrix,
            epilogue,
            context.limits,
            context.half_support,
            squares=squares,
            epsilon=config.epsilon,
            bias=bias,
            activation=config.activation,
            cap=config.logit_cap if epilogue == "best" else None,
            software=context.is_software,
            subgroup=context.subgroup_size,
            first_row=matrix.first_row,
            first_entry=first_entry,
        )

    def _qkv(self, matrix: DeviceMatrix, bias: Any | None) -> Step:
        plan = self._plan(matrix, "store", self._square_count, bias is not None)
        return self._gemv(plan, matrix, t_x=self._x, t_out=self._made, t_bias=bias)

    def _glu(self, matrix: DeviceMatrix) -> Step:
        plan = self._plan(matrix, "glu", self._square_count)
        return self._gemv(plan, matrix, t_x=self._x, t_out=self._unit)

    def _head_plans(self) -> Iterator[tuple[DeviceMatrix, GemvPlan]]:
        """Yield the parts of the head, and what runs for each."""
        first_entry = 0
        for part in self._model.head:
            plan = self._plan(part, "best", self._square_count, first_entry=first_entry)
            first_entry += plan.workgroups
            yield part, plan

    def _head(self) -> Iterator[Step]:
        logits = self._memory.logits
        for part, plan in self._head_plans():
            yield self._gemv(plan, part, t_x=self._x, t_out=logits, t_out_best=self.best)

    def _add(
        self, matrix: DeviceMatrix, x: Any, gain: Any, part_gain: Any | None
    ) -> Iterator[Step]:
        """Yield what adds the product of x to the residual stream, and makes the next x."""
        if part_gain is not None:
            plan = self._plan(matrix, "store", 0)
            yield self._gemv(plan, matrix, t_x=x, t_out=self._made)
            yield self._norm("add_normed", 1, gain, chunked=True, part_gain=part_gain)
            return
        plan = self._plan(matrix, "add", 0)
        self._square_count = plan.workgroups
        yield self._gemv(
            plan,
            matrix,
            t_x=x,
            t_out=self._residual,
            t_gain=gain,
            t_out_x=self._x,
            t_out_squares=self._squares,
        )

    def _gemv(self, plan: GemvPlan, matrix: DeviceMatrix, **resources: Any) -> Step:
        bound = {"t_squares": self._squares, **matrix.bindings, **resources}
        return self._step(plan.dispatch, **bound)
