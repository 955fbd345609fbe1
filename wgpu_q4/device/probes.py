"""Small kernels and calls that find out, once for each device, what it really does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.device.adapter import MAPPABLE
from wgpu_q4.device.roundtrip import PROBE_BYTES, RoundTrip, choose_round_trip
from wgpu_q4.kernels import (
    PROBE_HALF_ARITHMETIC,
    PROBE_HALVES,
    PROBE_SUBGROUPS,
    PROBED_INVOCATIONS,
    Dispatch,
    HalfSupport,
)

if TYPE_CHECKING:
    from wgpu_q4.device.context import Context

_HALVES_TO_UNPACK = np.array(
    [0x0001, 0x000F, 0x00F0, 0x03FF, 0x8001, 0x80F0, 0x0400, 0x7BFF] * 4, np.uint16
)
"""Subnormals, the smallest normal number and the largest."""

_FLOATS_TO_PACK = np.array(
    [
        *(1 + 2**-11, 1 + 3 * 2**-11, -1 - 3 * 2**-11, 1 + 2**-11 + 2**-20),  # ties, just past one
        *(65504, 65519, 65520, -65520, 65536, 1e6, -3e38, 131072),  # the largest, and overflow
        *(2**-14, 2**-24, -(2**-24), 2**-25, 3 * 2**-25, 2**-25 + 2**-40, 1023 * 2**-24, 2**-30),
        *(0.1, -0.2, 1 / 3, 1000.3, 3e-5, -4.7e-6, 12345.6, 0, 7.5, -8, 2048.5, 4097),
    ],
    np.float32,
)
"""Floats that each way of rounding to half precision rounds to other halves."""


def half_support(context: Context) -> HalfSupport:
    """Return what the built-in half-precision functions of a device do."""
    found = _run_halves(context)
    unpacked = _HALVES_TO_UNPACK.view(np.float16).astype(np.float32).view(np.uint32)
    with np.errstate(over="ignore"):
        packed = _FLOATS_TO_PACK.astype(np.float16).view(np.uint32)
    return HalfSupport(
        subnormals=np.array_equal(found[:, :2].reshape(-1), unpacked),
        rounding=np.array_equal(found[:, 2], packed),
        arithmetic=_half_arithmetic(context),
    )


def _half_arithmetic(context: Context) -> bool:
    """Tell if a device has half-precision arithmetic, and if it is exact for nibbles."""
    if "shader-f16" not in context.device.features:
        return False
    nibbles = (np.arange(16)[:, None] + np.arange(8)) % 16
    words = (nibbles << 4 * np.arange(8)).sum(1).astype(np.uint32)
    # Even columns are multiples of 2^-24 and odd ones of 2^-20, in the order of the piece.
    expected = (nibbles - 8)[:, [0, 4, 2, 6, 1, 5, 3, 7]] * np.repeat([2.0**-24, 2.0**-20], 4)
    found = np.zeros((16, 8), np.float32)
    with context.lock:
        source = context.create_buffer("probe", words.nbytes, "STORAGE", "COPY_DST")
        target = context.create_buffer("probed", found.nbytes, "STORAGE", "COPY_SRC")
        context.write(source, words)
        dispatch = Dispatch(PROBE_HALF_ARITHMETIC, {}, (1, 1, 1))
        step = context.pipelines.step(dispatch, {"t_out": target, "t_words": source})
        context.run([step], target, found)
    return np.array_equal(found, expected)


def subgroup_size(context: Context) -> int:
    """Return the lanes of a device's subgroups, if all are alike and in the order of invocations.

    The result is 0 if they are not, or if this device cannot use them: WGSL's name for them differs
    between implementations, and kernels have that of wgpu-native.
    """
    if context.implementation.__name__ != "wgpu" or "subgroup" not in context.device.features:
        return 0
    found = np.zeros((PROBED_INVOCATIONS, 2), np.uint32)
    with context.lock:
        target = context.create_buffer("probed", found.nbytes, "STORAGE", "COPY_SRC")
        dispatch = Dispatch(PROBE_SUBGROUPS, {}, (1, 1, 1))
        step = context.pipelines.step(dispatch, {"t_out": target})
        context.run([step], target, found)
    size = int(found[0, 0])
    lanes = np.arange(PROBED_INVOCATIONS) % max(size, 1)
    in_order = (found[:, 0] == size).all() and np.array_equal(found[:, 1], lanes)
    return size if in_order and PROBED_INVOCATIONS % max(size, 1) == 0 else 0


def maps_results(context: Context) -> bool:
    """Return True if the host can map a buffer that a kernel wrote, and finds the result there."""
    if MAPPABLE not in context.device.features:
        return False
    return np.array_equal(_run_halves(context, "MAP_READ"), _run_halves(context))


def round_trip(context: Context) -> RoundTrip:
    """Return the fastest round trip that works on a device."""
    source = context.create_buffer("round trip", PROBE_BYTES, "COPY_DST", "COPY_SRC")
    staging = context.create_buffer("round trip end", PROBE_BYTES, "COPY_DST", "MAP_READ")
    return choose_round_trip(context.device, source, staging)


def _run_halves(context: Context, *usages: str) -> NDArray[np.uint32]:
    """Return what the kernel of the probe writes into a buffer that has these usages too.

    Columns 0 and 1 are the unpacked halves, column 2 the packed floats.
    """
    pairs = np.zeros((16, 4), np.uint32)
    pairs[:, 0] = _HALVES_TO_UNPACK.view(np.uint32)
    pairs[:, 2:] = _FLOATS_TO_PACK.view(np.uint32).reshape(16, 2)
    found = np.zeros((16, 4), np.uint32)
    with context.lock:
        source = context.create_buffer("probe", pairs.nbytes, "STORAGE", "COPY_DST")
        target = context.create_buffer("probed", pairs.nbytes, "STORAGE", "COPY_SRC", *usages)
        context.write(source, pairs)
        dispatch = Dispatch(PROBE_HALVES, {}, (1, 1, 1))
        step = context.pipelines.step(dispatch, {"t_out": target, "t_pairs": source})
        context.run([step], target, found)
    return found
