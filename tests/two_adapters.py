"""The ops over two adapters of one process, held against numpy; prints what each of them holds.

    VK_ADD_DRIVER_FILES=vk_swiftshader_icd.json python -m tests.two_adapters

It needs two Vulkan drivers, Mesa's and SwiftShader's.
"""

from __future__ import annotations

import sys

import numpy as np

import wgpu_q4
from tests.cases import PRIME, assert_same_bits, random_weight, random_x, some_ids
from tests.reductions import best
from wgpu_q4 import reference
from wgpu_q4.ops import linear_transposed

DRIVERS = ["llvmpipe", "SwiftShader"]


def main() -> int:
    weight = random_weight(PRIME, "float16")
    x, y = random_x(2, PRIME.embed_dim), random_x(2, PRIME.vocab)
    ids = some_ids(PRIME)
    rows = wgpu_q4.embedding(ids, weight, device=DRIVERS)
    assert_same_bits(rows, reference.embedding(ids, weight))
    logits = wgpu_q4.linear(x, weight, device=DRIVERS)
    assert (np.abs(logits - reference.linear(x, weight)) <= reference.linear_bound(x, weight)).all()
    found = wgpu_q4.top_k(x, weight, 5, device=DRIVERS)
    np.testing.assert_array_equal(found.ids, best(logits, 5))
    np.testing.assert_array_equal(wgpu_q4.argmax(x, weight, device=DRIVERS), best(logits, 1)[:, 0])
    gradient = linear_transposed(y, weight, DRIVERS)
    error = np.abs(gradient - reference.linear_transposed(y, weight))
    assert (error <= reference.linear_transposed_bound(y, weight)).all()
    for resident in sorted(weight.residents, key=lambda resident: -resident.nbytes):
        print(resident.nbytes, resident.describe())
    return 0


if __name__ == "__main__":
    sys.exit(main())
