"""Lookups of ids that nobody has checked, by kernels that wgpu does not check either.

``python -m tests.unknown_ids`` looks them up on the adapter of the process, between guard regions.
It fails unless the kernels give zeros, write nothing beyond their result, and read row 0 of the
weight where they know no row.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cases import ODD, Shape, anew, bindings_of, random_weight
from wgpu_q4 import Q4Weight, reference, request_device
from wgpu_q4.device import Context, context_for
from wgpu_q4.device.parts import DevicePart
from wgpu_q4.device.pipelines import BufferRange, Step
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import Dispatch, Layout, OutputDtype, Shader
from wgpu_q4.ops.lookup import Lookup, lookup_steps

GUARD = 1024
"""Bytes before and after each array: NaN, whatever the type, and nibbles of 15."""

MASK = "select(vec4<f32>(0.0), weight * scale, known)"


@dataclass(frozen=True)
class Unmasked(Shader):
    """An embedding that shows what it reads for an id that it does not know."""

    @property
    def source(self) -> str:
        """See `Shader`."""
        text = super().source
        assert text.count(MASK) == 1
        return text.replace(MASK, "weight * scale")


class Guarded(Workspace):
    """Makes steps without bounds checks, which read the weight between guard regions."""

    def __init__(self, context: Context, *, unmasked: bool) -> None:
        super().__init__(context)
        self._unmasked = unmasked

    def step(
        self, dispatch: Dispatch, resources: Mapping[str, Any], part: DevicePart | None
    ) -> Step:
        """See `Workspace`."""
        shader = dispatch.shader
        if self._unmasked:
            shader = Unmasked(f"{shader.name}_unmasked", shader.pieces)
        guarded = {name: self._guarded(resources[name]) for name in ("t_weight", "t_scales")}
        unchecked = replace(dispatch, shader=shader, needs={})
        return super().step(unchecked, {**resources, **guarded}, None)

    def _guarded(self, buffer: Any) -> BufferRange:
        copy = guarded_buffer(self.context, buffer.size)
        encoder = self.context.device.create_command_encoder()
        encoder.copy_buffer_to_buffer(buffer, 0, copy, GUARD, buffer.size)
        self.context.device.queue.submit([encoder.finish()])
        return BufferRange(copy, GUARD, buffer.size)


def guarded_buffer(context: Context, nbytes: int) -> Any:
    """A buffer of as many bytes between two guard regions."""
    poison = np.full(2 * GUARD + nbytes, 0xFF, np.uint8)
    buffer = context.create_buffer("guarded", poison.size, "STORAGE", "COPY_SRC", "COPY_DST")
    context.write(buffer, poison)
    return buffer


def wrong_ids(vocab: int) -> NDArray[np.int32]:
    """Ids on both sides of every edge, and some that are right."""
    edges = [0, vocab, 2**16, 2**24, 2**31 - 2, -(2**31) + 1]
    near = [edge + by for edge in edges for by in (-1, 0, 1)]
    multiples = [vocab * by for by in (2, 3, 1 << 10)]
    return np.array([*near, *multiples, vocab // 2, 1, *(-n for n in multiples)], np.int32)


def look_up(
    weight: Q4Weight,
    ids: NDArray[np.int32],
    layout: Layout,
    output: OutputDtype,
    device: Any,
    *,
    unmasked: bool,
) -> NDArray[Any]:
    """What the kernels write for the ids; they must leave the guard regions alone."""
    context, embed_dim = context_for(device), weight.shape[1]
    assert context.pipelines.checks_because == "", "the kernels must run without checks"
    result = np.empty((ids.size, embed_dim), output)
    whole = np.empty(2 * GUARD + result.nbytes, np.uint8)
    with context.lock, context.guard, context.guard.busy:
        work = Guarded(context, unmasked=unmasked)
        id_buffer = guarded_buffer(context, ids.nbytes)
        device.queue.write_buffer(id_buffer, GUARD, ids)
        out = guarded_buffer(context, result.nbytes)
        lookup = Lookup(weight, layout, output, ids.size)
        steps = lookup_steps(
            *(work, context.weight(weight).parts, lookup),
            *(BufferRange(id_buffer, GUARD, ids.nbytes), BufferRange(out, GUARD, result.nbytes)),
            unknown_ids=True,
        )
        context.run(steps, out, whole)
    assert (whole[:GUARD] == 0xFF).all()
    assert (whole[-GUARD:] == 0xFF).all()
    result.reshape(-1).view(np.uint8)[:] = whole[GUARD:-GUARD]
    return result


def check(weight: Q4Weight, layout: Layout, output: OutputDtype, device: Any) -> None:
    """Ids that are none give zeros; what was read for them is row 0."""
    ids = wrong_ids(weight.shape[0])
    known = (ids >= 0) & (ids < weight.shape[0])
    assert 4 < known.sum() < ids.size - 4
    rows = reference.embedding(np.where(known, ids, 0), weight, output)
    bits = np.dtype(f"u{rows.itemsize}")
    read = look_up(weight, ids, layout, output, device, unmasked=True)
    np.testing.assert_array_equal(read.view(bits), rows.view(bits))
    found = look_up(weight, ids, layout, output, device, unmasked=False)
    rows[~known] = 0
    np.testing.assert_array_equal(found.view(bits), rows.view(bits))


KERNELS: tuple[tuple[Layout, OutputDtype, ScalesDtype], ...] = (
    ("rows", "float32", "float16"),
    ("rows", "float16", "float32"),
    ("rows_embedding", "float32", "float32"),
    ("blocks_buffer", "float16", "float16"),
)


def check_all(device: Any) -> None:
    """Every layout, and scales and results of either dtype, in three parts; and one in one part."""
    check(random_weight(ODD, "float16"), "rows", "float32", device)
    for layout, output, dtype in KERNELS:
        weight = anew(random_weight(Shape(192, 128, 32), dtype))
        with bindings_of(4096, device):
            assert len(context_for(device).weight(weight).parts) == 3
            check(weight, layout, output, device)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    check_all(request_device())
    print("right")
