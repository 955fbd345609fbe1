"""`share_tied_weights` on models with more than one embedding and one head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.executorch.programs import check_close
from tests.tied_models import (
    EMBED_DIM,
    IDS,
    PACKED_BYTES,
    VOCAB,
    OwnOps,
    Tied,
    export,
    lower,
    quantized,
    quantized_shared,
    reasons,
    run,
    weight_of,
)
from wgpu_q4 import embedding, reference
from wgpu_q4.executorch import exportable, inspect_pte, share_tied_weights


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
    check_close(before, after, ids)
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
    assert torch.equal(run(after)[0], run(before)[0])
    check_close(before, after, atol=1e-2)  # a sum of 131,072 values


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
    after, report = share_tied_weights(before)
    assert weight.scales.dtype == np.float16
    assert report.shared[0].scales_dtype == "float32"  # no runtime takes float16 beside float32
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
