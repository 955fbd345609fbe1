"""A tied model afterwards: saved, loaded, copied, pickled, cast, and used wrongly."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_models import (
    HIDDEN,
    IDS,
    VOCAB,
    bert,
    build,
    double,
    every_dtype,
    gemma3,
    llama,
    random_weight,
    rounding,
    run,
    sum_bound,
    values_of,
)
from wgpu_q4 import request_device
from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear, tie


class TestAfterwards:
    """What a tied model can still do, and what it says about the rest."""

    def test_state_dict_round_trip(self, tmp_path: Path) -> None:
        model = build(bert)
        with torch.no_grad():
            model.get_input_embeddings().weight.normal_()  # a matrix that no other test has
        report = tie(model, 8)
        torch.save(model.state_dict(), tmp_path / "model.pt")

        torch.manual_seed(21)
        other: Any = bert().eval()
        tie(other, 40)
        assert not torch.equal(run(other).logits, run(model).logits)
        # weights_only, torch's default: nothing in the file is code.
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(run(other).logits, run(model).logits)
        assert other.get_input_embeddings().q4weight is report.weight
        assert other.get_output_embeddings().q4weight is report.weight

    def test_a_loaded_model_is_tied_without_the_model_that_saved(self) -> None:
        file = io.BytesIO()
        tie(model := build(llama), 8)
        digest = model.lm_head.q4weight.sha256
        torch.save(model.state_dict(), file)
        del model
        gc.collect()
        tie(other := build(llama), 40)
        file.seek(0)
        other.load_state_dict(torch.load(file))
        assert other.lm_head.weight is other.model.embed_tokens.weight
        assert other.lm_head.q4weight.sha256 == digest
        run(other)
        assert len(other.lm_head.q4weight.residents) == 1

    def test_state_dict_stores_the_matrix_once_and_no_float_matrix(self) -> None:
        sizes = []
        for vocab in (1000, 9000):
            report = tie(model := build(llama, vocab_size=vocab), 8)
            torch.save(model.state_dict(), file := io.BytesIO())
            sizes.append((file.tell(), report.bytes_after))
        (small, packed_small), (large, packed_large) = sizes
        assert large - small == pytest.approx(packed_large - packed_small, rel=0.01)

    def test_state_of_another_shape(self) -> None:
        module = QuantizedLinear(random_weight())
        state = QuantizedLinear(random_weight(VOCAB + 1)).state_dict()
        words = re.escape(
            f"[{VOCAB + 1}, {HIDDEN}]; this QuantizedLinear needs [{VOCAB}, {HIDDEN}]"
        )
        with pytest.raises(RuntimeError, match=words):
            module.load_state_dict(state)

    def test_state_of_something_else(self) -> None:
        state = {"weight_packed": torch.zeros(3), "weight_scales": torch.zeros(3)}
        with pytest.raises(RuntimeError, match="weight_scales are no 4-bit matrix: packed must be"):
            QuantizedLinear(random_weight()).load_state_dict(state)

    def test_float_state_dict_is_refused(self) -> None:
        state = build(llama).state_dict()
        tie(model := build(llama), 8)
        with pytest.raises(RuntimeError, match="Unexpected key"):
            model.load_state_dict(state)

    @every_dtype
    def test_dtype_of_the_model(self, dtype: torch.dtype) -> None:
        report = tie(model := build(gemma3), 8)
        digest, scales = report.weight.sha256, report.weight.scales.copy()
        model.to(dtype)
        assert model.dtype == dtype
        assert model.get_input_embeddings().dtype == dtype
        seen = run(model)
        assert seen.hidden.dtype == seen.logits.dtype == dtype
        assert model.get_output_embeddings().q4weight is report.weight
        assert report.weight.sha256 == digest
        assert np.array_equal(report.weight.scales, scales)

        exact = double(seen.hidden) @ values_of(report.weight).T
        bound = sum_bound(double(seen.hidden), values_of(report.weight))
        bound += rounding(np.abs(exact) + bound, dtype)
        assert (np.abs(double(seen.logits) - exact) <= bound).all()

    def test_dtype_there_and_back_loses_nothing(self) -> None:
        tie(model := build(llama), 8)
        embedding = model.get_input_embeddings()
        before = embedding(IDS)
        assert embedding.half()(IDS).dtype == torch.float16
        assert torch.equal(embedding.float()(IDS), before)

    def test_deepcopy_shares_the_matrix(self) -> None:
        report = tie(model := build(llama), 8)
        run(model)  # the weight is on a device now
        twin = copy.deepcopy(model)
        assert twin.lm_head is not model.lm_head
        assert twin.lm_head.q4weight is twin.model.embed_tokens.q4weight is report.weight
        assert torch.equal(run(twin).logits, run(model).logits)

    def test_device_of_the_caller_goes_with_a_copy_and_not_with_a_pickle(self) -> None:
        weight = random_weight(97)
        module = QuantizedEmbedding(weight, device=request_device())
        want = module(IDS % 97)
        assert len(weight.residents) == 1
        twin = copy.deepcopy(module)
        assert torch.equal(twin(IDS % 97), want)
        assert len(weight.residents) == 1, "the copy reads it on another device"
        loaded = pickle.loads(pickle.dumps(module))
        assert torch.equal(loaded(IDS % 97), want)
        assert len(weight.residents) == 2, "the default device is another one"

    def test_pickle_keeps_the_matrix_tied(self) -> None:
        tie(model := build(llama), 8)
        want, digest = run(model).logits, model.lm_head.q4weight.sha256
        content = pickle.dumps(model)
        del model
        gc.collect()
        twin = pickle.loads(content)
        assert twin.lm_head.weight is twin.model.embed_tokens.weight
        assert twin.lm_head.q4weight.sha256 == digest
        assert torch.equal(run(twin).logits, want)

    def test_resize_to_another_size_says_what_to_do(self) -> None:
        tie(model := build(llama), 8)
        for arguments in ((VOCAB + 1,), (None, 8)):
            with pytest.raises(NotImplementedError, match=r"from 101 rows to 10\d.* before tie"):
                model.resize_token_embeddings(*arguments)

    @pytest.mark.parametrize("arguments", [(), (None,), (VOCAB,), (None, VOCAB), (VOCAB - 1, 101)])
    def test_resize_to_the_same_size_does_nothing(self, arguments: Any) -> None:
        tie(model := build(llama), 8)
        for each in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            embedding = each.get_input_embeddings()
            assert each.resize_token_embeddings(*arguments) is embedding
            assert each.get_input_embeddings() is embedding

    def test_what_a_model_reports_of_itself_counts_the_matrix(self) -> None:
        model = build(llama)
        values, nbytes = model.num_parameters(), model.get_memory_footprint()
        trainable = model.num_parameters(only_trainable=True)
        without = model.num_parameters(exclude_embeddings=True)
        report = tie(model, 8)
        assert model.num_parameters() == values
        assert model.num_parameters(only_trainable=True) == trainable - VOCAB * HIDDEN
        assert model.num_parameters(exclude_embeddings=True) == without
        assert model.get_memory_footprint() == nbytes - report.bytes_saved

    def test_inference_mode(self) -> None:
        tie(model := build(llama), 8)
        with torch.inference_mode():
            assert model(input_ids=IDS).logits.shape == (2, 6, VOCAB)

    def test_id_out_of_range(self) -> None:
        tie(model := build(llama), 8)
        with torch.no_grad(), pytest.raises(IndexError, match=f"{VOCAB}"):
            model(input_ids=torch.tensor([[1, VOCAB]]))
