"""`share_tied_weights` on every form in which torch and torchao hold a tied matrix.

Numbers are held against the program before the pass, against ExecuTorch's own reference ops, and
against `wgpu_q4.embedding` and `linear`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.executorch.programs import ET_VK, calls, check_close, check_numbers, targets
from tests.tied_models import (
    EMBED_DIM,
    GROUP,
    IDS,
    PACKED_BYTES,
    SCALES_BYTES,
    VOCAB,
    OwnOps,
    Tied,
    export,
    quantized,
    quantized_shared,
    run,
    weight_of,
)
from wgpu_q4 import Q4Weight, embedding
from wgpu_q4.executorch import exportable, share_tied_weights


def separate_copies() -> nn.Module:
    model: nn.Module = quantized(Tied())
    return model


def one_parameter() -> nn.Module:
    model: nn.Module = quantized_shared(Tied())
    return model


class Embedding4bit(nn.Module):
    """ExecuTorch's packed embedding, in the embedding convention."""

    packed: Tensor
    scales: Tensor

    def __init__(self, weight: Q4Weight) -> None:
        super().__init__()
        self.register_buffer("packed", torch.from_numpy(weight.packed_as("embedding")))
        self.register_buffer("scales", torch.from_numpy(weight.scales.copy()))

    def forward(self, ids: Tensor) -> Any:
        return torch.ops.quantized_decomposed.embedding_4bit.dtype(
            self.packed, self.scales, None, -8, 7, ids, dtype=torch.float32
        )


def packed_embedding() -> nn.Module:
    import executorch.exir.passes._quant_patterns_and_replacements  # noqa: F401  the op

    model = Tied()
    packed = Embedding4bit(weight_of(model))
    quantized(model)
    model.embed = packed  # type: ignore[assignment]
    return model


def own_ops() -> nn.Module:
    return exportable(OwnOps())


@pytest.mark.parametrize("make", [separate_copies, one_parameter, packed_embedding, own_ops])
@pytest.mark.parametrize("decomposed", [False, True])
def test_every_source_becomes_one_parameter(make: Any, decomposed: bool) -> None:
    weight = weight_of(Tied())
    before = export(make(), dynamic=True)
    if decomposed:
        before = before.run_decompositions({})
    names = [node.name for node in before.graph.nodes]
    after, report = share_tied_weights(before)
    assert [node.name for node in before.graph.nodes] == names  # the argument is not changed

    (shared,) = report.shared
    assert shared.sha256 == weight.sha256
    assert (shared.packed_bytes, shared.scales_bytes) == (PACKED_BYTES, SCALES_BYTES)
    assert (shared.shape, shared.group_size) == ((VOCAB, EMBED_DIM), GROUP)
    assert not report.left_alone
    held = {name: tensor.numel() for name, tensor in after.state_dict.items()}
    assert held == {
        shared.name: PACKED_BYTES,
        f"{shared.name}_scales": SCALES_BYTES // 4,
        f"ones_{VOCAB}": VOCAB,
    }
    assert not after.constants
    assert len(calls(after, ET_VK.embedding_q4gsw.default)) == 1
    assert len(calls(after, ET_VK.linear_q4gsw.default)) == 1
    check_numbers(before, after, weight)
    longer = torch.randint(0, VOCAB, (1, 40))  # the length is dynamic still
    assert torch.equal(run(after, longer)[0], embedding(longer, weight))


@pytest.mark.parametrize("ids", [IDS.int(), IDS[0], IDS[0, 0], IDS.expand(3, -1)], ids=str)
def test_ids_of_any_shape_and_dtype(ids: Tensor) -> None:
    before = export(one_parameter(), ids=ids)
    after, _ = share_tied_weights(before)
    assert torch.equal(run(after, ids)[0], run(before, ids)[0])
    check_close(before, after, ids)


def test_two_dynamic_sizes() -> None:
    """Of ids that are not contiguous, so that flattening them is more than a view."""
    sizes = {"ids": {0: Dim("batch"), 1: Dim("length")}}
    before = torch.export.export(separate_copies(), (IDS.expand(3, -1),), dynamic_shapes=sizes)
    after, _ = share_tied_weights(before)
    check_close(before, after, torch.randint(0, VOCAB, (5, 11)))


def test_how_it_was_held_is_reported() -> None:
    def how(model: nn.Module) -> str:
        return share_tied_weights(export(model))[1].shared[0].how

    assert how(separate_copies()) == "equal copies"
    assert how(one_parameter()) == "the same parameter"
    assert how(packed_embedding()) == "equal copies"


def test_an_alias_is_reported() -> None:
    program = export(one_parameter()).run_decompositions({})
    signature = program.graph_signature.inputs_to_parameters
    # torch.export merged the two parameters into one placeholder; take them apart again.
    other = {t.split(".")[0]: n for n, t in signature.items() if t.endswith("original0")}
    nodes = {node.name: node for node in program.graph.nodes}
    first = next(node for node in program.graph.nodes if "dequantize" in node.name)
    unused = next(name for name in other.values() if not nodes[name].users)
    first.args = (nodes[unused], *first.args[1:])
    assert share_tied_weights(program)[1].shared[0].how == "an alias"


def test_decomposed_to_core_aten() -> None:
    """``mm`` of a transpose instead of ``linear``."""
    table = torch.export.default_decompositions()
    for op in [op for op in list(table) if str(op).startswith("torchao")]:
        del table[op]  # else the quantization itself becomes plain arithmetic
    before = export(quantized(Tied(bias=True)), dynamic=True).run_decompositions(table)
    assert torch.ops.aten.linear.default not in targets(before)
    after, report = share_tied_weights(before)
    assert len(report.shared) == 1
    assert torch.ops.aten.addmm.default not in targets(after)
    assert torch.equal(run(after)[0], run(before)[0])
    check_close(before, after)
