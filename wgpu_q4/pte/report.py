"""What is in a ``.pte``: its delegates, their ops, and which of them read which bytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from wgpu_q4 import rich
from wgpu_q4.errors import FormatError
from wgpu_q4.pte.device_bytes import TARGETS, DeviceMemory, device_memory
from wgpu_q4.pte.graph import Constant, Graph
from wgpu_q4.pte.program import Delegate, Pte, read_pte

_PREPACK = "et_vk.prepack.default"


@dataclass(frozen=True)
class BlobUser:
    """An op that reads a blob.

    Attributes:
        delegate: the number of its delegate in the program.
        op: its name.
        dtype: how it reads the bytes, ``"uint8"`` for instance.
        shape: likewise.
    """

    delegate: int
    op: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Blob:
    """One run of named bytes.

    Attributes:
        keys: the names that lead to it.
        nbytes: its length.
        sha256: hex digest of the bytes.
        users: the ops that read it, in the order in which they run.
    """

    keys: tuple[str, ...]
    nbytes: int
    sha256: str
    users: tuple[BlobUser, ...]

    @property
    def bytes_saved(self) -> int:
        """Against a copy for each user."""
        return self.nbytes * max(0, len(self.users) - 1)


@dataclass(frozen=True)
class DelegateReport:
    """One delegate.

    Attributes:
        backend: the backend's id.
        nbytes: of its own data, without the blobs.
        ops: the ops of its graph with how often each occurs; empty for an unknown backend.
    """

    backend: str
    nbytes: int
    ops: dict[str, int]


@dataclass(frozen=True)
class PteReport:
    """What `inspect_pte` found; ``str()`` is a table, `to_json` is for programs.

    Attributes:
        path: of the file.
        nbytes: of the file.
        methods: names of the methods.
        operators: the ops outside of delegates.
        delegates: the delegates of all methods.
        blobs: the named data, the largest first.
        constant_bytes: of constants outside of delegates.
        device: what each runtime holds on the device; empty if no delegate is for Vulkan.
    """

    path: str
    nbytes: int
    methods: tuple[str, ...]
    operators: tuple[str, ...]
    delegates: tuple[DelegateReport, ...]
    blobs: tuple[Blob, ...]
    constant_bytes: int
    device: tuple[DeviceMemory, ...] = ()

    @property
    def bytes_saved(self) -> int:
        """Against a copy of every blob for each of its users."""
        return sum(blob.bytes_saved for blob in self.blobs)

    def to_json(self) -> str:
        """Everything as a JSON object."""
        report: dict[str, Any] = asdict(self)
        report["bytes_saved"] = self.bytes_saved
        for shown, blob in zip(report["blobs"], self.blobs, strict=True):
            shown["bytes_saved"] = blob.bytes_saved
        for shown, memory in zip(report["device"], self.device, strict=True):
            shown |= {"constants": memory.constants, "nbytes": memory.nbytes}
        return json.dumps(report, indent=2)

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.nbytes:,} bytes, methods {', '.join(self.methods) or 'none'}"]
        for number, delegate in enumerate(self.delegates):
            lines.append(f"delegate {number}: {delegate.backend}, {delegate.nbytes:,} bytes")
            lines += [f"  {count:>4} × {op}" for op, count in delegate.ops.items()]
        if self.operators:
            lines.append(f"outside of delegates: {', '.join(self.operators)}")
        if self.constant_bytes:
            lines.append(f"constants outside of delegates: {self.constant_bytes:,} bytes")
        lines.append(f"{'bytes':>15}  {'sha256':<12}  {'saved':>15}  users")
        for blob in self.blobs:
            users = "; ".join(
                f"{user.op} [{user.delegate}] {user.dtype} {list(user.shape)}"
                for user in blob.users
            )
            lines.append(
                f"{blob.nbytes:>15,}  {blob.sha256[:12]}  {blob.bytes_saved:>15,}  "
                f"{users or 'none'}"
            )
        total = sum(blob.nbytes for blob in self.blobs)
        lines.append(f"{total:>15,}  {'in all':<12}  {self.bytes_saved:>15,}")
        return "\n".join(lines + self._device_lines())

    def _repr_html_(self) -> str:
        rows: list[rich.Row] = [("file", self.nbytes), ("methods", ", ".join(self.methods) or ())]
        for number, delegate in enumerate(self.delegates):
            ops = [f"{count} × {op}" for op, count in delegate.ops.items()]
            rows.append((f"delegate {number}", [delegate.backend, delegate.nbytes, *ops]))
        rows.append(("outside of delegates", ", ".join(self.operators) or ()))
        if self.constant_bytes:
            rows.append(("constants there", self.constant_bytes))
        for blob in self.blobs:
            users = [f"{user.op}, {user.dtype} {list(user.shape)}" for user in blob.users]
            rows.append((f"blob {blob.sha256[:12]}", [blob.nbytes, *(users or ["read by none"])]))
        rows += [(f"device, {memory.target}", memory.nbytes) for memory in self.device]
        return rich.table(os.path.basename(self.path), rows)

    def _device_lines(self) -> list[str]:
        if not self.device:
            return []
        titles = "constants", "activations", "in and out", "all"
        lines = ["", "bytes on the device" + "".join(f"{title:>16}" for title in titles)]
        for memory in self.device:
            numbers = memory.constants, memory.activations, memory.transfers, memory.nbytes
            lines.append(f"{memory.target:<19}" + "".join(f"{number:>16,}" for number in numbers))
            for blob in self.blobs:
                kernels = [copy.kernel for copy in memory.copies if copy.key in blob.keys]
                if any(user.dtype == "uint8" for user in blob.users):
                    times = _times(len(kernels))
                    lines.append(f"  {blob.sha256[:12]} held {times}: {', '.join(kernels)}")
        return lines


def inspect_pte(path: str | os.PathLike[str]) -> PteReport:
    """List what a program holds: delegates, ops, blobs, who reads these, and what sharing saves.

    Raises:
        OSError: the file cannot be read.
        FormatError: it is no ``.pte``, or a part of it is missing or broken.
    """
    pte = read_pte(path)
    users = _users(os.fspath(path), pte)
    by_segment: dict[int, list[str]] = {}
    for key, segment in pte.blobs.items():
        by_segment.setdefault(segment, []).append(key)
    blobs = [
        Blob(
            keys=tuple(keys),
            nbytes=len(pte.segments[segment]),
            sha256=hashlib.sha256(pte.segments[segment]).hexdigest(),
            users=tuple(user for key in keys for user in users.get(key, ())),
        )
        for segment, keys in by_segment.items()
    ]
    return PteReport(
        path=os.fspath(path),
        nbytes=pte.nbytes,
        methods=pte.methods,
        operators=pte.operators,
        delegates=tuple(_report(delegate) for delegate in pte.delegates),
        blobs=tuple(sorted(blobs, key=lambda blob: -blob.nbytes)),
        constant_bytes=pte.constant_bytes,
        device=_device(pte),
    )


def _device(pte: Pte) -> tuple[DeviceMemory, ...]:
    graphs = [delegate.graph for delegate in pte.delegates if delegate.graph is not None]
    if not graphs:
        return ()
    return tuple(device_memory(graphs, target) for target in TARGETS)


def _times(count: int) -> str:
    return {0: "nowhere", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _report(delegate: Delegate) -> DelegateReport:
    calls = () if delegate.graph is None else delegate.graph.calls
    return DelegateReport(delegate.backend, delegate.nbytes, dict(Counter(c.op for c in calls)))


def _users(name: str, pte: Pte) -> dict[str, list[BlobUser]]:
    """Return for each key the ops that read its bytes."""
    users: dict[str, list[BlobUser]] = {}
    for number, delegate in enumerate(pte.delegates):
        if delegate.graph is None:
            continue
        for key, user in _graph_users(number, delegate.graph):
            if key not in pte.blobs:
                raise FormatError(f"{name}: delegate {number} reads {key!r}, which is not there")
            users.setdefault(key, []).append(user)
    return users


def _graph_users(number: int, graph: Graph) -> list[tuple[str, BlobUser]]:
    """Return ``(key, user)`` for each op and each blob that it reads, through prepacking."""
    # An op that only prepacks a constant passes it on.
    known = dict(graph.constants)
    found: list[tuple[str, BlobUser]] = []
    for call in graph.calls:
        if call.op == _PREPACK and len(call.args) > 1 and call.args[0] in known:
            known[call.args[-1]] = known[call.args[0]]
            continue
        for constant in dict.fromkeys(_read(call.args, graph, known)):
            user = BlobUser(number, call.op, constant.dtype, constant.shape)
            found.append((constant.key, user))
    return found


def _read(
    arguments: tuple[int, ...], graph: Graph, known: dict[int, Constant]
) -> Iterator[Constant]:
    """Yield the constants among the arguments and in the lists among them."""
    for index in arguments:
        # A list holds values, never lists.
        for value in graph.lists.get(index, (index,)):
            if value in known:
                yield known[value]
