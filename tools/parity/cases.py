"""The cases: shapes, dtypes, storage, and the seed of the numbers in them.

A case is data only, so that it can be handed to another process, which makes the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
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
"""From this many values on, a matrix is left to ``make parity``."""


@dataclass(frozen=True)
class Case:
    """One computation.

    Attributes:
        group: ``"upstream"``, ``"corners"`` or ``"random"``.
        vocab: V.
        embed_dim: K.
        group_size: G.
        ids_shape: of the ids, rank 1 to 3; empty for ``pack``.
        output: dtype of the result.
        storage: where ids and result are.
        weight: how the packed weight is held.
        scales: dtype of the scales.
        scale_kind: random; all zero; subnormal in their dtype; 65504; or such that half of all
            results lie exactly between two halves.
        id_kind: random; one id everywhere; the first and the last row in turn; or every other one
            outside the vocabulary, whose result is zero.
        recorded_shape: the larger shape of ids for which buffers, textures and grid were made,
            as ExecuTorch has it when a dynamic shape shrinks; None for ``ids_shape``.
        op: ``"embedding"``, or ``"pack"`` for rows into blocks.
        seed: of the numbers.
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
        """The name of ExecuTorch's kernel for it."""
        if self.op == "pack":
            return f"pack_q4_linear_weight_{self.weight.removeprefix('linear_')}"
        scales = "" if self.scales == "float16" else "_float_scales"
        weight = "" if self.weight == "flat" else self.weight.replace("linear", "_linear_weight")
        half = "half" if self.output == "float16" else "float"
        return f"embedding_q4gsw{scales}{weight}_{self.storage}_{half}"

    @property
    def name(self) -> str:
        """One line that tells it from the others."""
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
        """Whether it takes seconds rather than milliseconds."""
        return self.vocab * self.embed_dim >= LARGE

    def to_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Case:
        """The reverse of `to_json`."""
        values = dict(fields)
        values["ids_shape"] = tuple(values["ids_shape"])
        if values["recorded_shape"] is not None:
            values["recorded_shape"] = tuple(values["recorded_shape"])
        return cls(**values)

    def matrix(self) -> Q4Weight:
        """The weight, linear convention."""
        return _matrix(
            self.vocab, self.embed_dim, self.group_size, self.scales, self.scale_kind, self.seed
        )

    def ids(self) -> NDArray[np.int32]:
        """The ids, int32, of ``ids_shape``."""
        generator = np.random.default_rng([self.seed, 1])
        if self.id_kind == "random":
            return generator.integers(0, self.vocab, self.ids_shape, np.int32)
        if self.id_kind == "repeated":
            return np.full(self.ids_shape, generator.integers(self.vocab), np.int32)
        if self.id_kind == "outside":
            ids = generator.integers(0, self.vocab, self.ids_shape, np.int32)
            outside = [-1, self.vocab, 2**31 - 1, -(2**31), self.vocab + 7]
            others = ids.reshape(-1)[1::2]
            others[:] = np.resize(np.array(outside, np.int32), others.size)
            return ids
        ids = np.arange(np.prod(self.ids_shape), dtype=np.int32) % 2 * np.int32(self.vocab - 1)
        return ids.reshape(self.ids_shape)


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


def upstream_cases() -> list[Case]:
    """The 34 cases of ExecuTorch's own test of the op."""
    small = {
        "A": (16, 32, 32, (4,)),
        "B": (32, 64, 32, (2, 3)),
        "C": (100, 128, 32, (4, 8)),
        "D": (50, 64, 64, (2, 4)),
    }
    large = (128256, 2048, 32, (1, 2047))
    outputs: tuple[OutputDtype, ...] = ("float16", "float32")
    storages: tuple[Storage, ...] = ("buffer", "texture3d")

    def case(shape: tuple[int, int, int, tuple[int, ...]], **more: Any) -> Case:
        return Case("upstream", *shape, **more)

    blocks = "linear_texture2d"
    linear = [
        case(small["A"], weight=blocks, output="float16"),
        case(small["B"], weight=blocks, output="float16"),
        case(small["C"], weight=blocks, output="float16"),
        case(small["A"], weight=blocks),
        case(small["A"], weight=blocks, storage="texture3d", output="float16"),
        case(large, weight=blocks),
    ]
    flat = [
        case(small[letter], output=output, storage=storage)
        for letter, output, storage in product("ABCD", outputs, storages)
    ]
    float_scales = [
        *(
            case(small[letter], output=output, scales="float32")
            for letter, output in product("ABC", outputs)
        ),
        *(
            case(small["A"], output=output, storage="texture3d", scales="float32")
            for output in outputs
        ),
    ]
    scales: tuple[ScalesDtype, ...] = ("float16", "float32")
    model = [case(large, output=output, scales=dtype) for output, dtype in product(outputs, scales)]
    return [*linear, *flat, *float_scales, *model]


def all_kernels() -> list[tuple[WeightKind, ScalesDtype, Storage, OutputDtype]]:
    """The 24 variants of the embedding kernel."""
    weights: tuple[WeightKind, ...] = ("flat", "linear_buffer", "linear_texture2d")
    scales: tuple[ScalesDtype, ...] = ("float16", "float32")
    storages: tuple[Storage, ...] = ("buffer", "texture3d")
    outputs: tuple[OutputDtype, ...] = ("float16", "float32")
    return list(product(weights, scales, storages, outputs))


def corner_cases() -> list[Case]:
    """What upstream's test never runs; shapes are few, as each costs a WebGPU pipeline."""
    cases: list[Case] = []

    def add(
        note: str,
        shape: tuple[int, int, int, tuple[int, ...]],
        kernel: tuple[WeightKind, ScalesDtype, Storage, OutputDtype],
        **more: Any,
    ) -> None:
        weight, scales, storage, output = kernel
        cases.append(
            Case(
                "corners",
                *shape,
                weight=weight,
                scales=scales,
                storage=storage,
                output=output,
                seed=len(cases) + 1,
                note=note,
                **more,
            )
        )

    # 22 rows: the last block of 8 is not full.  Three groups of 32 to a row: every other row starts
    # in the middle of a word of half scales.  Ids of rank 3, no extent a multiple of 4.
    for kernel in all_kernels():
        add("every kernel, ids of rank 3, V % 8 ≠ 0", (22, 96, 32, (2, 3, 5)), kernel)
    blocks_texture: tuple[Any, ...] = ("linear_texture2d", "float16", "texture3d", "float16")
    blocks_buffer: tuple[Any, ...] = ("linear_buffer", "float32", "buffer", "float32")
    flat_texture: tuple[Any, ...] = ("flat", "float32", "texture3d", "float32")
    flat_buffer: tuple[Any, ...] = ("flat", "float16", "buffer", "float16")
    four = (blocks_texture, blocks_buffer, flat_texture, flat_buffer)
    for kernel in four:
        add("ids of rank 1", (22, 96, 32, (7,)), kernel)
        add("ids of rank 2", (22, 96, 32, (3, 6)), kernel)
        add("shrunk ids", (22, 96, 32, (2, 2, 3)), kernel, recorded_shape=(3, 4, 9))
        add("shrunk ids", (22, 96, 32, (2, 5)), kernel, recorded_shape=(4, 8))
        add("one row, one group", (1, 32, 32, (3,)), kernel)
        add("group = row, an odd number of scales", (13, 128, 128, (2, 5)), kernel)
        add("two groups in a row of 64", (13, 128, 64, (9,)), kernel)
        add("first and last row", (22, 96, 32, (2, 3, 5)), kernel, id_kind="ends")
        add("ids outside the vocabulary", (22, 96, 32, (2, 3, 5)), kernel, id_kind="outside")
        add("one id everywhere", (22, 96, 32, (4, 9)), kernel, id_kind="repeated")
    halves: tuple[Any, ...] = ("linear_buffer", "float16", "buffer", "float16")
    floats: tuple[Any, ...] = ("flat", "float32", "buffer", "float32")
    mixed: tuple[Any, ...] = ("flat", "float32", "buffer", "float16")
    mixed_texture: tuple[Any, ...] = ("flat", "float32", "texture3d", "float16")
    for kernel in (halves, floats, mixed, blocks_texture):
        for kind in ("zero", "subnormal", "largest"):
            add("extreme scales", (22, 96, 32, (2, 3, 5)), kernel, scale_kind=kind)
    for kernel in (mixed, mixed_texture):
        add("rounding to half", (22, 96, 32, (2, 3, 5)), kernel, scale_kind="ties")
    for weight, (vocab, embed_dim) in product(
        ("linear_buffer", "linear_texture2d"), ((16, 64), (21, 96), (1, 32))
    ):
        cases.append(
            Case(
                "corners",
                vocab,
                embed_dim,
                32,
                op="pack",
                weight=weight,  # type: ignore[arg-type]
                seed=len(cases) + 1,
                note="rows into blocks",
            )
        )
    return cases


def random_cases(count: int, seed: int) -> list[Case]:
    """``count`` cases drawn with ``seed``; each lists everything needed to run it again."""
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
