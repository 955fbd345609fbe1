"""What a page runs on a matrix, as JSON: the kernels' text, and programs of dispatches.

A page plans nothing.  It makes the buffers that a program names, binds them, and dispatches.  A
program is an object::

    {"buffers": {"ids": 4, "rows": 256},      name and bytes; "weight" and "scales" are always there
     "steps": [{"module": "embedding_…",      a name in the modules
                "constants": {"VOCAB": 512},  pipeline constants
                "workgroups": [1, 1, 1],
                "bindings": {"0": "rows", …,  what each binding is: a buffer's name,
                             "4": [64, 1, 1, 1]}}],  or the four integers of a uniform buffer
     "result": "rows"}                        the buffer that is read back
"""

from __future__ import annotations

from typing import Any

from wgpu_q4.kernels import (
    DEFAULT_LAYOUT,
    Dispatch,
    HalfSupport,
    MatrixShape,
    Reduce,
    plan_embedding,
    plan_linear,
    plan_reduce,
)

Program = dict[str, Any]
Modules = dict[str, dict[str, Any]]

IDS = (1, 16)
"""How many ids a program of an embedding looks up."""

ROWS = (1, 4)
"""How many rows of x a program of a product multiplies."""

NEIGHBOURS = 8
"""How many tokens are kept of the logits, at most."""

LIMITS = {
    "max-compute-workgroups-per-dimension": 65535,
    "max-compute-workgroup-storage-size": 16384,
    "max-compute-invocations-per-workgroup": 256,
    "max-compute-workgroup-size-x": 256,
}
"""WebGPU's default limits, which every browser grants."""

_HALVES = HalfSupport()
"""Browsers differ in half-precision functions; conversions by integers are right in all of them."""

_WEIGHT = {"t_weight": "weight", "t_scales": "scales"}

_Step = tuple[Dispatch, dict[str, Any], dict[str, int]]
"""A dispatch, what its bindings are by their names, and the bytes of the buffers among them."""


def neighbours(shape: MatrixShape) -> int:
    """Return how many logits ``top_k`` and ``nearest`` keep."""
    return min(NEIGHBOURS, shape.vocab)


def programs(shape: MatrixShape, modules: Modules) -> dict[str, Program]:
    """Return the programs of a matrix by name; add to ``modules`` the kernels that they run.

    The names are ``embedding_N`` for N ids, ``linear_M`` for M rows of x, ``argmax`` and ``top_k``
    of one row, and ``nearest``: from one id to the tokens of the largest logits, with the embedding
    and the logits on the device throughout.  The results of the last three are pairs of uint32: the
    bits of a float32 logit, and an id.
    """
    logits, best = _linear(shape, 1, "x"), _reduction(shape, "top_k")
    steps = {
        **{f"embedding_{ids}": [_embedding(shape, ids)] for ids in IDS},
        **{f"linear_{rows}": [_linear(shape, rows, "x")] for rows in ROWS},
        "argmax": [logits, *_reduction(shape, "argmax")],
        "top_k": [logits, *best],
        "nearest": [_embedding(shape, 1), _linear(shape, 1, "rows"), *best],
    }
    return {name: _program(these, modules) for name, these in steps.items()}


def _embedding(shape: MatrixShape, ids: int) -> _Step:
    plan = plan_embedding(shape, ids, DEFAULT_LAYOUT, "float32", "buffer", LIMITS, _HALVES)
    sizes = [shape.embed_dim, ids, 1, 1]
    bound = {"t_out": "rows", "t_indices": "ids", "out_sizes": sizes, **_WEIGHT}
    return plan, bound, {"ids": 4 * ids, "rows": 4 * ids * shape.embed_dim}


def _linear(shape: MatrixShape, rows: int, x: str) -> _Step:
    plan = plan_linear(shape, rows, DEFAULT_LAYOUT, False, LIMITS, _HALVES)
    assert plan.preparation is None, "an exact product of few rows reads x as it is"
    bound = {"t_out": "logits", "t_x": x, "sizes": [rows, 0, 0, 0], **_WEIGHT}
    return plan.product, bound, {x: 4 * rows * shape.embed_dim, "logits": 4 * rows * shape.vocab}


def _reduction(shape: MatrixShape, reduce: Reduce) -> list[_Step]:
    kept = 1 if reduce == "argmax" else neighbours(shape)
    plan = plan_reduce((shape.vocab,), 1, reduce, kept, LIMITS)
    buffers = ["logits", *(f"best {number}" for number in range(len(plan.stages)))]
    steps: list[_Step] = []
    for number, (stage, nbytes) in enumerate(zip(plan.stages, plan.stage_bytes, strict=True)):
        source, target = buffers[number : number + 2]
        bound = {"t_out": target, "t_in": source, "sizes": [1, 0, 0, plan.slots]}
        steps.append((stage, bound, {target: nbytes}))
    return steps


def _program(steps: list[_Step], modules: Modules) -> Program:
    """Return the program of these steps, whose result is that of the last one."""
    buffers: dict[str, int] = {}
    written = []
    for dispatch, bound, sizes in steps:
        shader = dispatch.shader
        buffers |= sizes
        types = {b.number: dict(b.description)["type"] for b in shader.bindings}
        modules[shader.name] = {"code": shader.source, "bindings": types}
        written.append(
            {
                "module": shader.name,
                "constants": dict(dispatch.constants),
                "workgroups": list(dispatch.workgroups),
                "bindings": {b.number: bound[b.name] for b in shader.bindings},
            }
        )
    return {"buffers": buffers, "steps": written, "result": steps[-1][1]["t_out"]}
