"""What is measured: the copy bandwidth, and each op on the shape of a real tied matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import Timing, measure, wall
from wgpu_q4 import Q4Weight, embedding, linear
from wgpu_q4.device import Context, DeviceWeight
from wgpu_q4.kernels import Layout, OutputDtype
from wgpu_q4.ops.matmul import dispatch_linear
from wgpu_q4.plan import fold, plan_embedding, plan_linear

_ROTATED_BYTES = 256 << 20
"""Inputs rotate over about this much memory, several times a large cache."""


@dataclass(frozen=True)
class Result:
    """One measured job.

    Attributes:
        job: what was done.
        timing: seconds.
        moved: bytes that the job cannot avoid to read and write, 0 where they do not bound it.
        flops: floating-point operations of a matrix product, 0 elsewhere.
        where: ``"gpu"`` for timestamps, ``"wall"`` for a whole call from Python.
    """

    job: str
    timing: Timing
    moved: int = 0
    flops: int = 0
    where: str = "gpu"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class Bench:
    """One weight on one device, measured job by job."""

    def __init__(self, context: Context, weight: Q4Weight, repeats: int) -> None:
        self.context = context
        self.weight = weight
        self.repeats = repeats
        self.resident: DeviceWeight = context.weight(weight)
        self.random = np.random.default_rng(0)

    def copy(self) -> Result:
        """A device-to-device copy by a kernel: the bandwidth that everything is held against."""
        context = self.context
        nbytes = min(512 << 20, context.largest_binding) // 16384 * 16384
        source = context.create_buffer("source", nbytes, "STORAGE")
        target = context.create_buffer("target", nbytes, "STORAGE")
        device = context.device
        module = device.create_shader_module(
            code=(Path(__file__).parent / "copy.wgsl").read_text(encoding="utf-8")
        )
        pipeline = device.create_compute_pipeline(
            layout="auto", compute={"module": module, "entry_point": "main"}
        )
        group = device.create_bind_group(
            layout=pipeline.get_bind_group_layout(0),
            entries=[
                {"binding": number, "resource": {"buffer": buffer, "offset": 0, "size": nbytes}}
                for number, buffer in enumerate((target, source))
            ],
        )
        workgroups = fold(nbytes // 16384, context.limits)

        def run(compute_pass: Any) -> None:
            compute_pass.set_pipeline(pipeline)
            compute_pass.set_bind_group(0, group)
            compute_pass.dispatch_workgroups(*workgroups)

        timing = measure(context, [run], self.repeats)
        return Result(f"copy of {nbytes >> 20} MiB", timing, moved=2 * nbytes)

    def embedding(self, ids: int, layout: Layout, output: OutputDtype) -> Result:
        """Rows of ``ids`` random ids, from a weight that no cache holds."""
        context, shape = self.context, self.resident.shape
        used, packed = self.resident.packed(context, self.weight, layout)
        out_bytes = ids * shape.embed_dim * (2 if output == "float16" else 4)
        out = context.create_buffer("out", out_bytes, "STORAGE")
        plan = plan_embedding(
            shape, ids, used, output, "buffer", context.limits, context.half_support
        )
        sizes = self._sizes(shape.embed_dim, ids, 1, 1)

        def variant() -> Any:
            chosen = self.random.integers(0, shape.vocab, ids, dtype=np.int32)
            id_buffer = context.create_buffer("ids", chosen.nbytes, "STORAGE", "COPY_DST")
            context.write(id_buffer, chosen)
            groups: dict[Any, Any] = {}
            resources = {0: out, 1: id_buffer, 2: packed, 3: self.resident.scales, 4: sizes}
            return lambda compute_pass: context.dispatch(compute_pass, plan, resources, groups)

        timing = measure(context, [variant() for _ in range(8)], self.repeats)
        # A block holds 8 rows, so a row costs the bytes of 8.
        row_bytes = shape.embed_dim // 2 * (8 if layout.startswith("blocks") else 1)
        scale_bytes = self.weight.scales.nbytes // shape.vocab
        moved = ids * (row_bytes + scale_bytes + 4) + out_bytes
        return Result(f"embedding, {ids} ids, {layout}, {output}", timing, moved)

    def linear(self, rows: int, layout: Layout, kernel: Any = None) -> Result:
        """``x · Wᵀ`` with copies of the weight in rotation, so that it comes from memory."""
        context, shape = self.context, self.resident.shape
        plan = plan_linear(shape, rows, layout, False, context.limits, context.half_support, kernel)
        used = plan.product.variant.name.removeprefix("linear_q4gsw_").partition(f"_{layout}")[0]
        name = f"linear, M={rows}, {layout} ({used})"
        flops = 2 * rows * shape.vocab * shape.embed_dim
        x = self.random.standard_normal((rows, shape.embed_dim), dtype=np.float32)
        x_buffer = context.create_buffer("x", x.nbytes, "STORAGE", "COPY_DST")
        context.write(x_buffer, x)
        out_bytes = rows * shape.vocab * 4
        if out_bytes > context.largest_binding:
            raise ValueError(f"{name}: the result does not fit one binding")
        out = context.create_buffer("out", out_bytes, "STORAGE")
        sizes = self._sizes(rows, plan.padded_rows)
        copies = max(1, min(8, -(-_ROTATED_BYTES // self.weight.nbytes))) if rows < 64 else 1

        def variant() -> Any:
            other = DeviceWeight(context, self.weight) if copies > 1 else self.resident
            _, packed = other.packed(context, self.weight, layout)
            resources = {0: out, 1: x_buffer, 2: packed, 3: other.scales, 4: sizes}
            groups: dict[Any, Any] = {}
            return lambda compute_pass: dispatch_linear(
                context, compute_pass, plan, resources, groups
            )

        timing = measure(context, [variant() for _ in range(copies)], self.repeats)
        return Result(name, timing, self.weight.nbytes + x.nbytes + out_bytes, flops)

    def calls(self, ids: int) -> Iterator[Result]:
        """Whole calls, numpy to numpy."""
        device = self.context.device
        vocab, embed_dim = self.weight.shape
        chosen = self.random.integers(0, vocab, ids)
        x = self.random.standard_normal((1, embed_dim), dtype=np.float32)
        yield Result(
            f"embedding() of {ids} ids",
            wall(lambda: embedding(chosen, self.weight, device=device)),
            where="wall",
        )
        yield Result(
            "linear() of one row", wall(lambda: linear(x, self.weight, device=device)), where="wall"
        )

    def _sizes(self, *values: int) -> Any:
        buffer = self.context.create_buffer("sizes", 16, "UNIFORM", "COPY_DST")
        padded: NDArray[np.int32] = np.zeros(4, np.int32)
        padded[: len(values)] = values
        self.context.write(buffer, padded)
        return buffer
