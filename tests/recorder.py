"""What a device creates, seen from outside the package, and the ops checked on a device."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cases import Shape, assert_same_bits, random_x
from wgpu_q4 import Q4Weight, embedding, forced, linear, reference
from wgpu_q4.kernels import Layout

# Large enough that a second copy of it cannot hide among the scratch buffers of a small call.
BIG = Shape(1000, 512, 32)
IDS = np.array([[999, 0, 5], [5, 123, 998]])


class Recorder:
    """Everything that a device creates from now on, seen from outside this package."""

    def __init__(self, device: Any) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.buffers: list[Any] = []
        """Weak references."""
        for name in dir(type(device)):
            if name.startswith("create_"):
                setattr(device, name, self._recording(name, getattr(device, name)))

    def _recording(self, name: str, create: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(**arguments: Any) -> Any:
            made = create(**arguments)
            # Only words and numbers: what it binds or holds could then never be let go.
            told = {k: v for k, v in arguments.items() if isinstance(v, (str, int))}
            constants = arguments.get("compute", {}).get("constants", {})
            self.calls.append((name, {**told, "constants": constants}))
            if name == "create_buffer":
                self.buffers.append(weakref.ref(made))
            return made

        return recorded

    def named(self, name: str) -> list[dict[str, Any]]:
        """The arguments of each call of this method."""
        return [arguments for called, arguments in self.calls if called == name]

    def sizes(self) -> list[int]:
        """Bytes of each buffer."""
        return [arguments["size"] for arguments in self.named("create_buffer")]

    def alive(self) -> list[int]:
        """Bytes of each buffer that something still holds."""
        gc.collect()
        return [buffer().size for buffer in self.buffers if buffer() is not None]


def check_ops(weight: Q4Weight, device: Any, layout: Layout | None = None) -> None:
    """Check `embedding` and `linear`, few rows and many, against the oracle."""
    ids = np.array([weight.shape[0] - 1, 0, weight.shape[0] // 2])
    with forced(layout=layout):
        assert_same_bits(embedding(ids, weight, device=device), reference.embedding(ids, weight))
        for rows in (2, 60):
            check_linear(random_x(rows, weight.shape[1]), weight, device)


def check_linear(x: NDArray[np.float32], weight: Q4Weight, device: Any) -> None:
    """Check that `linear` is within the bound of float32 summation."""
    error = np.abs(linear(x, weight, device=device) - reference.linear(x, weight))
    assert np.all(error <= reference.linear_bound(x, weight))
