"""bfloat16 programs: computed in float32 from exact scales, rounded to bfloat16 afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.executorch.programs import ET_VK, calls
from tests.tied_models import (
    IDS,
    OwnOps,
    Tied,
    export,
    quantized,
    quantized_int8_activations,
    quantized_shared,
    run,
)
from wgpu_q4.executorch import exportable, share_tied_weights

# One rounding of a logit to bfloat16, and one of each product's weight, which eager has.
RELATIVE = 2.0**-8


def bfloat16(model: Any) -> Any:
    return model.to(torch.bfloat16)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "copies"])
def test_rows_are_exact_and_logits_close(tied: bool, bias: bool) -> None:
    model = bfloat16(Tied(bias))
    before = export(quantized_shared(model) if tied else quantized(model), dynamic=True)
    after, report = share_tied_weights(before)
    rows, logits = run(after)
    rows_before, logits_before = run(before)
    assert rows.dtype == logits.dtype == torch.bfloat16
    assert torch.equal(rows, rows_before)
    bound = RELATIVE * (rows.float().abs() @ dequantized(model).abs().t() + logits_before.abs())
    assert ((logits - logits_before).abs() <= bound).all()
    assert "bfloat16" in report.shared[0].notes[0]
    (linear,) = calls(after, ET_VK.linear_q4gsw.default)
    assert {node.meta["val"].dtype for node in linear.all_input_nodes} == {
        torch.float32,
        torch.uint8,
    }


def dequantized(model: Any) -> Any:
    return model.embed.weight.dequantize().float()


def test_scales_are_the_same_numbers_in_float32() -> None:
    model = quantized_shared(bfloat16(Tied()))
    after, report = share_tied_weights(export(model))
    name = report.shared[0].name
    scales = model.embed.weight.scale
    assert scales.dtype == torch.bfloat16
    assert torch.equal(after.state_dict[f"{name}_scales"].data, scales.float().t())


def test_8_bit_activations() -> None:
    before = export(quantized_int8_activations(bfloat16(Tied())))
    after, report = share_tied_weights(before)
    assert len(report.shared) == 1
    rows, logits = run(after)
    assert torch.equal(rows, run(before)[0])
    # The activations are quantized from float32 instead of bfloat16: an 8-bit step may differ.
    assert torch.allclose(logits, run(before)[1], rtol=0.02, atol=2)


def test_this_packages_own_modules() -> None:
    model: Any = exportable(OwnOps())
    model.embed.dtype = torch.bfloat16
    before = export(model)
    after, report = share_tied_weights(before)
    assert len(report.shared) == 1
    assert torch.equal(run(after)[0], run(before)[0])
    assert torch.allclose(run(after)[1].float(), run(before)[1].float(), rtol=RELATIVE, atol=1e-3)
    assert IDS.shape == (1, 7)
