"""What the tests of the two ways to a device share."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.cases import ODD, anew, assert_same_bits, random_weight, random_x
from wgpu_q4 import argmax, embedding, linear, reference
from wgpu_q4.device import Context
from wgpu_q4.device.roundtrip import PROBE_BYTES

IDS = np.array([12, 0, 5])


def probes(context: Context) -> tuple[Any, Any]:
    return (
        context.create_buffer("source", PROBE_BYTES, "COPY_DST", "COPY_SRC"),
        context.create_buffer("staging", PROBE_BYTES, "COPY_DST", "MAP_READ"),
    )


def check(device: Any) -> None:
    """Both ops give what they should."""
    weight = anew(random_weight(ODD, "float16"))
    assert_same_bits(embedding(IDS, weight, device=device), reference.embedding(IDS, weight))
    x = random_x(3, ODD.embed_dim)
    logits = linear(x, weight, device=device)
    assert np.all(abs(logits - reference.linear(x, weight)) <= reference.linear_bound(x, weight))
    ids = argmax(x, weight, device=device)
    np.testing.assert_array_equal(ids, logits.argmax(-1))


class Without:
    """wgpu-native's functions, but for some."""

    def __init__(self, lib: Any, **changed: Any) -> None:
        self._lib, self._changed = lib, changed

    def __getattr__(self, name: str) -> Any:
        return self._changed[name] if name in self._changed else getattr(self._lib, name)
