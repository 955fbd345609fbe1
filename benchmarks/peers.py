"""The same jobs by torch, where it is installed: on CUDA if it sees a GPU, else on the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.cases import Result
from benchmarks.timing import Timing
from wgpu_q4 import Q4Weight


def torch_peers(weight: Q4Weight, ids: int, rows: list[int], repeats: int) -> Iterator[Result]:
    """torch's gather-unpack-scale, and its half-precision matrix product on unpacked weights."""
    if find_spec("torch") is None:
        return
    import torch

    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = torch.float16 if where.type == "cuda" else torch.float32
    vocab, embed_dim = weight.shape
    packed = torch.from_numpy(np.array(weight.packed_as("linear"))).to(where)
    scales = torch.from_numpy(np.array(weight.scales)).to(where)
    chosen = torch.randint(0, vocab, (ids,), device=where)

    def gather() -> Any:
        picked = packed[chosen]
        values = torch.stack([picked & 15, picked >> 4], dim=-1).view(ids, -1).float() - 8
        grouped = values.view(ids, scales.shape[1], -1)
        return (grouped * scales[chosen].float().unsqueeze(-1)).view(ids, embed_dim)

    with torch.no_grad():
        yield Result(
            f"torch {where.type} eager embedding, {ids} ids", _time(gather, where, repeats)
        )
        matrix = torch.randn(vocab, embed_dim, device=where, dtype=half)
        for count in rows:
            x = torch.randn(count, embed_dim, device=where, dtype=half)
            name = f"torch {where.type} unquantized matmul, {str(half)[6:]}, M={count}"
            flops = 2 * count * vocab * embed_dim
            moved = matrix.nbytes + x.nbytes + count * vocab * x.element_size()
            timing = _time(lambda x=x: x @ matrix.T, where, repeats)  # type: ignore[misc]
            yield Result(name, timing, moved, flops)


def _time(call: Callable[[], object], where: Any, repeats: int) -> Timing:
    import torch

    cuda: Any = torch.cuda
    end = time.monotonic() + 0.2
    call()
    while time.monotonic() < end:
        call()
    seconds = []
    for _ in range(repeats if where.type == "cuda" else 3):
        if where.type == "cuda":
            start, stop = (cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            cuda.synchronize()
            seconds.append(start.elapsed_time(stop) * 1e-3)
        else:
            begin = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - begin)
    return Timing.of(seconds)
