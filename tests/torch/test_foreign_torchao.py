"""torchao's quantized tensors: the values that torchao computes with, and its own nibbles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torchao.prototype.quantization.int4.int4_opaque_tensor import Int4OpaqueTensor
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.quant_primitives import MappingType
from torchao.quantization.quantize_.workflows.int4.int4_tensor import Int4Tensor

import wgpu_q4
from tests.tiny_models import llama
from wgpu_q4.errors import FormatError
from wgpu_q4.foreign import from_torchao
from wgpu_q4.nn import tie

V, K = 160, 64
INT2, INT3, INT4 = (getattr(torch, f"int{bits}") for bits in (2, 3, 4))


def tensor_of(config: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Return the weight of an embedding that torchao has quantized."""
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(V, K, dtype=dtype)
    quantize_(embedding, config, filter_fn=lambda *_: True)
    return embedding.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("group", [PerGroup(32), PerGroup(8), PerAxis(0)], ids=str)
@pytest.mark.parametrize("bits", [INT4, INT3, INT2])
def test_intx_tensors_are_held(bits: torch.dtype, group: Any, dtype: torch.dtype) -> None:
    tensor = tensor_of(IntxWeightOnlyConfig(bits, group), dtype)
    weight = from_torchao(tensor)
    # torchao rounds each product to the dtype of the matrix, and so does this.
    ours = torch.from_numpy(weight.dequantize()).to(dtype)
    assert torch.equal(ours, tensor.dequantize())
    assert weight.group_size == tensor.block_size[1]
    np.testing.assert_array_equal(weight.scales, tensor.scale.float().numpy())


def test_quantize_takes_torchaos_tensors_over() -> None:
    tensor = tensor_of(IntxWeightOnlyConfig(INT4, PerGroup(32)))
    for weight in (wgpu_q4.quantize(tensor), wgpu_q4.quantize(tensor, 16)):
        assert torch.equal(torch.from_numpy(weight.dequantize()), tensor.dequantize())
    assert wgpu_q4.quantize(tensor, 16).group_size == 16
    with pytest.raises(FormatError, match=r"of its 320 scales are no float16 numbers"):
        wgpu_q4.quantize(tensor, scales_dtype="float16")
    with pytest.raises(FormatError, match=r"^IntxUnpackedToInt8Tensor \[160, 64\]: its groups"):
        wgpu_q4.quantize(tensor, 24)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tied_model_that_torchao_has_quantized(dtype: torch.dtype) -> None:
    model: Any = llama().to(dtype)
    config = IntxWeightOnlyConfig(INT4, PerGroup(8))
    quantize_(model, config, filter_fn=lambda module, _: module is model.model.embed_tokens)
    tensor = model.lm_head.weight = model.model.embed_tokens.weight
    weight = tie(model).weight
    assert torch.equal(torch.from_numpy(weight.dequantize()).to(dtype), tensor.dequantize())
    assert weight.group_size == 8
    ids = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.equal(model.get_input_embeddings()(ids), tensor.dequantize()[ids])


def test_asymmetric_tensors_are_held_where_they_fit() -> None:
    config = IntxWeightOnlyConfig(INT4, PerGroup(32), mapping_type=MappingType.ASYMMETRIC)
    with pytest.raises(FormatError, match=r"of its 320 groups hold values beyond −8…7"):
        from_torchao(tensor_of(config))
    again = from_torchao(tensor_of(config), lossy=True)
    expected = wgpu_q4.quantize(tensor_of(config).dequantize())
    assert again.same_matrix(expected)
    narrow = IntxWeightOnlyConfig(INT2, PerGroup(32), mapping_type=MappingType.ASYMMETRIC)
    tensor = tensor_of(narrow)
    assert tensor.zero_point.any()
    assert torch.equal(torch.from_numpy(from_torchao(tensor).dequantize()), tensor.dequantize())


def test_eight_bits_are_refused() -> None:
    with pytest.raises(FormatError, match=r"of its 10,240 values are int8 numbers beyond −8…7"):
        from_torchao(tensor_of(IntxWeightOnlyConfig(torch.int8, PerGroup(32))))
    with pytest.raises(TypeError, match="a Int8Tensor cannot be taken over; those that can"):
        from_torchao(tensor_of(Int8WeightOnlyConfig()))
    with pytest.raises(TypeError, match="must be a tensor of torchao, not Tensor"):
        from_torchao(torch.zeros(2, 8))


def test_int4_tensors_are_held() -> None:
    """torchao makes this one on a GPU only; the oracle is its documented layout, in float64."""
    rng = np.random.default_rng(0)
    q, scales = rng.integers(-8, 8, (V, K)), rng.uniform(0.1, 1, (V, 2)).astype(np.float16)
    qdata = torch.from_numpy(((q[:, ::2] & 15) | (q[:, 1::2] << 4)).astype(np.int8))
    scale = torch.from_numpy(scales.T.copy())
    tensor = Int4Tensor(qdata, scale, torch.zeros_like(scale), [1, 32], torch.Size([V, K]))
    expected = q * np.repeat(scales.astype(np.float64), 32, axis=1)
    np.testing.assert_array_equal(from_torchao(tensor).dequantize(), expected)

    shifted = Int4Tensor(qdata, scale, -8 * scale, [1, 32], torch.Size([V, K]))
    with pytest.raises(FormatError, match=r"groups hold values beyond −8…7 .* from 16 to 16"):
        from_torchao(shifted)
    scaled = Int4Tensor(
        qdata, scale, torch.zeros_like(scale), [1, 32], torch.Size([V, K]), torch.ones(K)
    )
    with pytest.raises(FormatError, match="expects activations that are scaled first"):
        from_torchao(scaled)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_opaque_tensors_of_the_cpu_are_held(dtype: torch.dtype) -> None:
    """The oracle is torch's product of the identity with the tensor itself."""
    rng = np.random.default_rng(0)
    # Eight below zero and seven above in each group: the range that makes torchao's offset zero.
    q = rng.integers(-8, 8, (V, K))
    q[:, ::32], q[:, 1::32] = -8, 7
    matrix = torch.from_numpy(q * np.exp2(rng.integers(-4, 3, (V, 1)))).to(dtype)
    tensor = Int4OpaqueTensor.from_hp(matrix, [1, 32])
    weight = from_torchao(tensor)
    product = torch.nn.functional.linear(torch.eye(K, dtype=dtype), tensor).T
    assert torch.equal(torch.from_numpy(weight.dequantize()).to(dtype), product)
    assert torch.equal(product, matrix)
    with pytest.raises(FormatError, match="cannot hold this matrix exactly"):
        from_torchao(Int4OpaqueTensor.from_hp(torch.randn(V, K, dtype=dtype), [1, 32]))
