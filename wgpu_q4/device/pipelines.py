"""Compiled kernels and their bind groups: a planned dispatch and its resources become a `Step`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from wgpu_q4.device import native
from wgpu_q4.device.implementation import implementation_of
from wgpu_q4.errors import DeviceError
from wgpu_q4.kernels import Binding, Dispatch

MOST_PIPELINES = 128
"""Compiled kernels that a device keeps; the one that was not used for longest goes first.

A kernel is compiled for the shape of its weight.  A weight that is read in every way there is needs
32 of them; Mesa's driver for the processor takes 1.2 MB for each."""

_MOST_BIND_GROUPS = 2
"""Bind groups that are kept of one kernel and weight: `wgpu_q4.linear` and `wgpu_q4.argmax` run the
same product into different buffers."""

BindGroups = dict[tuple[object, ...], dict[tuple[Any, ...], Any]]
"""Bind groups by the key of their dispatch, and by the resources that each binds.  Every weight
keeps its own, so that they are dropped with the weight."""


class BufferRange(NamedTuple):
    """Bytes of a buffer to bind in place of all of them.

    Attributes:
        buffer: the buffer.
        offset: where they begin, a multiple of 256.
        size: how many there are, a multiple of 4.
    """

    buffer: Any
    offset: int
    size: int


class Step(NamedTuple):
    """One dispatch, compiled and bound: all that is left to do is to record it.

    A step may be recorded any number of times.  It holds the resources that it binds.
    """

    pipeline: Any
    bind_group: Any
    workgroups: tuple[int, int, int]


def record(compute_pass: Any, steps: Iterable[Step]) -> None:
    """Append ``steps`` to a ``GPUComputePassEncoder``."""
    for step in steps:
        compute_pass.set_pipeline(step.pipeline)
        compute_pass.set_bind_group(0, step.bind_group)
        compute_pass.dispatch_workgroups(*step.workgroups)


def encode(encoder: Any, steps: Iterable[Step]) -> None:
    """Append a compute pass of ``steps`` to a ``GPUCommandEncoder``."""
    compute_pass = encoder.begin_compute_pass()
    record(compute_pass, steps)
    compute_pass.end()


class _Compiled(NamedTuple):
    pipeline: Any
    group_layout: Any
    names: tuple[str, ...]
    """The names of the bindings, in the order of their numbers."""


class Pipelines:
    """The compiled kernels of one device.

    Attributes:
        checks_because: the reason why every kernel keeps wgpu's bounds checks; empty if kernels
            that are proven to stay in range are compiled without.
        pipelines_created, bind_groups_created: how many of each were made so far.
    """

    def __init__(self, device: Any) -> None:
        self.checks_because = native.why_checks_stay(device)
        self.pipelines_created = 0
        self.bind_groups_created = 0
        self._device = device
        self._implementation = implementation_of(device)
        self._compiled: OrderedDict[tuple[object, ...], _Compiled] = OrderedDict()
        self._group_layouts: dict[tuple[Binding, ...], Any] = {}

    @property
    def kernels(self) -> set[str]:
        """The names of the shaders that are compiled now."""
        return {str(name) for name, *_ in self._compiled}

    def step(
        self,
        dispatch: Dispatch,
        resources: Mapping[str, Any],
        bind_groups: BindGroups | None = None,
    ) -> Step:
        """Return the step that runs ``dispatch`` on ``resources``.

        Args:
            dispatch: the planned dispatch.
            resources: a buffer, `BufferRange` or texture view for each binding of the shader, by
                its name; others are ignored.
            bind_groups: where the bind group is kept for the next call; None keeps it nowhere.

        Raises:
            DeviceError: the kernel runs without bounds checks, and a buffer is too small for it.
        """
        if dispatch.needs is not None:
            _check_sizes(dispatch, dispatch.needs, resources)
        compiled = self._compiled.get(dispatch.key)
        if compiled is None:
            compiled = self._compile(dispatch)
        else:
            self._compiled.move_to_end(dispatch.key)
        bound = tuple([resources[name] for name in compiled.names])
        known = {} if bind_groups is None else bind_groups.setdefault(dispatch.key, {})
        bind_group = known.get(bound)
        if bind_group is None:
            if len(known) >= _MOST_BIND_GROUPS:
                del known[next(iter(known))]  # the oldest, with the buffers that it holds
            bind_group = known[bound] = self._bind(compiled, dispatch, bound)
        return Step(compiled.pipeline, bind_group, dispatch.workgroups)

    def _compile(self, dispatch: Dispatch) -> _Compiled:
        device, shader = self._device, dispatch.shader
        group_layout = self._group_layout(shader.name, shader.bindings)
        if dispatch.needs is not None and not self.checks_because:
            module = native.create_unchecked_module(device, shader.name, shader.source)
        else:
            module = device.create_shader_module(label=shader.name, code=shader.source)
        pipeline = device.create_compute_pipeline(
            label=shader.name,
            layout=device.create_pipeline_layout(
                label=shader.name, bind_group_layouts=[group_layout]
            ),
            compute={
                "module": module,
                "entry_point": "main",
                "constants": dict(dispatch.constants),
            },
        )
        self.pipelines_created += 1
        if len(self._compiled) >= MOST_PIPELINES:
            self._compiled.popitem(last=False)
        names = tuple([binding.name for binding in shader.bindings])
        compiled = self._compiled[dispatch.key] = _Compiled(pipeline, group_layout, names)
        return compiled

    def _group_layout(self, label: str, bindings: tuple[Binding, ...]) -> Any:
        """Return the one layout for these bindings.

        A bind group that outlives its pipeline fits the pipeline that is compiled anew.
        """
        layout = self._group_layouts.get(bindings)
        if layout is None:
            visibility = int(self._implementation.ShaderStage.COMPUTE)
            entries = [binding.layout_entry(visibility) for binding in bindings]
            layout = self._device.create_bind_group_layout(label=label, entries=entries)
            self._group_layouts[bindings] = layout
        return layout

    def _bind(self, compiled: _Compiled, dispatch: Dispatch, bound: tuple[Any, ...]) -> Any:
        self.bind_groups_created += 1
        buffer_type = self._implementation.GPUBuffer
        entries = []
        for binding, resource in zip(dispatch.shader.bindings, bound, strict=True):
            if isinstance(resource, buffer_type):
                resource = BufferRange(resource, 0, resource.size)
            if isinstance(resource, BufferRange):
                resource = resource._asdict()
            entries.append({"binding": binding.number, "resource": resource})
        return self._device.create_bind_group(
            label=dispatch.shader.name, layout=compiled.group_layout, entries=entries
        )


def _check_sizes(
    dispatch: Dispatch, needs: Mapping[str, int], resources: Mapping[str, Any]
) -> None:
    """Raise unless each buffer is as large as the proof of an unchecked kernel assumes."""
    for name, nbytes in needs.items():
        if resources[name].size < nbytes:
            raise DeviceError(
                f"{dispatch.shader.name} needs {nbytes:,} bytes in {name}, which has "
                f"{resources[name].size:,}: a fault of wgpu_q4, please report it"
            )
