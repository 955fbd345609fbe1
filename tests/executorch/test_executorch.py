"""`share_tied_weights` and `detect_tied_linear_weight` on programs that torchao and torch make.

Numbers are held against the program before the pass, against ExecuTorch's own reference ops, and
against `wgpu_q4.embedding` and `linear`.  Files are made by the installed wheel's own partitioner,
preprocessing and data store; `test_inspect` looks further into them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tests.tied_models import (
    EMBED_DIM,
    GROUP,
    IDS,
    PACKED_BYTES,
    SCALES_BYTES,
    VOCAB,
    OnlyLogits,
    OwnOps,
    Tied,
    export,
    lower,
    quantized,
    quantized_int8_activations,
    quantized_shared,
    reasons,
    run,
    weight_of,
)
from wgpu_q4 import FormatError, Q4Weight, embedding, linear, reference
from wgpu_q4.executorch import (
    exportable,
    inspect_pte,
    share_tied_weights,
)

ET_VK = torch.ops.et_vk


def targets(program: ExportedProgram) -> list[Any]:
    return [node.target for node in program.graph.nodes if node.op == "call_function"]


def check_numbers(before: ExportedProgram, after: ExportedProgram, weight: Q4Weight) -> None:
    """Rows to the last bit; logits within the bound of two float32 sums of the same terms."""
    rows, logits = run(after)
    rows_before, logits_before = run(before)
    assert torch.equal(rows, rows_before)
    bound = 2 * reference.linear_bound(rows[0].numpy(), weight)
    assert (np.abs((logits - logits_before)[0].numpy()) <= bound).all()
    assert torch.equal(rows, embedding(IDS, weight))
    assert (np.abs((logits - linear(rows, weight))[0].numpy()) <= bound).all()


# The forms in which a tied matrix comes ----------------------------------------------------------


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
def test_every_form_becomes_one_parameter(make: Any, decomposed: bool) -> None:
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
    assert targets(after).count(ET_VK.embedding_q4gsw.default) == 1
    assert targets(after).count(ET_VK.linear_q4gsw.default) == 1
    check_numbers(before, after, weight)
    longer = torch.randint(0, VOCAB, (1, 40))  # the length is dynamic still
    assert torch.equal(run(after, longer)[0], embedding(longer, weight))


def test_two_dynamic_sizes() -> None:
    """Of ids that are not contiguous, so that flattening them is more than a view."""
    sizes = {"ids": {0: Dim("batch"), 1: Dim("length")}}
    before = torch.export.export(separate_copies(), (IDS.expand(3, -1),), dynamic_shapes=sizes)
    after, _ = share_tied_weights(before)
    ids = torch.randint(0, VOCAB, (5, 11))
    for new, old in zip(run(after, ids), run(before, ids), strict=True):
        assert torch.allclose(new, old, rtol=0, atol=1e-4)


def test_a_name_that_the_model_uses_is_not_taken() -> None:
    class Taken(Tied):
        def __init__(self) -> None:
            super().__init__()
            self.ones_512 = nn.Parameter(torch.full((EMBED_DIM,), 3.0))

        def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
            rows, logits = super().forward(ids)
            return rows * self.ones_512, logits

    before = export(quantized(Taken()))
    after, _ = share_tied_weights(before)
    assert {"ones_512", "ones_512_2"} <= after.state_dict.keys()
    for new, old in zip(run(after), run(before), strict=True):
        assert torch.equal(new, old)


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
    rows, logits = run(after)
    rows_before, logits_before = run(before)
    assert torch.equal(rows, rows_before)
    assert torch.allclose(logits, logits_before, rtol=0, atol=1e-4)


def test_scales_in_both_orders_on_request() -> None:
    before = export(one_parameter())
    after, report = share_tied_weights(before, scales_once=False)
    assert not report.shared[0].scales_once
    assert torch.ops.aten.index.Tensor not in targets(after)
    check_numbers(before, after, weight_of(Tied()))


def test_one_group_a_row_needs_no_second_copy() -> None:
    model = quantized(OnlyLogits(shape=(64, 32)), 32)
    after, report = share_tied_weights(export(model, ids=IDS % 64))
    assert report.shared[0].scales_once
    assert torch.ops.aten.index.Tensor not in targets(after)
    by_row, by_group = (t for n, t in after.state_dict.items() if n.endswith("scales"))
    assert by_row.numpy().tobytes() == by_group.numpy().tobytes()


def test_half_scales_equal_the_ops_on_half_scales() -> None:
    weight = weight_of(Tied(), "float16")
    after, report = share_tied_weights(export(one_parameter()), scales_dtype="float16")
    assert report.shared[0].scales_dtype == "float16"
    rows, logits = run(after)
    assert torch.equal(rows, embedding(IDS, weight))
    bound = 2 * reference.linear_bound(rows[0].numpy(), weight)
    assert (np.abs((logits - linear(rows, weight))[0].numpy()) <= bound).all()


def test_scales_beyond_half_are_refused() -> None:
    model = OnlyLogits()
    with torch.no_grad():
        model.embed.weight[3, 3] = 1e6
    program = export(quantized(model))
    with pytest.raises(FormatError, match="beyond float16"):
        share_tied_weights(program, scales_dtype="float16")
    with pytest.raises(FormatError, match="float32, float16"):
        share_tied_weights(program, scales_dtype="int8")


# Models with more than one embedding and one head -------------------------------------------------


class Busy(nn.Module):
    """Two tied pairs; the first with two embeddings, a head with a bias, and a scale between."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Embedding(VOCAB, EMBED_DIM)
        self.head = nn.Linear(EMBED_DIM, VOCAB)
        self.head.weight = self.embed.weight
        self.other = nn.Embedding(64, 32)
        self.other_head = nn.Linear(32, 64, bias=False)
        self.other_head.weight = self.other.weight

    def forward(self, ids: Tensor) -> Any:
        rows = self.embed(ids) + self.embed(ids + 1) * 0.5
        small = self.other(ids % 64)
        return self.head(rows), self.other_head(small)


def test_two_pairs_several_embeddings_and_a_bias(tmp_path: Path) -> None:
    ids = IDS.clamp(max=VOCAB - 2)
    before = export(quantized(Busy()), dynamic=True, ids=ids)
    after, report = share_tied_weights(before)
    assert [len(shared.embeddings) for shared in report.shared] == [2, 1]
    assert report.shared[0].bytes_saved == 2 * PACKED_BYTES
    for new, old in zip(run(after, ids), run(before, ids), strict=True):
        assert torch.allclose(new, old, rtol=0, atol=1e-4)
    path = tmp_path / "busy.pte"
    path.write_bytes(lower(after))
    blobs = {blob.sha256: blob for blob in inspect_pte(path).blobs}
    for shared in report.shared:
        readers = [user.op for user in blobs[shared.sha256].users]
        assert readers.count("et_vk.embedding_q4gsw.default") == len(shared.embeddings)
        assert readers.count("et_vk.linear_q4gsw.default") == 1


class ThreeReaders(Tied):
    """A third op wants the matrix in floats."""

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        rows, logits = super().forward(ids)
        return rows, logits + self.embed.weight.dequantize().sum()


def test_a_third_reader_still_finds_the_parameter() -> None:
    before = export(quantized_shared(ThreeReaders()))
    after, report = share_tied_weights(before)
    assert report.shared[0].sha256 == weight_of(Tied()).sha256
    assert "reads it too: it is kept" in reasons(report)
    rows, logits = run(after)
    rows_before, logits_before = run(before)
    assert torch.equal(rows, rows_before)
    assert torch.allclose(logits, logits_before, rtol=0, atol=1e-2)  # a sum of 131,072 values


# Files --------------------------------------------------------------------------------------------


def test_upstream_cannot_export_what_this_is_for() -> None:
    """The day this fails, the first half of the pass has become superfluous."""
    with pytest.raises(Exception, match="FusePatternsPass"):
        lower(export(quantized_shared(OnlyLogits())))


@pytest.mark.parametrize(
    ("scales_dtype", "largest"), [(None, 87_500), ("float16", 84_000)], ids=["float32", "float16"]
)
def test_the_tied_model_exports_with_one_blob(
    scales_dtype: Any, largest: int, tmp_path: Path
) -> None:
    model = quantized_shared(OnlyLogits())
    program = export(model, dynamic=True)
    path = tmp_path / "tied.pte"
    path.write_bytes(lower(share_tied_weights(program, scales_dtype=scales_dtype)[0]))
    assert path.stat().st_size < largest
    report = inspect_pte(path)
    (packed,) = [blob for blob in report.blobs if blob.nbytes == PACKED_BYTES]
    assert packed.sha256 == weight_of(OnlyLogits()).sha256
    assert [user.op for user in packed.users] == [
        "et_vk.embedding_q4gsw.default",
        "et_vk.linear_q4gsw.default",
    ]
    size = SCALES_BYTES if scales_dtype is None else SCALES_BYTES // 2
    assert sorted(blob.nbytes for blob in report.blobs) == sorted([PACKED_BYTES, size, 2 * VOCAB])
    assert (len(report.delegates), report.operators) == (1, ())


def test_a_head_with_int8_activations_shares_its_blob(tmp_path: Path) -> None:
    before = export(quantized_int8_activations(Tied()))
    after, report = share_tied_weights(before)
    assert "8-bit activations" in report.shared[0].notes[0]
    for new, old in zip(run(after), run(before), strict=True):
        assert torch.equal(new, old)
    path = tmp_path / "int8.pte"
    path.write_bytes(lower(after))
    (packed,) = [blob for blob in inspect_pte(path).blobs if blob.nbytes == PACKED_BYTES]
    assert packed.sha256 == weight_of(Tied()).sha256
    assert [user.op for user in packed.users] == [
        "et_vk.embedding_q4gsw.default",
        "et_vk.linear_dq8ca_q4gsw.default",
    ]


def test_a_tied_hugging_face_model(tmp_path: Path) -> None:
    """`wgpu_q4.nn.tie`, then `exportable`: the embedding, the final norm and the head."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from wgpu_q4.nn import tie

    torch.manual_seed(0)
    llama: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=EMBED_DIM,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            tie_word_embeddings=True,
        )
    )
    weight = tie(llama).weight

    class Ends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm = llama.model.embed_tokens, llama.model.norm
            self.head = llama.lm_head

        def forward(self, ids: Tensor) -> Any:
            return self.head(self.norm(self.embed(ids)))

    before = export(exportable(Ends()), dynamic=True)
    after, _ = share_tied_weights(before)
    hidden = llama.model.norm(embedding(IDS, weight))
    bound = 2 * reference.linear_bound(hidden[0].detach().numpy(), weight)
    assert (np.abs((run(after) - run(before))[0].numpy()) <= bound).all()
    path = tmp_path / "ends.pte"
    path.write_bytes(lower(after))
    assert [b.sha256 for b in inspect_pte(path).blobs if b.nbytes == PACKED_BYTES] == [
        weight.sha256
    ]


def test_exportable_shares_parameters_and_wants_a_tied_model() -> None:
    source = OwnOps(torch.ones(VOCAB))
    copied: Any = exportable(source)
    assert copied.head.bias is source.head.bias
    assert copied.embed.packed is copied.head.packed
    assert type(source.embed).__name__ == "QuantizedEmbedding"
    assert torch.equal(copied(IDS)[1], source(IDS)[1])
    with pytest.raises(ValueError, match="no module of wgpu_q4"):
        exportable(Tied())


def test_the_report_is_readable() -> None:
    report = share_tied_weights(export(one_parameter()))[1]
    text = str(report)
    assert "512 × 256 in groups of 32, read by embedding, linear" in text
    assert "65,536 bytes packed, once (saves 65,536)" in text
    assert json.dumps(report.shared[0].sha256)[1:-1] == weight_of(Tied()).sha256
