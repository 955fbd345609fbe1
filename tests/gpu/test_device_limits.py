"""A device of the caller's: nothing exceeds its limits, and what would is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import pytest

from tests.cases import PRIME, WIDE, Shape, anew, assert_same_bits, random_weight, random_x
from tests.devices import WEBGPU_DEFAULTS, default_device
from tests.recorder import Recorder, check_linear, check_ops
from wgpu_q4 import DeviceLimitError, embedding, forced, linear, reference
from wgpu_q4.device import adapter_summary, context_for
from wgpu_q4.kernels import Layout


def test_a_device_with_the_default_limits_and_no_feature() -> None:
    device = default_device("wgpu")
    assert {name: device.limits[name] for name in WEBGPU_DEFAULTS} == WEBGPU_DEFAULTS
    assert not device.features
    recorder = Recorder(device)
    for shape in (PRIME, WIDE):
        weight = anew(random_weight(shape, "float16"))
        for layout in get_args(Layout):
            check_ops(weight, device, layout)
    # An implementation need not refuse what is beyond the limits of a device but not of its
    # adapter, so the sizes are looked at here.
    assert context_for(device).limits == device.limits
    tiles = {
        constants["TILE_M"]
        for call in recorder.named("create_compute_pipeline")
        if "TILE_M" in (constants := call["constants"])
    }
    assert tiles
    assert all(64 * (tile_m + 64) <= 16384 and tile_m <= 256 for tile_m in tiles)
    assert max(recorder.sizes()) <= 1 << 27


@pytest.mark.parametrize(("workgroup_bytes", "tile"), [(16384, 128), (12287, 64), (8191, 32)])
def test_the_largest_tile_is_left_to_devices_that_have_room_for_it(
    workgroup_bytes: int, tile: int
) -> None:
    """Every device has room for the largest there is, so this one is told that it has less."""
    device = default_device("wgpu")
    kept = context_for(device)
    assert kept.limits["max-compute-workgroup-storage-size"] == 16384
    kept.limits = {**kept.limits, "max-compute-workgroup-storage-size": workgroup_bytes}
    weight, x = random_weight(WIDE, "float16"), random_x(128, WIDE.embed_dim)
    recorder = Recorder(device)
    check_linear(x, weight, device)
    (gemm,) = [
        call["constants"]
        for call in recorder.named("create_compute_pipeline")
        if "TILE_M" in call["constants"]
    ]
    assert gemm["TILE_M"] == tile


def test_rows_too_wide_for_a_binding() -> None:
    """A part has 64 rows at least.  The error comes before anything is uploaded."""
    weight = random_weight(Shape(65, 24, 8), "float16")
    device = default_device("wgpu")
    kept = context_for(device)
    kept.limits = {**kept.limits, "max-storage-buffer-binding-size": 64 * 12 - 1}
    recorder = Recorder(device)
    ops: list[Callable[[], Any]] = [
        lambda: embedding(np.array([0]), weight, device=device),
        lambda: linear(random_x(1, 24), weight, device=device),
    ]
    for op in ops:
        with pytest.raises(DeviceLimitError, match=r"64 rows of the weight take 768 bytes") as no:
            op()
        assert adapter_summary(device.adapter) in str(no.value)
        assert "allows 767" in str(no.value)
        assert "request_device()" in str(no.value)
    assert recorder.named("create_buffer") == []
    assert len(weight.residents) == 0


def test_a_weight_too_tall_for_a_texture() -> None:
    """8 rows to a texel, 8192 texels: beyond 65,536 rows it is buffers or nothing."""
    weight = random_weight(Shape(65_544, 8, 8), "float16")
    device = default_device("wgpu")
    ids = np.array([65_543, 0])
    with (
        pytest.raises(DeviceLimitError, match=r"a 2 × 8193 texture .* exceeds 8192 × 8192") as no,
        forced(layout="blocks_texture2d"),
    ):
        embedding(ids, weight, device=device)
    assert "layout='blocks_buffer' or 'rows'" in str(no.value)
    for layout in (None, "blocks_buffer"):
        with forced(layout=layout):
            result = embedding(ids, weight, device=device)
        assert_same_bits(result, reference.embedding(ids, weight))


def test_more_ids_than_a_texture_holds() -> None:
    weight = random_weight(Shape(13, 24, 8), "float16")
    device, ids = default_device("wgpu"), np.arange(2049) % 13
    with (
        pytest.raises(DeviceLimitError, match=r"a 6 × 2049 × 1 texture .* exceeds 2048") as no,
        forced(storage="texture3d"),
    ):
        embedding(ids, weight, device=device)
    assert "use storage='buffer'" in str(no.value)
    assert_same_bits(embedding(ids, weight, device=device), reference.embedding(ids, weight))
