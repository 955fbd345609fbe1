"""A context that computes nothing: it notes the buffers that are made, and what is written to them.

`wgpu_q4.decoder.program` lets a decoder run on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.context import Context
from wgpu_q4.device.parts import shape_of
from wgpu_q4.device.pipelines import BindGroups, Pipelines, Step
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.kernels import Dispatch, HalfSupport
from wgpu_q4.weight import Q4Weight

Tensors = Callable[[str, NDArray[np.uint8]], None]
"""Takes bytes of a tensor, by its name; its next bytes follow before those of another tensor."""

PlanT = TypeVar("PlanT")
_PREFIXES = ("wgpu_q4 decoder: ", "wgpu_q4 ")


@dataclass(eq=False)
class Noted:
    """A buffer that was asked for.

    Attributes:
        name: what it holds.
        size: its bytes.
        is_uniform: True for a uniform buffer, False for a storage buffer.
        source: where its first contents are: the name of a tensor; or the number of a `Q4Weight`
            in `NotedContext.matrices`, and ``"packed"`` or ``"scales"``; None for zeros.
    """

    name: str
    size: int
    is_uniform: bool
    source: str | tuple[int, str] | None = None


class NotedContext(Context):
    """Stands for the context of a device, as far as a decoder uses it.

    Half-precision numbers are converted by integers, which is right on every device; there are no
    subgroups and no matrix units.

    Attributes:
        matrices: those of which a device has one copy for all ops.
        written: what was written to buffers, but for uploads.
    """

    def __init__(self, limits: Mapping[str, int], tensors: Tensors) -> None:
        self.limits, self.is_software = limits, False
        self.half_support, self.subgroup_size = HalfSupport(), 0
        self.matrix_units = frozenset()
        self.round_trip = cast("Any", SimpleNamespace(name="notes"))
        queue = SimpleNamespace(write_buffer=self._upload, submit=lambda commands: None)
        self.device = SimpleNamespace(queue=queue)
        self.pipelines = cast("Pipelines", _Steps())
        self.matrices: list[Q4Weight] = []
        self.written: dict[Noted, NDArray[Any]] = {}
        self._tensors = tensors
        self._names: set[str] = set()

    @property
    def adapter_summary(self) -> str:
        """One line for messages."""
        return "the program of a decoder"

    def create_buffer(self, label: str, nbytes: int, *usages: str) -> Noted:
        """Return the note of a buffer."""
        for prefix in _PREFIXES:
            label = label.removeprefix(prefix)
        name, number = label, 1
        while name in self._names:
            number += 1
            name = f"{label} {number}"
        self._names.add(name)
        return Noted(name, nbytes, "UNIFORM" in usages)

    def weight(self, weight: Q4Weight) -> DeviceWeight:
        """Return what stands for the one copy of ``weight`` on a device."""
        if not any(weight is known for known in self.matrices):
            self.matrices.append(weight)
        number = next(n for n, known in enumerate(self.matrices) if known is weight)
        packed = Noted(f"matrix {number}", weight.packed.nbytes, False, (number, "packed"))
        scales = Noted(f"scales {number}", weight.scales.nbytes, False, (number, "scales"))
        bindings = {"t_weight": packed, "t_scales": scales}
        part = SimpleNamespace(
            bindings=lambda context, weight, layout: bindings, shape=shape_of(weight), first_row=0
        )
        found = SimpleNamespace(readers=set(), exponent=0, parts=(part,))
        return cast("DeviceWeight", found)

    def plan(self, decide: Callable[..., PlanT], *arguments: object, **options: object) -> PlanT:
        """Return ``decide(*arguments, **options)`` within the limits."""
        return decide(*arguments, **options, limits=self.limits)

    def write(self, buffer: Noted, data: NDArray[Any]) -> None:
        """Note the first contents of a buffer."""
        self.written[buffer] = data

    def _upload(self, buffer: Noted, start: int, data: NDArray[np.uint8]) -> None:
        buffer.source = buffer.name
        self._tensors(buffer.name, data)


class _Steps:
    """Stands for `Pipelines`: a step is its dispatch, and its buffers by the bindings' names."""

    def step(
        self,
        dispatch: Dispatch,
        resources: Mapping[str, Any],
        bind_groups: BindGroups | None = None,
    ) -> Step:
        """Return the step, neither compiled nor bound."""
        bound = {binding.name: resources[binding.name] for binding in dispatch.shader.bindings}
        return Step(dispatch, bound, dispatch.workgroups)
