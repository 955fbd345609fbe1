"""What is kept of the logits when only the best of them are wanted: `argmax`, `top_k`.

The logits stay on the device; ids, and for `top_k` values, are all that comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from wgpu_q4 import arrays
from wgpu_q4.device.context import BindGroups, Context
from wgpu_q4.device.roundtrip import ComputePass
from wgpu_q4.kernels import LARGEST_TOP_K, Reduce, ReducePlan
from wgpu_q4.ops.arguments import check_option

_NAMES: tuple[Reduce, ...] = get_args(Reduce)


class TopK(NamedTuple):
    """The largest logits of each row of x, largest first.

    Attributes:
        values: ``[..., k]``, in the dtype of ``x``.
        ids: ``[..., k]``, int64: the rows of the weight that gave them.
    """

    values: Any
    ids: Any


def check_reduce(reduce: object, k: object, vocab: int) -> tuple[Reduce, int] | None:
    """The reduction and how many logits it keeps of a row, or None for all of them.

    Raises:
        TypeError: ``k`` is no integer.
        ValueError: an unknown ``reduce``, ``k`` without ``"top_k"`` or the other way round, or
            ``k`` outside 1..min(V, `LARGEST_TOP_K`).
    """
    if reduce is not None:
        check_option("reduce", reduce, _NAMES)
    if reduce != "top_k":
        if k is not None:
            raise ValueError(f"k = {k!r} is for reduce='top_k', not reduce={reduce!r}")
        return None if reduce is None else ("argmax", 1)
    if k is None:
        raise ValueError("reduce='top_k' needs k, the number of logits to keep of each row")
    try:
        kept = index(k)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"k must be an integer, not {type(k).__name__}") from None
    largest = min(vocab, LARGEST_TOP_K)
    if not 1 <= kept <= largest:
        reason = "the vocabulary" if largest == vocab else "the most that a workgroup sorts"
        raise ValueError(f"k must be in 1..{largest} ({reason}), not {kept}")
    return "top_k", kept


def dispatch_reduce(
    context: Context,
    compute_pass: ComputePass,
    plan: ReducePlan,
    resources: Mapping[str, Any],
    groups: BindGroups,
) -> Any:
    """Append ``plan`` to a compute pass.

    Args:
        resources: the logits as ``t_out``, and ``sizes``, of which the first is their rows.
        groups: where the bind groups are kept for the next call.

    Returns:
        The buffer in which the entries will be: ``[rows, kept]`` pairs of a logit's bits and id.
    """
    source = resources["t_out"]
    for number, (stage, nbytes) in enumerate(zip(plan.stages, plan.stage_bytes, strict=True)):
        if number == len(plan.stages) - 1:
            target = context.result("kept of logits", nbytes)
        else:  # each dispatch reads what the one before it wrote
            target = context.scratch(f"candidates {number % 2}", nbytes, "STORAGE")
        bound = {"t_out": target, "t_in": source, "sizes": resources["sizes"]}
        context.dispatch(compute_pass, stage, bound, groups)
        source = target
    return source


def result_of(entries: NDArray[np.uint32], reduce: Reduce, leading: tuple[int, ...], x: Any) -> Any:
    """What `linear` returns for the entries ``[rows, kept, 2]`` of an ``x`` of that leading shape.

    Returns:
        For ``"argmax"`` ids, int64 of shape ``leading``; else `TopK`.  numpy or torch as ``x`` is.
    """
    ids = entries[..., 1].astype(np.int64)
    if reduce == "argmax":
        return arrays.like(ids.reshape(leading), x)
    shape = (*leading, entries.shape[1])
    values = np.ascontiguousarray(entries[..., 0]).view(np.float32).reshape(shape)
    return TopK(arrays.like_floats(values, x), arrays.like(ids.reshape(shape), x))
