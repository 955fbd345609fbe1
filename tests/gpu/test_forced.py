"""`forced`: what it names is used within its block, in its thread, and nowhere else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, get_args

import numpy as np
import pytest

from tests.cases import PRIME, WIDE, anew, assert_same_bits, random_weight, random_x
from tests.recorder import BIG, IDS, Recorder, check_ops
from wgpu_q4 import Q4Weight, embedding, forced, kernel_for, linear, reference
from wgpu_q4.device import context_for
from wgpu_q4.kernels import Layout


def layouts_of(weight: Q4Weight) -> tuple[Layout, ...]:
    """The layouts in which the one device that has the weight holds it."""
    (resident,) = weight.residents
    layouts: tuple[Layout, ...] = resident.layouts  # type: ignore[attr-defined]
    return layouts


@pytest.mark.parametrize("first", get_args(Layout))
def test_a_forced_layout_does_not_change_later_calls(first: Layout, own_device: Any) -> None:
    """Whatever was forced before, a call reads rows, by the kernels that rows have."""
    weight, fresh = anew(random_weight(BIG, "float16")), anew(random_weight(BIG, "float16"))
    with forced(layout=first):
        check_ops(weight, own_device)
        assert layouts_of(weight) == (first,)
    assert kernel_for(weight, device=own_device) == kernel_for(fresh, device=own_device)
    recorder = Recorder(own_device)
    check_ops(weight, own_device)
    assert layouts_of(weight) == (first, "rows") if first != "rows" else ("rows",)
    labels = [call["label"] for call in recorder.named("create_bind_group")]
    assert all("_rows_" in label or not label.startswith(("linear", "emb")) for label in labels)


def test_an_inner_block_adds_to_the_outer_one(own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    with forced(kernel="gemv"):
        with forced(layout="blocks_buffer"):
            assert kernel_for(weight, device=own_device) == "gemv"
            linear(random_x(1, 512), weight, device=own_device)
            assert layouts_of(weight) == ("blocks_buffer",)
            with forced(layout="rows_embedding", kernel="gemm"):
                assert kernel_for(weight, device=own_device) == "gemm"
        assert kernel_for(weight, device=own_device) == "gemv"
    assert kernel_for(weight, device=own_device).startswith("gemv_wide")


def test_an_error_ends_the_block(own_device: Any) -> None:
    weight = anew(random_weight(WIDE, "float16"))
    with (
        pytest.raises(ValueError, match="gemv_wide needs the layout 'rows'"),
        forced(kernel="gemv_wide", layout="blocks_buffer"),
    ):
        linear(random_x(1, WIDE.embed_dim), weight, device=own_device)
    check_ops(weight, own_device)
    assert layouts_of(weight) == ("rows",)


def test_other_threads_are_not_forced(own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    with forced(layout="blocks_buffer"):
        thread = threading.Thread(target=check_ops, args=(weight, own_device))
        thread.start()
        thread.join()
        assert layouts_of(weight) == ("rows",)


def test_tasks_of_one_thread_are_forced_apart(own_device: Any) -> None:
    weight = anew(random_weight(PRIME, "float16"))

    async def look_up(layout: Layout) -> Any:
        with forced(layout=layout):
            await asyncio.sleep(0)  # the other task enters its block
            return embedding(np.array([1]), weight, device=own_device)

    async def both() -> list[Any]:
        return [*await asyncio.gather(look_up("blocks_buffer"), look_up("rows_embedding"))]

    for rows in asyncio.run(both()):
        assert_same_bits(rows, reference.embedding(np.array([1]), weight))
    assert layouts_of(weight) == ("blocks_buffer", "rows_embedding")


def test_textures_on_request(own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(own_device)
    with forced(storage="texture3d"):
        rows = embedding(IDS, weight, device=own_device)
    assert_same_bits(rows, reference.embedding(IDS, weight))
    assert len(recorder.named("create_texture")) == 2  # the ids and the result
    embedding(IDS, weight, device=own_device)
    assert len(recorder.named("create_texture")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "columns"}, "layout must be one of rows, rows_embedding, blocks_buffer, "),
        ({"kernel": "fast"}, "kernel must be one of gemv, gemv_wide, gemv_wide_subnormal, ge"),
        ({"storage": "texture2d"}, "storage must be one of buffer, texture3d, not 'texture2d'"),
        ({"layout": 3}, "layout must be one of .*, not 3"),
    ],
    ids=str,
)
def test_options_that_do_not_exist(options: Any, message: str) -> None:
    """They are refused before the block begins."""
    with pytest.raises(ValueError, match=message):
        forced(**options)


def test_the_kernel_of_a_product_can_be_asked_for(own_device: Any) -> None:
    weight = anew(random_weight(WIDE, "float16"))
    recorder = Recorder(own_device)
    for rows in (1, 60):
        named = kernel_for(weight, rows, device=own_device)
        linear(random_x(rows, WIDE.embed_dim), weight, device=own_device)
        labels = [call["label"] for call in recorder.named("create_compute_pipeline")]
        assert labels[-1].startswith(f"linear_q4gsw_{named}_rows")
    with pytest.raises(ValueError, match="rows must be at least 1, not 0"):
        kernel_for(weight, 0, device=own_device)
    with pytest.raises(ValueError, match="accuracy must be one of exact, fast, int8, not 'fp8'"):
        kernel_for(weight, accuracy="fp8")  # type: ignore[arg-type]
    assert context_for(own_device).weight(weight).readers == {"linear"}
