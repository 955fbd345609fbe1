"""What is kept per device: pipelines, bind groups, scratch buffers, uploaded weights.

A repeated call therefore compiles nothing, makes no bind group and allocates nothing but its
result.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import RLock
from types import ModuleType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device import dawn, unchecked
from wgpu_q4.device.adapter import MAPPABLE, adapter_summary, is_software, request_device
from wgpu_q4.device.implementation import implementation_of
from wgpu_q4.device.roundtrip import (
    PROBE_BYTES,
    ComputePass,
    Record,
    RoundTrip,
    choose_round_trip,
)
from wgpu_q4.device.upload import DeviceWeight
from wgpu_q4.errors import DeviceError, DeviceLimitError
from wgpu_q4.kernels import PROBE_HALVES, Dispatch, HalfSupport, MatrixUnits
from wgpu_q4.weight import Q4Weight

_ATTRIBUTE = "_wgpu_q4_context"
LARGEST_MAPPED_RESULT = 1 << 20
"""Bytes of a result that a kernel writes where the host reads them, on a device that can.

On an H200 a row of 128,256 logits is then on the host 28 µs sooner: it crosses the bus while the
kernel runs.  Larger results were not measured; they are copied, which is sure to use the bus well.
"""

_SMALLEST_SCRATCH = 1 << 12
_MOST_PLANS = 1 << 10
_MOST_GROUPS = 2
"""Of one kernel and weight: logits that are read and logits that are reduced go to different
buffers."""

PlanT = TypeVar("PlanT")

_TELLING_HALVES = np.array(
    [0x0001, 0x000F, 0x00F0, 0x03FF, 0x8001, 0x80F0, 0x0400, 0x7BFF] * 4, np.uint16
)
_TELLING_FLOATS = np.array(
    [
        *(1 + 2**-11, 1 + 3 * 2**-11, -1 - 3 * 2**-11, 1 + 2**-11 + 2**-20),  # ties, just past one
        *(65504, 65519, 65520, -65520, 65536, 1e6, -3e38, 131072),  # the largest, and overflow
        *(2**-14, 2**-24, -(2**-24), 2**-25, 3 * 2**-25, 2**-25 + 2**-40, 1023 * 2**-24, 2**-30),
        *(0.1, -0.2, 1 / 3, 1000.3, 3e-5, -4.7e-6, 12345.6, 0, 7.5, -8, 2048.5, 4097),
    ],
    np.float32,
)
"""Floats that tell apart how they are rounded to half precision."""


@dataclass(frozen=True)
class _Kernel:
    pipeline: Any
    group_layout: Any


BindGroups = dict[tuple[object, ...], dict[tuple[Any, ...], Any]]
"""Bind groups by kernel, and by the resources that each binds.  A weight keeps its own, so that
they go when it goes."""


class _Working:
    """See `Context.working`; a class, as a generator would take longer than what it guards."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._context.lock.acquire()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        self._context.lock.release()
        if isinstance(error, self._context.implementation.GPUError) and "is lost" in str(error):
            raise DeviceError(
                f"the device {self._context.adapter_summary} is lost: it was destroyed, or its "
                f"driver gave up. Use another one; wgpu_q4.request_device() makes it"
            ) from error


class Context:
    """One device and everything this package keeps on it.

    Hold `lock` over a sequence of calls that shares scratch buffers.

    Attributes:
        device: the ``GPUDevice``.
        limits: its limits, by WebGPU's names with dashes.
        lock: serialises the users of the scratch buffers.
        is_software: the adapter runs on the processor.
        checks_because: why every kernel keeps wgpu's checks of addresses; empty where those that
            are proven go without.
    """

    def __init__(self, device: Any) -> None:
        self.device = device
        self.implementation: ModuleType = implementation_of(device)
        self.limits: Mapping[str, int] = dict(device.limits)
        self.lock = RLock()
        self.is_software = is_software(device.adapter)
        self.checks_because = unchecked.may_leave_checks_out(device)
        self._process = os.getpid()
        self.buffers_created = 0
        self.pipelines_created = 0
        self.bind_groups_created = 0
        self._kernels: dict[tuple[object, ...], _Kernel] = {}
        self._scratch: dict[str, Any] = {}
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._plans: dict[object, Any] = {}
        self._planned_within: Mapping[str, int] = self.limits
        self._weights: WeakKeyDictionary[Q4Weight, DeviceWeight] = WeakKeyDictionary()

    @property
    def adapter_summary(self) -> str:
        """One line on the adapter."""
        return adapter_summary(self.device.adapter)

    @property
    def largest_binding(self) -> int:
        """Bytes that one storage binding may have here."""
        return min(self.limits["max-storage-buffer-binding-size"], self.limits["max-buffer-size"])

    def working(self) -> _Working:
        """Hold `lock`, and say so in a `DeviceError` if the device turns out to be lost."""
        return _Working(self)

    def check_process(self) -> None:
        """Raise if this process is a fork of the one that made the device.

        A driver's threads do not survive a fork: the first wait would never end.

        Raises:
            DeviceError: says to start processes with spawn.
        """
        if self._process != os.getpid():
            raise DeviceError(
                f"the device {self.adapter_summary} was made before this process was forked, and "
                f"does not work in it. Start processes with multiprocessing's 'spawn' method"
            )

    @cached_property
    def half_support(self) -> HalfSupport:
        """What the built-in half-precision functions do here, found out by running them once."""
        found = self._probe_halves()
        unpacked = _TELLING_HALVES.view(np.float16).astype(np.float32).view(np.uint32)
        with np.errstate(over="ignore"):
            packed = _TELLING_FLOATS.astype(np.float16).view(np.uint32)
        return HalfSupport(
            subnormals=np.array_equal(found[:, :2].reshape(-1), unpacked),
            rounding=np.array_equal(found[:, 2], packed),
        )

    @cached_property
    def matrix_units(self) -> frozenset[MatrixUnits]:
        """What the device's matrix units do, none where it was made without their features."""
        return dawn.matrix_units(self.device, self.device.adapter)

    def _probe_halves(self, *usages: str) -> NDArray[np.uint32]:
        """What the probe's kernel writes into a buffer with these usages too."""
        pairs = np.zeros((16, 4), np.uint32)
        pairs[:, 0] = _TELLING_HALVES.view(np.uint32)
        pairs[:, 2:] = _TELLING_FLOATS.view(np.uint32).reshape(16, 2)
        found = np.zeros((16, 4), np.uint32)
        with self.lock:
            source = self.create_buffer("probe", pairs.nbytes, "STORAGE", "COPY_DST")
            target = self.create_buffer("probed", pairs.nbytes, "STORAGE", "COPY_SRC", *usages)
            self.write(source, pairs)

            def record(compute_pass: ComputePass) -> Any:
                plan = Dispatch(PROBE_HALVES, {}, (1, 1, 1))
                self.dispatch(compute_pass, plan, {"t_out": target, "t_pairs": source})
                return target

            self.run(record, found)
        return found

    @cached_property
    def maps_results(self) -> bool:
        """Whether the host can map what a kernel wrote and finds it there, found out by trying."""
        if MAPPABLE not in self.device.features:
            return False
        return np.array_equal(self._probe_halves("MAP_READ"), self._probe_halves())

    @cached_property
    def round_trip(self) -> RoundTrip:
        """How this device is used, found out by using it once."""
        with self.lock:
            source = self.create_buffer("round trip", PROBE_BYTES, "COPY_DST", "COPY_SRC")
            staging = self.create_buffer("round trip end", PROBE_BYTES, "COPY_DST", "MAP_READ")
            return choose_round_trip(self.device, source, staging)

    def weight(self, weight: Q4Weight) -> DeviceWeight:
        """The copy of ``weight`` on this device, made when first asked for."""
        with self.lock:
            resident = self._weights.get(weight)
            if resident is None:
                resident = self._weights[weight] = DeviceWeight(self, weight)
                weight.residents.add(resident)
            return resident

    def plan(self, decide: Callable[..., PlanT], *arguments: object, **options: object) -> PlanT:
        """``decide(*arguments, **options)`` within this device's limits, remembered.

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
        """Buffer usage flags by name."""
        return sum(int(getattr(self.implementation.BufferUsage, name)) for name in names)

    def create_buffer(self, label: str, nbytes: int, *usages: str) -> Any:
        """A new buffer of its own (nothing is reused)."""
        if nbytes > self.limits["max-buffer-size"]:
            raise DeviceLimitError(
                f"{label} needs a buffer of {nbytes:,} bytes; {self.adapter_summary} allows "
                f"{self.limits['max-buffer-size']:,}"
            )
        self.buffers_created += 1
        return self.device.create_buffer(label=label, size=nbytes, usage=self.usage(*usages))

    def scratch(self, role: str, nbytes: int, *usages: str) -> Any:
        """The buffer kept for ``role``, grown to hold ``nbytes``; its contents are nobody's."""
        buffer = self._scratch.get(role)
        if buffer is None or buffer.size < nbytes:
            limit = self.largest_binding if "STORAGE" in usages else self.limits["max-buffer-size"]
            if nbytes > limit:
                raise DeviceLimitError(
                    f"{role} takes {nbytes:,} bytes in one buffer; {self.adapter_summary} allows "
                    f"{limit:,}"
                )
            rounded = max(_SMALLEST_SCRATCH, 1 << (nbytes - 1).bit_length())
            size = nbytes if rounded > limit else rounded
            buffer = self._scratch[role] = self.create_buffer(f"wgpu_q4 {role}", size, *usages)
        return buffer

    def result(self, role: str, nbytes: int) -> Any:
        """The buffer kept for a result that `run` brings to the host, grown to hold ``nbytes``."""
        if nbytes <= LARGEST_MAPPED_RESULT and self.maps_results:
            return self.scratch(f"{role} to map", nbytes, "STORAGE", "COPY_SRC", "MAP_READ")
        return self.scratch(role, nbytes, "STORAGE", "COPY_SRC")

    def write(self, buffer: Any, data: NDArray[Any]) -> None:
        """Queue ``data``, a multiple of 4 bytes, for the start of ``buffer``."""
        self.round_trip.write(buffer, np.ascontiguousarray(data))

    def sizes(self, *values: int, role: str = "any") -> Any:
        """The uniform buffer of ``role`` with up to four sizes in it, for the next dispatch.

        Written only when they change, so that a repeated call of one op writes nothing.
        """
        buffer = self.scratch(f"sizes of {role}", 16, "UNIFORM", "COPY_DST")
        if self._sizes.get(role) != values:
            self._sizes.pop(role, None)  # if the write fails, nothing is known of the buffer
            self.write(buffer, np.array([*values, *[0] * (4 - len(values))], np.int32))
            self._sizes[role] = values
        return buffer

    def encode(
        self,
        encoder: Any,
        plan: Dispatch,
        resources: Mapping[str, Any],
        groups: BindGroups | None = None,
    ) -> None:
        """Append one dispatch to ``encoder``, in a compute pass of its own.

        Args:
            encoder: a ``GPUCommandEncoder`` of this device.
            plan: what to run.
            resources: a buffer or texture view for each binding of the shader, by its name.
            groups: where the bind group is kept for the next call; None keeps it nowhere.
        """
        compute_pass = encoder.begin_compute_pass()
        self.dispatch(compute_pass, plan, resources, groups)
        compute_pass.end()

    def dispatch(
        self,
        compute_pass: ComputePass,
        plan: Dispatch,
        resources: Mapping[str, Any],
        groups: BindGroups | None = None,
    ) -> None:
        """The same within a compute pass that the caller began."""
        if plan.needs is not None:
            _check_sizes(plan, plan.needs, resources)
        kernel = self._kernel(plan)
        bound = tuple([resources[binding.name] for binding in plan.shader.bindings])
        kept = {} if groups is None else groups.setdefault(plan.key, {})
        group = kept.get(bound)
        if group is None:
            if len(kept) >= _MOST_GROUPS:
                del kept[next(iter(kept))]  # the oldest, with the buffers that it holds
            group = kept[bound] = self._bind(kernel, plan, bound)
        compute_pass.set_pipeline(kernel.pipeline)
        compute_pass.set_bind_group(0, group)
        compute_pass.dispatch_workgroups(*plan.workgroups)

    def run(self, record: Record, out: NDArray[Any]) -> None:
        """Run one compute pass and fill ``out``, C-contiguous, with its result.

        Args:
            record: appends dispatches to the pass, as `dispatch` does, and returns the buffer
                (see `result`) from whose start the result is read.
            out: at least one byte.
        """
        try:
            self.round_trip.run(record, self._staging, out.reshape(-1).view(np.uint8))
        except BaseException:
            self._let_go()
            raise

    def read(self, encoder: Any, source: Any, out: NDArray[Any]) -> None:
        """Finish ``encoder``, run it, and fill ``out`` from the start of the buffer ``source``."""
        staging = self._staging(_padded(out.nbytes))
        encoder.copy_buffer_to_buffer(source, 0, staging, 0, _padded(out.nbytes))
        self.device.queue.submit([encoder.finish()])
        try:
            self.round_trip.read(staging, out.reshape(-1).view(np.uint8))
        except BaseException:
            self._let_go()
            raise

    def _staging(self, nbytes: int) -> Any:
        return self.scratch("staging", nbytes, "COPY_DST", "MAP_READ")

    def _let_go(self) -> None:
        """Forget the buffers of which nobody knows whether they are still being mapped."""
        mapped = self.usage("MAP_READ")
        self._scratch = {
            role: buffer for role, buffer in self._scratch.items() if not buffer.usage & mapped
        }

    def _kernel(self, plan: Dispatch) -> _Kernel:
        kernel = self._kernels.get(plan.key)
        if kernel is None:
            device, label = self.device, plan.shader.name
            visibility = int(self.implementation.ShaderStage.COMPUTE)
            entries = [binding.layout_entry(visibility) for binding in plan.shader.bindings]
            group_layout = device.create_bind_group_layout(label=label, entries=entries)
            is_unchecked = plan.needs is not None and not self.checks_because
            create = unchecked.create_shader_module if is_unchecked else _create_shader_module
            pipeline = device.create_compute_pipeline(
                label=label,
                layout=device.create_pipeline_layout(
                    label=label, bind_group_layouts=[group_layout]
                ),
                compute={
                    "module": create(device, label=label, code=plan.shader.source),
                    "entry_point": "main",
                    "constants": dict(plan.constants),
                },
            )
            self.pipelines_created += 1
            kernel = self._kernels[plan.key] = _Kernel(pipeline, group_layout)
        return kernel

    def _bind(self, kernel: _Kernel, plan: Dispatch, resources: tuple[Any, ...]) -> Any:
        self.bind_groups_created += 1
        buffer_type = self.implementation.GPUBuffer
        entries = [
            {
                "binding": binding.number,
                "resource": {"buffer": resource, "offset": 0, "size": resource.size}
                if isinstance(resource, buffer_type)
                else resource,
            }
            for binding, resource in zip(plan.shader.bindings, resources, strict=True)
        ]
        return self.device.create_bind_group(
            label=plan.shader.name, layout=kernel.group_layout, entries=entries
        )


def _create_shader_module(device: Any, label: str, code: str) -> Any:
    return device.create_shader_module(label=label, code=code)


def _check_sizes(plan: Dispatch, needs: Mapping[str, int], resources: Mapping[str, Any]) -> None:
    """The host's part of the proof that an unchecked kernel stays within its buffers."""
    for name, nbytes in needs.items():
        if resources[name].size < nbytes:
            raise DeviceError(
                f"{plan.shader.name} needs {nbytes:,} bytes in {name}, which has "
                f"{resources[name].size:,}: a fault of wgpu_q4, please report it"
            )


def _padded(nbytes: int) -> int:
    return nbytes + -nbytes % 4


_default: dict[tuple[str | None, str | None], Context] = {}
_default_lock = RLock()


def default_context(adapter: str | None = None, implementation: str | None = None) -> Context:
    """The context of the adapter of that name, by default the best; one for each is kept."""
    with _default_lock:
        key = (adapter, implementation)
        if key not in _default:
            _default[key] = context_for(request_device(adapter, implementation))
        _default[key].check_process()
        return _default[key]


def context_for(device: Any = None) -> Context:
    """The context of a device.

    Args:
        device: a ``GPUDevice`` (within whose limits and features everything then stays), part of
            the name of an adapter, or None for the default one.

    Raises:
        TypeError: something else.
        DeviceError: no such adapter.
    """
    if device is None or isinstance(device, str):
        return default_context(device)
    with _default_lock:
        # Kept on the device itself: whoever drops the device drops all that hangs on it.
        context: Context | None = getattr(device, _ATTRIBUTE, None)
        if context is None:
            context = Context(device)
            setattr(device, _ATTRIBUTE, context)
        context.check_process()
        return context
