"""The dispatches that the steps of a token and of a prompt have in common, compiled and bound."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from wgpu_q4.decoder.config import Config
from wgpu_q4.decoder.layers import DeviceModel
from wgpu_q4.decoder.memory import Memory
from wgpu_q4.device.pipelines import Step
from wgpu_q4.kernels.decoder import (
    Source,
    plan_attention,
    plan_heads,
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
        self._queries = memory.make("queries", memory.rows * attended * 4)
        self._attended = memory.make("what attention made", memory.rows * attended * 4)
        self._unit = memory.make("gated unit", memory.rows * config.intermediate * 4)

    def _step(self, dispatch: Dispatch, **resources: Any) -> Step:
        return self._context.pipelines.step(dispatch, resources)

    def _norm(
        self,
        source: Source,
        rows: int,
        gain: Any,
        *,
        chunked: bool = False,
        last_row: bool = False,
        part_gain: Any = None,
    ) -> Step:
        """Return the step that updates and normalizes rows of the residual stream."""
        config, memory, model = self._config, self._memory, self._model
        dispatch = plan_norm(
            source,
            model.embedding.matrix.shape,
            rows,
            config.epsilon,
            self._context.limits,
            self._context.half_support,
            factor=config.embedding_factor,
            chunked=chunked,
            last_row=last_row,
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
            **model.embedding.bindings,
        )

    def _heads(self, number: int, rows: int) -> Step:
        """Return the step that makes queries ready and fills the cache."""
        config, memory, context = self._config, self._memory, self._context
        dispatch = plan_heads(
            memory.heads,
            rows,
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

    def _attention(self, number: int, rows: int, *, slices: int, chunked: bool) -> Iterator[Step]:
        """Yield the steps of a layer's attention."""
        config, memory, context = self._config, self._memory, self._context
        dispatches = plan_attention(
            memory.heads,
            rows,
            context.limits,
            context.half_support,
            window=config.windows[number],
            cap=config.score_cap,
            slices=slices,
            chunked=chunked,
            software=context.is_software,
        )
        bound = {
            "t_in": self._queries,
            "t_keys": memory.keys[number],
            "t_values": memory.values[number],
            "t_state": memory.state,
        }
        if len(dispatches) == 1:
            yield self._step(dispatches[0], t_out=self._attended, **bound)
            return
        size = rows * config.heads * slices * 4
        parts = memory.make("slices of attention", size * config.head_dim)
        weights = memory.make("weights of slices", 2 * size)
        yield self._step(dispatches[0], t_out=parts, t_out_weights=weights, **bound)
        yield self._step(
            dispatches[1], t_out=self._attended, t_in=parts, t_weights=weights, t_state=memory.state
        )
