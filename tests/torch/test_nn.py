"""The torch modules, and `tie` on small random models of several Hugging Face families.

A tied model is held against the same model with the dequantized matrix in both places.  The
embedding must then agree to the last bit, and with it every hidden state, since the body is the
same torch code; the logits may differ by the order of a float32 sum, and by no more than its bound.
"""

from __future__ import annotations

import copy
import gc
import io
import pickle
import re
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BertConfig,
    BertLMHeadModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.models.bart.modeling_bart import BartForCausalLM, BartScaledWordEmbedding
from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

from wgpu_q4 import Q4Weight, ops, request_device
from wgpu_q4.errors import DeviceError, FormatError
from wgpu_q4.nn import QuantizedEmbedding, QuantizedLinear, tie

VOCAB = 101  # prime: neither a multiple of a block's 8 rows nor of anything else
HIDDEN = 40  # of 8, but not of 16 or 32
IDS = torch.tensor([[1, 2, 3, 5, 8, 13], [VOCAB - 1, 0, 55, 34, 21, 99]])

TOKENS = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL: dict[str, Any] = {
    **TOKENS,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 5,
}


def llama(**options: Any) -> nn.Module:
    settings = {**SMALL, "num_key_value_heads": 5, "tie_word_embeddings": True, **options}
    return LlamaForCausalLM(LlamaConfig(**settings))


def gemma3(**options: Any) -> nn.Module:
    """Its embedding multiplies by √K."""
    settings = {**SMALL, "num_key_value_heads": 5, "head_dim": 8, "sliding_window": 4, **options}
    return Gemma3ForCausalLM(Gemma3TextConfig(**settings))


def gpt2(**options: Any) -> nn.Module:
    settings: dict[str, Any] = {"n_embd": HIDDEN, "n_layer": 2, "n_head": 5, **TOKENS, **options}
    return GPT2LMHeadModel(GPT2Config(**settings))


def bert(**options: Any) -> nn.Module:
    """Its head has a bias, itself tied to another parameter."""
    model = BertLMHeadModel(BertConfig(**SMALL, is_decoder=True, **options))
    nn.init.normal_(model.cls.predictions.bias)
    return model


FAMILIES = [llama, gemma3, gpt2, bert]
every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
every_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str
)


def build(family: Callable[..., nn.Module], **options: Any) -> Any:
    torch.manual_seed(20)
    return family(**options).eval()


def values_of(weight: Q4Weight) -> NDArray[np.float64]:
    """``(u − 8) · scale``, nibble by nibble from the canonical bytes; exact in float64."""
    packed = weight.packed_as("linear")
    u = np.empty((packed.shape[0], packed.shape[1] * 2))
    u[:, 0::2] = packed & 15
    u[:, 1::2] = packed >> 4
    return (u - 8) * np.repeat(weight.scales.astype(np.float64), weight.group_size, axis=1)


def sum_bound(
    x: NDArray[np.float64], values: NDArray[np.float64], bias: NDArray[np.float64] | float = 0.0
) -> NDArray[np.float64]:
    """How far a float32 ``x @ values.T + bias`` may be from the exact one, in any order of sums.

    ``n·u / (1 − n·u)`` of the sum of magnitudes, ``u = 2⁻²⁴``, after n roundings on the way of a
    term: K for products and sums, one for the scale, one for the bias (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1).
    """
    n = (values.shape[1] + 2) * 2.0**-24
    bound: NDArray[np.float64] = n / (1 - n) * (np.abs(x) @ np.abs(values).T + np.abs(bias))
    return bound


def rounding(largest: NDArray[np.float64], dtype: torch.dtype) -> NDArray[np.float64]:
    """Half a unit in the last place of ``dtype``, for values up to ``largest``."""
    info = torch.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(largest, info.smallest_normal)))
    half_unit: NDArray[np.float64] = 0.5 * info.eps * 2.0**exponent
    return half_unit


def double(tensor: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = tensor.detach().double().numpy()
    return array


def random_weight(vocab: int = VOCAB, embed_dim: int = HIDDEN, group_size: int = 8) -> Q4Weight:
    matrix = np.random.default_rng(4).normal(size=(vocab, embed_dim)).astype(np.float32)
    return Q4Weight.quantize(matrix, group_size)


def with_dequantized_matrix(model: Any, weight: Q4Weight) -> Any:
    """A float copy of ``model`` in which the tied matrix is the dequantized ``weight``."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.get_input_embeddings().weight.copy_(torch.from_numpy(weight.dequantize()))
    assert twin.get_output_embeddings().weight is twin.get_input_embeddings().weight
    return twin


@dataclass
class Seen:
    """What went into the head and what came out of it."""

    hidden: Tensor
    logits: Tensor


@torch.no_grad()
def run(model: Any, ids: Tensor = IDS) -> Seen:
    seen: list[Seen] = []
    hook = model.get_output_embeddings().register_forward_hook(
        lambda _, inputs, output: seen.append(Seen(inputs[0].clone(), output.clone()))
    )
    model(input_ids=ids)
    hook.remove()
    (only,) = seen
    return only


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
        assert model.get_input_embeddings().weight is report.weight
        assert model.get_output_embeddings().weight is report.weight
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
        assert model.second_head.weight is report.weight
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


class TestTieRefuses:
    def refuse(self, model: Any, error: type[Exception], words: str, group_size: int = 8) -> None:
        """``tie`` raises, and leaves everything as it was."""
        modules = dict(model.named_modules())
        state = set(model.state_dict())
        with pytest.raises(error, match=words):
            tie(model, group_size)
        assert dict(model.named_modules()) == modules
        assert set(model.state_dict()) == state

    def test_untied(self) -> None:
        self.refuse(build(llama, tie_word_embeddings=False), ValueError, "different matrices")

    def test_equal_but_separate_and_how_to_tie_them(self) -> None:
        model = build(llama, tie_word_embeddings=False)
        model.lm_head.weight = nn.Parameter(model.model.embed_tokens.weight.detach().clone())
        self.refuse(model, ValueError, r"tie_word_embeddings = True; model\.tie_weights\(\)")
        model.config.tie_word_embeddings = True
        model.tie_weights()
        tie(model, 8)

    def test_twice(self) -> None:
        model = build(llama)
        tie(model, 8)
        self.refuse(model, ValueError, "went through tie before")

    def test_no_language_model(self) -> None:
        self.refuse(nn.Linear(8, 8), TypeError, "causal language model")

    def test_no_head(self) -> None:
        self.refuse(build(llama).model, TypeError, "output head.*none")

    def test_group_size_that_does_not_fit(self) -> None:
        self.refuse(build(llama), FormatError, "Allowed here: 8, 40", group_size=32)

    def test_weights_that_are_not_finite(self) -> None:
        model = build(llama)
        with torch.no_grad():
            model.lm_head.weight[7, 5] = float("nan")
        self.refuse(model, FormatError, r"weight\[7, 5\] is nan")

    def test_not_loaded(self) -> None:
        with torch.device("meta"):
            model = llama()
        self.refuse(model, ValueError, "meta device")

    def test_max_norm(self) -> None:
        model = build(llama)
        model.model.embed_tokens.max_norm = 1.0
        self.refuse(model, TypeError, r"model\.embed_tokens has max_norm = 1\.0")

    def test_embedding_that_does_more_than_scale(self) -> None:
        class Shifted(nn.Embedding):
            embed_scale = 2.0

            def forward(self, ids: Tensor) -> Tensor:
                return super().forward(ids) * self.embed_scale + (ids == VOCAB - 1)[..., None]

        model = build(llama)
        odd = Shifted(VOCAB, HIDDEN)
        odd.weight = model.lm_head.weight
        model.set_input_embeddings(odd)
        self.refuse(model, TypeError, "model.embed_tokens is a Shifted, whose forward does more")

    def test_embedding_with_a_parameter_of_its_own(self) -> None:
        model = build(gemma3)
        model.model.embed_tokens.end_of_image = nn.Parameter(torch.zeros(HIDDEN))
        self.refuse(model, TypeError, "further parameters: end_of_image")

    def test_head_with_a_forward_of_its_own(self) -> None:
        class Capped(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x).tanh()

        model = build(llama)
        head = Capped(HIDDEN, VOCAB, bias=False)
        head.weight = model.lm_head.weight
        model.lm_head = head
        self.refuse(model, TypeError, "lm_head is a Capped")

    @pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
    def test_hooks_that_would_be_lost(self, hook: str) -> None:
        model = build(llama)
        getattr(model.lm_head, hook)(lambda *_: None)
        self.refuse(model, TypeError, "lm_head has hooks")

    def test_matrix_used_under_another_name(self) -> None:
        model = build(llama)
        model.model.norm.prototypes = model.lm_head.weight
        self.refuse(model, TypeError, r"also model\.norm\.prototypes")

    def test_matrix_used_by_another_kind_of_module(self) -> None:
        model = build(llama)
        model.pool = nn.EmbeddingBag(VOCAB, HIDDEN)
        model.pool.weight = model.lm_head.weight
        self.refuse(model, TypeError, "pool must be an nn.Linear, not EmbeddingBag")


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
        assert other.get_input_embeddings().weight is report.weight
        assert other.get_output_embeddings().weight is report.weight

    def test_a_loaded_model_is_tied_without_the_model_that_saved(self) -> None:
        file = io.BytesIO()
        tie(model := build(llama), 8)
        digest = model.lm_head.weight.sha256
        torch.save(model.state_dict(), file)
        del model
        gc.collect()
        tie(other := build(llama), 40)
        file.seek(0)
        other.load_state_dict(torch.load(file))
        assert other.lm_head.weight is other.model.embed_tokens.weight
        assert other.lm_head.weight.sha256 == digest
        run(other)
        assert len(other.lm_head.weight.residents) == 1

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
        with pytest.raises(FormatError, match=words):
            module.load_state_dict(state)

    @pytest.mark.parametrize("state", [None, {"packed": 1}, torch.zeros(3)])
    def test_state_of_something_else(self, state: object) -> None:
        with pytest.raises(FormatError, match="must be a dict with packed, scales and convention"):
            QuantizedLinear(random_weight()).load_state_dict({"_extra_state": state})

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
        assert model.get_output_embeddings().weight is report.weight
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
        assert twin.lm_head.weight is twin.model.embed_tokens.weight is report.weight
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
        want, digest = run(model).logits, model.lm_head.weight.sha256
        content = pickle.dumps(model)
        del model
        gc.collect()
        twin = pickle.loads(content)
        assert twin.lm_head.weight is twin.model.embed_tokens.weight
        assert twin.lm_head.weight.sha256 == digest
        assert torch.equal(run(twin).logits, want)

    def test_save_pretrained_says_what_to_do(self, tmp_path: Path) -> None:
        tie(model := build(llama), 8)
        with pytest.raises(NotImplementedError, match=r"model\.state_dict\(\) with torch\.save"):
            model.save_pretrained(tmp_path / "model")
        assert not (tmp_path / "model").exists()

    def test_resize_says_what_to_do(self) -> None:
        tie(model := build(llama), 8)
        with pytest.raises(NotImplementedError, match="before tie"):
            model.resize_token_embeddings(VOCAB + 1)

    def test_gradients_are_refused(self) -> None:
        tie(model := build(llama), 8)
        with pytest.raises(RuntimeError, match=r"torch\.no_grad\(\)"):
            model(input_ids=IDS)
        with torch.inference_mode():
            assert model(input_ids=IDS).logits.shape == (2, 6, VOCAB)

    def test_id_out_of_range(self) -> None:
        tie(model := build(llama), 8)
        with torch.no_grad(), pytest.raises(IndexError, match=f"{VOCAB}"):
            model(input_ids=torch.tensor([[1, VOCAB]]))


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
            scaled.weight.copy_(torch.from_numpy(module.weight.dequantize()))
            assert torch.equal(module(IDS), scaled(IDS))
        assert module(IDS).dtype == dtype

    @every_dtype
    def test_from_float(self, dtype: torch.dtype) -> None:
        torch.manual_seed(5)
        embedding = nn.Embedding(VOCAB, HIDDEN, dtype=dtype)
        module = QuantizedEmbedding.from_float(embedding, 40, scales_dtype="float32")
        assert module.dtype == dtype
        assert module.weight.same_matrix(Q4Weight.quantize(embedding.weight, 40, "float32"))

    @pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0), (2, 3, 4)])
    @pytest.mark.parametrize("integer", [torch.int32, torch.int64, torch.uint8])
    def test_any_integers_of_any_shape(self, shape: tuple[int, ...], integer: torch.dtype) -> None:
        module = QuantizedEmbedding(random_weight())
        ids = torch.arange(int(np.prod(shape))).reshape(shape).to(integer)
        want = torch.from_numpy(module.weight.dequantize())[ids.long()]
        assert torch.equal(module(ids), want)

    @every_dtype
    def test_as_linear(self, dtype: torch.dtype) -> None:
        module = QuantizedEmbedding(random_weight(), embed_scale=3.0)
        x = torch.randn(3, 2, HIDDEN, generator=torch.Generator().manual_seed(6)).to(dtype)
        bias = torch.randn(VOCAB, generator=torch.Generator().manual_seed(7)).to(dtype)
        values = values_of(module.weight)
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

    def test_refuses_a_float_matrix(self) -> None:
        with pytest.raises(TypeError, match="must be a Q4Weight, not Parameter"):
            QuantizedEmbedding(nn.Parameter(torch.zeros(8, 8)))  # type: ignore[arg-type]

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
        values, bias = values_of(module.weight), double(linear.bias)
        exact = double(x) @ values.T + bias
        assert (np.abs(double(module(x)) - exact) <= sum_bound(double(x), values, bias)).all()

    def test_refuses_a_bias_of_another_length(self) -> None:
        with pytest.raises(ValueError, match=re.escape(f"[V] = [{VOCAB}], not [{VOCAB + 1}]")):
            QuantizedLinear(random_weight(), torch.zeros(VOCAB + 1))

    def test_refuses_other_modules(self) -> None:
        with pytest.raises(TypeError, match=r"must be an nn\.Linear, not Conv1d"):
            QuantizedLinear.from_float(nn.Conv1d(8, 8, 1))  # type: ignore[arg-type]

    def test_refuses_an_input_that_wants_a_gradient(self) -> None:
        x = torch.randn(2, HIDDEN, requires_grad=True)
        with pytest.raises(RuntimeError, match="QuantizedLinear is for inference"):
            QuantizedLinear(random_weight())(x)
        with torch.no_grad():
            assert QuantizedLinear(random_weight())(x).shape == (2, VOCAB)


def test_a_device_that_is_not_there_leaves_the_model_alone() -> None:
    model: Any = llama()
    before = model.get_input_embeddings()
    with pytest.raises(DeviceError, match="no adapter is called"):
        tie(model, 8, device="no such adapter")
    assert model.get_input_embeddings() is before


def test_a_double_model_computes_its_logits_in_float32() -> None:
    model = llama().double()
    tie(model, 8)
    ids = torch.arange(5)[None]
    with torch.no_grad():
        logits = model(ids).logits
    assert logits.dtype == torch.float64
    assert bool(torch.isfinite(logits).all())


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
            tie(model, 8, accuracy="sloppy")  # type: ignore[arg-type]
        assert model.get_input_embeddings() is before
        with pytest.raises(ValueError, match=message):
            QuantizedLinear(random_weight(), accuracy="sloppy")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=message):
            QuantizedEmbedding(random_weight()).as_linear(
                torch.zeros(1, HIDDEN),
                accuracy="sloppy",  # type: ignore[arg-type]
            )
