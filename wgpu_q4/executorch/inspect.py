"""What is in a ``.pte``: its delegates, their ops, and which of them read which bytes."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from executorch.backends.vulkan.serialization.vulkan_graph_schema import (
    ValueList,
    VkDataType,
    VkTensor,
)

from wgpu_q4.errors import FormatError
from wgpu_q4.executorch.pte import Delegate, Pte, read_pte

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
    """

    path: str
    nbytes: int
    methods: tuple[str, ...]
    operators: tuple[str, ...]
    delegates: tuple[DelegateReport, ...]
    blobs: tuple[Blob, ...]
    constant_bytes: int

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
        return "\n".join(lines)


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
    plans = pte.program.execution_plan
    constants = pte.program.constant_segment
    held = bool(constants and constants.offsets) and constants.segment_index < len(pte.segments)
    return PteReport(
        path=os.fspath(path),
        nbytes=pte.nbytes,
        methods=tuple(plan.name for plan in plans),
        operators=tuple(
            f"{op.name}.{op.overload}" if op.overload else op.name
            for plan in plans
            for op in plan.operators
        ),
        delegates=tuple(_report(delegate) for delegate in pte.delegates),
        blobs=tuple(sorted(blobs, key=lambda blob: -blob.nbytes)),
        constant_bytes=len(pte.segments[constants.segment_index]) if held else 0,
    )


def _report(delegate: Delegate) -> DelegateReport:
    calls = () if delegate.graph is None else delegate.graph.chain
    return DelegateReport(delegate.backend, delegate.nbytes, dict(Counter(c.name for c in calls)))


def _users(name: str, pte: Pte) -> dict[str, list[BlobUser]]:
    """For each key, the ops that read its bytes."""
    users: dict[str, list[BlobUser]] = {}
    for number, delegate in enumerate(pte.delegates):
        if delegate.graph is None:
            continue
        try:
            found = list(_graph_users(number, delegate.graph))
        except (IndexError, ValueError, TypeError, AttributeError) as error:
            raise FormatError(
                f"{name}: the graph of delegate {number} is broken: {error}"
            ) from error
        for key, user in found:
            if key not in pte.blobs:
                raise FormatError(f"{name}: delegate {number} reads {key!r}, which is not there")
            users.setdefault(key, []).append(user)
    return users


def _graph_users(number: int, graph: Any) -> list[tuple[str, BlobUser]]:
    """``(key, user)`` for each op and each blob that it reads, through prepacking."""
    # Which constant a value is; an op that only prepacks one passes it on.
    keys: dict[int, tuple[str, Any]] = {}
    for index, held in enumerate(graph.values):
        tensor = held.value
        if isinstance(tensor, VkTensor) and tensor.constant_id >= 0:
            key = graph.constants[tensor.constant_id].named_key
            if key:
                keys[index] = key, tensor
    found: list[tuple[str, BlobUser]] = []
    for call in graph.chain:
        if call.name == _PREPACK and call.args[0] in keys:
            keys[call.args[-1]] = keys[call.args[0]]
            continue
        for key, tensor in dict.fromkeys(_read(call.args, graph, keys)):
            dtype = VkDataType(tensor[0]).name.lower()
            found.append((key, BlobUser(number, call.name, dtype, tensor[1])))
    return found


def _read(
    arguments: list[int], graph: Any, keys: dict[int, tuple[str, Any]]
) -> list[tuple[str, tuple[int, tuple[int, ...]]]]:
    read = []
    for index in arguments:
        if index in keys:
            key, tensor = keys[index]
            read.append((key, (int(tensor.datatype), tuple(tensor.dims))))
        elif isinstance(graph.values[index].value, ValueList):
            # Lists hold values, never lists: no deeper.
            read += _read([i for i in graph.values[index].value.items if i in keys], graph, keys)
    return read
