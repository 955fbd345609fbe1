"""What a weight in parts costs: the same calls on one, two and three parts.

    python -m benchmarks.parts

The device is told that it binds less than it does.  A line for each call has the processor time of
its fastest run, in milliseconds, for one part, two and three.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from wgpu_q4 import Q4Weight, argmax, embedding, linear, top_k
from wgpu_q4.device import default_context
from wgpu_q4.ops import linear_transposed

VOCAB, EMBED_DIM, PARTS = 49152, 576, (1, 2, 3)
RUNS = 60


def main() -> None:
    """Measure and print."""
    random = np.random.default_rng(0)
    packed = random.integers(0, 256, (VOCAB, EMBED_DIM // 2), np.uint8)
    scales = random.uniform(0.5, 1, (VOCAB, EMBED_DIM // 32)).astype(np.float16)
    weights = [in_parts(Q4Weight(packed, scales), parts) for parts in PARTS]
    x = random.standard_normal((40, EMBED_DIM), dtype=np.float32)
    y = random.standard_normal((1, VOCAB), dtype=np.float32)
    ids = random.integers(0, VOCAB, 4096)
    calls: dict[str, Callable[[Q4Weight], object]] = {
        "embedding, 1 id": lambda weight: embedding(ids[:1], weight),
        "embedding, 4096 ids": lambda weight: embedding(ids, weight),
        "linear, 1 row": lambda weight: linear(x[:1], weight),
        "linear, 40 rows": lambda weight: linear(x, weight),
        "argmax, 1 row": lambda weight: argmax(x[:1], weight),
        "top_k, 1 row, k = 40": lambda weight: top_k(x[:1], weight, 40),
        "linear_transposed, 1 row": lambda weight: linear_transposed(y, weight),
    }
    for name, call in calls.items():
        best = fastest(call, weights, RUNS if "40 rows" not in name else RUNS // 6)
        print(f"{name:26}", *(f"{seconds * 1e3:9.3f}" for seconds in best))


def in_parts(weight: Q4Weight, parts: int) -> Q4Weight:
    """Return the weight, held by the default device in so many parts."""
    context = default_context()
    limits = context.limits
    binding = weight.packed.nbytes if parts == 1 else weight.packed.nbytes // parts + 64 * EMBED_DIM
    context.limits = {**limits, "max-storage-buffer-binding-size": binding}
    try:
        assert len(context.weight(weight).parts) == parts
    finally:
        context.limits = limits
    return weight


def fastest(call: Callable[[Q4Weight], object], weights: list[Q4Weight], runs: int) -> list[float]:
    """Return the least processor time of a call on each weight; the weights take turns."""
    best = [float("inf")] * len(weights)
    for weight in weights:
        call(weight)
    for _ in range(runs):
        for number, weight in enumerate(weights):
            start = time.process_time()
            call(weight)
            best[number] = min(best[number], time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
