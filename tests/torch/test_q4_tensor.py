"""``.weight`` of the modules: what code around a model does with a tensor."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny_models import HIDDEN, IDS, VOCAB, build, llama, random_weight, run
from wgpu_q4 import reference
from wgpu_q4.nn import Q4Tensor, QuantizedEmbedding, QuantizedLinear, tie

Function = Callable[[Any], Any]
X = torch.linspace(-1, 1, 2 * 3 * HIDDEN).reshape(2, 3, HIDDEN)


def tensor() -> Q4Tensor:
    return QuantizedEmbedding(random_weight()).weight


def test_has_the_manners_of_a_tensor() -> None:
    weight = tensor()
    assert isinstance(weight, torch.Tensor)
    assert weight.shape == weight.size() == (VOCAB, HIDDEN)
    assert (weight.dtype, weight.device) == (torch.float32, torch.device("cpu"))
    assert (weight.ndim, weight.numel(), len(weight)) == (2, VOCAB * HIDDEN, VOCAB)
    assert weight.t().shape == weight.T.shape == (HIDDEN, VOCAB)
    assert not weight.requires_grad
    assert weight.is_contiguous()
    assert repr(weight) == "Q4Tensor([101, 40], group_size=8, dtype=torch.float32)"
    assert weight.q4weight.same_matrix(random_weight())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtype_follows_the_model_and_stays_one_object(dtype: torch.dtype) -> None:
    tie(model := build(llama), 8)
    first = model.lm_head.weight
    assert first is model.model.embed_tokens.weight
    model.to(dtype)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.dtype == dtype
    assert model.lm_head.weight.q4weight is first.q4weight
    want = first.dequantize().to(dtype)
    assert torch.equal(model.lm_head.weight.dequantize(), want)
    assert torch.equal(first.to(dtype).dequantize(), want)
    assert model.float().lm_head.weight is first


@pytest.mark.parametrize(
    "index",
    [3, -1, slice(2, 5), slice(None, None, 7), [4, 4, 0], torch.tensor([[1, -1]]), (1, 2), ...],
    ids=str,
)
def test_indexing_gives_the_rows_that_are_asked_for(index: Any) -> None:
    weight = tensor()
    want = weight.dequantize()[index]
    assert torch.equal(plain(weight[index]), want)
    with torch.inference_mode():
        assert torch.equal(plain(weight[index]), want)
        assert torch.equal(plain(tensor()[index]), want)


def plain(result: Tensor) -> Tensor:
    return result.dequantize() if isinstance(result, Q4Tensor) else result


def test_rows_of_a_large_matrix_do_not_take_the_whole() -> None:
    weight = QuantizedEmbedding(random_weight(4099, 256)).weight
    largest = 0

    class Sizes(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and not isinstance(result, Q4Tensor):
                largest = max(largest, result.numel())
            return result

    with Sizes():  # type: ignore[no-untyped-call]
        assert weight[7].shape == (256,)
        assert weight[torch.tensor([1, 2])].shape == (2, 256)
        assert weight.index_select(0, torch.tensor([3])).shape == (1, 256)
        assert functional.embedding(IDS, weight).shape == (2, 6, 256)
        assert functional.linear(torch.ones(2, 256), weight).shape == (2, 4099)
        assert (torch.ones(2, 256) @ weight.T).shape == (2, 4099)
    assert 2 * 4099 <= largest < 4099 * 256 // 4


EXACT: dict[str, Function] = {
    "F.embedding": lambda weight: functional.embedding(IDS, weight),
    "index_select": lambda weight: weight.index_select(0, IDS[0]),
    "column": lambda weight: weight[:, 3],
    "times 2": lambda weight: weight * 2,
    "sum": lambda weight: weight.sum(),
    "norm": lambda weight: weight.norm(dim=1),
    "cat": lambda weight: torch.cat([weight, weight]),
    "comparison": lambda weight: weight > 0,
    "int": lambda weight: weight.to(torch.int64),
    "numpy": lambda weight: torch.from_numpy(np.asarray(weight)),
}


@pytest.mark.parametrize("name", EXACT)
def test_ops_give_what_the_dequantized_matrix_gives(name: str) -> None:
    weight = tensor()
    assert torch.equal(EXACT[name](weight), EXACT[name](weight.dequantize()))


PRODUCTS: dict[str, Function] = {
    "F.linear": lambda weight: functional.linear(X, weight),
    "F.linear of one row": lambda weight: functional.linear(X[0, 0], weight),
    "@ t()": lambda weight: X @ weight.t(),
    "matmul T": lambda weight: torch.matmul(X, weight.T),
    "matmul transpose": lambda weight: torch.matmul(X[0], weight.transpose(-1, -2)),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode])
def test_products_are_within_the_bound(name: str, mode: Any) -> None:
    weight = tensor()
    with mode():
        result = PRODUCTS[name](weight)
    assert result.shape == PRODUCTS[name](weight.dequantize()).shape
    x = X.reshape(-1, HIDDEN)[: result.numel() // VOCAB].numpy()
    error = np.abs(
        result.detach().reshape(-1, VOCAB).numpy() - reference.linear(x, weight.q4weight)
    )
    assert (error <= reference.linear_bound(x, weight.q4weight)).all()


def test_a_bias_and_its_factors() -> None:
    weight, x, bias = tensor(), X[0], torch.randn(VOCAB)
    want = functional.linear(x, weight.dequantize(), bias)
    assert torch.allclose(functional.linear(x, weight, bias), want, atol=1e-4)
    want = torch.addmm(bias, x, weight.dequantize().t(), beta=0.5, alpha=2)
    assert torch.allclose(torch.addmm(bias, x, weight.t(), beta=0.5, alpha=2), want, atol=1e-4)
    y = torch.randn(2, VOCAB)
    exact = torch.from_numpy(reference.linear_transposed(y.numpy(), weight.q4weight))
    bound = torch.from_numpy(reference.linear_transposed_bound(y.numpy(), weight.q4weight))
    assert (((y @ weight).double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradients_pass_a_product(dtype: torch.dtype) -> None:
    weight: Any = tensor().to(dtype)
    x = X[0].to(dtype).requires_grad_(True)
    gradient = torch.randn(3, VOCAB, dtype=dtype)
    result: Any = functional.linear(x, weight)
    result.backward(gradient)
    assert x.grad is not None
    g = gradient.float().numpy()
    exact = torch.from_numpy(reference.linear_transposed(g, weight.q4weight))
    bound = torch.from_numpy(reference.linear_transposed_bound(g, weight.q4weight))
    assert ((x.grad.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("change", ["zero_", "normal_", "neg_"])
def test_a_change_in_place_is_refused(change: str) -> None:
    weight = tensor()
    before = weight.dequantize()
    with pytest.raises(TypeError, match="would change a 4-bit matrix in place"):
        getattr(weight, change)()
    with pytest.raises(TypeError, match="would change a 4-bit matrix in place"):
        weight.copy_(before * 2)
    for rows in (weight, weight.data, weight.t()):
        with pytest.raises(TypeError, match="rows of weight would change a 4-bit matrix in place"):
            rows[0] = 0
    assert torch.equal(weight.dequantize(), before)


def test_a_gradient_is_refused_as_the_modules_give_none() -> None:
    weight = tensor()
    assert weight.requires_grad_(False) is weight
    with pytest.raises(TypeError, match="a 4-bit matrix is frozen and has no gradient: train an"):
        weight.requires_grad_()
    assert not weight.requires_grad


def test_copies_share_the_matrix_and_pickles_find_it_again() -> None:
    weight = tensor()
    assert copy.deepcopy(weight) is weight
    copies: list[Any] = [weight.clone(), weight.detach()]
    assert all(each.q4weight is weight.q4weight for each in copies)
    loaded = pickle.loads(pickle.dumps(weight))
    assert torch.equal(loaded.dequantize(), weight.dequantize())


def test_another_module_takes_it() -> None:
    first = QuantizedEmbedding(random_weight(), dtype=torch.float16)
    second = QuantizedLinear(first.weight)
    assert second.weight is first.weight
    assert second.dtype == torch.float16


class Reads(nn.Module):
    """A forward that does to its head's weight what those of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = QuantizedLinear(random_weight())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.head.weight
        x = x.to(weight.dtype).to(weight.device) + weight[3]
        return functional.linear(x, weight) * weight.shape[0]


def test_compiles() -> None:
    torch._dynamo.reset()
    model = Reads()
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(X), model(X))


def test_models_that_read_the_weight_themselves_run() -> None:
    from transformers import MambaConfig, MambaForCausalLM, MobileBertConfig, MobileBertForMaskedLM

    mamba = MambaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, state_size=8, num_hidden_layers=1, time_step_rank=4
    )
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "embedding_size": 32}
    sizes |= {"true_hidden_size": 32, "intra_bottleneck_size": 32, "num_attention_heads": 2}
    mobile = MobileBertConfig(vocab_size=VOCAB, num_hidden_layers=1, **sizes)
    models: list[Any] = [build(lambda: MambaForCausalLM(mamba))]
    models.append(build(lambda: MobileBertForMaskedLM(mobile)))
    for model in models:
        twin = copy.deepcopy(model)
        tie(model, 8)
        dequantized = model.get_input_embeddings().weight.dequantize()
        with torch.no_grad():
            twin.get_input_embeddings().weight.copy_(dequantized)
            want, got = twin(input_ids=IDS).logits, model(input_ids=IDS).logits
        assert torch.allclose(got, want, rtol=1e-4, atol=1e-4)


def test_reading_the_weight_leaves_logits_alone() -> None:
    tie(model := build(llama), 8)
    before = run(model).logits
    assert model.lm_head.weight.sum() != 0
    assert torch.equal(run(model).logits, before)
