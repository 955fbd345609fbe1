"""Whole calls, numpy to numpy: kernels, host and transfers together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from wgpu_q4 import Q4Weight, argmax, embedding, linear
from wgpu_q4.bench.result import Result
from wgpu_q4.bench.timing import Effort, time_calls
from wgpu_q4.device import Context
from wgpu_q4.kernels import Accuracy, MatrixShape


class Calls:
    """Measures calls on one weight and one device.

    The memory of the device does not bound a call, so no bytes are counted.
    """

    def __init__(self, context: Context, weight: Q4Weight, effort: Effort) -> None:
        self._device: Any = context.device
        self._weight = weight
        self._shape: MatrixShape = context.weight(weight).shape
        self._effort = effort
        self._random = np.random.default_rng(0)

    def embedding(self, ids: int) -> Result:
        """Measure ``embedding(ids, weight)``."""
        chosen = self._random.integers(0, self._shape.vocab, ids)
        call = partial(embedding, chosen, self._weight, device=self._device)
        return self._result("embedding()", ids, {}, call)

    def linear(self, rows: int, accuracy: Accuracy = "exact") -> Result:
        """Measure ``linear(x, weight, accuracy=accuracy)``."""
        return self._product(linear, rows, accuracy, {})

    def argmax(self, rows: int, accuracy: Accuracy = "exact") -> Result:
        """Measure ``argmax(x, weight)``, which brings ids back instead of logits."""
        return self._product(argmax, rows, accuracy, {"reduce": "argmax"})

    def _product(
        self, op: Callable[..., object], rows: int, accuracy: Accuracy, detail: dict[str, str]
    ) -> Result:
        x = self._random.standard_normal((rows, self._shape.embed_dim), dtype=np.float32)
        call = partial(op, x, self._weight, device=self._device, accuracy=accuracy)
        return self._result("linear()", rows, {"accuracy": accuracy, **detail}, call)

    def _result(
        self, op: str, size: int, detail: dict[str, str], call: Callable[[], object]
    ) -> Result:
        timing = time_calls(call, self._effort)
        return Result("wgpu_q4", op, size, timing, "calls", self._shape, detail)
