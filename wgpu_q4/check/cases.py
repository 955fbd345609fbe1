"""A case of the embedding or of packing: shapes, dtypes, storage, and the seed of its numbers.

A case is data only: another process that is handed the case makes the same numbers from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import OutputDtype, Storage
from wgpu_q4.weight import Q4Weight

WeightKind = Literal["flat", "linear_buffer", "linear_texture2d"]
"""How ExecuTorch's kernel finds the weight: rows in the embedding convention, or blocks."""

ScaleKind = Literal["random", "zero", "subnormal", "largest", "ties"]
IdKind = Literal["random", "repeated", "ends", "outside"]
Op = Literal["embedding", "pack"]

LARGE = 1 << 24
"""Values from which a matrix is large: a case on it takes seconds."""


@dataclass(frozen=True)
class Case:
    """One computation.

    Attributes:
        group: the list that the case is from: ``"upstream"``, ``"corners"`` or ``"random"``.
        vocab: V.
        embed_dim: K.
        group_size: G.
        ids_shape: the shape of the ids, of rank 1 to 3; empty for ``"pack"``.
        output: the dtype of the result.
        storage: where ids and result are.
        weight: how the packed weight is held.
        scales: the dtype of the scales.
        scale_kind: random; all zero; subnormal in their dtype; 65504; or ``"ties"``, which puts
            half of all results exactly between two halves.
        id_kind: random; one id everywhere; the first and the last row in turn; or ``"outside"``:
            every second id is outside the vocabulary, and its result is zero.
        recorded_shape: the larger shape of ids for which ExecuTorch made buffers, textures and
            grid, when a dynamic shape shrinks; None if that is ``ids_shape``.
        op: ``"embedding"``, or ``"pack"`` for packing rows into blocks.
        seed: the seed of the numbers.
        note: what the case is for.
    """

    group: str
    vocab: int
    embed_dim: int
    group_size: int
    ids_shape: tuple[int, ...] = ()
    output: OutputDtype = "float32"
    storage: Storage = "buffer"
    weight: WeightKind = "flat"
    scales: ScalesDtype = "float16"
    scale_kind: ScaleKind = "random"
    id_kind: IdKind = "random"
    recorded_shape: tuple[int, ...] | None = None
    op: Op = "embedding"
    seed: int = 0
    note: str = ""

    @property
    def kernel(self) -> str:
        """Return the name of ExecuTorch's kernel for this case."""
        if self.op == "pack":
            return f"pack_q4_linear_weight_{self.weight.removeprefix('linear_')}"
        scales = "" if self.scales == "float16" else "_float_scales"
        weight = "" if self.weight == "flat" else self.weight.replace("linear", "_linear_weight")
        half = "half" if self.output == "float16" else "float"
        return f"embedding_q4gsw{scales}{weight}_{self.storage}_{half}"

    @property
    def name(self) -> str:
        """Return one line that no other case has."""
        if self.op == "pack":
            return f"{self.kernel} [{self.vocab},{self.embed_dim}]"
        short = self.kernel.removeprefix("embedding_q4gsw").removeprefix("_")
        ids = ",".join(map(str, self.ids_shape))
        parts = [short, f"[{self.vocab},{self.embed_dim}]", f"g{self.group_size}", f"[{ids}]"]
        if self.recorded_shape:
            parts.append(f"of [{','.join(map(str, self.recorded_shape))}]")
        if self.scale_kind != "random":
            parts.append(f"{self.scale_kind} scales")
        if self.id_kind != "random":
            parts.append(f"{self.id_kind} ids")
        return " ".join(parts)

    @property
    def large(self) -> bool:
        """Return True if the case takes seconds rather than milliseconds."""
        return self.vocab * self.embed_dim >= LARGE

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Case:
        """Return the case that `to_json` described."""
        values = dict(fields)
        values["ids_shape"] = tuple(values["ids_shape"])
        if values["recorded_shape"] is not None:
            values["recorded_shape"] = tuple(values["recorded_shape"])
        return cls(**values)

    def matrix(self) -> Q4Weight:
        """Return the weight, in the linear convention."""
        return _matrix(
            self.vocab, self.embed_dim, self.group_size, self.scales, self.scale_kind, self.seed
        )

    def ids(self) -> NDArray[np.int32]:
        """Return the ids, int32 of ``ids_shape``."""
        generator = np.random.default_rng([self.seed, 1])
        if self.id_kind == "repeated":
            return np.full(self.ids_shape, generator.integers(self.vocab), np.int32)
        if self.id_kind == "ends":
            ids = np.arange(np.prod(self.ids_shape), dtype=np.int32) % 2
            return (ids * np.int32(self.vocab - 1)).reshape(self.ids_shape)
        ids = generator.integers(0, self.vocab, self.ids_shape, np.int32)
        if self.id_kind == "outside":
            outside = [-1, self.vocab, 2**31 - 1, -(2**31), self.vocab + 7]
            others = ids.reshape(-1)[1::2]
            others[:] = np.resize(np.array(outside, np.int32), others.size)
        return ids


@lru_cache(maxsize=2)
def _matrix(
    vocab: int, embed_dim: int, group_size: int, dtype: str, kind: ScaleKind, seed: int
) -> Q4Weight:
    generator = np.random.default_rng([seed, 0])
    packed = np.frombuffer(generator.bytes(vocab * embed_dim // 2), np.uint8)
    shape = (vocab, embed_dim // group_size)
    scales = _scales(generator, shape, dtype, kind)
    return Q4Weight(packed.reshape(vocab, embed_dim // 2), scales)


def _scales(
    generator: np.random.Generator, shape: tuple[int, int], dtype: str, kind: ScaleKind
) -> NDArray[Any]:
    if kind == "zero":
        return np.zeros(shape, dtype)
    if kind == "largest":
        return np.full(shape, 65504, dtype)
    if kind == "subnormal":
        # Multiples of the smallest one, up to below the smallest normal number over 8, so that
        # every product is subnormal too.
        info = np.finfo(np.dtype(dtype))
        steps = generator.integers(1, 1 << (info.nmant - 3), shape)
        return (steps * float(info.smallest_subnormal)).astype(dtype)
    if kind == "ties":
        # 1 + an odd multiple of 2^-11: halfway between two halves when multiplied by ±1, ±2, ±4.
        return (1 + (2 * generator.integers(0, 1 << 10, shape) + 1) * 2.0**-11).astype(dtype)
    return np.exp2(generator.uniform(-10, 0, shape)).astype(dtype)
