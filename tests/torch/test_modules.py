"""`QuantizedEmbedding` and `QuantizedLinear` by themselves."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from tests import rich_tables
from tests.tiny_models import (
    HIDDEN,
    IDS,
    VOCAB,
    build,
    double,
    every_dtype,
    llama,
    random_weight,
    rounding,
    run,
    sum_bound,
    values_of,
)
from wgpu_q4 import DeviceError, Q4Weight, ops
from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear, tie


class TestOnTheHost:
    """``device="host"``: rows come from the bytes of the weight, and no device has a copy."""

    @every_dtype
    def test_rows_are_those_of_a_device(self, dtype: torch.dtype) -> None:
        weight = random_weight()
        host = QuantizedEmbedding(weight, device="host", dtype=dtype)
        rows = host(IDS)
        assert not list(weight.residents)
        assert torch.equal(rows, QuantizedEmbedding(weight, dtype=dtype)(IDS))
        again = pickle.loads(pickle.dumps(host))
        assert torch.equal(again(IDS), rows)

    def test_products_are_refused(self) -> None:
        embed = QuantizedEmbedding(random_weight(), device="host")
        for head in (embed.as_linear, QuantizedLinear(embed, device="host")):
            with pytest.raises(DeviceError, match="only embedding takes it"):
                head(torch.ones(1, HIDDEN))

    def test_a_graph_looks_up_there_too(self) -> None:
        weight = random_weight()
        embed = QuantizedEmbedding(weight, device="host")
        exported = torch.export.export(embed, (IDS,))
        assert torch.equal(exported.module()(IDS), embed(IDS))
        assert not list(weight.residents)


class TestQuantizedEmbedding:
    @every_dtype
    @pytest.mark.parametrize("scales_dtype", ["float16", "float32"])
    def test_rows_are_exact(self, dtype: torch.dtype, scales_dtype: Any) -> None:
        matrix = torch.randn(VOCAB, HIDDEN, generator=torch.Generator().manual_seed(3))
        weight = Q4Weight.quantize(matrix, 8, scales_dtype)
        module = QuantizedEmbedding(weight, dtype=dtype)
        ids = torch.arange(VOCAB)
        # One product, rounded to float32 and then to the dtype asked for.
        want = torch.from_numpy(values_of(weight).astype(np.float32)).to(dtype)
        assert torch.equal(module(ids), want)

    @every_dtype
    def test_scale_of_gemma(self, dtype: torch.dtype) -> None:
        scaled = Gemma3TextScaledWordEmbedding(VOCAB, HIDDEN, 0, embed_scale=HIDDEN**0.5).to(dtype)
        module = QuantizedEmbedding.from_float(scaled, 8)
        with torch.no_grad():
            scaled.weight.copy_(module.weight.dequantize())
            assert torch.equal(module(IDS), scaled(IDS))
        assert module(IDS).dtype == dtype

    @every_dtype
    def test_from_float(self, dtype: torch.dtype) -> None:
        torch.manual_seed(5)
        embedding = nn.Embedding(VOCAB, HIDDEN, dtype=dtype)
        module = QuantizedEmbedding.from_float(embedding, 40, scales_dtype="float32")
        assert module.dtype == dtype
        assert module.q4weight.same_matrix(Q4Weight.quantize(embedding.weight, 40, "float32"))

    @pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
    @pytest.mark.parametrize("integer", [torch.int32, torch.int64, torch.uint8])
    def test_any_integers_of_any_shape(self, shape: tuple[int, ...], integer: torch.dtype) -> None:
        module = QuantizedEmbedding(random_weight())
        ids = torch.arange(int(np.prod(shape))).reshape(shape).to(integer)
        want = module.weight.dequantize()[ids.long()]
        assert torch.equal(module(ids), want)

    @every_dtype
    def test_as_linear(self, dtype: torch.dtype) -> None:
        module = QuantizedEmbedding(random_weight(), embed_scale=3.0)
        x = torch.randn(3, 2, HIDDEN, generator=torch.Generator().manual_seed(6)).to(dtype)
        bias = torch.randn(VOCAB, generator=torch.Generator().manual_seed(7)).to(dtype)
        values = values_of(module.q4weight)
        exact = double(x) @ values.T + double(bias)
        bound = sum_bound(double(x), values, double(bias))
        bound += rounding(np.abs(exact) + bound, dtype)
        got = module.as_linear(x, bias)
        assert got.dtype == dtype
        assert (np.abs(double(got) - exact) <= bound).all()
        assert torch.equal(QuantizedLinear(module.weight, bias)(x), got)

    def test_shows_itself(self) -> None:
        assert repr(QuantizedEmbedding(random_weight(), embed_scale=torch.tensor(2.0))) == (
            f"QuantizedEmbedding({VOCAB}, {HIDDEN}, group_size=8, dtype=float32, embed_scale=2)"
        )
        assert repr(QuantizedLinear(random_weight())) == (
            f"QuantizedLinear({VOCAB}, {HIDDEN}, group_size=8, bias=False)"
        )

    def test_shows_its_matrix_and_who_reads_it_in_a_notebook(self) -> None:
        embedding = QuantizedEmbedding(random_weight())
        head = QuantizedLinear(embedding)
        shown = rich_tables.read(head)
        assert shown[""] == [repr(head)]
        assert shown["matrix of"] == ["QuantizedEmbedding, QuantizedLinear"]
        assert shown["shape"] == [f"{VOCAB} × {HIDDEN}"]
        assert shown["on devices"] == ["none yet (uploaded at first use)"]
        embedding(torch.tensor([1]))
        (resident,) = head.q4weight.residents
        assert rich_tables.read(head)["on devices"] == [resident.describe()]

    def test_refuses_a_float_matrix(self) -> None:
        with pytest.raises(TypeError, match="must be a Q4Weight, not Parameter"):
            QuantizedEmbedding(nn.Parameter(torch.zeros(8, 8)))  # type: ignore[arg-type]

    def test_refuses_another_weight(self) -> None:
        module = QuantizedEmbedding(random_weight())
        module.weight = module.weight  # as code that ties weights again does it
        before = module(IDS)
        for other in (nn.Parameter(torch.zeros(VOCAB, HIDDEN)), module.weight.half(), None):
            with pytest.raises(TypeError, match=r"weight cannot be assigned: replace the module"):
                module.weight = other  # type: ignore[assignment]
        assert torch.equal(module(IDS), before)
        assert not list(module.parameters())

    def test_refuses_an_integer_dtype(self) -> None:
        with pytest.raises(ValueError, match=r"one of float16, .* not torch\.int32"):
            QuantizedEmbedding(random_weight(), dtype=torch.int32)

    @pytest.mark.parametrize("half", [np.float16, "half", torch.half])
    def test_takes_its_dtype_as_numpy_or_torch_write_it(self, half: Any) -> None:
        assert QuantizedEmbedding(random_weight(), dtype=half).dtype == torch.float16

    def test_refuses_float_ids(self) -> None:
        with pytest.raises(TypeError):
            QuantizedEmbedding(random_weight())(torch.zeros(3))


class TestQuantizedLinear:
    def test_from_float_keeps_the_bias(self) -> None:
        torch.manual_seed(8)
        linear = nn.Linear(HIDDEN, VOCAB)
        module = QuantizedLinear.from_float(linear, 8)
        assert module.bias is linear.bias
        x = torch.randn(5, HIDDEN)
        values, bias = values_of(module.q4weight), double(linear.bias)
        exact = double(x) @ values.T + bias
        assert (np.abs(double(module(x)) - exact) <= sum_bound(double(x), values, bias)).all()

    def test_refuses_a_bias_of_another_length(self) -> None:
        with pytest.raises(ValueError, match=re.escape(f"[V] = [{VOCAB}], not [{VOCAB + 1}]")):
            QuantizedLinear(random_weight(), torch.zeros(VOCAB + 1))

    def test_refuses_other_modules(self) -> None:
        with pytest.raises(TypeError, match=r"must be an nn\.Linear, not Conv1d"):
            QuantizedLinear.from_float(nn.Conv1d(8, 8, 1))  # type: ignore[arg-type]


class TestAccuracy:
    """Which accuracy reaches `wgpu_q4.linear`; what it computes is that op's own matter."""

    @pytest.fixture
    def asked_for(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The accuracy of every product from here on."""
        seen: list[str] = []
        linear = ops.linear

        def watched(*given: Any, accuracy: Any, **options: Any) -> Any:
            seen.append(accuracy)
            return linear(*given, accuracy=accuracy, **options)

        monkeypatch.setattr(ops, "linear", watched)
        return seen

    def test_of_a_module(self, asked_for: list[str]) -> None:
        weight, x = random_weight(), torch.randn(2, HIDDEN)
        QuantizedLinear(weight)(x)
        QuantizedLinear(weight, accuracy="fast")(x)
        QuantizedLinear.from_float(nn.Linear(HIDDEN, VOCAB), 8, accuracy="int8")(x)
        QuantizedEmbedding(weight).as_linear(x)
        QuantizedEmbedding(weight).as_linear(x, accuracy="int8")
        assert asked_for == ["exact", "fast", "int8", "exact", "int8"]

    def test_of_a_tied_model_and_its_copies(self, asked_for: list[str]) -> None:
        model: Any = build(llama)
        tie(model, 8, accuracy="int8")
        for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            run(each)
        assert asked_for == ["int8"] * 3
        assert repr(model.get_output_embeddings()) == (
            f"QuantizedLinear({VOCAB}, {HIDDEN}, group_size=8, bias=False, accuracy=int8)"
        )

    def test_one_that_does_not_exist_is_refused_early(self) -> None:
        model: Any = build(llama)
        before = model.get_input_embeddings()
        message = "accuracy must be one of exact, fast, int8, not 'sloppy'"
        with pytest.raises(ValueError, match=message):
            tie(model, 8, accuracy="sloppy")  # type: ignore[call-overload]
        assert model.get_input_embeddings() is before
        with pytest.raises(ValueError, match=message):
            QuantizedLinear(random_weight(), accuracy="sloppy")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message):
            QuantizedEmbedding(random_weight()).as_linear(
                torch.zeros(1, HIDDEN),
                accuracy="sloppy",  # type: ignore[arg-type]
            )
