"""What `share_tied_weights` leaves alone, and what `detect_tied_linear_weight` finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.quant_primitives import MappingType

from tests.tied_models import (
    EMBED_DIM,
    IDS,
    INT3,
    INT4,
    VOCAB,
    OnlyLogits,
    OwnOps,
    Tied,
    export,
    is_matrix,
    quantized,
    reasons,
    run,
    weight_of,
)
from wgpu_q4.executorch import (
    ShareReport,
    detect_tied_linear_weight,
    exportable,
    share_tied_weights,
)
from wgpu_q4.executorch.versions import SCHEMAS, check_ops, check_versions

# What must be left alone --------------------------------------------------------------------------


class Untied(OnlyLogits):
    def __init__(self, change: Any = None) -> None:
        super().__init__()
        self.head.weight = nn.Parameter(self.embed.weight.detach().clone())
        if change is not None:
            with torch.no_grad():
                change(self.head.weight)


def unchanged(model: nn.Module, ids: Tensor = IDS) -> ShareReport:
    program = export(model, ids=ids)
    after, report = share_tied_weights(program)
    assert after is program
    assert not report.shared
    return report


def test_other_values_are_a_near_miss() -> None:
    report = unchanged(quantized(Untied(lambda w: w[100, 5].neg_())))
    assert "embedding's shape, but other values" in reasons(report)
    assert "no linear holds its matrix" in reasons(report)


def test_other_scales_are_a_near_miss() -> None:
    report = unchanged(quantized(Untied(lambda w: w[7].mul_(2))))
    assert "the same values with other scales" in reasons(report)


def test_a_transposed_matrix_is_a_near_miss() -> None:
    class Transposed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.down = nn.Embedding(128, 64), nn.Linear(128, 64, bias=False)
            self.down.weight = nn.Parameter(self.embed.weight.detach().t().contiguous())

        def forward(self, ids: Tensor) -> Any:
            rows = self.embed(ids)
            return self.down(torch.cat([rows, rows], -1))

    assert "shape transposed" in reasons(unchanged(quantized(Transposed()), IDS % 128))


def test_floats_and_plain_embeddings_are_no_concern_of_the_pass() -> None:
    assert str(unchanged(Tied())) == "no quantized embedding"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            IntxWeightOnlyConfig(INT4, PerGroup(32), mapping_type=MappingType.ASYMMETRIC),
            "asymmetric: its zero points are not all 0",
        ),
        (IntxWeightOnlyConfig(torch.int8, PerGroup(32)), "-128..127, not 4 bits"),
        (IntxWeightOnlyConfig(INT3, PerGroup(32)), "-4..3, not 4 bits"),
        (IntxWeightOnlyConfig(INT4, PerGroup(4)), "groups of 4 are not supported"),
    ],
    ids=["asymmetric", "int8", "int3", "group 4"],
)
def test_unsupported_quantization_is_named(config: Any, reason: str) -> None:
    model = OnlyLogits()
    quantize_(model, config, filter_fn=is_matrix)
    report = unchanged(model)
    assert {left.kind for left in report.left_alone} == {"embedding"}
    assert reason in reasons(report)


def test_an_8_bit_embedding_and_a_4_bit_head_stay_two() -> None:
    model = OnlyLogits()
    quantize_(
        model,
        IntxWeightOnlyConfig(torch.int8, PerGroup(32)),
        filter_fn=lambda module, _: isinstance(module, nn.Embedding),
    )
    quantized(model.head)
    text = str(unchanged(model))
    assert "embedding left alone: its values are in -128..127, not 4 bits in -8..7" in text
    assert "while linear holds a 4-bit matrix of that shape: matrices in two formats cannot" in text


def test_one_scale_for_a_row_is_a_group() -> None:
    model = OnlyLogits()
    quantize_(model, IntxWeightOnlyConfig(INT4, PerAxis(0)), filter_fn=is_matrix)
    _, report = share_tied_weights(export(model))
    assert report.shared[0].group_size == EMBED_DIM


@pytest.mark.parametrize(
    ("shape", "reason"), [((128, 48), "K = 48"), ((101, 64), "V = 101")], ids=["K", "V"]
)
def test_unsupported_shapes_are_named(shape: tuple[int, int], reason: str) -> None:
    report = unchanged(quantized(OnlyLogits(shape=shape), 16), IDS % shape[0])
    assert reason in reasons(report)


def test_half_activations_are_named() -> None:
    model: Any = exportable(OwnOps())
    model.embed.dtype = torch.float16
    assert "force_fp16" in reasons(unchanged(model))


def test_the_edge_dialect_is_refused() -> None:
    from executorch.exir import to_edge

    edge = to_edge(export(OnlyLogits())).exported_program()
    with pytest.raises(ValueError, match="before to_edge"):
        share_tied_weights(edge)


# Detection ----------------------------------------------------------------------------------------


def test_detect_finds_the_one_linear() -> None:
    program = export(quantized(Tied()))
    found = detect_tied_linear_weight(program, "embedding")
    assert found.linear is not None
    assert found.linear.target is torch.ops.aten.linear.default
    assert found.content is not None
    assert found.content.sha256 == weight_of(Tied()).sha256
    node = found.embedding.node
    assert detect_tied_linear_weight(program, node).linear is found.linear


def test_more_than_one_linear_is_ambiguous_and_all_are_shared() -> None:
    class TwoHeads(OnlyLogits):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Linear(EMBED_DIM, VOCAB)
            self.second.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Any:
            rows = self.embed(ids)
            return self.head(rows) + self.second(rows)

    before = export(quantized(TwoHeads()))
    found = detect_tied_linear_weight(before, "embedding")
    assert (found.linear, found.ambiguous, len(found.linears)) == (None, True, 2)
    after, report = share_tied_weights(before)
    assert report.shared[0].linears == ("linear", "linear_1")
    assert torch.allclose(run(after), run(before), rtol=0, atol=1e-4)


def test_detect_names_what_there_is() -> None:
    program = export(quantized(Tied()))
    with pytest.raises(ValueError, match="there are: embedding"):
        detect_tied_linear_weight(program, "linear")
    with pytest.raises(ValueError, match="there are: none"):
        detect_tied_linear_weight(export(OnlyLogits()), "embedding")


# Versions ----------------------------------------------------------------------------------------


def test_versions_are_checked_with_a_clear_message() -> None:
    check_versions()
    with pytest.raises(ImportError, match=r"needs torch 1\.0 \(found 2\.13.*pip install 'torch==1"):
        check_versions({"torch": "1.0"})
    with pytest.raises(ImportError, match=r"no-such-thing 1 \(not installed\)"):
        check_versions({"no-such-thing": "1", "torch": "2.13"})
    with pytest.raises(ImportError):
        check_versions({"torch": "2.1"})  # no prefix of the number 13


def test_the_arguments_of_the_ops_are_checked() -> None:
    check_ops()
    changed = {**SCHEMAS, "linear_q4gsw": "(Tensor self) -> Tensor"}
    with pytest.raises(ImportError, match=r"et_vk\.linear_q4gsw\(Tensor self\) -> Tensor, and"):
        check_ops(changed)
    with pytest.raises(ImportError, match="the op is missing"):
        check_ops({"no_such_op": "() -> Tensor"})
