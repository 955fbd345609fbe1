"""The cases that run on mutants of `linear` and of the reductions; each has one right result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tests.cases import Shape, anew, bindings_of
from tests.exact import PRODUCTS
from wgpu_q4 import reference
from wgpu_q4.device import context_for
from wgpu_q4.kernels import Reduce, Results


class Case(Protocol):
    """A computation on a device, and its result to the bit; ``str`` gives its name."""

    @property
    def takes_long(self) -> bool:
        """Tell whether to run the case only for mutants that name it."""
        ...

    def runs_on(self, device: Any) -> bool:
        """Tell whether the device has what the case needs."""
        ...

    def run(self, device: Any) -> NDArray[Any]:
        """Return what the kernels compute."""
        ...

    def exact(self) -> NDArray[Any]:
        """Return what is right."""
        ...


@dataclass(frozen=True)
class Reduction:
    """The largest entries of rows of floats that no product would give: NaN, both zeros, ties."""

    floats: str
    reduce: Reduce
    kept: int
    parts: int = 1
    results: Results = "entries"
    takes_long = False

    def __str__(self) -> str:
        results = "" if self.results == "entries" else f"-to-{self.results}"
        return f"{self.reduce}-{self.floats}{'-parts' if self.parts > 1 else ''}{results}"

    def runs_on(self, device: Any) -> bool:
        return True

    def run(self, device: Any) -> NDArray[np.uint32]:
        from tests.reductions import FLOATS, reduced

        how = self.reduce, self.kept, self.parts, self.results
        return reduced(context_for(device), FLOATS[self.floats], *how)

    def exact(self) -> NDArray[np.uint32]:
        from tests.reductions import FLOATS, best

        logits = FLOATS[self.floats]
        ids = best(logits, self.kept)
        bits = np.take_along_axis(logits, ids, -1).view(np.uint32)
        if self.results == "ids":
            bits = np.zeros_like(bits)
        return np.stack([bits, ids.astype(np.uint32)], axis=-1)


@dataclass(frozen=True)
class Transposed:
    """``y · W`` of small integers: several sections, columns for two workgroups, rows for two.

    The device binds ``binding`` bytes, which may leave the weight in parts.
    """

    shape: Shape
    rows: int
    binding: int = 1 << 27
    takes_long = False

    @property
    def in_parts(self) -> bool:
        return self.shape.vocab * self.shape.embed_dim // 2 > self.binding

    def __str__(self) -> str:
        return f"transposed-{self.rows}x{self.shape}{'-parts' if self.in_parts else ''}"

    def runs_on(self, device: Any) -> bool:
        return True

    def run(self, device: Any) -> NDArray[np.float32]:
        from tests.products import integer_weight
        from wgpu_q4.ops import linear_transposed

        weight = anew(integer_weight(self.shape, "float16"))
        with bindings_of(self.binding, device):
            return linear_transposed(self._y(), weight, device)

    def exact(self) -> NDArray[np.float64]:
        from tests.products import integer_weight

        return reference.linear_transposed(self._y(), integer_weight(self.shape, "float16"))

    def _y(self) -> NDArray[np.float32]:
        rng = np.random.default_rng(9)
        return rng.integers(-8, 9, (self.rows, self.shape.vocab)).astype(np.float32)


_FLOATS = ("both zeros", "bits of NaN", "all equal", "infinity twice", "normal")
REDUCTIONS = (
    *(Reduction(floats, "argmax", 1) for floats in _FLOATS),
    *(Reduction(floats, "top_k", 3) for floats in _FLOATS),
    Reduction("normal", "argmax", 1, parts=2),
    Reduction("normal", "top_k", 3, parts=2),
    Reduction("normal", "argmax", 1, results="ids"),
    Reduction("normal", "top_k", 3, results="values_and_ids"),
)

TRANSPOSED = (
    Transposed(Shape(1031, 264, 24), 7),
    Transposed(Shape(1031, 264, 24), 7, binding=1 << 16),
)

_CASES: tuple[Case, ...] = (*PRODUCTS, *REDUCTIONS, *TRANSPOSED)
BY_NAME = {str(case): case for case in _CASES}
