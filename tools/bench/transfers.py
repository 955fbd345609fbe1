"""Packing, upload and readback, each measured alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from wgpu_q4.bench import accounting
from wgpu_q4.bench.jobs import Jobs
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.timing import Effort, time_calls
from wgpu_q4.device import DeviceWeight
from wgpu_q4.kernels import Layout, plan_pack


class Transfers:
    """Measures on the weight and the device of other jobs."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._context = jobs.context

    def pack(self, layout: Layout) -> Result:
        """Measure packing rows into ``layout`` on the device."""
        context, shape = self._context, self._jobs.shape
        rows = self._jobs.bindings(self._jobs.resident, "rows")["t_weight"]
        nbytes = accounting.packed_bytes(shape, layout)
        target = self._jobs.result_buffer(nbytes, f"the weight as {layout}")
        plan = plan_pack(shape, layout, context.limits)
        step = context.pipelines.step(plan, {"t_out": target, "t_weight": rows})
        timing = self._jobs.timer.measure([[step]])
        moved = accounting.pack_bytes(shape, layout)
        return Result(
            *("wgpu_q4", "pack", moved, timing, self._jobs.timer.clock, shape),
            {"layout": f"rows to {layout}"},
            moved,
        )

    def upload(self, effort: Effort) -> Result:
        """Measure the upload of the weight into new buffers, until the last byte is there."""
        context = self._context

        def call() -> None:
            resident = DeviceWeight(context, self._jobs.weight)
            for part in resident.parts:
                part.bindings(context, self._jobs.weight, "rows")
            self._wait(resident.parts[-1].scales)

        timing = time_calls(call, effort)
        nbytes = self._jobs.weight.nbytes
        return Result("wgpu_q4", "upload", nbytes, timing, "calls", self._jobs.shape)

    def readback(self, nbytes: int, effort: Effort) -> Result:
        """Measure reading ``nbytes`` of a buffer into a numpy array."""
        source = self._context.create_buffer("source", nbytes, "STORAGE", "COPY_SRC")
        out = np.empty(nbytes // 4, np.uint32)

        def call() -> None:
            self._context.read(self._context.device.create_command_encoder(), source, out)

        return Result("wgpu_q4", "readback", nbytes, time_calls(call, effort), "calls")

    def _wait(self, buffer: Any) -> None:
        """Wait until the queue has done everything that was handed to it."""
        encoder = self._context.device.create_command_encoder()
        self._context.read(encoder, buffer, np.empty(1, np.uint32))
