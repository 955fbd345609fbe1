"""One device and everything that is kept on it.

A repeated call compiles nothing, makes no bind group and allocates nothing but its result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from threading import RLock
from types import ModuleType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device import dawn, leaving, probes
from wgpu_q4.device.adapter import adapter_summary, is_software, request_device
from wgpu_q4.device.guard import Guard, said
from wgpu_q4.device.implementation import check_process, implementation_of
from wgpu_q4.device.pipelines import Pipelines, Step
from wgpu_q4.device.residents import DeviceWeight
from wgpu_q4.device.roundtrip import RoundTrip
from wgpu_q4.device.scratch import Scratch
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.errors import DeviceError, DeviceLimitError
from wgpu_q4.format.parallel import Reordered
from wgpu_q4.kernels import HalfSupport, MatrixUnits
from wgpu_q4.weight import Q4Weight

_ATTRIBUTE = "_wgpu_q4_context"
_MOST_PLANS = 1 << 10

HOST = "host"
"""In place of a device: rows are looked up on the processor."""

PlanT = TypeVar("PlanT")


class Context:
    """One device and everything this package keeps on it.

    Hold `lock` over a sequence of calls that shares scratch buffers::

        with context.lock, context.guard, context.guard.busy:
            ...

    Attributes:
        device: the ``GPUDevice``.
        implementation: the module that the device came from.
        limits: the device's limits, by WebGPU's names with dashes.
        lock: serialises the users of the scratch buffers.  It is taken by a ``with`` of its own: a
            context manager written in Python could be interrupted before it lets go.
        guard: a context manager that refuses a call inside a call of the same thread, and raises a
            `DeviceError` in place of an error of wgpu; see `wgpu_q4.device.guard`.
        is_software: True if the adapter runs on the processor.
        pipelines: the compiled kernels.
        scratch: the buffers that calls share.
        workspace: what the steps of calls from the host are made with.
        buffers_created: how many buffers were made so far.
    """

    def __init__(self, device: Any) -> None:
        self.device = device
        self.implementation: ModuleType = implementation_of(device)
        self.limits: Mapping[str, int] = dict(device.limits)
        self.lock = RLock()
        self.is_software = is_software(device.adapter)
        self.pipelines = Pipelines(device)
        self.scratch = Scratch(self)
        self.workspace = Workspace(self, self.scratch)
        self.buffers_created = 0
        self._mappable = self.usage("MAP_READ")
        self.guard = Guard(self)
        device.destroy = self.guard.destroy
        leaving.wait_for(self)
        self._plans: dict[object, Any] = {}
        self._planned_within: Mapping[str, int] = self.limits
        self._weights: WeakKeyDictionary[Q4Weight, DeviceWeight] = WeakKeyDictionary()

    @property
    def adapter_summary(self) -> str:
        """One line on the adapter."""
        return adapter_summary(self.device.adapter)

    @property
    def implementation_summary(self) -> str:
        """The WebGPU module and its version."""
        return f"{self.implementation.__name__} {self.implementation.__version__}"

    @property
    def largest_binding(self) -> int:
        """Bytes that one storage binding may have here."""
        return min(self.limits["max-storage-buffer-binding-size"], self.limits["max-buffer-size"])

    @property
    def nbytes(self) -> int:
        """Bytes that this package holds on the device: weights and scratch buffers."""
        weights = sum(resident.nbytes for resident in list(self._weights.values()))
        return weights + self.scratch.nbytes

    @cached_property
    def half_support(self) -> HalfSupport:
        """What the built-in half-precision functions do here."""
        return probes.half_support(self)

    @cached_property
    def subgroup_size(self) -> int:
        """The lanes of subgroups, if kernels may count on them; else 0."""
        return probes.subgroup_size(self)

    @cached_property
    def matrix_units(self) -> frozenset[MatrixUnits]:
        """What the device's matrix units do; empty if it was made without their features."""
        return dawn.matrix_units(self.device, self.device.adapter)

    @cached_property
    def maps_results(self) -> bool:
        """True if the host can map what a kernel wrote, and finds it there."""
        return probes.maps_results(self)

    @cached_property
    def round_trip(self) -> RoundTrip:
        """The fastest way to use this device that works."""
        with self.lock:
            return probes.round_trip(self)

    def weight(self, weight: Q4Weight) -> DeviceWeight:
        """Return the copy of ``weight`` on this device, made when first asked for."""
        with self.lock:
            resident = self._weights.get(weight)
            if resident is None:
                resident = self._weights[weight] = DeviceWeight(self, weight)
                weight.residents.add(resident)
            return resident

    def plan(self, decide: Callable[..., PlanT], *arguments: object, **options: object) -> PlanT:
        """Return ``decide(*arguments, **options)`` within this device's limits, remembered.

        Args:
            decide: a function of `wgpu_q4.kernels` that takes ``limits``.
            arguments: hashable ones, as are the ``options``.
        """
        if self._planned_within is not self.limits or len(self._plans) >= _MOST_PLANS:
            self._plans, self._planned_within = {}, self.limits
        key = decide, arguments, tuple(options.values())
        plan: PlanT | None = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = decide(*arguments, **options, limits=self.limits)
        return plan

    def usage(self, *names: str) -> int:
        """Return buffer usage flags by their names."""
        return sum(int(getattr(self.implementation.BufferUsage, name)) for name in names)

    def create_buffer(self, label: str, nbytes: int, *usages: str) -> Any:
        """Return a new buffer, which belongs to the caller.

        Raises:
            DeviceLimitError: more bytes than a buffer may have here.
            DeviceError: the device has not so much memory left.
        """
        if nbytes > self.limits["max-buffer-size"]:
            raise DeviceLimitError(
                f"{label} needs a buffer of {nbytes:,} bytes; {self.adapter_summary} allows "
                f"{self.limits['max-buffer-size']:,}"
            )
        self.buffers_created += 1
        try:
            return self.device.create_buffer(label=label, size=nbytes, usage=self.usage(*usages))
        except self.implementation.GPUError as error:
            if "is lost" in str(error):
                raise
            raise DeviceError(
                f"{label} needs a buffer of {nbytes:,} bytes, and {self.adapter_summary} has none "
                f"to give ({said(error)}). wgpu_q4 holds {self.nbytes:,} bytes there"
            ) from error

    def write(self, buffer: Any, data: NDArray[Any]) -> None:
        """Queue ``data``, a multiple of 4 bytes, for the start of ``buffer``."""
        self.round_trip.write(buffer, np.ascontiguousarray(data))

    def run(self, steps: Sequence[Step], source: Any, out: NDArray[Any] | Reordered) -> None:
        """Run ``steps`` in one compute pass and fill ``out`` with their result.

        Args:
            steps: see `wgpu_q4.device.pipelines.Pipelines.step`.
            source: the buffer (see `Scratch.result`) whose start is the result.
            out: C-contiguous, at least one byte.
        """
        target = source
        flat = out if isinstance(out, Reordered) else out.reshape(-1).view(np.uint8)
        if not source.usage & self._mappable:
            target = self.scratch.staging(out.nbytes + -out.nbytes % 4)
        try:
            self.round_trip.run(steps, source, target, flat)
        except BaseException:
            self.scratch.drop_mappable()
            raise

    def read(self, encoder: Any, source: Any, out: NDArray[Any]) -> None:
        """Finish ``encoder``, run it, and fill ``out`` from the start of the buffer ``source``."""
        nbytes = out.nbytes + -out.nbytes % 4
        staging = self.scratch.staging(nbytes)
        encoder.copy_buffer_to_buffer(source, 0, staging, 0, nbytes)
        self.device.queue.submit([encoder.finish()])
        try:
            self.round_trip.read(staging, out.reshape(-1).view(np.uint8))
        except BaseException:
            self.scratch.drop_mappable()
            raise


_default: dict[tuple[str | None, str | None], Context] = {}
_default_lock = RLock()
leaving.wait_for_lock(_default_lock)


def default_context(adapter: str | None = None, implementation: str | None = None) -> Context:
    """Return the context of the adapter of that name, by default of the best adapter.

    One context is kept for each name.  If its device is lost, another one takes its place, to
    which weights are uploaded again.
    """
    check_process()
    with _default_lock:
        key = (adapter, implementation)
        context = _default.get(key)
        if context is None or context.guard.is_lost:
            context = _default[key] = _context_of(request_device(adapter, implementation))
        return context


def is_host(device: Any) -> bool:
    """Tell whether ``device`` stands for the host, which `wgpu_q4.embedding` takes for one."""
    return isinstance(device, str) and device == HOST


def context_for(device: Any = None) -> Context:
    """Return the context of a device.

    Args:
        device: a ``GPUDevice``, whose limits and features are respected; part of the name of an
            adapter; or None for the default device.

    Raises:
        TypeError: ``device`` is something else.
        DeviceError: there is no such adapter; this process is a fork of one that used a device;
            this thread is in a call on another device; or Python runs in a browser, in a call that
            cannot wait.
    """
    leaving.stay_out()
    if is_host(device):
        raise DeviceError(
            f'device="{HOST}" looks rows up and does nothing else: only embedding takes it. Leave '
            f"device out, or name an adapter"
        )
    if device is None or isinstance(device, str):
        context = default_context(device)
    else:
        check_process()
        context = _context_of(device)
    if hasattr(context.implementation, "check_can_wait"):
        context.implementation.check_can_wait()
    context.guard.refuse_within_another()
    return context


def _context_of(device: Any) -> Context:
    """Return the context of a ``GPUDevice``, an attribute of it: it goes when the device goes."""
    with _default_lock:
        context: Context | None = getattr(device, _ATTRIBUTE, None)
        if context is None:
            context = Context(device)
            setattr(device, _ATTRIBUTE, context)
        return context
