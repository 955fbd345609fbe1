"""Tied models under torch's tracers: compile in one graph, export, fake and meta tensors."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim

from tests.cases import anew
from tests.tiny_models import IDS, VOCAB, build, llama, random_weight
from wgpu_q4 import request_device
from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear, tie

OPS = torch.ops.wgpu_q4


class Ends(nn.Module):
    """Both ends of a model on one matrix."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        accuracy = options.pop("accuracy", "exact")
        self.embed = QuantizedEmbedding(anew(random_weight()), embed_scale=3.0, **options)
        self.head = QuantizedLinear(self.embed, torch.randn(VOCAB), accuracy=accuracy, **options)

    def forward(self, ids: Tensor) -> Any:
        return self.head(self.embed(ids))


@pytest.fixture(autouse=True)
def fresh() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("warm", [False, True])
def test_compiles_in_one_graph_with_dynamic_shapes(warm: bool) -> None:
    model = Ends()
    expected = model(IDS) if warm else None
    compiled: Any = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for length in (6, 3, 5):
            ids = IDS[:, :length].contiguous()
            assert torch.equal(compiled(ids), model(ids))
    assert expected is None or torch.equal(compiled(IDS), expected)
    (resident,) = model.embed.q4weight.residents
    assert resident.describe().endswith("embedding, linear"), "the matrix was uploaded again"


def test_a_tied_hugging_face_model_compiles_in_one_graph() -> None:
    tie(model := build(llama), 8)
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for length in (6, 4):
        ids = IDS[:, :length].contiguous()
        with torch.no_grad():
            assert torch.equal(compiled(ids).logits, model(ids).logits)


def test_a_compiled_model_has_the_gradients_of_the_model() -> None:
    tie(model := build(llama), 8)
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    found = []
    for each in (model, compiled):
        model.zero_grad()
        each(input_ids=IDS, labels=IDS).loss.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters()})
    for name, want in found[0].items():
        assert torch.allclose(found[1][name], want, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_a_dynamic_length(strict: bool) -> None:
    model = Ends()
    program = torch.export.export(
        model, (IDS,), dynamic_shapes={"ids": {0: Dim("batch"), 1: Dim("length")}}, strict=strict
    )
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(OPS.embedding_q4gsw.default) == 1
    assert targets.count(OPS.linear_q4gsw.default) == 1
    ids = torch.randint(0, VOCAB, (4, 7))
    with torch.no_grad():
        assert torch.equal(program.module()(ids), model(ids))
        torch.export.save(program, file := io.BytesIO())
        file.seek(0)
        assert torch.equal(torch.export.load(file).module()(ids), model(ids))


@pytest.mark.parametrize("options", [{"accuracy": "int8"}, {"device": "llvmpipe"}], ids=str)
def test_accuracy_and_device_go_into_the_graph(options: Any) -> None:
    model = Ends(**options)
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(IDS), model(IDS))
    (resident,) = model.embed.q4weight.residents
    assert resident.describe().endswith("embedding, linear")


def test_a_device_object_goes_into_the_graph_and_is_not_kept_by_it() -> None:
    model = Ends(device=request_device())
    compiled: Any = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(compiled(IDS), model(IDS))
    assert len(model.embed.q4weight.residents) == 1, "the graph runs on another device"


def test_meta_tensors_have_their_shapes() -> None:
    model = Ends()
    logits = model(IDS.to("meta"))
    assert (logits.device.type, logits.shape) == ("meta", (2, 6, VOCAB))
    assert not list(model.embed.q4weight.residents), "something was computed"
    half = copy.deepcopy(model).half()
    assert half.embed(IDS.to("meta")).dtype == torch.float16


def test_fake_tensors_have_their_shapes() -> None:
    model = Ends()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        logits = model(mode.from_tensor(IDS))
        assert logits.shape == (2, 6, VOCAB)
    with pytest.raises(TypeError, match="integer"):
        model.embed(IDS.to("meta").float())
