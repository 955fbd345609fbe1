"""The 34 cases with which ExecuTorch's Vulkan backend tests ``embedding_q4gsw``, on these kernels.

Upstream's flat weight is rows in the embedding convention.  Its linear weight is blocks, in a
texture or a buffer as the device likes; here both are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  (registers torch.ops.et_vk)
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.cases import Shape, assert_same_bits
from wgpu_q4 import Q4Weight, embedding, forced, reference
from wgpu_q4.device import context_for
from wgpu_q4.format import ScalesDtype
from wgpu_q4.kernels import Layout, OutputDtype, Storage

Form = Literal["flat", "linear"]

A, A_IDS = Shape(16, 32, 32), (4,)
B, B_IDS = Shape(32, 64, 32), (2, 3)
C, C_IDS = Shape(100, 128, 32), (4, 8)
D, D_IDS = Shape(50, 64, 64), (2, 4)
LLAMA, LLAMA_IDS = Shape(128256, 2048, 32), (1, 2047)  # Llama 3.2 1B


@dataclass(frozen=True)
class Case:
    shape: Shape
    ids: tuple[int, ...]
    output: OutputDtype
    storage: Storage = "buffer"
    form: Form = "flat"
    scales: ScalesDtype = "float16"

    def __str__(self) -> str:
        ids = "x".join(map(str, self.ids))
        return f"{self.form} {self.scales} {self.shape} ids {ids} {self.output} {self.storage}"


CASES = [
    # A weight shared with the linear op.
    Case(A, A_IDS, "float16", form="linear"),
    Case(B, B_IDS, "float16", form="linear"),
    Case(C, C_IDS, "float16", form="linear"),
    Case(A, A_IDS, "float32", form="linear"),
    Case(A, A_IDS, "float16", "texture3d", form="linear"),
    Case(LLAMA, LLAMA_IDS, "float32", form="linear"),
    # A weight of its own.
    Case(A, A_IDS, "float16"),
    Case(B, B_IDS, "float16"),
    Case(C, C_IDS, "float16"),
    Case(D, D_IDS, "float16"),
    Case(A, A_IDS, "float32"),
    Case(B, B_IDS, "float32"),
    Case(C, C_IDS, "float32"),
    Case(D, D_IDS, "float32"),
    Case(A, A_IDS, "float16", "texture3d"),
    Case(B, B_IDS, "float16", "texture3d"),
    Case(C, C_IDS, "float16", "texture3d"),
    Case(D, D_IDS, "float16", "texture3d"),
    Case(A, A_IDS, "float32", "texture3d"),
    Case(B, B_IDS, "float32", "texture3d"),
    Case(C, C_IDS, "float32", "texture3d"),
    Case(D, D_IDS, "float32", "texture3d"),
    # The same with scales in 32 bits.
    Case(A, A_IDS, "float16", scales="float32"),
    Case(B, B_IDS, "float16", scales="float32"),
    Case(C, C_IDS, "float16", scales="float32"),
    Case(A, A_IDS, "float32", scales="float32"),
    Case(B, B_IDS, "float32", scales="float32"),
    Case(C, C_IDS, "float32", scales="float32"),
    Case(A, A_IDS, "float16", "texture3d", scales="float32"),
    Case(A, A_IDS, "float32", "texture3d", scales="float32"),
    # A real model's matrix.
    Case(LLAMA, LLAMA_IDS, "float32"),
    Case(LLAMA, LLAMA_IDS, "float16"),
    Case(LLAMA, LLAMA_IDS, "float32", scales="float32"),
    Case(LLAMA, LLAMA_IDS, "float16", scales="float32"),
]

FITTING_LAYOUTS: dict[Form, tuple[Layout, ...]] = {
    "flat": ("rows_embedding",),
    "linear": ("blocks_buffer", "blocks_texture2d"),
}


def layouts(case: Case) -> Iterator[Layout]:
    side = context_for().limits["max-texture-dimension-2d"]
    fits = max(-(-case.shape.vocab // 8), case.shape.embed_dim // 4) <= side
    return (name for name in FITTING_LAYOUTS[case.form] if fits or name != "blocks_texture2d")


@cache
def random_packed(shape: Shape) -> NDArray[np.uint8]:
    return np.random.default_rng(10).integers(0, 256, (shape.vocab, shape.embed_dim // 2), np.uint8)


def make_weight(shape: Shape, scales_dtype: ScalesDtype, form: Form) -> Q4Weight:
    """The same bytes, read in one order or the other."""
    size = shape.vocab, shape.embed_dim // shape.group_size
    scales = np.random.default_rng(11).uniform(0.001, 0.1, size).astype(scales_dtype)
    return Q4Weight(random_packed(shape), scales, "embedding" if form == "flat" else "linear")


@pytest.fixture(scope="module")
def weight_of() -> Iterator[Callable[[Case], Q4Weight]]:
    """One object for all cases with the same matrix; all of them go with this module."""
    kept = cache(make_weight)
    yield lambda case: kept(case.shape, case.scales, case.form)
    kept.cache_clear()
    random_packed.cache_clear()


def random_ids(case: Case) -> NDArray[np.int64]:
    ids = np.random.default_rng(12).integers(0, case.shape.vocab, case.ids)
    ids.flat[0], ids.flat[-1] = case.shape.vocab - 1, 0
    return ids


def test_the_table_has_every_case_once() -> None:
    assert len(CASES) == len(set(CASES)) == 34
    assert len({str(case) for case in CASES}) == 34


@pytest.mark.parametrize("case", CASES, ids=str)
def test_upstream_case(case: Case, weight_of: Callable[[Case], Q4Weight]) -> None:
    weight, ids = weight_of(case), random_ids(case)
    expected = reference.embedding(ids, weight, case.output)
    for layout in layouts(case):
        with forced(layout=layout, storage=case.storage):
            result = embedding(ids, weight, case.output)
        assert_same_bits(result, expected)


@pytest.mark.parametrize("case", [case for case in CASES if case.shape != LLAMA], ids=str)
def test_upstream_case_against_upstream(case: Case, weight_of: Callable[[Case], Q4Weight]) -> None:
    weight, ids = weight_of(case), random_ids(case)
    theirs = torch.ops.et_vk.embedding_q4gsw(
        torch.tensor(weight.packed),
        torch.tensor(weight.scales),
        case.shape.group_size,
        torch.from_numpy(ids),
        case.form == "linear",
    )
    expected = theirs.numpy().astype(case.output)
    for layout in layouts(case):
        with forced(layout=layout, storage=case.storage):
            result = embedding(ids, weight, case.output)
        assert_same_bits(result, expected)
