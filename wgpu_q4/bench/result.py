"""One measured job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wgpu_q4.bench.timing import Clock, Timing
from wgpu_q4.kernels import MatrixShape


@dataclass(frozen=True)
class Result:
    """One measured job.

    Attributes:
        who: ``"wgpu_q4"``, or the name of another library.
        op: what was done, such as ``"embedding"`` or ``"linear"``; ``"linear()"`` is the whole call
            from Python.
        size: the number of ids, of rows of x, or of bytes.
        timing: the seconds.
        clock: how the seconds were taken.
        shape: the shape of the matrix, if there is one.
        detail: what tells this job from others: layout, dtype, accuracy, kernel, device.
        moved: the bytes that the job must read and write; 0 if they do not bound it.
        flops: the floating-point operations; 0 if they do not matter.
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
        """Return one line that no other result of a run has."""
        unit = UNITS.get(self.op.partition("(")[0], "bytes")
        size = f"{unit}={self.size}" if unit in ("M", "ids") else f"{self.size:,} {unit}"
        matrix = f"{self.shape.vocab}×{self.shape.embed_dim}" if self.shape else ""
        parts = [f"{self.op}, {size}", matrix, *self.detail.values()]
        mine = ", ".join(part for part in parts if part)
        return mine if self.who == "wgpu_q4" else f"{self.who}: {mine}"

    def as_json(self, copy_bandwidth: float) -> dict[str, Any]:
        """Return a JSON object; the limit is `moved` over ``copy_bandwidth`` (bytes per second)."""
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
"""What `Result.size` counts for an op; bytes for the others."""
