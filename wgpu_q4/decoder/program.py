"""A decoder written down: its buffers and its dispatches, for a host that is not Python.

`Engine` and its steps run here as they do on a device, on a context that computes nothing and notes
what it is asked for (`wgpu_q4.decoder.notes`).  So a program has the shaders, the constants, the
grids and the bindings of `Decoder`, and a change of the decoder is a change of its programs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from wgpu_q4.decoder.choose import Greedy, Logits
from wgpu_q4.decoder.draw import Draw
from wgpu_q4.decoder.engine import Engine, Options
from wgpu_q4.decoder.notes import Noted, NotedContext, Tensors
from wgpu_q4.decoder.prompt import PASS_ROWS, PromptSteps
from wgpu_q4.decoder.token import NEAR, slices_for
from wgpu_q4.decoder.weights import Weights
from wgpu_q4.device.commands import Commands
from wgpu_q4.kernels import Dispatch
from wgpu_q4.kernels.decoder.sampling import Sampling
from wgpu_q4.kernels.text import workgroup_bytes, workgroup_size

if TYPE_CHECKING:
    from wgpu_q4.device import Context
    from wgpu_q4.device.pipelines import Step

Json = dict[str, Any]


def program_of(
    weights: Weights,
    tensors: Tensors,
    limits: Mapping[str, int],
    *,
    capacity: int,
    prompt_rows: int = PASS_ROWS[2],
) -> Json:
    """Return the program of a decoder as JSON, and hand its weights to ``tensors``.

    Args:
        weights: the model.
        tensors: takes the bytes of each buffer that is uploaded, but for embedding and head.
        limits: what kernels are planned for, by WebGPU's names with dashes.
        capacity: positions of the cache.
        prompt_rows: rows of a prompt that a pass takes at most.

    Returns:
        An object::

            {"buffers": [{"name": …, "bytes": …, "uniform": false, "from": …}, …],
             "modules": {"decoder_…": {"code": …, "bindings": {"0": "storage", …}}, …},
             "pipelines": [{"module": …, "constants": {…}}, …],
             "near": [[pipeline, [x, y, z], [buffer, …]], …],  from an id to the logits of the next
             "far": …,       the same for positions from "reach" on
             "reach": 512,
             "head": …,      from the last row of a prompt to the logits
             "greedy": …,    from the logits to the next id: the best one
             "draw": …,      the same by chance
             "passes": [{"rows": 32, "layers": …, "last": …, "sizes": [[buffer, [word, …]], …]}, …],
             "writes": [[buffer, [word, …]], …],  before the first sequence
             "ids", "state", "settings", "counter": buffer,
             "limits": {"maxStorageBuffersPerShaderStage": 8, …}}  that the program needs

        Pipelines and buffers are numbers in their lists; buffers are bound in the order of the
        bindings' numbers.  ``"from"`` is the name of a tensor, or 0 for the embedding and 1 for a
        head of its own with ``"packed"`` or ``"scales"``, or null for zeros.  The first word of
        ``"sizes"`` is the number of rows, which the host puts there.  ``"state"`` is
        ``decoder/state.wgsl``, ``"settings"`` is ``decoder/sample/settings.wgsl``; ``"counter"``
        holds the position before that of the id that is drawn next.

    Raises:
        FormatError: a matrix that the kernels cannot read.
    """
    config, notes = weights.config, NotedContext(limits, tensors)
    chooser = _Greedy()
    options = Options(
        capacity=capacity,
        cache="float16",
        chooser=chooser,
        accuracy="exact",
        prompt_rows=prompt_rows,
        slices=slices_for(capacity, software=False),
        most_steps=1,
    )
    engine, writer = Engine(notes, weights, options), _Writer()
    token, memory = engine.token, engine.memory
    # top_p asks for the steps of a nucleus, which may be all ids.
    drawn = Draw(Sampling(top_p=0.5)).steps(notes, chooser.logits)
    program: Json = {
        "near": writer.steps(token.near),
        "far": writer.steps(token.far),
        "reach": NEAR,
        "head": writer.steps(token.head),
        "greedy": writer.steps(engine.end),
        "draw": writer.steps(Commands.of(drawn)),
        "writes": writer.writes(notes),
        "ids": writer.number(memory.ids),
        "state": writer.number(memory.state),
        "settings": writer.named("sampling settings"),
        "counter": writer.named("sampling t_state"),
    }
    program["passes"] = [
        writer.prompt(notes, PromptSteps(notes, config, engine.model, memory, rows, "exact"))
        for rows in PASS_ROWS
        if rows <= prompt_rows
    ]
    return program | writer.lists()


class _Greedy(Greedy):
    """Keeps what the head leaves, for another chooser."""

    logits: Logits

    def steps(self, context: Context, logits: Logits) -> list[Step]:
        self.logits = logits
        return super().steps(context, logits)


class _Writer:
    """The lists of a program, to which steps add what they need."""

    def __init__(self) -> None:
        self._buffers: dict[Noted, int] = {}
        self._pipelines: dict[tuple[object, ...], int] = {}
        self._dispatches: list[Dispatch] = []

    def steps(self, commands: Commands) -> list[Any]:
        """Return the steps of a list."""
        return [
            [self._pipeline(dispatch), list(dispatch.workgroups), list(map(self.number, *bound))]
            for dispatch, bound in (
                (command.pipeline, [group.values() for group in command.bind_groups])
                for command in commands.in_order
            )
        ]

    def prompt(self, notes: NotedContext, steps: PromptSteps) -> Json:
        """Return a pass over a prompt."""
        notes.written.clear()
        steps.write_sizes(steps.rows)
        return {
            "rows": steps.rows,
            "layers": self.steps(steps.layers),
            "last": self.steps(steps.last),
            "sizes": self.writes(notes),
        }

    def writes(self, notes: NotedContext) -> list[Any]:
        """Return what was written to buffers that are bound, but for zeros."""
        return [
            [self._buffers[buffer], data.reshape(-1).view(np.uint32).tolist()]
            for buffer, data in notes.written.items()
            if buffer in self._buffers and data.any()
        ]

    def number(self, buffer: Noted) -> int:
        """Return the number of a buffer."""
        return self._buffers.setdefault(buffer, len(self._buffers))

    def named(self, name: str) -> int:
        """Return the number of the buffer of that name."""
        return next(number for buffer, number in self._buffers.items() if buffer.name == name)

    def lists(self) -> Json:
        """Return buffers, modules and pipelines, and the limits that they need."""
        modules: Json = {}
        for dispatch in self._dispatches:
            shader = dispatch.shader
            types = {b.number: dict(b.description)["type"] for b in shader.bindings}
            modules[shader.name] = {"code": shader.source, "bindings": types}
        largest = max(buffer.size for buffer in self._buffers)
        return {
            "buffers": [
                {
                    "name": buffer.name,
                    "bytes": buffer.size,
                    "uniform": buffer.is_uniform,
                    "from": buffer.source,
                }
                for buffer in self._buffers
            ],
            "modules": modules,
            "pipelines": [
                {"module": dispatch.shader.name, "constants": dict(dispatch.constants)}
                for dispatch in self._dispatches
            ],
            "limits": {
                "maxBufferSize": largest,
                "maxStorageBufferBindingSize": largest,
                **_limits(self._dispatches),
            },
        }

    def _pipeline(self, dispatch: Dispatch) -> int:
        if dispatch.key not in self._pipelines:
            self._pipelines[dispatch.key] = len(self._dispatches)
            self._dispatches.append(dispatch)
        return self._pipelines[dispatch.key]


def _limits(dispatches: list[Dispatch]) -> dict[str, int]:
    """Return what the pipelines need, by the names of WebGPU's limits."""
    most = {
        "maxStorageBuffersPerShaderStage": 0,
        "maxComputeWorkgroupStorageSize": 0,
        "maxComputeInvocationsPerWorkgroup": 0,
    }
    for dispatch in dispatches:
        source, bindings = dispatch.shader.source, dispatch.shader.bindings
        found = (
            sum("storage" in dict(binding.description)["type"] for binding in bindings),
            workgroup_bytes(source, dispatch.constants),
            workgroup_size(source, dispatch.constants),
        )
        most = {name: max(most[name], value) for name, value in zip(most, found, strict=True)}
    return most
