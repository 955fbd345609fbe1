"""The cases that a visitor's browser is held against: inputs, and results in float64 or bit by bit.

A case names a program (see `wgpu_q4.commands.web_programs`) and what its result must be:

* ``bits``   these float32 values, bit for bit
* ``bound``  at the places ``at`` of the result, no further from ``values`` than ``bound``
* ``ids``    pairs of a value and an id, with these ids in this order
* ``best``   the same, with ids among ``ids``: those whose float64 logit may be among the largest
             once each logit is off by ``bound``
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import reference
from wgpu_q4.check import cases as check
from wgpu_q4.commands.web_programs import IDS, ROWS, neighbours
from wgpu_q4.device.parts import shape_of
from wgpu_q4.weight import Q4Weight

Case = dict[str, Any]

_PLACES = 256
_BLOCK_VALUES = 1 << 22


def corner_matrices() -> dict[str, Q4Weight]:
    """Return small matrices of the parity harness, with extreme scales.

    V is prime, and there are more logits than a workgroup reduces.  No scale is a subnormal
    float32: WebGPU lets a device flush those.
    """
    kinds: tuple[check.ScaleKind, ...] = ("zero", "subnormal", "largest", "random")
    halves = {kind: check.Case("corners", 1031, 96, 32, scale_kind=kind) for kind in kinds}
    floats = replace(halves["random"], scales="float32")
    cases = {
        **{f"{kind} float16 scales": case for kind, case in halves.items()},
        "random float32 scales": floats,
    }
    return {name: case.matrix() for name, case in cases.items()}


def corner_cases(name: str, weight: Q4Weight) -> Iterator[Case]:
    """Yield the cases of one of `corner_matrices`."""
    yield _embedding(name, weight, with_unknown=True)
    yield from (_linear(name, weight, rows) for rows in ROWS)
    if not weight.scales.any():
        x = np.ones((1, weight.shape[1]), np.float32)
        lowest = np.arange(neighbours(shape_of(weight)), dtype=np.uint32)
        yield _case(name, "top_k of equal logits", "top_k", {"x": x}, "ids", ids=lowest)


def matrix_cases(name: str, weight: Q4Weight) -> Iterator[Case]:
    """Yield the cases of a user's matrix."""
    yield _embedding(name, weight)
    yield _linear(name, weight, 1)
    token = np.array([weight.shape[0] // 3], np.int32)
    row = reference.embedding(token, weight)
    (logits,), (bound,) = _product(row, weight, slice(None))
    for program in ("argmax", "top_k", "nearest"):
        inputs = {"ids": token} if program == "nearest" else {"x": row}
        kept = 1 if program == "argmax" else neighbours(shape_of(weight))
        ids = np.flatnonzero(logits >= np.sort(logits)[-kept] - 2 * bound.max())
        best = {"ids": ids.astype(np.uint32), "values": logits[ids], "bound": bound[ids]}
        yield _case(name, program, program, inputs, "best", **best)


def _case(
    matrix: str,
    title: str,
    program: str,
    inputs: Mapping[str, NDArray[Any]],
    kind: str,
    **expected: NDArray[Any],
) -> Case:
    return {
        "title": title,
        "matrix": matrix,
        "program": program,
        "inputs": {name: encode(array) for name, array in inputs.items()},
        "expected": {"kind": kind, **{name: encode(array) for name, array in expected.items()}},
    }


def _embedding(name: str, weight: Q4Weight, with_unknown: bool = False) -> Case:
    """Return the case of an embedding; ids that are ``with_unknown`` give rows of zeros."""
    count, vocab = IDS[-1], weight.shape[0]
    ids = np.random.default_rng(2).integers(0, vocab, count, np.int32)
    ids[:6] = np.minimum([0, 1, 2, 3, 4, vocab], vocab - 1)
    rows = reference.embedding(ids, weight)
    if with_unknown:
        ids[6:8], rows[6:8] = (vocab, -1), 0
    title, program = f"embedding of {count} ids", f"embedding_{count}"
    return _case(name, title, program, {"ids": ids}, "bits", values=rows)


def _linear(name: str, weight: Q4Weight, rows: int) -> Case:
    """Return the case of a product of that many rows, at some of its places."""
    vocab, embed_dim = weight.shape
    rng = np.random.default_rng(3)
    x = rng.standard_normal((rows, embed_dim), np.float32)
    places = np.unique([0, vocab - 1, *rng.integers(0, vocab, _PLACES)])
    at = (np.arange(rows)[:, None] * vocab + places).astype(np.uint32)
    values, bound = _product(x, weight, places)
    title, program = f"linear, {rows} row{'s' * (rows > 1)} of x", f"linear_{rows}"
    return _case(name, title, program, {"x": x}, "bound", at=at, values=values, bound=bound)


def encode(array: NDArray[Any]) -> dict[str, str]:
    """Return an array as JSON: its dtype, and its little-endian bytes in base 64."""
    contiguous = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data = base64.b64encode(contiguous.tobytes()).decode()
    return {"dtype": array.dtype.name, "data": data}


def _product(
    x: NDArray[np.float32], weight: Q4Weight, places: slice | NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the float64 logits at ``places``, and the bounds of float32: some rows at a time."""
    packed, scales = weight.packed[places], weight.scales[places]
    step = max(1, _BLOCK_VALUES // weight.shape[1])
    logits, bounds = [], []
    for first in range(0, len(packed), step):
        rows = slice(first, first + step)
        part = Q4Weight(packed[rows], scales[rows], weight.convention)
        logits.append(reference.linear(x, part))
        bounds.append(reference.linear_bound(x, part))
    return np.concatenate(logits, axis=1), np.concatenate(bounds, axis=1)
