"""The torch custom ops: against the oracle, through opcheck, export and compile, and their cache.

`reference` is float64 numpy; the fake implementations are held to the real ones by torch itself
(``torch.library.opcheck``).
"""

from __future__ import annotations

import gc
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import wgpu_q4.torch_ops  # noqa: F401  registers the ops
from wgpu_q4 import Q4Weight, reference, torch_cache
from wgpu_q4.errors import FormatError

VOCAB, EMBED_DIM, GROUP = 101, 64, 32
IDS = torch.tensor([[1, 2, 3], [100, 0, 55]])
OPS = torch.ops.wgpu_q4


class Matrix:
    """A random matrix, and the tensors that the ops take."""

    def __init__(self, scales_dtype: str = "float16", seed: int = 0) -> None:
        values = np.random.default_rng(seed).standard_normal((VOCAB, EMBED_DIM), np.float32)
        self.weight = Q4Weight.quantize(values, GROUP, scales_dtype)
        self.packed = torch.from_numpy(self.weight.packed.copy())
        self.scales = torch.from_numpy(self.weight.scales.copy())
        self.by_group = self.scales.t().contiguous()

    def embedding(self, ids: Tensor = IDS) -> Any:
        return OPS.embedding_q4gsw(self.packed, self.scales, GROUP, ids, True)

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Any:
        return OPS.linear_q4gsw(x, self.packed, self.by_group, GROUP, bias)


def cached(packed: Tensor) -> list[Q4Weight]:
    """The matrices that the cache holds for a tensor's storage."""
    views = torch_cache._cache.get(packed.untyped_storage(), {})
    return [weight for matrices in views.values() for weight in matrices.weights]


@pytest.mark.parametrize("scales_dtype", ["float16", "float32"])
def test_embedding_is_exact_in_both_conventions(scales_dtype: str) -> None:
    matrix = Matrix(scales_dtype)
    expected = reference.embedding(IDS.numpy(), matrix.weight)
    np.testing.assert_array_equal(matrix.embedding().numpy(), expected)
    other = torch.from_numpy(matrix.weight.packed_as("embedding"))
    rows = OPS.embedding_q4gsw(other, matrix.scales, GROUP, IDS)  # is_linear_weight is False
    np.testing.assert_array_equal(rows.numpy(), expected)


@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_is_within_the_bound_of_a_float32_sum(with_bias: bool) -> None:
    matrix = Matrix()
    generator = np.random.default_rng(1)
    x = generator.standard_normal((2, 3, EMBED_DIM), np.float32)
    bias = generator.standard_normal(VOCAB, np.float32) if with_bias else None
    result = matrix.linear(torch.from_numpy(x), None if bias is None else torch.from_numpy(bias))
    rows = x.reshape(-1, EMBED_DIM)
    error = np.abs(result.numpy().reshape(-1, VOCAB) - reference.linear(rows, matrix.weight, bias))
    assert (error <= reference.linear_bound(rows, matrix.weight, bias)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_linear_keeps_the_dtype_of_x(dtype: torch.dtype) -> None:
    assert Matrix().linear(torch.ones(2, EMBED_DIM, dtype=dtype)).dtype == dtype


def test_equals_the_ops_on_arrays() -> None:
    from wgpu_q4 import embedding, linear

    matrix = Matrix()
    rows = matrix.embedding()
    assert torch.equal(rows, embedding(IDS, matrix.weight))
    assert torch.equal(matrix.linear(rows), linear(rows, matrix.weight))


def test_opcheck() -> None:
    matrix = Matrix()
    x = torch.randn(3, EMBED_DIM)
    embedding, linear = OPS.embedding_q4gsw.default, OPS.linear_q4gsw.default
    torch.library.opcheck(embedding, (matrix.packed, matrix.scales, GROUP, IDS, True))
    torch.library.opcheck(linear, (x, matrix.packed, matrix.by_group, GROUP))
    bias = torch.randn(VOCAB)
    torch.library.opcheck(linear, (x, matrix.packed, matrix.by_group, GROUP, bias))


def test_schemas_are_those_of_executorch() -> None:
    import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  registers et_vk

    for name in ("embedding_q4gsw", "linear_q4gsw"):
        ours = getattr(OPS, name).default._schema
        theirs = getattr(torch.ops.et_vk, name).default._schema
        assert str(ours).partition("(")[2] == str(theirs).partition("(")[2]


def test_equals_executorchs_reference_ops() -> None:
    import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  registers et_vk

    matrix = Matrix("float32")
    theirs = torch.ops.et_vk.embedding_q4gsw(matrix.packed, matrix.scales, GROUP, IDS, True)
    assert torch.equal(matrix.embedding(), theirs)
    x = theirs[0]
    logits = torch.ops.et_vk.linear_q4gsw(x, matrix.packed, matrix.by_group, GROUP)
    bound = 2 * reference.linear_bound(x.numpy(), matrix.weight)
    assert ((matrix.linear(x) - logits).abs().numpy() <= bound).all()


class Model(nn.Module):
    """Embedding and head on one matrix."""

    packed: Tensor
    scales: Tensor
    by_group: Tensor

    def __init__(self) -> None:
        super().__init__()
        matrix = Matrix()
        self.register_buffer("packed", matrix.packed)
        self.register_buffer("scales", matrix.scales)
        self.register_buffer("by_group", matrix.by_group)

    def forward(self, ids: Tensor) -> Any:
        rows = OPS.embedding_q4gsw(self.packed, self.scales, GROUP, ids, True)
        return OPS.linear_q4gsw(rows * 2, self.packed, self.by_group, GROUP)


def test_export_with_a_dynamic_length() -> None:
    model = Model()
    program = torch.export.export(
        model, (IDS,), dynamic_shapes={"ids": {0: Dim("batch"), 1: Dim("length")}}
    )
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(OPS.embedding_q4gsw.default) == 1
    assert targets.count(OPS.linear_q4gsw.default) == 1
    ids = torch.randint(0, VOCAB, (4, 7))
    assert torch.equal(program.module()(ids), model(ids))


def test_compile_with_a_dynamic_length_in_one_graph() -> None:
    model = Model()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for length in (3, 5):
        ids = torch.randint(0, VOCAB, (2, length))
        assert torch.equal(compiled(ids), model(ids))


def test_one_upload_serves_both_ops() -> None:
    matrix = Matrix(seed=2)
    rows = matrix.embedding()
    matrix.linear(rows[0])
    OPS.embedding_q4gsw(matrix.packed.view(VOCAB, -1), matrix.scales.clone(), GROUP, IDS, True)
    (weight,) = cached(matrix.packed)
    (resident,) = weight.residents
    assert resident.nbytes == matrix.weight.nbytes + -matrix.weight.nbytes % 4
    assert "embedding, linear" in resident.describe()


def test_other_scales_are_another_matrix() -> None:
    matrix = Matrix(seed=3)
    first = matrix.embedding()
    doubled = OPS.embedding_q4gsw(matrix.packed, matrix.scales * 2, GROUP, IDS, True)
    assert torch.equal(doubled, first * 2)
    assert len(cached(matrix.packed)) == 2


@pytest.mark.parametrize("changed", ["packed", "scales"])
def test_a_change_in_place_is_seen(changed: str) -> None:
    matrix = Matrix(seed=4)
    before = matrix.embedding()
    getattr(matrix, changed)[IDS[0, 0]] = 0
    after = matrix.embedding()
    assert not torch.equal(before[0, 0], after[0, 0])
    assert torch.equal(before[0, 1:], after[0, 1:])


def test_the_matrix_goes_with_its_tensor() -> None:
    matrix = Matrix(seed=5)
    matrix.linear(torch.ones(1, EMBED_DIM))
    storage = matrix.packed.untyped_storage()
    assert storage in torch_cache._cache
    gc.collect()  # what other tests left
    entries = len(torch_cache._cache)
    view = matrix.packed[:]
    del storage, matrix
    gc.collect()
    assert len(torch_cache._cache) == entries  # a view keeps the storage
    del view
    gc.collect()
    assert len(torch_cache._cache) == entries - 1


def test_scales_made_anew_for_each_call_do_not_pile_up() -> None:
    matrix = Matrix(seed=6)
    for _ in range(5):
        OPS.linear_q4gsw(
            torch.ones(1, EMBED_DIM), matrix.packed, matrix.scales.t().contiguous(), GROUP
        )
    (views,) = [torch_cache._cache[matrix.packed.untyped_storage()]]
    (matrices,) = views.values()
    assert len(matrices.weights) == 1
    assert len(matrices.known) <= 2


def test_inference_mode() -> None:
    with torch.inference_mode():
        matrix = Matrix(seed=7)
        expected = reference.embedding(IDS.numpy(), matrix.weight)
        np.testing.assert_array_equal(matrix.embedding().numpy(), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"packed": torch.zeros(VOCAB, 32, dtype=torch.int8)}, "uint8"),
        ({"packed": torch.zeros(32, dtype=torch.uint8)}, r"\[V, K/2\]"),
        ({"scales": torch.zeros(VOCAB, 2, dtype=torch.float64)}, "float16 or float32"),
        ({"scales": torch.zeros(2, VOCAB)}, r"\[V, K/G\] = \[101, 2\]"),
        ({"group_size": 24}, "must divide K = 64"),
        ({"group_size": 0}, "must divide K = 64"),
        ({"group_size": 16}, r"\[101, 4\]"),
    ],
)
@pytest.mark.parametrize("fake", [False, True])
def test_what_does_not_fit_is_refused(arguments: Any, message: str, fake: bool) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    matrix = Matrix()
    given = {"packed": matrix.packed, "scales": matrix.scales, "group_size": GROUP} | arguments
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
    with mode, pytest.raises(FormatError, match=message):
        OPS.embedding_q4gsw(given["packed"], given["scales"], given["group_size"], IDS)


def test_a_linear_that_does_not_fit_is_refused() -> None:
    matrix = Matrix()
    with pytest.raises(FormatError, match=r"\[\.\.\., 64\]"):
        matrix.linear(torch.ones(2, 32))
    with pytest.raises(FormatError, match=r"bias must have shape \[101\]"):
        matrix.linear(torch.ones(2, 64), torch.ones(2))
    with pytest.raises(FormatError, match="float64"):
        matrix.linear(torch.ones(2, 64, dtype=torch.float64))
    with pytest.raises(TypeError, match="integer"):
        matrix.embedding(torch.ones(3))
    with pytest.raises(IndexError, match="101"):
        matrix.embedding(torch.tensor([VOCAB]))
