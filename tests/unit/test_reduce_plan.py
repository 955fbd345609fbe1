"""Reductions are planned in dispatches that each leave less, down to one slice."""

from __future__ import annotations

import numpy as np
import pytest

from wgpu_q4.kernels import plan_reduce


@pytest.mark.parametrize("vocab", [1, 7, 1024, 1025, 2048, 2049, 128256, 10**7])
@pytest.mark.parametrize("kept", [1, 40, 64, 65, 1023, 1024])
def test_a_plan_ends_with_one_slice(vocab: int, kept: int) -> None:
    kept = min(kept, vocab)
    limits = {"max-compute-workgroups-per-dimension": 65535}
    plan = plan_reduce((vocab,), 3, "top_k", kept, limits)
    columns = vocab
    for number, (stage, nbytes) in enumerate(zip(plan.stages, plan.stage_bytes, strict=True)):
        slice_ = stage.constants["SLICE"]
        assert stage.constants["COLUMNS"] == columns
        assert kept <= slice_ <= 2048
        assert slice_ & (slice_ - 1) == 0
        parts = -(-columns // slice_)
        assert np.prod(stage.workgroups) >= 3 * parts
        columns = parts * kept
        assert nbytes == 3 * columns * 8
        assert ("logits" in stage.shader.name) == (number == 0)
    assert columns == kept
    assert len({stage.key for stage in plan.stages}) == len(plan.stages)  # one bind group each


def test_a_plan_for_llama() -> None:
    limits = {"max-compute-workgroups-per-dimension": 65535}
    argmax = plan_reduce((128256,), 1, "argmax", 1, limits)
    assert [stage.workgroups[0] for stage in argmax.stages] == [126, 1]
    top_k = plan_reduce((128256,), 1, "top_k", 40, limits)
    assert [stage.workgroups[0] for stage in top_k.stages] == [126, 5, 1]
    assert top_k.stage_bytes[-1] == 40 * 8
