"""A model with 4-bit modules as an ONNX file, run by ONNX Runtime on the processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.export import Dim

import wgpu_q4.onnx
from tests.tiny_models import (
    IDS,
    bert,
    build,
    double,
    gemma3,
    llama,
    random_weight,
    rounding,
    sum_bound,
    values_of,
)
from wgpu_q4 import Q4Weight
from wgpu_q4.errors import FormatError
from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear, tie

VOCAB, HIDDEN = 103, 64
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_attention_heads": 4,
}
SOME = {0: Dim("batch"), 1: Dim("length")}

pytestmark = [
    # torch's own code meets what torch deprecates, and names of axes that a module shares.
    pytest.mark.filterwarnings("ignore:.*treespec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*dynamic axes will not be renamed"),
]


class Both(nn.Module):
    """Rows of the matrix, and what the head makes of them."""

    def __init__(self, weight: Q4Weight, bias: Tensor | None = None, **options: Any) -> None:
        super().__init__()
        self.embedding = QuantizedEmbedding(weight, device=options.pop("device", None))
        self.head = QuantizedLinear(self.embedding, bias, **options)

    def forward(self, ids: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.embedding(ids), self.head(x)


def session(path: Path) -> Any:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def initializers(path: Path) -> dict[str, onnx.TensorProto]:
    return {each.name: each for each in onnx.load(path).graph.initializer}


def run_both(module: Both, ids: Tensor, x: Tensor, path: Path) -> list[NDArray[Any]]:
    """Export for any sizes, traced on others, and run."""
    some = torch.zeros(2, 3, dtype=ids.dtype), torch.zeros(4, 5, x.shape[-1], dtype=x.dtype)
    shapes = {"ids": SOME, "x": {0: Dim("rows"), 1: Dim("columns")}}
    wgpu_q4.onnx.export(module.eval(), some, path, dynamic_shapes=shapes)
    results: list[NDArray[Any]] = session(path).run(None, {"ids": ids.numpy(), "x": x.numpy()})
    return results


@pytest.mark.parametrize(
    ("group_size", "ids_dtype"), [(16, torch.int64), (32, torch.int32), (64, torch.uint8)]
)
def test_rows_are_exact_and_products_within_the_bound(
    group_size: int, ids_dtype: torch.dtype, tmp_path: Path
) -> None:
    weight = random_weight(VOCAB, HIDDEN, group_size)
    bias = torch.randn(VOCAB)
    ids, x = torch.arange(VOCAB, dtype=ids_dtype)[None], torch.randn(1, 7, HIDDEN)
    rows, logits = run_both(Both(weight, bias), ids, x, tmp_path / "both.onnx")
    assert rows.dtype == logits.dtype == np.float32
    assert np.array_equal(rows[0], values_of(weight))
    exact = double(x) @ values_of(weight).T + double(bias)
    assert (np.abs(logits - exact) <= sum_bound(double(x), values_of(weight), double(bias))).all()


@pytest.mark.parametrize(
    ("device", "accuracy", "level"),
    [("llvmpipe", "exact", 1), (None, "fast", 2), ("llvmpipe", "int8", 4)],
)
def test_the_accuracy_is_that_of_onnx_runtime(
    device: str | None, accuracy: Any, level: int, tmp_path: Path
) -> None:
    """Such modules go through other ops: with the name of a device, or an accuracy."""
    weight = random_weight(VOCAB, HIDDEN, 32)
    both = Both(weight, device=device, accuracy=accuracy)
    x = torch.randn(1, 5, HIDDEN)
    rows, logits = run_both(both, IDS, x, path := tmp_path / "both.onnx")
    assert np.array_equal(rows, values_of(weight)[IDS])
    (product,) = (n for n in onnx.load(path).graph.node if n.op_type == "MatMulNBits")
    assert {a.name: a.i for a in product.attribute}["accuracy_level"] == level
    # int8: x is rounded to half a 127th of the largest in its group.
    each = np.abs(double(x)).max() / 254 * np.abs(values_of(weight)).sum(1)
    bound = sum_bound(double(x), values_of(weight)) + (each if accuracy == "int8" else 0)
    assert (np.abs(logits - double(x) @ values_of(weight).T) <= bound).all()


@pytest.mark.parametrize(
    ("dtype", "scales"),
    [
        (torch.float16, "float16"),
        (torch.float16, "float32"),
        (torch.bfloat16, "float16"),
        (torch.float64, "float32"),
    ],
)
def test_other_dtypes(dtype: torch.dtype, scales: str, tmp_path: Path) -> None:
    matrix = np.random.default_rng(5).normal(size=(VOCAB, HIDDEN)).astype(np.float32)
    weight = Q4Weight.quantize(matrix, 32, scales)
    both = Both(weight).eval().to(dtype)
    program = wgpu_q4.onnx.export(both, (IDS, torch.zeros(1, HIDDEN, dtype=dtype)))
    program.save(path := tmp_path / "both.onnx")
    stored = initializers(path)["head.weight_scales"]
    assert stored.data_type == onnx.helper.np_dtype_to_tensor_dtype(np.dtype(scales))
    if dtype == torch.bfloat16:  # numpy has no such arrays to give
        onnx.checker.check_model(path)
        return
    x = torch.randn(1, HIDDEN, dtype=dtype)
    rows, logits = session(path).run(None, {"ids": IDS.numpy(), "x": x.numpy()})
    rounded = torch.from_numpy(values_of(weight)).float().to(dtype)
    assert np.array_equal(rows, rounded.numpy()[IDS])
    exact = double(x) @ values_of(weight).T
    bound = sum_bound(double(x), values_of(weight))
    if dtype == torch.float16:
        bound += rounding(np.abs(exact) + bound, dtype)
    else:  # x is rounded to float32 first
        bound += 2.0**-24 * (np.abs(double(x)) @ np.abs(values_of(weight)).T)
    assert logits.dtype == x.numpy().dtype
    assert (np.abs(logits - exact) <= bound).all()


@pytest.mark.parametrize("family", [llama, gemma3, bert], ids=lambda each: each.__name__)
def test_a_tied_model_reads_one_matrix_and_writes_the_same_tokens(
    family: Callable[..., nn.Module], tmp_path: Path
) -> None:
    more = {} if family is bert else {"num_key_value_heads": 4}
    model = build(family, **SIZES, **more)
    report = tie(model, 32)
    path = tmp_path / "model.onnx"
    options = {"input_ids": SOME, "use_cache": None}
    wgpu_q4.onnx.export(model, (IDS,), path, kwargs={"use_cache": False}, dynamic_shapes=options)

    graph = onnx.load(path).graph
    (gather,) = (n for n in graph.node if n.op_type == "GatherBlockQuantized")
    (product,) = (n for n in graph.node if n.op_type == "MatMulNBits")
    assert gather.input[0] == product.input[1]
    stored = initializers(path)
    packed = numpy_helper.to_array(stored[gather.input[0]])
    assert packed.tobytes() == report.weight.packed_as("linear").tobytes()
    scales = [t for t in stored.values() if t.data_type == onnx.TensorProto.FLOAT16]
    assert [numpy_helper.to_array(t).tobytes() for t in scales] == [report.weight.scales.tobytes()]
    # One file holds it all, the matrix once; each value starts at a multiple of a few bytes.
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    data = (tmp_path / "model.onnx.data").read_bytes()
    assert data.count(packed.tobytes()) == 1
    values = sum(numpy_helper.to_array(t).nbytes for t in stored.values())
    assert len(data) <= values
    assert report.bytes_after < report.bytes_before / 6

    # What goes into the head becomes an output too: its product is then held to its bound, and the
    # rows to the last bit, whatever ONNX Runtime rounds in the body between.
    opened = onnx.load(path)
    into_head, rows = product.input[0], gather.output[0]
    for name in (into_head, rows):
        opened.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    run: Any = onnxruntime.InferenceSession(opened.SerializeToString())
    (logits, hidden, looked_up) = run.run(None, {"input_ids": IDS.numpy()[:, :4]})
    values_read = values_of(report.weight)
    assert np.array_equal(looked_up.reshape(2, 4, HIDDEN), values_read[IDS[:, :4]])
    bias = model.get_output_embeddings().bias
    added = 0.0 if bias is None else double(bias)
    exact = hidden.astype(np.float64) @ values_read.T + added
    assert (np.abs(logits - exact) <= sum_bound(np.abs(hidden), values_read, added)).all()

    wanted, got = IDS, IDS.numpy()
    onnx_model = session(path)
    for _ in range(6):  # greedy
        with torch.no_grad():
            next_ids = model(input_ids=wanted, use_cache=False).logits[:, -1].argmax(-1)
        wanted = torch.cat([wanted, next_ids[:, None]], 1)
        logits = onnx_model.run(None, {"input_ids": got})[0]
        got = np.concatenate([got, logits[:, -1].argmax(-1)[:, None]], 1)
    assert np.array_equal(got, wanted.numpy())


def test_the_table_alone_makes_a_valid_graph(tmp_path: Path) -> None:
    """For those who call torch's own function; the bytes have a Reshape then."""
    weight = random_weight(VOCAB, HIDDEN, 32)
    program: Any = torch.onnx.export(
        Both(weight).eval(),
        (IDS, torch.zeros(1, HIDDEN)),
        custom_translation_table=wgpu_q4.onnx.custom_translation_table(),
        verbose=False,
    )
    program.save(path := tmp_path / "both.onnx")
    x = torch.randn(1, HIDDEN)
    rows, logits = session(path).run(None, {"ids": IDS.numpy(), "x": x.numpy()})
    assert np.array_equal(rows, values_of(weight)[IDS])
    exact = double(x) @ values_of(weight).T
    assert (np.abs(logits - exact) <= sum_bound(double(x), values_of(weight))).all()


@pytest.mark.parametrize("optimize", [True, False])
def test_no_node_stands_between_the_bytes_and_the_operators(optimize: bool) -> None:
    given = IDS, torch.zeros(1, HIDDEN)
    both = Both(random_weight(VOCAB, HIDDEN, 32)).eval()
    graph = wgpu_q4.onnx.export(both, given, optimize=optimize).model.graph
    assert {str(each.dtype) for each in graph.initializers.values()} >= {"UINT8", "FLOAT16"}
    readers = [
        {user.op_type for user in value.consumers()}
        for value in graph.initializers.values()
        if str(value.dtype) == "UINT8"
    ]
    assert readers == [{"GatherBlockQuantized", "MatMulNBits"}]
    assert "Transpose" not in {node.op_type for node in graph}, "the scales are [V, K/G] already"


@pytest.mark.parametrize("group_size", [8, 40])
def test_groups_that_onnx_runtime_does_not_take(group_size: int, tmp_path: Path) -> None:
    model = build(llama)
    tie(model, group_size)
    words = f"groups of 16, 32, 64 and further powers of two, not of {group_size}"
    with pytest.raises(FormatError, match=words):
        wgpu_q4.onnx.export(model, (IDS,), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_older_exporter_is_refused() -> None:
    with pytest.raises(TypeError, match="dynamo=False"):
        wgpu_q4.onnx.export(nn.Linear(2, 2), (torch.zeros(2),), dynamo=False)


def test_bytes_in_the_other_convention_are_refused() -> None:
    weight = random_weight(VOCAB, HIDDEN, 32)

    class Rows(nn.Module):
        def forward(self, ids: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
            rows: Tensor = torch.ops.wgpu_q4.embedding_q4gsw(packed, scales, 32, ids, False)
            return rows

    given = IDS, *map(torch.tensor, (weight.packed_as("embedding"), weight.scales))
    with pytest.raises(torch.onnx.errors.OnnxExporterError) as caught:
        wgpu_q4.onnx.export(Rows().eval(), given)
    assert "linear convention" in str(caught.value)
