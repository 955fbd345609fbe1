"""The ops on device arrays, and a recording of them: one case of ``tests/backend_cases.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases import LONG, assert_same_bits, random_weight, random_x
from tests.reductions import best
from wgpu_q4 import argmax, embedding, linear, recording, reference, to_device, top_k


def check(device: Any) -> None:
    """Everything is within its bound, or has the bits that it should."""
    weight = random_weight(LONG, "float16")
    ids = np.array([3, -1, 130, LONG.vocab, 0], np.int32)
    on_device = to_device(ids, device)
    for dtype in ("float32", "float16"):
        rows = reference.embedding(np.clip(ids, 0, LONG.vocab - 1), weight, dtype)
        rows[[1, 3]] = 0
        assert_same_bits(embedding(on_device, weight, dtype).wait().numpy(), rows)
        x = random_x(3, LONG.embed_dim).astype(dtype)
        floats, given = x.astype(np.float32), to_device(x, device)
        logits = linear(floats, weight, device=device)
        assert_same_bits(linear(given, weight).numpy(), logits.astype(dtype))
        assert np.all(
            np.abs(logits - reference.linear(floats, weight))
            <= reference.linear_bound(floats, weight)
        )
        order = best(logits, 9).astype(np.int32)
        found = top_k(given, weight, 9)
        assert_same_bits(found.ids.numpy(), order)
        values = np.take_along_axis(logits, order, -1).astype(dtype)
        assert_same_bits(found.values.numpy(), values)
        assert_same_bits(argmax(given, weight).numpy(), order[:, 0])
    bias = np.linspace(0, 9, LONG.vocab, dtype=np.float32)
    with recording(device, submit=False) as step:
        argmax(embedding(on_device, weight), weight, bias, out=on_device)
    matrix = weight.dequantize().astype(np.float64)
    matrix = np.vstack([matrix, np.zeros(LONG.embed_dim)])  # the row of every id that is none
    for times in (1, 70):
        step.replay(times)
        for _ in range(times):
            ids = np.where((ids < 0) | (ids >= LONG.vocab), LONG.vocab, ids)
            ids = (matrix[ids] @ matrix[:-1].T + bias).argmax(-1)
        assert_same_bits(on_device.numpy(), ids.astype(np.int32))
    encoder = device.create_command_encoder()
    step.encode(encoder)
    device.queue.submit([encoder.finish()])
    ids = (matrix[ids] @ matrix[:-1].T + bias).argmax(-1)
    assert_same_bits(on_device.numpy(), ids.astype(np.int32))
