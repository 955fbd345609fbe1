"""Random cases."""

from __future__ import annotations

import numpy as np

from wgpu_q4.check.cases import Case
from wgpu_q4.check.lists import all_kernels


def random_cases(count: int, seed: int) -> list[Case]:
    """Return ``count`` cases drawn with ``seed``.

    Each case holds everything that is needed to run it again.
    """
    generator = np.random.default_rng(seed)
    kernels = all_kernels()
    cases = []
    for number in range(count):
        weight, scales, storage, output = kernels[generator.integers(len(kernels))]
        chunks = int(generator.integers(1, 9))
        groups = [size for size in range(1, chunks + 1) if chunks % size == 0]
        rank = int(generator.integers(1, 4))
        shape = tuple(int(extent) for extent in generator.integers(1, 8, rank))
        shrinks = bool(generator.random() < 0.3)
        more = generator.integers(0, 4, rank)
        recorded = tuple(extent + int(extra) for extent, extra in zip(shape, more, strict=True))
        cases.append(
            Case(
                "random",
                int(generator.integers(1, 300)),
                32 * chunks,
                32 * int(generator.choice(groups)),
                shape,
                output,
                storage,
                weight,
                scales,
                recorded_shape=recorded if shrinks and recorded != shape else None,
                seed=seed * 100_003 + number,
            )
        )
    return cases
