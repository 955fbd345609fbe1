"""`tie(model, device=[…])`: the rows of the tied matrix on several devices of this process."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from tests.devices import default_device
from tests.tiny_models import (
    HIDDEN,
    VOCAB,
    build,
    double,
    llama,
    run,
    sum_bound,
    values_of,
    with_dequantized_matrix,
)
from wgpu_q4 import DeviceError
from wgpu_q4.nn import tie


def test_a_model_computes_the_same_on_several_devices() -> None:
    model = build(llama)
    devices = [default_device("wgpu"), default_device("wgpu")]
    report = tie(tied := copy.deepcopy(model), 8, device=devices)
    sizes = sorted(resident.nbytes for resident in report.weight.residents)
    assert len(sizes) == 2, "not uploaded, or not to both"
    seen, want = run(tied), run(with_dequantized_matrix(model, report.weight))
    assert torch.equal(seen.hidden, want.hidden), "the embedding is not exact"
    bound = 2 * sum_bound(double(seen.hidden), values_of(report.weight))
    assert (np.abs(double(seen.logits) - double(want.logits)) <= bound).all()
    sizes = sorted(resident.nbytes for resident in report.weight.residents)
    row = HIDDEN // 2 + HIDDEN // 8 * 2
    assert sizes == [45 * row + 2, 56 * row]  # 45 · 5 scales are padded to a word
    # Gradients, and what is compiled, reach the devices through their key.
    x, g = torch.randn(2, HIDDEN, requires_grad=True), torch.randn(2, VOCAB)
    tied.lm_head(x).backward(g)
    assert x.grad is not None
    error = np.abs(double(x.grad) - double(g) @ values_of(report.weight))
    assert (error <= sum_bound(double(g), values_of(report.weight).T)).all()
    held = {resident.describe().rpartition("read by ")[2] for resident in report.weight.residents}
    assert held == {"embedding, linear, linear_transposed"}


def test_a_device_that_is_not_there_changes_nothing() -> None:
    model = build(llama)
    with pytest.raises(DeviceError, match="no adapter is called 'nothing'"):
        tie(model, 8, device=[None, "nothing"])
    assert type(model.lm_head) is torch.nn.Linear
