"""Floats of every kind, chosen to the bit, and what the reductions must keep of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device import Context
from wgpu_q4.device.workspace import Workspace
from wgpu_q4.kernels import LARGEST_TOP_K, Reduce, Results, plan_reduce
from wgpu_q4.ops.reduction import entries_kept, later_steps, part_step

Floats = NDArray[np.float32]


def best(logits: Floats, k: int) -> NDArray[np.int64]:
    """Ids of the ``k`` largest of each row: NaN before all else, equals by id."""
    nan = np.isnan(logits)
    ids = np.broadcast_to(np.arange(logits.shape[-1]), logits.shape)
    order = np.lexsort((ids, -np.where(nan, 0, logits), ~nan), axis=-1)
    return order[..., :k].astype(np.int64)


def of_bits(*rows: list[int]) -> Floats:
    return np.array(rows, np.uint32).view(np.float32)


def shuffled(vocab: int, rows: int = 3) -> Floats:
    """Few different values, so that most are there many times, over the whole range."""
    values = np.array([0, -0.0, 1, -1, 1e-45, -1e-45, 3e38, -3e38, 2, -np.inf], np.float32)
    chosen = np.random.default_rng(vocab).integers(0, values.size, (rows, vocab))
    return values[chosen]


def with_at(logits: Floats, value: float, *places: int) -> Floats:
    changed = logits.copy()
    changed[..., list(places)] = value
    return changed


NORMAL = np.random.default_rng(11).standard_normal((3, 5003)).astype(np.float32)
FLOATS: dict[str, Floats] = {
    **{f"shuffled {vocab}": shuffled(vocab) for vocab in (1, 2, 3, 255, 256, 257, 1024, 1025)},
    "normal": NORMAL,
    "negative": -np.abs(NORMAL),
    "all equal": np.full((2, 2053), -7.5, np.float32),
    "all negative infinity": np.full((2, 1025), -np.inf, np.float32),
    "all NaN": np.full((2, 1025), np.nan, np.float32),
    "infinity twice": with_at(NORMAL, np.inf, 1500, 4000),
    "NaN twice": with_at(NORMAL, np.nan, 1500, 4000),
    "NaN beyond infinity": with_at(with_at(NORMAL, np.inf, 3), np.nan, 5002),
    "both zeros": of_bits(
        [0x80000000, 0, 0x80000000], [0, 0x80000000, 0], [0xBF800000, 0x80000000, 0]
    ),
    # NaN of either sign, quiet and signalling, beside infinities and the largest numbers
    "bits of NaN": of_bits(
        [0x7F800000, 0xFF800000, 0x7F7FFFFF, 0xFFC00000, 0x7F800001],
        [0xFFFFFFFF, 0x7FFFFFFF, 0x7F800000, 0x00000000, 0xFF7FFFFF],
        [0xFF800000, 0xFF7FFFFF, 0x80000001, 0x00000001, 0xFF800001],
    ),
    "falling": np.arange(4099, 0, -1, dtype=np.float32)[None],
    "rising": np.arange(4099, dtype=np.float32)[None] - 2000,
}  # fmt: skip


def reduced(
    context: Context,
    logits: Floats,
    reduce: Reduce,
    kept: int,
    parts: int = 1,
    results: Results = "entries",
) -> NDArray[np.uint32]:
    """What the kernels leave of ``logits`` ``[rows, V]``: ``[rows, kept, 2]``, bits and ids.

    The logits of each of so many parts lie in a buffer with larger ones after them, which nothing
    may look at.  Where the results are ids alone, the bits are zeros.
    """
    rows = len(logits)
    vocabs = tuple(part.shape[1] for part in np.array_split(logits, parts, axis=1))
    plan = plan_reduce(vocabs, rows, reduce, kept, context.limits, results)
    out = np.zeros((rows, kept, 2), np.uint32)
    with context.lock, context.guard, context.guard.busy:
        work = Workspace(context)
        kept_in = entries_kept(work, plan)
        if results == "values_and_ids":
            kept_in["t_out_ids"] = work.scratch.result("kept ids", out.nbytes // 2)
        steps, first_id = [], 0
        for number, columns in enumerate(vocabs):
            whole = np.full((2 * rows, columns), np.inf, np.float32)
            whole[:rows] = logits[:, first_id : first_id + columns]
            source = context.create_buffer("logits", whole.nbytes, "STORAGE", "COPY_DST")
            context.write(source, whole)
            steps.append(part_step(work, plan, source, number, rows, first_id, kept_in, None))
            first_id += columns
        later = later_steps(work, plan, rows, kept_in, None)
        if results == "entries":
            context.run([*steps, *later], kept_in["t_out"], out)
            return out
        halves = np.empty((rows, kept), np.uint32)
        context.run([*steps, *later], kept_in["t_out"], halves)
        out[..., 0 if results == "values_and_ids" else 1] = halves
        if results == "values_and_ids":
            context.run([], kept_in["t_out_ids"], halves)
            out[..., 1] = halves
    return out


def check_floats(
    context: Context,
    logits: Floats,
    reduce: Reduce,
    kept: int,
    parts: int = 1,
    results: Results = "entries",
) -> None:
    found = reduced(context, logits, reduce, kept, parts, results)
    expected = best(logits, kept)
    np.testing.assert_array_equal(found[..., 1], expected)
    values = np.take_along_axis(logits, expected, -1)
    if results != "ids":  # NaN and −0 to the bit
        np.testing.assert_array_equal(found[..., 0], values.view(np.uint32))


def kept_of(vocab: int) -> list[int]:
    """Numbers to keep: few, half of a slice, more than that, all."""
    return sorted({min(kept, vocab, LARGEST_TOP_K) for kept in (1, 2, 40, 64, 65, 512, 1024)})
