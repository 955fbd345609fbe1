"""What a run is worth: the rows of the embedding to the last bit, the logits within a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tools.executorch_runtime.export import Exported

FLOAT32, FLOAT16 = 2.0**-24, 2.0**-11


@dataclass(frozen=True)
class Verdict:
    """The comparison of one run with the eager program.

    Attributes:
        right: whether rows and logits are what they should be.
        rows: how many rows are equal, in words.
        logits: how far the logits are off, in words.
    """

    right: bool
    rows: str
    logits: str


def judge(exported: Exported, outputs: Sequence[bytes]) -> Verdict:
    """Compare the outputs of a run.

    Rows must be equal to the last bit.  Logits may differ by what two float32 sums of the same
    terms may, or by what rounding x and the weight to float16 makes, as ExecuTorch's WebGPU runtime
    does for several rows.  Where a head quantizes its activations, one 8-bit step of each is
    allowed on top: a runtime may round a tie the other way, or not quantize a single row at all.
    """
    rows, logits = (np.frombuffer(output, np.float32) for output in outputs)
    if rows.size != exported.rows.size or logits.size != exported.logits.size:
        return Verdict(
            False,
            f"{rows.size} values, not {exported.rows.size}",
            f"{logits.size} values, not {exported.logits.size}",
        )
    width = exported.rows.shape[-1]
    same = (
        rows.view(np.uint32).reshape(-1, width) == exported.rows.view(np.uint32).reshape(-1, width)
    ).all(1)
    terms = exported.case.embed_dim + 8
    distance = np.abs(logits.reshape(exported.logits.shape) - exported.logits.astype(np.float64))
    sums = 2 * terms * FLOAT32 * exported.magnitude + exported.step
    halves = sums + 3 * FLOAT16 * exported.magnitude
    if (distance <= sums).all():
        bound = "a float32 sum" if exported.step.max() == 0 else "an 8-bit step"
    elif (distance <= halves).all():
        bound = "rounding to float16"
    else:
        bound = ""
    off = f"{np.nanmax(distance):.1e} of {np.abs(exported.logits).max():.0f}"
    return Verdict(
        right=bool(same.all()) and bool(bound),
        rows="exact" if same.all() else f"{same.sum()} of {same.size} equal",
        logits=f"{off}: {f'within {bound}' if bound else 'WRONG'}",
    )
