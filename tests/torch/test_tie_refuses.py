"""What `tie` refuses: the model stays as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny_models import HIDDEN, VOCAB, build, gemma3, llama
from wgpu_q4.errors import DeviceError, FormatError
from wgpu_q4.nn import tie


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
        self.refuse(model, TypeError, "pool holds the tied matrix; .* not EmbeddingBag")


def test_a_device_that_is_not_there_leaves_the_model_alone() -> None:
    model: Any = llama()
    before = model.get_input_embeddings()
    with pytest.raises(DeviceError, match="no adapter is called"):
        tie(model, 8, device="no such adapter")
    assert model.get_input_embeddings() is before
