"""The ops against code that is not ours, on the same bytes.

Embeddings agree to the bit.  Of a linear result each side may be as far from the exact one as
`reference.linear_bound` allows, and theirs is held to it as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  (registers torch.ops.et_vk)
import gguf
import numpy as np
import onnxruntime
import pytest
import torch
from gguf import GGMLQuantizationType
from numpy.typing import NDArray
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

from tests.cases import (
    LONG,
    ODD,
    PRIME,
    TINY,
    WIDE,
    Shape,
    assert_same_bits,
    random_weight,
    random_x,
    some_ids,
)
from tools.bench.peers.onnx_graphs import embedding_graph, linear_graph
from wgpu_q4 import Q4Weight, embedding, from_gguf, linear, reference
from wgpu_q4.format import Convention, ScalesDtype

every_scales = pytest.mark.parametrize("scales", ["float16", "float32"])
rows_of_x = pytest.mark.parametrize("rows", [1, 13])  # a GEMV's and a GEMM's


def assert_agree(
    ours: NDArray[Any],
    theirs: NDArray[Any],
    x: NDArray[Any],
    weight: Q4Weight,
    bias: NDArray[Any] | None,
) -> None:
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    exact, bound = reference.linear(x, weight, bias), reference.linear_bound(x, weight, bias)
    for name, result in {"theirs": theirs, "ours": ours}.items():
        assert (np.abs(result - exact) <= bound).all(), name


# ExecuTorch's Vulkan operators, as PyTorch runs them


@every_scales
@pytest.mark.parametrize("convention", ["linear", "embedding"])
@pytest.mark.parametrize("shape", [TINY, ODD, PRIME, WIDE, LONG], ids=str)
def test_embedding_is_executorchs(
    shape: Shape, convention: Convention, scales: ScalesDtype
) -> None:
    weight, ids = random_weight(shape, scales, convention), torch.from_numpy(some_ids(shape))
    theirs = torch.ops.et_vk.embedding_q4gsw(
        torch.tensor(weight.packed),
        torch.tensor(weight.scales),
        shape.group_size,
        ids,
        convention == "linear",
    )
    ours = embedding(ids, weight)
    assert_same_bits(ours.numpy(), theirs.numpy())


@every_scales
@rows_of_x
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("shape", [PRIME, WIDE], ids=str)
def test_linear_is_executorchs(shape: Shape, biased: bool, rows: int, scales: ScalesDtype) -> None:
    weight, x = random_weight(shape, scales), torch.from_numpy(random_x(rows, shape.embed_dim))
    bias = torch.linspace(-1, 1, shape.vocab) if biased else None
    theirs = torch.ops.et_vk.linear_q4gsw(
        x,
        torch.tensor(weight.packed),
        torch.tensor(weight.scales).T.contiguous(),  # it wants them [K/G, V]
        shape.group_size,
        bias,
    )
    ours = linear(x, weight, bias)
    added = None if bias is None else bias.numpy()
    assert_agree(ours.numpy(), theirs.numpy(), x.numpy(), weight, added)


# ONNX Runtime's contrib operators on the CPU: uint8 weights with their zero point of 8 left out

ONNX_SHAPES = [WIDE, Shape(50, 128, 64), Shape(19, 48, 16), LONG]  # it has groups of 2^n, n ≥ 4


def run_onnx(model: bytes, name: str, given: NDArray[Any]) -> NDArray[Any]:
    """What a graph of one operator makes of its one input."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (out,) = session.run(None, {name: given})
    return np.asarray(out)


@every_scales
@pytest.mark.parametrize("shape", ONNX_SHAPES, ids=str)
def test_embedding_is_onnx_runtimes(shape: Shape, scales: ScalesDtype) -> None:
    """It gathers in the dtype of the scales; halves are rounded once, from an exact product."""
    weight, ids = random_weight(shape, scales), some_ids(shape)
    theirs = run_onnx(embedding_graph(weight), "indices", ids)
    assert_same_bits(embedding(ids, weight, scales), theirs)


@rows_of_x
@pytest.mark.parametrize("shape", ONNX_SHAPES, ids=str)
def test_linear_is_onnx_runtimes(shape: Shape, rows: int) -> None:
    weight, x = random_weight(shape, "float32"), random_x(rows, shape.embed_dim)
    theirs = run_onnx(linear_graph(weight), "A", x)  # computed in float32
    assert_agree(linear(x, weight), theirs, x, weight, None)


# From another library's quantized model to our embedding


@pytest.mark.parametrize("shape", [TINY, ODD, PRIME, WIDE], ids=str)
def test_a_module_quantized_by_torchao(shape: Shape) -> None:
    module = torch.nn.Embedding(shape.vocab, shape.embed_dim)
    torch.nn.init.normal_(module.weight, generator=torch.Generator().manual_seed(0))
    int4: torch.dtype = torch.int4  # type: ignore[attr-defined]  # missing in torch's stubs
    config = IntxWeightOnlyConfig(weight_dtype=int4, granularity=PerGroup(shape.group_size))
    quantize_(module, config, lambda layer, name: isinstance(layer, torch.nn.Embedding))
    theirs: Any = module.weight
    assert not theirs.zero_point.any()

    nibbles = (theirs.qdata + 8).to(torch.uint8)
    weight = Q4Weight(nibbles[:, 0::2] | (nibbles[:, 1::2] << 4), theirs.scale)
    ids = torch.from_numpy(some_ids(shape))
    with torch.no_grad():
        expected = torch.nn.functional.embedding(ids, theirs.dequantize())
    assert_same_bits(embedding(ids, weight).numpy(), expected.numpy())


@pytest.mark.parametrize("shape", [Shape(13, 32, 32), WIDE], ids=str)
def test_a_q4_0_tensor_of_a_gguf_file(tmp_path: Path, shape: Shape) -> None:
    matrix = np.random.default_rng(13).standard_normal((shape.vocab, shape.embed_dim))
    blocks = gguf.quantize(matrix.astype(np.float32), GGMLQuantizationType.Q4_0)
    path, name = tmp_path / "model.gguf", "token_embd.weight"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor(name, blocks, raw_dtype=GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    weight, ids = from_gguf(path, name), some_ids(shape)
    theirs = gguf.dequantize(blocks, GGMLQuantizationType.Q4_0)
    assert theirs.dtype == np.float32
    assert_same_bits(embedding(ids, weight), theirs[ids])
