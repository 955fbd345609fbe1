"""Each weight is on a device once, for every op, and for as long as it is used."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from html import escape
from typing import Any, get_args

import pytest

from tests.cases import LONG, anew, random_weight, random_x
from tests.recorder import BIG, IDS, Recorder, check_ops
from wgpu_q4 import embedding, forced, linear
from wgpu_q4.device import adapter_summary, context_for, default_context
from wgpu_q4.kernels import Layout


def test_one_packed_buffer_and_one_of_scales_serve_both_ops(own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    packed, scales = 1000 * 256, 1000 * 16 * 2
    assert (weight.packed.nbytes, weight.scales.nbytes) == (packed, scales)
    recorder = Recorder(own_device)
    for dtype in ("float32", "float16"):
        embedding(IDS, weight, dtype, device=own_device)
    linear(random_x(1, 512), weight, device=own_device)
    linear(random_x(1, 512), weight, random_x(1000), device=own_device)

    sizes = recorder.sizes()
    assert (sizes.count(packed), sizes.count(scales)) == (1, 1)
    assert sum(sizes) - packed - scales < packed / 2  # and no other buffer could hold a copy
    assert recorder.named("create_texture") == []
    labels = [call["label"] for call in recorder.named("create_buffer")]
    assert (labels.count("wgpu_q4 packed rows"), labels.count("wgpu_q4 scales")) == (1, 1)

    linear(random_x(40, 512), weight, device=own_device)  # scratch grows, the weight does not
    sizes = recorder.sizes()
    assert (sizes.count(packed), sizes.count(scales)) == (1, 1)
    (resident,) = weight.residents
    assert resident.nbytes == packed + scales
    assert context_for(own_device).buffers_created == len(sizes)


def test_the_scales_are_there_once_whatever_the_layouts(own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float32"))
    recorder = Recorder(own_device)
    for layout in get_args(Layout):
        with forced(layout=layout):
            embedding(IDS, weight, device=own_device)
            linear(random_x(1, 512), weight, device=own_device)
    scales = 1000 * 16 * 4
    assert recorder.sizes().count(scales) == 1
    # Rows in two nibble orders and blocks; the fourth layout is a texture.
    assert recorder.sizes().count(1000 * 256) == 3
    assert len(recorder.named("create_texture")) == 1
    (resident,) = weight.residents
    assert resident.nbytes == 4 * 1000 * 256 + scales


@pytest.mark.parametrize("layout", ["blocks_buffer", "blocks_texture2d"])
def test_rows_that_were_uploaded_to_be_packed_are_let_go(layout: Layout, own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(own_device)
    with forced(layout=layout):
        embedding(IDS, weight, device=own_device)
    packed = weight.packed.nbytes
    assert recorder.sizes().count(packed) == (2 if layout == "blocks_buffer" else 1)
    assert recorder.alive().count(packed) == (1 if layout == "blocks_buffer" else 0)


@pytest.mark.parametrize("layout", ["rows", "blocks_buffer"])
def test_a_dropped_weight_leaves_the_device(layout: Layout, own_device: Any) -> None:
    weight, other = anew(random_weight(BIG, "float16")), anew(random_weight(LONG, "float16"))
    recorder = Recorder(own_device)
    check_ops(other, own_device)
    check_ops(weight, own_device, layout)
    check_ops(weight, own_device, layout)
    held = {weight.packed.nbytes, weight.scales.nbytes}
    others = {other.packed.nbytes, other.scales.nbytes}
    assert held | others <= set(recorder.alive())
    del weight
    alive = set(recorder.alive())
    assert not alive & held
    assert others <= alive  # what is still in use stays
    check_ops(other, own_device)


def test_a_dropped_device_takes_everything_with_it(here: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    device = here.request_device_sync(required_limits=dict(here.limits))
    recorder = Recorder(device)
    check_ops(weight, device)
    assert len(recorder.alive()) > 2
    gone = [*map(weakref.ref, (device, context_for(device), *weight.residents))]
    del device
    gc.collect()
    assert [item() for item in gone] == [None] * 3
    assert recorder.alive() == []
    assert len(weight.residents) == 0
    assert "none yet" in weight._repr_html_()


def test_two_devices_hold_a_copy_each(own_device: Any, here: Any) -> None:
    second = here.request_device_sync(required_limits=dict(here.limits))
    weight = anew(random_weight(BIG, "float16"))
    recorders = [Recorder(own_device), Recorder(second)]
    assert context_for(own_device) is not context_for(second)
    for one in (own_device, second):
        check_ops(weight, one)
    for recorder in recorders:
        assert recorder.sizes().count(weight.packed.nbytes) == 1
    assert len(weight.residents) == 2
    del one, second
    assert len(recorders[1].alive()) == 0
    assert weight.packed.nbytes in recorders[0].alive()
    check_ops(weight, own_device)


def test_one_device_has_one_context(own_device: Any) -> None:
    assert context_for(own_device) is context_for(own_device)
    assert context_for(own_device).device is own_device
    assert context_for() is context_for(None) is default_context()


def test_a_copied_weight_is_the_same_copy_on_the_device(own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(own_device)
    check_ops(weight, own_device)
    check_ops(copy.deepcopy(weight), own_device)
    check_ops(copy.copy(weight), own_device)
    assert recorder.sizes().count(weight.packed.nbytes) == 1


def test_a_pickled_weight_leaves_its_device_behind(own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    check_ops(weight, own_device)
    again = pickle.loads(pickle.dumps(weight))
    assert len(again.residents) == 0
    assert again.same_matrix(weight)
    recorder = Recorder(own_device)
    check_ops(again, own_device)
    assert recorder.sizes().count(weight.packed.nbytes) == 1
    del again
    assert weight.packed.nbytes not in recorder.alive()


# What it says of itself


def test_a_weight_shows_where_it_is_and_what_reads_it(own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    summary = adapter_summary(own_device.adapter)
    assert summary not in weight._repr_html_()
    embedding(IDS, weight, device=own_device)
    (resident,) = weight.residents
    assert resident.describe() == f"{summary}: rows, 288,000 bytes, read by embedding"
    with forced(layout="blocks_buffer"):
        linear(random_x(1, 512), weight, device=own_device)
    described = f"{summary}: rows and blocks_buffer, 544,000 bytes, read by embedding, linear"
    assert resident.describe() == described
    shown = weight._repr_html_()
    assert escape(described) in shown
    assert f"{weight.nbytes:,}" in shown
    assert repr(weight) == "Q4Weight(1000×512, group 32, float16 scales, 288,000 bytes)"
