"""One measured job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tools.bench.timing import Clock, Timing
from wgpu_q4.kernels import MatrixShape


@dataclass(frozen=True)
class Result:
    """One measured job; `tools.bench.document` describes its form in JSON.

    Attributes:
        who: ``"wgpu_q4"``, or the peer that did it.
        op: what was done, such as ``"embedding"`` or ``"linear"``; ``"linear()"`` is the whole call
            from Python.
        size: ids, rows of x or bytes, as the op has it.
        timing: seconds.
        clock: how they were taken.
        shape: of the matrix, where there is one.
        detail: what else tells this job from others: layout, dtype, accuracy, kernel, device.
        moved: bytes that the job cannot avoid to read and write, 0 where they do not bound it.
        flops: floating-point operations, 0 where they say nothing.
    """

    who: str
    op: str
    size: int
    timing: Timing
    clock: Clock
    shape: MatrixShape | None = None
    detail: Mapping[str, str] = field(default_factory=dict)
    moved: int = 0
    flops: int = 0

    @property
    def name(self) -> str:
        """One line, unique in a run."""
        unit = UNITS.get(self.op.partition("(")[0], "bytes")
        size = f"{unit}={self.size}" if unit in ("M", "ids") else f"{self.size:,} {unit}"
        matrix = f"{self.shape.vocab}×{self.shape.embed_dim}" if self.shape else ""
        parts = [f"{self.op}, {size}", matrix, *self.detail.values()]
        mine = ", ".join(part for part in parts if part)
        return mine if self.who == "wgpu_q4" else f"{self.who}: {mine}"

    def as_json(self, copy_bandwidth: float) -> dict[str, Any]:
        """The result as a JSON object; the limit is `moved` over ``copy_bandwidth`` (bytes/s)."""
        limit = self.moved / copy_bandwidth
        return {
            "who": self.who,
            "op": self.op,
            "size": self.size,
            "shape": None if self.shape is None else asdict(self.shape),
            "detail": dict(self.detail),
            "clock": self.clock,
            "seconds": self.timing.median,
            "quartiles": [self.timing.low, self.timing.high],
            "samples": self.timing.samples,
            "moved_bytes": self.moved,
            "flops": self.flops,
            "limit_seconds": limit,
            "share_of_limit": limit / self.timing.median,
        }


UNITS = {"embedding": "ids", "linear": "M", "arithmetic": "operations"}
"""What `Result.size` counts, by op; bytes elsewhere."""
