"""Heads with 8-bit activations, what 8da4w models have: ``et_vk.linear_dq8ca_q4gsw``.

The Vulkan runtime packs a matrix once for each value of its graph that names it, so embedding and
head must name the same value, not equal bytes in two.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram

from tests.executorch.programs import check_close
from tests.tied_models import (
    IDS,
    PACKED_BYTES,
    VOCAB,
    OnlyLogits,
    Tied,
    export,
    lower,
    quantized_int8_activations,
    quantized_shared,
    reasons,
    run,
    weight_of,
)
from wgpu_q4.executorch import inspect_pte, share_tied_weights
from wgpu_q4.executorch.lowering import group_sums
from wgpu_q4.pte.graph import Graph
from wgpu_q4.pte.program import read_pte

EMBEDDING, LINEAR, LINEAR_8BIT = (
    f"et_vk.{name}.default" for name in ("embedding_q4gsw", "linear_q4gsw", "linear_dq8ca_q4gsw")
)


def graph_of(program: ExportedProgram, path: Path) -> Graph:
    path.write_bytes(lower(program))
    (delegate,) = read_pte(path).delegates
    assert delegate.graph is not None
    return delegate.graph


def matrices(graph: Graph) -> dict[str, int]:
    """The number of the value that each 4-bit op names as its matrix."""
    place = {EMBEDDING: 0, LINEAR: 1, LINEAR_8BIT: 3}
    return {call.op: call.args[place[call.op]] for call in graph.calls if call.op in place}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_embedding_and_head_name_one_value(dynamic: bool, tmp_path: Path) -> None:
    before = export(quantized_int8_activations(Tied()), dynamic=dynamic)
    after, report = share_tied_weights(before)
    assert torch.equal(run(after)[0], run(before)[0])
    check_close(before, after)
    graph = graph_of(after, tmp_path / "int8.pte")
    named = matrices(graph)
    assert named.keys() == {EMBEDDING, LINEAR_8BIT}
    assert named[EMBEDDING] == named[LINEAR_8BIT]
    constants = [c for c in graph.constants.values() if c.shape == (VOCAB, 128)]
    assert [constant.key for constant in constants] == [report.shared[0].sha256]


def test_without_the_pass_equal_bytes_are_two_values(tmp_path: Path) -> None:
    """The day this fails, the pass is not needed for these models."""
    named = matrices(graph_of(export(quantized_int8_activations(Tied())), tmp_path / "untied.pte"))
    assert named[EMBEDDING] != named[LINEAR_8BIT]


def test_a_weight_only_head_names_the_value_too(tmp_path: Path) -> None:
    """Runtimes before 1.4 pack it once for both ops, as it is."""
    after, _ = share_tied_weights(export(quantized_shared(OnlyLogits()), dynamic=True))
    named = matrices(graph_of(after, tmp_path / "tied.pte"))
    assert named.keys() == {EMBEDDING, LINEAR}
    assert named[EMBEDDING] == named[LINEAR]


def test_one_blob_with_two_readers(tmp_path: Path) -> None:
    path = tmp_path / "int8.pte"
    program = export(quantized_int8_activations(Tied()))
    path.write_bytes(lower(share_tied_weights(program)[0]))
    report = inspect_pte(path)
    (packed,) = [blob for blob in report.blobs if blob.nbytes == PACKED_BYTES]
    assert packed.sha256 == weight_of(Tied()).sha256
    assert [user.op for user in packed.users] == [EMBEDDING, LINEAR_8BIT]
    assert (len(report.delegates), report.operators) == (1, ())


def test_a_batch_is_quantized_as_a_matrix() -> None:
    """Row by row, so that folding changes no number; upstream aborts on the batch as it is."""
    ids = torch.arange(15).reshape(3, 5)
    before = export(quantized_int8_activations(Tied()), ids=ids)
    after, _ = share_tied_weights(before)
    (choose,) = [node for node in after.graph.nodes if "choose_qparams" in node.name]
    assert choose.args[0].meta["val"].shape == (15, 256)
    check_close(before, after, ids)


def test_activations_quantized_in_another_way_are_named() -> None:
    class Static(Tied):
        """One scale for all of x."""

        def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
            rows = self.embed(ids)
            scale, zero = torch.tensor(0.05), torch.tensor(0)
            block = list(rows.shape)
            x = torch.ops.torchao.quantize_affine(rows, block, scale, zero, torch.int8, -128, 127)
            x = torch.ops.torchao.dequantize_affine(x, block, scale, zero, torch.int8, -128, 127)
            return rows, self.head(x)

    program = export(quantized_shared(Static()))
    same, report = share_tied_weights(program)
    assert same is program
    assert "not to 8 bits row by row" in reasons(report)


@pytest.mark.parametrize("vocab", [8, 12])
def test_sums_are_not_padded(vocab: int) -> None:
    """ExecuTorch pads them to a multiple of 8 rows, which its shader does not expect."""
    values = torch.randint(-8, 8, (vocab, 64), generator=torch.Generator().manual_seed(0))
    packed = ((values[:, ::2] + 8) | ((values[:, 1::2] + 8) << 4)).to(torch.uint8)
    expected = values.reshape(vocab, -1, 16).sum(-1).t()
    sums = group_sums(packed, 16)
    assert torch.equal(sums, expected.int())
    assert sums.is_contiguous()
    assert IDS.max() == VOCAB - 1
