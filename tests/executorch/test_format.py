"""The q4gsw format against code that is not ours, value for value and byte for byte.

torchao says what the quantized values and the scales are, ExecuTorch's Vulkan backend what the
bytes are and what a row of the embedding is.
"""

from __future__ import annotations

from typing import Any

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  (registers torch.ops.et_vk)
import numpy as np
import pytest
import torch
from executorch.backends.vulkan.patterns.weight_packing_utils import pack_4bit_weight_tensor
from numpy.typing import NDArray
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup

from tests.matrices import Shape, difficult, every_shape, normal
from wgpu_q4.format import Convention, dequantize, quantize, repack, unpack


def torchao_quantize(
    weight: NDArray[np.float32], group_size: int
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Values in -8..7 and scales, by torchao."""
    vocab, embed_dim = weight.shape
    model = torch.nn.Sequential(torch.nn.Linear(embed_dim, vocab, bias=False))
    model[0].weight = torch.nn.Parameter(torch.from_numpy(weight.copy()))
    int4: torch.dtype = torch.int4  # type: ignore[attr-defined]  # missing in torch's stubs
    config = IntxWeightOnlyConfig(weight_dtype=int4, granularity=PerGroup(group_size))
    quantize_(model, config)
    quantized: Any = model[0].weight
    assert not quantized.zero_point.any()
    return quantized.qdata.numpy(), quantized.scale.numpy()


@every_shape
@pytest.mark.usefixtures("ranges")
def test_quantize_is_torchao_value_for_value(shape: Shape) -> None:
    for name, weight in difficult(shape).items():
        packed, scales = quantize(weight, shape.group_size, "float32")
        values, expected_scales = torchao_quantize(weight, shape.group_size)
        np.testing.assert_array_equal(unpack(packed, "linear"), values + 8, err_msg=name)
        np.testing.assert_array_equal(scales, expected_scales, err_msg=name, strict=True)


@every_shape
def test_packing_is_executorchs(shape: Shape) -> None:
    weight = normal(shape)
    packed, _ = quantize(weight, shape.group_size)
    values, _ = torchao_quantize(weight, shape.group_size)
    expected = pack_4bit_weight_tensor(torch.from_numpy(values)).numpy()
    np.testing.assert_array_equal(packed, expected, strict=True)


@every_shape
@pytest.mark.parametrize("convention", ["linear", "embedding"])
@pytest.mark.usefixtures("ranges")
def test_dequantize_is_executorchs_embedding(shape: Shape, convention: Convention) -> None:
    packed, scales = quantize(normal(shape), shape.group_size, "float32")
    packed = repack(packed, "linear", convention)
    expected = torch.ops.et_vk.embedding_q4gsw(
        torch.from_numpy(packed),
        torch.from_numpy(scales),
        shape.group_size,
        torch.arange(shape.vocab),
        convention == "linear",
    )
    result = dequantize(packed, scales, convention)
    np.testing.assert_array_equal(result, expected.numpy(), strict=True)
