"""How `share_tied_weights` stores the scales: once or in both orders, float32 or float16."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.executorch.programs import calls, check_numbers, targets
from tests.tied_models import (
    IDS,
    VOCAB,
    OnlyLogits,
    Tied,
    export,
    quantized,
    quantized_shared,
    run,
    weight_of,
)
from wgpu_q4 import ExportError, FormatError, embedding, linear, reference
from wgpu_q4.executorch import share_tied_weights

ATEN = torch.ops.aten


def test_the_embedding_gathers_the_scales_of_the_linear() -> None:
    after, report = share_tied_weights(export(quantized_shared(Tied())))
    assert report.shared[0].scales_once
    (gather,), (linear_call,) = (
        calls(after, target)
        for target in (ATEN.gather.default, torch.ops.et_vk.linear_q4gsw.default)
    )
    assert gather.args[0] is linear_call.args[2]


def test_scales_in_both_orders_on_request() -> None:
    before = export(quantized_shared(Tied()))
    after, report = share_tied_weights(before, scales_once=False)
    assert not report.shared[0].scales_once
    assert ATEN.gather.default not in targets(after)
    check_numbers(before, after, weight_of(Tied()))


def test_one_group_a_row_needs_no_second_copy() -> None:
    model = quantized(OnlyLogits(shape=(64, 32)), 32)
    after, report = share_tied_weights(export(model, ids=IDS % 64))
    assert report.shared[0].scales_once
    assert ATEN.gather.default not in targets(after)
    by_row, by_group = (t for n, t in after.state_dict.items() if n.endswith("scales"))
    assert by_row.numpy().tobytes() == by_group.numpy().tobytes()


@pytest.mark.parametrize("name", ["float16", "half", np.float16, torch.float16], ids=str)
def test_half_scales_equal_the_ops_on_half_scales(name: Any) -> None:
    weight = weight_of(Tied(), "float16")
    after, report = share_tied_weights(
        export(quantized_shared(Tied())), scales_dtype=name, force_fp16=True
    )
    assert (report.shared[0].scales_dtype, report.runtimes) == ("float16", ("vulkan",))
    rows, logits = run(after)
    assert torch.equal(rows, embedding(IDS, weight))
    bound = 2 * reference.linear_bound(rows[0].numpy(), weight)
    assert (np.abs((logits - linear(rows, weight))[0].numpy()) <= bound).all()


def test_half_scales_beside_float32_activations_are_refused() -> None:
    """ExecuTorch's Vulkan runtime aborts the process when it loads such a program."""
    program = export(quantized_shared(Tied()))
    with pytest.raises(ExportError, match=r"nchw_to_buffer_float_half.*force_fp16=True"):
        share_tied_weights(program, scales_dtype="float16")
    with pytest.raises(ExportError, match="WebGPU runtime takes float32 only"):
        share_tied_weights(program, scales_dtype="float16", force_fp16=True, runtime="webgpu")


def test_scales_beyond_half_are_refused() -> None:
    model = OnlyLogits()
    with torch.no_grad():
        model.embed.weight[3, 3] = 1e6
    program = export(quantized(model))
    with pytest.raises(FormatError, match="beyond float16"):
        share_tied_weights(program, scales_dtype="float16", force_fp16=True)
    with pytest.raises(FormatError, match="float32, float16"):
        share_tied_weights(program, scales_dtype="int8")


def test_a_name_that_the_model_uses_is_not_taken() -> None:
    class Taken(Tied):
        def __init__(self) -> None:
            super().__init__()
            self.ones_512 = torch.nn.Parameter(torch.full((256,), 3.0))

        def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            rows, logits = super().forward(ids)
            return rows * self.ones_512, logits

    before = export(quantized(Taken()))
    after, _ = share_tied_weights(before)
    assert {f"ones_{VOCAB}", f"ones_{VOCAB}_2"} <= after.state_dict.keys()
    for new, old in zip(run(after), run(before), strict=True):
        assert torch.equal(new, old)
