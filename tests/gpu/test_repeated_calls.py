"""A repeated call creates nothing on the device."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cases import PRIME, Shape, anew, assert_same_bits, random_weight, random_x
from tests.recorder import BIG, IDS, Recorder, check_linear, check_ops
from wgpu_q4 import Q4Weight, argmax, embedding, forced, linear, reference, top_k
from wgpu_q4.device import Context, context_for, pipelines


def in_blocks(weight: Q4Weight, device: Any) -> Any:
    """Rows by id from a weight in blocks."""
    with forced(layout="blocks_buffer"):
        return embedding(IDS, weight, device=device)


def created(context: Context) -> tuple[int, int, int]:
    """How many objects of each kind were made on a device so far."""
    pipelines = context.pipelines
    return context.buffers_created, pipelines.bind_groups_created, pipelines.pipelines_created


REPEATED: dict[str, Callable[[Q4Weight, Any], Any]] = {
    "embedding": lambda weight, device: embedding(IDS, weight, device=device),
    "embedding in half": lambda weight, device: embedding(IDS, weight, "float16", device),
    "blocks": lambda weight, device: in_blocks(weight, device),
    "gemv": lambda weight, device: linear(random_x(1, 512), weight, device=device),
    "gemv with bias": lambda w, device: linear(random_x(2, 512), w, random_x(1000), device),
    "gemm": lambda weight, device: linear(random_x(40, 512), weight, device=device),
    "gemm with bias": lambda w, device: linear(random_x(40, 512), w, random_x(1000), device),
    "argmax": lambda w, device: argmax(random_x(1, 512), w, device=device),
    "top_k": lambda w, device: top_k(random_x(3, 512), w, 9, None, device).ids,
}  # fmt: skip


def test_a_repeated_call_creates_nothing(own_device: Any) -> None:
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(own_device)
    kept = context_for(own_device)
    for name, call in REPEATED.items():
        first = call(weight, own_device)
        counted = created(kept)
        recorder.calls.clear()
        assert_same_bits(call(weight, own_device), first)
        made = {called for called, _ in recorder.calls}
        assert made <= {"create_command_encoder"}, name
        assert created(kept) == counted


def test_a_smaller_call_creates_nothing(own_device: Any) -> None:
    """Another number of ids or rows needs no other pipeline, and the larger buffers serve it.

    5 rows and more are taken 8 at a time.
    """
    weight = anew(random_weight(BIG, "float16"))
    embedding(np.arange(100), weight, device=own_device)
    linear(random_x(17, 512), weight, device=own_device)
    embedding(np.arange(100), weight, device=own_device)
    recorder = Recorder(own_device)
    ids = np.array([7])
    assert_same_bits(embedding(ids, weight, device=own_device), reference.embedding(ids, weight))
    check_linear(random_x(5, 512), weight, own_device)
    assert {called for called, _ in recorder.calls} <= {"create_command_encoder"}


def test_a_second_weight_of_the_same_shape_compiles_nothing(own_device: Any) -> None:
    check_ops(anew(random_weight(BIG, "float16")), own_device)
    recorder = Recorder(own_device)
    check_ops(anew(random_weight(BIG, "float16")), own_device)
    assert recorder.named("create_compute_pipeline") == []
    assert recorder.named("create_shader_module") == []


def test_the_counters_count_what_is_created(own_device: Any) -> None:
    recorder = Recorder(own_device)
    check_ops(anew(random_weight(BIG, "float16")), own_device)
    kinds = "create_buffer", "create_bind_group", "create_compute_pipeline"
    counted = tuple(len(recorder.named(kind)) for kind in kinds)
    assert created(context_for(own_device)) == counted
    assert min(counted) > 0


def test_logits_and_their_reduction_in_turn_make_no_bind_group(own_device: Any) -> None:
    """They go to different buffers, and both are remembered."""
    weight, x = anew(random_weight(PRIME, "float16")), random_x(1, 72)
    linear(x, weight, device=own_device)
    argmax(x, weight, device=own_device)
    counted = created(context_for(own_device))
    for _ in range(3):
        linear(x, weight, device=own_device)
        argmax(x, weight, device=own_device)
    assert created(context_for(own_device)) == counted


def test_the_pipelines_of_shapes_that_are_gone_are_dropped(
    own_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight of another shape needs pipelines of its own; the device keeps the latest ones."""
    monkeypatch.setattr(pipelines, "MOST_PIPELINES", 4)
    used: list[weakref.ref[Any]] = []
    create = own_device.create_compute_pipeline

    def recorded(**arguments: Any) -> Any:
        made = create(**arguments)
        used.append(weakref.ref(made))
        return made

    own_device.create_compute_pipeline = recorded
    for vocab in range(8, 28):
        check_ops(anew(random_weight(Shape(vocab, 32, 32), "float16")), own_device)
    gc.collect()
    assert len(used) > 60
    assert sum(pipeline() is not None for pipeline in used) <= 4


def test_the_pipeline_that_was_not_used_for_longest_is_dropped(
    own_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "MOST_PIPELINES", 3)
    recorder = Recorder(own_device)
    weights = [anew(random_weight(Shape(vocab, 32, 32), "float16")) for vocab in range(8, 12)]
    first, second, third, fourth = weights
    for weight in (first, second, third, first, fourth, first, second):
        embedding([1], weight, device=own_device)
    made = [call["constants"].get("VOCAB") for call in recorder.named("create_compute_pipeline")]
    assert made[-5:] == [8, 9, 10, 11, 9]  # `first` only once


def test_a_pipeline_that_was_dropped_is_compiled_again(
    own_device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bind groups that its weight kept fit the new one."""
    monkeypatch.setattr(pipelines, "MOST_PIPELINES", 1)
    weight = anew(random_weight(BIG, "float16"))
    recorder = Recorder(own_device)
    for _ in range(3):
        check_ops(weight, own_device)
    compiled = len(recorder.named("create_compute_pipeline"))
    assert compiled >= 3 * 3
    assert len(recorder.named("create_bind_group")) < compiled
