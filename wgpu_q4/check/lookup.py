"""A case of the embedding or of packing, computed by this package on a device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import forced
from wgpu_q4.check.cases import Case, WeightKind
from wgpu_q4.check.excuses import INFINITE_TEXEL, SUBNORMALS_FLUSHED, judge
from wgpu_q4.check.finding import Check, Outcome
from wgpu_q4.check.lists import corner_cases, upstream_cases
from wgpu_q4.device import Context
from wgpu_q4.device.textures import read_texture
from wgpu_q4.kernels import Layout
from wgpu_q4.ops import embedding

LAYOUTS: dict[WeightKind, Layout] = {
    "flat": "rows_embedding",
    "linear_buffer": "blocks_buffer",
    "linear_texture2d": "blocks_texture2d",
}
"""The layout of this package that holds what ExecuTorch's kernel of that weight reads."""


def lookup(case: Case, layout: Layout) -> Check:
    """Return the check of a case in one layout of this package, bit for bit."""

    def run(context: Context) -> Outcome:
        excuses = [SUBNORMALS_FLUSHED]
        if "SwiftShader" in context.adapter_summary:
            excuses.append(INFINITE_TEXEL)
        found = compute(case, layout, context)
        judgement = judge(case, found, excuses)
        if judgement.status != "differs":
            return Outcome(allowed=judgement.excuses)
        distance = judgement.distance
        return Outcome(
            f"{distance.differing} of {found.size} values differ, the worst by {distance.ulp} "
            f"units in the last place; {distance.first}"
        )

    return Check(case.op, f"{case.op}, {layout}: {case.name}", run)


def lookups() -> Iterator[Check]:
    """Yield the small cases, those on rows once for each order of nibbles."""
    for case in upstream_cases() + corner_cases():
        # `embedding` refuses ids outside the vocabulary, and knows no shape but that of the ids.
        if case.large or case.id_kind == "outside" or case.recorded_shape is not None:
            continue
        yield lookup(case, LAYOUTS[case.weight])
        if case.weight == "flat":
            yield lookup(case, "rows")


def compute(case: Case, layout: Layout, context: Context) -> NDArray[Any]:
    """Return the result of ``case``, whose ids are all inside the vocabulary.

    Raises:
        DeviceLimitError: the weight does not fit in that layout.
    """
    if case.op == "pack":
        return _packed(case, layout, context)
    with forced(layout=layout, storage=case.storage):
        found = embedding(case.ids(), case.matrix(), case.output, context.device)
    return np.asarray(found)


def _packed(case: Case, layout: Layout, context: Context) -> NDArray[np.uint32]:
    """Return the blocks, ``[ceil(V/8), K/4, 4]``, that the device made of rows."""
    weight, strips, quads = case.matrix(), -(-case.vocab // 8), case.embed_dim // 4
    resident = context.weight(weight)
    (part,) = resident.parts
    packed = part.bindings(context, weight, layout)["t_weight"]
    encoder = context.device.create_command_encoder()
    found = np.empty((strips, quads, 4), np.uint32)
    if layout == "blocks_buffer":
        context.read(encoder, packed, found)
    else:
        size = (quads, strips, 1)
        read_texture(context, encoder, part.packed[layout], size, found[None])
    return found
