"""What `share_tied_weights` did, and what it left alone and why."""

from __future__ import annotations

from dataclasses import dataclass

from wgpu_q4 import rich
from wgpu_q4.executorch.forms import Runtime
from wgpu_q4.pte.device_bytes import TARGETS, Target, packed_bytes


@dataclass(frozen=True)
class SharedWeight:
    """One matrix that several ops now read.

    Attributes:
        name: the parameter that holds the packed bytes in the rewritten program.
        shape: ``(V, K)``.
        group_size: ``G``.
        scales_dtype: ``"float16"`` or ``"float32"``.
        sha256: of the packed bytes; the key of the blob in the ``.pte``, and `Q4Weight.sha256`.
        packed_bytes: bytes of the packed matrix.
        scales_bytes: bytes of one copy of its scales.
        embeddings: the embedding nodes that read it.
        linears: the linear nodes that read it.
        weight_only: those of the linears whose activations are not quantized.
        how: how they held it before: ``"the same parameter"``, ``"an alias"``, ``"equal copies"``.
        scales_once: whether one copy of the scales serves all of them.
        notes: what else a reader should know.
    """

    name: str
    shape: tuple[int, int]
    group_size: int
    scales_dtype: str
    sha256: str
    packed_bytes: int
    scales_bytes: int
    embeddings: tuple[str, ...]
    linears: tuple[str, ...]
    weight_only: tuple[str, ...]
    how: str
    scales_once: bool
    notes: tuple[str, ...] = ()

    @property
    def bytes_saved(self) -> int:
        """Against a packed copy for each op that reads the matrix."""
        return self.packed_bytes * (len(self.embeddings) + len(self.linears) - 1)

    def device_bytes(self, target: Target) -> int:
        """Return the bytes of packed values that a runtime holds on the device.

        Scales are not counted; `wgpu_q4.executorch.inspect_pte` counts everything in a file.
        """
        copies = 1 + (len(self.weight_only) if target == "vulkan>=1.4" else 0)
        vocab, embed_dim = self.shape
        one = self.packed_bytes if target == "webgpu" else packed_bytes((vocab, embed_dim // 2))
        return copies * one


@dataclass(frozen=True)
class LeftAlone:
    """A quantized embedding, linear or parameter that was not changed.

    Attributes:
        node: its name in the graph.
        kind: ``"embedding"``, ``"linear"`` or ``"parameter"``.
        reason: why.
    """

    node: str
    kind: str
    reason: str


@dataclass(frozen=True)
class ShareReport:
    """The outcome of one run of the pass; ``str()`` is for people.

    Attributes:
        shared: the matrices that are stored once now.
        left_alone: the quantized embeddings that keep their own matrix, the linears that look like
            an embedding's and are not, and the other readers of a matrix that was shared.
        runtimes: ExecuTorch's runtimes that are known to run what the pass has written.
        notes: why each other runtime does not.
    """

    shared: tuple[SharedWeight, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    runtimes: tuple[Runtime, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def bytes_saved(self) -> int:
        """Bytes of packed values that the program no longer holds, or would hold, twice."""
        return sum(weight.bytes_saved for weight in self.shared)

    def __str__(self) -> str:
        lines = []
        for weight in self.shared:
            vocab, embed_dim = weight.shape
            readers = ", ".join((*weight.embeddings, *weight.linears))
            times = "once" if weight.scales_once else "twice"
            lines += [
                f"{weight.name}: {vocab:,} × {embed_dim:,} in groups of {weight.group_size}, "
                f"read by {readers}; before, {weight.how}",
                f"  {weight.packed_bytes:,} bytes packed, once (saves {weight.bytes_saved:,}); "
                f"{weight.scales_bytes:,} bytes of {weight.scales_dtype} scales, {times}",
                "  packed bytes on the device: "
                + ", ".join(f"{weight.device_bytes(target):,} ({target})" for target in TARGETS),
                *(f"  {note}" for note in weight.notes),
            ]
        if self.runtimes:
            lines.append(f"runs on: {', '.join(self.runtimes)}")
        lines += self.notes
        lines += [f"{left.node} left alone: {left.reason}" for left in self.left_alone]
        return "\n".join(lines) or "no quantized embedding"

    def _repr_html_(self) -> str:
        rows: list[rich.Row] = []
        for weight in self.shared:
            vocab, embed_dim = weight.shape
            times = "once" if weight.scales_once else "twice"
            rows += [
                (weight.name, f"{vocab:,} × {embed_dim:,} in groups of {weight.group_size}"),
                ("read by", ", ".join((*weight.embeddings, *weight.linears))),
                ("before", weight.how),
                ("packed, once", weight.packed_bytes),
                (f"{weight.scales_dtype} scales, {times}", weight.scales_bytes),
                *((f"packed on {name}", weight.device_bytes(name)) for name in TARGETS),
                ("notes", weight.notes),
            ]
        rows += [
            ("runs on", ", ".join(self.runtimes) or ()),
            ("notes", self.notes),
            ("left alone", [f"{left.node}: {left.reason}" for left in self.left_alone]),
        ]
        return rich.table("What share_tied_weights did", rows)
