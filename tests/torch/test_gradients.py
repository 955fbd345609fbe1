"""Gradients through a 4-bit head: against float64, within the bound, without the float matrix."""

from __future__ import annotations

import copy
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny_models import HIDDEN, IDS, VOCAB, build, llama, random_weight
from wgpu_q4 import Q4Weight, reference, request_device
from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear, tie

OPS = torch.ops.wgpu_q4


def assert_is_gradient(of_x: Tensor, gradient: Tensor, weight: Q4Weight) -> None:
    g = gradient.reshape(-1, gradient.shape[-1]).float().numpy()
    exact = torch.from_numpy(reference.linear_transposed(g, weight))
    bound = torch.from_numpy(reference.linear_transposed_bound(g, weight))
    if of_x.dtype != torch.float32:
        bound = bound + exact.abs() * torch.finfo(of_x.dtype).eps
    assert ((of_x.reshape(exact.shape).double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("accuracy", ["exact", "int8"])
def test_of_x_and_of_the_bias(dtype: torch.dtype, accuracy: Any) -> None:
    module = QuantizedLinear(random_weight(), torch.randn(VOCAB, dtype=dtype), accuracy=accuracy)
    assert module.bias is not None
    module.bias.requires_grad_(True)
    x = torch.randn(2, 3, HIDDEN, dtype=dtype, requires_grad=True)
    logits = module(x)
    gradient = torch.randn_like(logits)
    logits.backward(gradient)
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert_is_gradient(x.grad, gradient, module.q4weight)
    assert module.bias.grad is not None
    assert torch.allclose(module.bias.grad, gradient.sum((0, 1)), rtol=1e-2, atol=1e-2)


def test_of_a_double_model() -> None:
    module = QuantizedLinear(random_weight())
    x = torch.randn(2, HIDDEN, dtype=torch.float64, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float64
    assert_is_gradient(x.grad.float(), torch.ones(2, VOCAB), module.q4weight)


def test_of_a_gradient() -> None:
    """``y · W`` is linear in y, and its gradient is ``g · Wᵀ`` again."""
    module = QuantizedLinear(random_weight())
    x = torch.randn(2, HIDDEN, requires_grad=True)
    gradient = torch.randn(2, VOCAB, requires_grad=True)
    (of_x,) = torch.autograd.grad(module(x), x, gradient, create_graph=True)
    direction = torch.randn(2, HIDDEN)
    (of_gradient,) = torch.autograd.grad(of_x, gradient, direction)
    exact = torch.from_numpy(reference.linear(direction.numpy(), module.q4weight))
    bound = torch.from_numpy(reference.linear_bound(direction.numpy(), module.q4weight))
    assert ((of_gradient.double() - exact).abs() <= bound).all()


def test_the_embedding_owes_nothing_to_a_frozen_table() -> None:
    rows = QuantizedEmbedding(random_weight())(IDS)
    assert not rows.requires_grad
    scaled = QuantizedEmbedding(random_weight(), embed_scale=2.0)(IDS)
    assert not scaled.requires_grad


def test_on_a_device_of_the_caller() -> None:
    weight = random_weight()
    module = QuantizedLinear(weight, device=request_device())
    x = torch.randn(2, HIDDEN, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None
    assert_is_gradient(x.grad, torch.ones(2, VOCAB), weight)
    (resident,) = weight.residents
    assert "linear, linear_transposed" in resident.describe()


def test_a_forward_outside_no_grad_with_labels_and_in_a_thread() -> None:
    tie(model := build(llama), 8)
    with torch.no_grad():
        expected = model(input_ids=IDS, labels=IDS)
    result = model(input_ids=IDS, labels=IDS)
    assert result.logits.requires_grad
    assert torch.equal(result.logits, expected.logits)
    assert torch.equal(result.loss, expected.loss)
    seen: list[Tensor] = []
    thread = threading.Thread(target=lambda: seen.append(model(input_ids=IDS).logits))
    with torch.no_grad():  # of this thread only
        thread.start()
        thread.join()
    assert torch.equal(seen[0], expected.logits)


def test_the_body_gets_the_gradients_that_it_has_with_the_dequantized_matrix() -> None:
    tie(model := build(llama), 8)
    twin = with_dequantized_matrix(build(llama), model)
    for each in (model, twin):
        each(input_ids=IDS, labels=IDS).loss.backward()
    theirs = dict(twin.named_parameters())
    checked = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert len(checked) > 8
    for name, parameter in model.named_parameters():
        want = theirs[name].grad
        assert want is not None
        assert torch.allclose(parameter.grad, want, rtol=1e-3, atol=1e-6), name


def with_dequantized_matrix(model: Any, tied: Any) -> Any:
    with torch.no_grad():
        dequantized = tied.get_input_embeddings().weight.dequantize()
        model.get_input_embeddings().weight.copy_(dequantized)
    model.get_input_embeddings().weight.requires_grad_(False)
    return model


class LowRank(nn.Module):
    """A linear and what a product of two thin matrices adds to it."""

    def __init__(self, linear: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(torch.randn(rank, linear.in_features) / 8)
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(x)
        return result + x @ self.down.T @ self.up.T


def losses(model: Any, steps: int) -> list[float]:
    """Train only what `LowRank` adds to the body; return the loss of each step."""
    model.requires_grad_(False)
    torch.manual_seed(21)
    dtype = model.model.norm.weight.dtype
    for name in ("q_proj", "v_proj"):
        attention = model.model.layers[0].self_attn
        setattr(attention, name, LowRank(getattr(attention, name)).to(dtype))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(trained) == 4
    optimizer = torch.optim.SGD(trained, lr=0.5, momentum=0.9)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_a_low_rank_fine_tune_follows_torch() -> None:
    """It strays from float64 about as little as torch's own float32 does."""
    tie(model := build(llama), 8)
    twin = with_dequantized_matrix(build(llama), model)
    exact = losses(copy.deepcopy(twin).double(), 50)
    float32, ours = losses(twin, 50), losses(model, 50)
    assert exact[-1] < exact[0] - 0.05, "nothing was learned"
    strayed = np.abs(np.subtract(float32, exact)).max()
    allowed = 8 * max(strayed, float(np.finfo(np.float32).eps) * exact[0])
    assert np.abs(np.subtract(ours, exact)).max() <= allowed


def test_nothing_of_the_size_of_the_float_matrix_is_allocated() -> None:
    vocab, embed_dim = 4099, 256
    module = QuantizedLinear(random_weight(vocab, embed_dim))
    x = torch.randn(2, embed_dim, requires_grad=True)
    module(x).sum().backward()  # what is kept for later calls is made

    largest = 0

    class Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel() * result.element_size())
            return result

    tracemalloc.start()  # numpy reports what it allocates
    with Sizes():  # type: ignore[no-untyped-call]
        module(x).sum().backward()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 2 * vocab * 4 <= largest < vocab * embed_dim
    assert peak < vocab * embed_dim


def test_opcheck() -> None:
    weight = random_weight()
    packed = torch.from_numpy(weight.packed.copy())
    by_group = torch.from_numpy(weight.scales.copy()).t().contiguous()
    x, y = (torch.randn(3, size, requires_grad=True) for size in (HIDDEN, VOCAB))
    bias = torch.randn(VOCAB, requires_grad=True)
    check: Any = torch.library.opcheck
    check(OPS.linear_q4gsw.default, (x, packed, by_group, 8))
    check(OPS.linear_q4gsw.default, (x, packed, by_group, 8, bias))
    check(OPS.linear_q4gsw_on.default, (x, packed, by_group, 8, bias, "exact", ""))
    check(OPS.linear_transposed_q4gsw.default, (y, packed, by_group, 8))
    check(OPS.embedding_q4gsw_on.default, (packed, by_group.t(), 8, IDS, ""))


def test_a_gradient_of_another_shape_is_refused() -> None:
    weight = random_weight()
    packed, scales = (torch.from_numpy(array.copy()) for array in (weight.packed, weight.scales))
    with pytest.raises(ValueError, match=r"self must have shape \[\.\.\., 101\]"):
        OPS.linear_transposed_q4gsw(torch.ones(2, HIDDEN), packed, scales.t(), 8)
    with pytest.raises(ValueError, match="float64"):
        OPS.linear_transposed_q4gsw(torch.ones(2, VOCAB).double(), packed, scales.t(), 8)
