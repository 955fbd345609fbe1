"""The dispatches that the steps of a token and of a prompt have in common, compiled and bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wgpu_q4.decoder.config import Config
from wgpu_q4.decoder.layers import DeviceModel
from wgpu_q4.decoder.matrices import DeviceMatrix
from wgpu_q4.decoder.memory import Memory
from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels.decoder import (
    Source,
    plan_norm,
)
from wgpu_q4.kernels.dispatch import Dispatch

if TYPE_CHECKING:
    from wgpu_q4.device import Context


class Bound:
    """What the steps of a token and of a prompt share: the device, the model, its buffers."""

    def __init__(
        self, context: Context, config: Config, model: DeviceModel, memory: Memory
    ) -> None:
        self._context, self._config, self._model, self._memory = context, config, model, memory
        widest = max(config.qkv_columns, 2 * config.intermediate, config.hidden)
        attended = config.heads * config.head_dim
        self._residual = memory.make("residual stream", memory.rows * config.hidden * 4)
        self._x = memory.make("x", memory.rows * config.hidden * 4)
        self._made = memory.make("what a product made", memory.rows * widest * 4)
        self._attended = memory.make("what attention made", memory.rows * attended * 4)
        self._unit = memory.make("gated unit", memory.rows * config.intermediate * 4)

    def _step(self, dispatch: Dispatch, **resources: Any) -> Step:
        return self._context.pipelines.step(dispatch, resources)

    def _embedding(self, rows: int, gain: Any, *, chunked: bool = False) -> Iterator[Step]:
        """Yield the steps that begin rows of the residual stream: one for each part of the matrix.

        Each normalizes the rows that it begins.
        """
        for part in self._model.embedding:
            yield self._norm("embedding", rows, gain, chunked=chunked, part=part)

    def _norm(
        self,
        source: Source,
        rows: int,
        gain: Any,
        *,
        chunked: bool = False,
        last_row: bool = False,
        part_gain: Any = None,
        part: DeviceMatrix | None = None,
    ) -> Step:
        """Return the step that updates and normalizes rows of the residual stream."""
        config, memory = self._config, self._memory
        matrix = self._model.embedding[0] if part is None else part
        dispatch = plan_norm(
            source,
            matrix.matrix.shape,
            rows,
            config.epsilon,
            self._context.limits,
            self._context.half_support,
            factor=config.embedding_factor,
            chunked=chunked,
            last_row=last_row,
            first_row=matrix.first_row,
        )
        return self._step(
            dispatch,
            t_out=self._x,
            t_residual=self._residual,
            t_gain=gain,
            t_state=memory.state,
            t_ids=memory.ids,
            t_in=self._made,
            t_in_gain=part_gain,
            **matrix.bindings,
        )
