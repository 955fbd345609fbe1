"""LoRA of peft around a tied model: on its body and on the tied matrix, before `tie` and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn

from tests.tiny_models import IDS, build, gemma3, llama
from tools.architectures.check import snapshot
from wgpu_q4 import Q4Weight
from wgpu_q4.nn import tie

pytestmark = [
    # What peft says about adapters on either of two tied modules; here they are meant.
    pytest.mark.filterwarnings("ignore:.*ensure_weight_tying"),
    pytest.mark.filterwarnings("ignore:.*tied"),
]

TARGETS = [["q_proj", "down_proj"], ["embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]]
each_target = pytest.mark.parametrize("targets", TARGETS, ids="+".join)


def with_lora(model: Any, targets: list[str], **options: Any) -> Any:
    """Add adapters with weights that are not zero, the same for the same targets."""
    torch.manual_seed(3)
    config = LoraConfig(
        r=4, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False, **options
    )
    return get_peft_model(model, config)


def dequantized(model: Any) -> Any:
    """The float model whose matrix is what `tie` makes of it."""
    matrix = model.get_input_embeddings().weight
    with torch.no_grad():
        matrix.copy_(torch.from_numpy(Q4Weight.quantize(matrix, 8).dequantize()))
    return model


def step(model: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a loss and its gradients."""
    loss: Tensor = model(input_ids=IDS, labels=IDS).loss
    loss.backward()  # type: ignore[no-untyped-call]
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    return loss.detach(), {name: grad for name, grad in trained.items() if grad is not None}


@each_target
@pytest.mark.parametrize("family", [llama, gemma3], ids=lambda each: each.__name__)
@pytest.mark.parametrize("first", ["tie", "lora", "lora, base"])
def test_loss_and_gradients_are_those_of_the_dequantized_model(
    targets: list[str], family: Callable[..., nn.Module], first: str
) -> None:
    want, wanted = step(with_lora(dequantized(build(family)), targets))
    model: Any = build(family)
    if first == "tie":
        tie(model, 8)
        model = with_lora(model, targets)
    else:
        model = with_lora(model, targets)
        tie(model.get_base_model() if "base" in first else model, 8)
    got, gradients = step(model)
    # The same sums in another order: float32 products of K = 40 terms, through two layers.
    torch.testing.assert_close(got, want, rtol=1e-5, atol=0)
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        largest = wanted[name].abs().max().item()
        torch.testing.assert_close(gradient, wanted[name], rtol=0, atol=1e-4 * largest)


@each_target
def test_adapters_are_saved_without_the_matrix_and_loaded(
    targets: list[str], tmp_path: Path
) -> None:
    tie(model := build(llama), 8)
    adapted = with_lora(model, targets).eval()
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    tie(other := build(llama), 8)
    loaded = PeftModel.from_pretrained(other, tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=IDS).logits, adapted(input_ids=IDS).logits)


def test_adapters_of_the_body_are_merged() -> None:
    tie(model := build(llama), 8)
    adapted = with_lora(model, ["q_proj"]).eval()
    with torch.no_grad():
        want = adapted(input_ids=IDS).logits
        got = adapted.merge_and_unload()(input_ids=IDS).logits
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * want.abs().max().item())


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize("safe", [False, True])
def test_adapters_on_the_matrix_are_not_lost_in_a_merge(target: str, safe: bool) -> None:
    tie(model := build(llama), 8)
    with torch.no_grad():
        before = model(input_ids=IDS).logits
    adapted = with_lora(model, [target]).eval()
    with torch.no_grad():
        want = adapted(input_ids=IDS).logits
        with pytest.raises(TypeError, match=r"merge_and_unload\(\) before tie, or unload\(\)"):
            adapted.merge_adapter(safe_merge=safe)
        assert torch.equal(adapted(input_ids=IDS).logits, want)
        assert torch.equal(adapted.unload()(input_ids=IDS).logits, before)


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head"])
class TestModulesToSave:
    """peft trains a float copy of the whole module."""

    def test_before_tie_they_are_merged_first(self, name: str) -> None:
        adapted = with_lora(build(llama), ["q_proj"], modules_to_save=[name])
        before = snapshot(adapted)
        with pytest.raises(TypeError, match=r"modules_to_save.*call merge_and_unload\(\) first"):
            tie(adapted, 8)
        assert snapshot(adapted) == before

    def test_after_tie_they_are_refused(self, name: str) -> None:
        tie(model := build(llama), 8)
        with pytest.raises(TypeError, match="a 4-bit matrix cannot be trained"):
            with_lora(model, ["q_proj"], modules_to_save=[name])
