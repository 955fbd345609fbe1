"""`tie` on small random models of several Hugging Face families.

A tied model is held against the same model with the dequantized matrix in both places.  The
embedding must then agree to the last bit, and with it every hidden state, since the body is the
same torch code; the logits may differ by the order of a float32 sum, and by no more than its bound.
"""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BertConfig,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    LlamaForCausalLM,
)
from transformers.models.bart.modeling_bart import BartForCausalLM, BartScaledWordEmbedding

from tests import rich_tables
from tests.tiny_models import (
    HIDDEN,
    IDS,
    SMALL,
    VOCAB,
    bert,
    build,
    double,
    every_family,
    llama,
    run,
    sum_bound,
    values_of,
    with_dequantized_matrix,
)
from wgpu_q4.nn import tie


class TestTie:
    @every_family
    @pytest.mark.parametrize("group_size", [8, 40])
    def test_logits_are_those_of_the_dequantized_matrix(
        self, family: Callable[..., nn.Module], group_size: int
    ) -> None:
        model = build(family)
        report = tie(twin := copy.deepcopy(model), group_size)
        want = run(with_dequantized_matrix(model, report.weight))
        got = run(twin)
        assert torch.equal(got.hidden, want.hidden), "the embedding is not exact"
        head = twin.get_output_embeddings()
        bias = 0.0 if head.bias is None else double(head.bias)
        bound = 2 * sum_bound(double(got.hidden), values_of(report.weight), bias)
        difference = np.abs(double(got.logits) - double(want.logits))
        assert (difference <= bound).all(), (difference / bound).max()
        # The bound must be able to fail: it is far below what another matrix would do.
        other = np.abs(double(run(model).logits) - double(want.logits))
        assert bound.max() < other.max() / 100

    @every_family
    def test_generates_what_the_dequantized_model_generates(
        self, family: Callable[..., nn.Module]
    ) -> None:
        model = build(family)
        report = tie(twin := copy.deepcopy(model), 8)
        options = {"max_new_tokens": 8, "do_sample": False, "min_new_tokens": 8}
        mask = torch.ones_like(IDS)
        want = with_dequantized_matrix(model, report.weight).generate(
            IDS, attention_mask=mask, **options
        )
        got = twin.generate(IDS, attention_mask=mask, **options)
        assert got.shape == (2, IDS.shape[1] + 8)
        assert torch.equal(got, want)

    @every_family
    def test_float_matrix_is_freed(self, family: Callable[..., nn.Module]) -> None:
        model = build(family)
        matrix = weakref.ref(model.get_input_embeddings().weight)
        storage = model.get_input_embeddings().weight.untyped_storage().data_ptr()
        modules = [
            weakref.ref(model.get_input_embeddings()),
            weakref.ref(model.get_output_embeddings()),
        ]
        tie(model, 8)
        gc.collect()
        assert matrix() is None
        assert [module() for module in modules] == [None, None]
        left = [*model.parameters(), *model.buffers()]
        assert all(tensor.untyped_storage().data_ptr() != storage for tensor in left)
        assert all(tensor.shape != (VOCAB, HIDDEN) for tensor in left)

    @every_family
    def test_one_weight_one_copy_on_the_device(self, family: Callable[..., nn.Module]) -> None:
        report = tie(model := build(family), 8)
        assert model.get_input_embeddings().q4weight is report.weight
        assert model.get_output_embeddings().q4weight is report.weight
        run(model)
        (resident,) = report.weight.residents
        padded = sum(-(-n // 4) * 4 for n in (VOCAB * HIDDEN // 2, VOCAB * HIDDEN // 8 * 2))
        assert resident.nbytes == padded

    def test_report(self) -> None:
        report = tie(build(llama), 8)
        packed, scales = VOCAB * HIDDEN // 2, VOCAB * HIDDEN // 8 * 2
        assert report.replaced == ("model.embed_tokens", "lm_head")
        assert report.bytes_before == VOCAB * HIDDEN * 4
        assert report.bytes_after == packed + scales
        assert report.bytes_untied == 2 * (packed + scales)
        assert report.bytes_saved == VOCAB * HIDDEN * 4 - packed - scales
        assert report.weight.scales.dtype == np.float16
        text = str(report)
        assert "model.embed_tokens and lm_head" in text
        assert "two untied" in text
        assert "saved" in text
        assert text.splitlines() == [line.rstrip() for line in text.splitlines()]
        shown = rich_tables.read(report)
        assert shown["read by"] == ["model.embed_tokens, lm_head"]
        assert shown["before, float32"] == [f"{report.bytes_before:,} bytes", "16.00em"]
        assert shown["now, 4 bits, once"][0] == f"{packed + scales:,} bytes"

    def test_report_in_bfloat16_and_float32_scales(self) -> None:
        report = tie(build(llama).bfloat16(), 40, scales_dtype="float32")
        assert report.bytes_before == VOCAB * HIDDEN * 2
        assert report.bytes_after == VOCAB * HIDDEN // 2 + VOCAB * 4
        assert report.weight.scales.dtype == np.float32

    def test_head_bias_is_the_same_parameter(self) -> None:
        model = build(bert)
        bias = model.get_output_embeddings().bias
        tie(model, 8)
        assert model.get_output_embeddings().bias is bias
        assert model.cls.predictions.bias is bias
        model.tie_weights()
        assert model.get_output_embeddings().bias is bias

    @every_family
    def test_tie_weights_afterwards_changes_nothing(self, family: Callable[..., nn.Module]) -> None:
        model = build(family)
        tie(model, 8)
        before = run(model).logits
        model.tie_weights()
        model.tie_weights(recompute_mapping=False)
        assert torch.equal(run(model).logits, before)

    def test_another_model_of_the_class_still_ties(self) -> None:
        tie(build(llama), 8)
        other = build(llama)
        assert other.lm_head.weight is other.model.embed_tokens.weight
        assert LlamaForCausalLM._tied_weights_keys

    def test_every_module_that_holds_the_matrix_is_replaced(self) -> None:
        model = build(llama)
        model.second_head = nn.Linear(HIDDEN, VOCAB)
        model.second_head.weight = model.lm_head.weight
        model.alias = model.model.embed_tokens
        report = tie(model, 8)
        assert set(report.replaced) == {"model.embed_tokens", "lm_head", "second_head", "alias"}
        assert model.alias is model.model.embed_tokens
        assert model.second_head.q4weight is report.weight
        assert model.second_head.bias is not None

    def test_parameters_that_share_memory_count_as_tied(self) -> None:
        model = build(llama)
        model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.data)
        assert model.lm_head.weight is not model.model.embed_tokens.weight
        tie(model, 8)

    def test_scaled_embedding_of_a_fixed_float(self) -> None:
        config = BartConfig(
            vocab_size=VOCAB,
            d_model=HIDDEN,
            decoder_layers=1,
            decoder_attention_heads=5,
            decoder_ffn_dim=48,
            scale_embedding=True,
        )
        model: Any = build(lambda: BartForCausalLM(config))
        assert isinstance(model.get_input_embeddings(), BartScaledWordEmbedding)
        report = tie(twin := copy.deepcopy(model), 8)
        assert twin.get_input_embeddings().embed_scale == pytest.approx(HIDDEN**0.5)
        want = run(with_dequantized_matrix(model, report.weight))
        assert torch.equal(run(twin).hidden, want.hidden)


class TestEncoderDecoders:
    """The decoder ties its embedding to the head, while the model names the encoder's embedding."""

    def bert2bert(self) -> Any:
        half: dict[str, Any] = {**SMALL, "num_hidden_layers": 1}
        config = EncoderDecoderConfig.from_encoder_decoder_configs(
            BertConfig(**half), BertConfig(**half)
        )
        config.decoder_start_token_id, config.pad_token_id = 1, 0
        return build(EncoderDecoderModel, config=config)

    def test_the_decoder_is_tied_by_name(self) -> None:
        model = self.bert2bert()
        encoder = model.encoder.embeddings.word_embeddings.weight
        count = model.num_parameters()
        report = tie(model, 8)
        assert report.replaced == (
            "decoder.bert.embeddings.word_embeddings",
            "decoder.cls.predictions.decoder",
        )
        assert model.encoder.embeddings.word_embeddings.weight is encoder
        assert model.num_parameters() == count
        with pytest.raises(ValueError, match="went through tie before"):
            tie(model, 8)

    def test_it_writes_what_the_dequantized_model_writes(self) -> None:
        model = self.bert2bert()
        report = tie(twin := copy.deepcopy(model), 8)
        twin.tie_weights()
        twin.tie_weights(recompute_mapping=False)
        with torch.no_grad():
            model.get_output_embeddings().weight.copy_(torch.from_numpy(report.weight.dequantize()))
        options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
        want = model.generate(IDS, **options)
        assert torch.equal(twin.generate(IDS, **options), want)

    def test_a_head_that_the_model_does_not_name(self) -> None:
        model = build(llama)
        model.get_output_embeddings = lambda: None
        report = tie(model, 8)
        assert report.replaced == ("model.embed_tokens", "lm_head")


def test_a_double_model_computes_its_logits_in_float32() -> None:
    model = llama().double()
    tie(model, 8)
    ids = torch.arange(5)[None]
    with torch.no_grad():
        logits = model(ids).logits
    assert logits.dtype == torch.float64
    assert bool(torch.isfinite(logits).all())
